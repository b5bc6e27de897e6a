"""Beginning a log that goes on from a closed one: what is refused before anything is written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.errors import Refused
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, key_id, raw_public_key
from quotary.statements.order import ShardClosed
from quotary.statements.schema import parse_statement
from registry.config import Config
from registry.identity import PublicKeys
from registry.setup import Roots, create_registry
from registry.store import open_store
from registry.succession import begin
from tests.fakes.authority import NOW, key
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


def test_the_roots_of_a_successor_may_be_keys_that_are_there_already(
    old: Local, new: Config, public: PublicKeys
) -> None:
    old.loop.round()
    old.append(order(ShardClosed("retired", SUCCESSOR, public.log)).encode())
    roots = Roots((key("new1"), key("new2"), key("new3")), 2)
    begin(new, old.config, NOW, roots)
    (genesis,) = read_waiting(new)
    predicate = parse_statement(Envelope.parse(genesis).payload).predicate
    assert isinstance(predicate, Delegation)
    ids = {key_id(raw_public_key(made)) for made in roots.keys}
    assert (set(predicate.roles["root"].keys), predicate.roles["root"].threshold) == (ids, 2)
    assert {found.keyid for found in Envelope.parse(genesis).signatures} == ids
    assert {path.name for path in new.keys.glob("*.pem")} >= {"tcb.pem", "security.pem", "rebuilder.pem"}
    assert not (new.keys / "root.pem").exists()


def read_waiting(config: Config) -> list[bytes]:
    store = open_store(config.database_url)
    try:
        return [found.data for found in store.read.waiting(10)]
    finally:
        store.close()
