"""Beginning a log that goes on from a closed one: what is refused before anything is written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.errors import Refused
from quotary.statements.order import ShardClosed
from registry.config import Config
from registry.identity import PublicKeys
from registry.setup import create_registry
from registry.store import open_store
from registry.succession import begin
from tests.fakes.authority import NOW
from tests.fakes.inprocess import Local, local
from tests.vectors.make_orders import CLOSED, FREEZE, SUCCESSOR, order


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        yield found


@pytest.fixture
def new(tmp_path: Path) -> Config:
    return Config(tmp_path / "new", SUCCESSOR, "sqlite:///log.db", "127.0.0.1:0", 0.1, 120.0, 600, 1, 4)


@pytest.fixture
def public(new: Config) -> PublicKeys:
    return create_registry(new, [], None, NOW, awaits=True)


def waiting(config: Config) -> int:
    store = open_store(config.database_url)
    try:
        return store.read.waiting_count()
    finally:
        store.close()


def test_only_a_published_and_closed_log_has_a_successor(old: Local, new: Config, public: PublicKeys) -> None:
    for entry, found in ((None, "nothing published"), (b"", "a log that goes on"), (FREEZE, "freeze")):
        if entry is not None:
            old.append(*([order(FREEZE).encode()] if entry else []))
            old.loop.round()
        with pytest.raises(Refused, match=found) as refused:
            begin(new, old.config, NOW)
        assert refused.value.check == "predecessor"
    assert waiting(new) == 0
    assert not list(new.keys.glob("root.pem"))


def test_the_successor_is_the_one_that_the_order_names(old: Local, new: Config, public: PublicKeys) -> None:
    old.loop.round()
    old.append(order(CLOSED).encode())
    with pytest.raises(Refused, match="successor: found log2"):
        begin(new, old.config, NOW)
    assert waiting(new) == 0


def test_a_successor_begins_once(old: Local, new: Config, public: PublicKeys) -> None:
    old.loop.round()
    old.append(order(ShardClosed("retired", SUCCESSOR, public.log)).encode())
    assert begin(new, old.config, NOW) == 0
    assert waiting(new) == 1
    with pytest.raises(Refused, match="a log with entries"):
        begin(new, old.config, NOW)
