"""How many statements a store is asked, for tests of costs that must not grow."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from registry.store import Store


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Collect the statements that run inside."""
    texts: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_rest: object) -> None:
        texts.append(text)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        yield texts
    finally:
        event.remove(store.engine, "before_cursor_execute", note)
