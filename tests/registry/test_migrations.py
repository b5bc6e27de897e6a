"""Golden logs of every schema: today's code serves the same bytes from them, however often a migration is cut off."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, text

from quotary.canonical import unb64
from quotary.tlog.policy import TlogPolicy
from registry.errors import WrongSchema
from registry.fsck import check_store
from registry.store import open_store
from registry.store.engine import open_engine
from registry.store.migrate import upgrade
from registry.store.schema import REVISION
from tests.fakes.authority import ORIGIN
from tests.vectors.make_golden import FOLDER, rows, served

GOLDEN = sorted(FOLDER.glob("r*.json"))
TABLES = ("entry", "outcome", "term", "tile", "node", "record", "head", "checkpoint", "published")
# The search index may learn more words; fsck compares it with the entries.
KEPT = tuple(name for name in TABLES if name != "term")


class CutOff(Exception):
    """The process ends here."""


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    if request.param == "postgresql":
        made: Callable[[], str] = request.getfixturevalue("new_postgres")
        return made
    return lambda: f"sqlite:///{tmp_path / 'log.db'}"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a15_a_golden_log_migrates_to_the_same_bytes_also_after_a_cut_at_each_statement(
    path: Path, new_url: Callable[[], str], tmp_path: Path
) -> None:
    golden = json.loads(path.read_text("utf-8"))
    url = new_url()
    with closing_engine(url) as engine:
        fill(engine, golden)
        before = columns(engine)
    cuts = 0
    while cut_off(url, cuts):
        cuts += 1
        with closing_engine(url) as engine:
            assert columns(engine) == before
        with pytest.raises(WrongSchema, match=golden["revision"]):
            open_store(url)
    assert cuts >= 2
    with closing(open_store(url)) as store:
        found = rows(store)
        assert {name: found[name] for name in KEPT} == {name: golden["tables"][name] for name in KEPT}
        assert all(row in found["term"] for row in golden["tables"]["term"])
        assert served(store, tmp_path / "public") == golden["served"]
        assert check_store(store.read, ORIGIN, TlogPolicy.parse(golden["policy"])).entries == len(
            found["entry"]
        )


def test_there_is_a_golden_log_of_every_schema_before_this_one() -> None:
    assert [path.stem for path in GOLDEN] == [f"r{number:04}" for number in range(1, int(REVISION))]


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


def fill(engine: Engine, golden: dict[str, Any]) -> None:
    """Make a database of an older schema with the golden rows."""
    upgrade(engine, golden["revision"])
    with engine.execution_options(writes=True).begin() as connection:
        for name, rows_of_table in golden["tables"].items():
            values = [
                {key: unb64(value["b64"]) if isinstance(value, dict) else value for key, value in row.items()}
                for row in rows_of_table
            ]
            if values:
                names = list(values[0])
                marks = ", ".join(f":{key}" for key in names)
                connection.execute(text(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({marks})"), values)


def columns(engine: Engine) -> set[tuple[str, str]]:
    found = inspect(engine)
    return {(name, column["name"]) for name in found.get_table_names() for column in found.get_columns(name)}


def cut_off(url: str, after: int) -> bool:
    """Upgrade, ended by force before statement number ``after``; False if there are not so many."""
    with closing_engine(url) as engine:
        left = [after]

        def cut(*_: object) -> None:
            if left[0] == 0:
                raise CutOff
            left[0] -= 1

        engine.connect().close()  # its own first questions are no part of the migration
        event.listen(engine, "before_cursor_execute", cut)
        try:
            upgrade(engine)
        except CutOff:
            return True
        return False
