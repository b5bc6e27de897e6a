"""Make the search index anew from the entries (``registry reindex``); nothing else depends on it."""

from collections.abc import Iterator

from quotary.errors import CannotTell
from registry.opening import Opening
from registry.store import Reader, Store

CHUNK = 1024


def reindex(store: Store) -> int:
    """Replace the index of every entry whose interval is closed, in one transaction; give their number."""
    head = store.read.head()
    if head is None:
        raise CannotTell("the database holds no log", next_command="quotary registry init")
    stop = head.state_index + 1
    store.write.replace_terms(stop, _terms(store.read, stop))
    return stop


def _terms(read: Reader, stop: int) -> Iterator[list[tuple[str, int]]]:
    for start in range(0, stop, CHUNK):
        entries = read.entries(start, min(start + CHUNK, stop))
        yield sorted(Opening.of(entries, start).terms)
