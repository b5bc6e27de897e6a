"""The search finds every digest, register, key and id that an entry names; fsck holds its index to the entries."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from quotary.errors import Rejected
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.release import Release
from quotary.statements.revocation import Revocation
from quotary.statements.schema import parse_statement
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from registry import fsck
from registry.cli import registry
from registry.reindex import reindex
from registry.store import open_store
from registry.store.schema import term
from registry.store.unguarded import unguarded
from tests.fakes.authority import ORIGIN, measurement
from tests.fakes.inprocess import Local, local


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("search")) as found:
        story(found)
        yield found


def story(found: Local) -> None:
    made = found.authority
    found.append(made.allocation(), made.delegation(), made.floor())
    found.append(made.release("r1"))
    found.append(made.release("r2"))
    found.append(made.revocation(["r1"]))


@pytest.fixture(scope="module")
def client(log: Local) -> FlaskClient:
    return log.client()


def statements(log: Local) -> Iterator[tuple[int, Envelope]]:
    for index, entry in enumerate(log.store.read.entries(0, log.store.read.published_size())):
        if log.store.read.outcome(index):
            yield index, Envelope.parse(entry)


def found_by(client: FlaskClient, query: str) -> list[int]:
    answer = client.get("/api/v1/search", query_string={"q": query}).json
    assert answer["indexed"] == answer["size"]
    return [row["index"] for row in answer["results"]]


def names_in(envelope: Envelope) -> set[str]:
    """Everything that a reader may have in hand, read from the statement without the index's code."""
    predicate = parse_statement(envelope.payload).predicate
    names = {envelope.statement_id, *(signature.keyid for signature in envelope.signatures)}
    if isinstance(predicate, Release):
        names |= {output.sha256.hex() for output in predicate.outputs}
        names |= {predicate.weights_sha256.hex(), predicate.policy_sha256.hex(), predicate.lock_sha256.hex()}
        names |= {predicate.source_revision}
        for row in predicate.rows:
            names |= {row.measurement.hex(), row.profile_sha256.hex()}
            names |= {value.hex() for value in row.registers.values() if any(value)}
    elif isinstance(predicate, Delegation):
        names |= set(predicate.keys)
    elif isinstance(predicate, TCBFloor):
        names |= {predicate.product}
    elif isinstance(predicate, Revocation):
        names |= {digest.hex() for digest in predicate.measurements}
    return names


def test_every_digest_register_key_and_id_of_a_statement_finds_it(log: Local, client: FlaskClient) -> None:
    seen = 0
    for index, envelope in statements(log):
        for name in names_in(envelope):
            assert index in found_by(client, name), (index, name)
            seen += 1
    assert seen > 40


def test_a_digest_is_found_in_upper_case_and_with_or_without_its_algorithm(client: FlaskClient) -> None:
    digest = measurement("r1").hex()
    for spelling in (digest, digest.upper(), f"sha256:{digest}", f" {digest}\n"):
        assert len(found_by(client, spelling)) == 2
    statement = client.get("/api/v1/search?q=chat").json["results"][0]["statement_id"]
    assert found_by(client, statement) == found_by(client, statement.removeprefix("sha256:")) != []


def test_an_index_and_a_leaf_hash_find_reserved_records_too(log: Local, client: FlaskClient) -> None:
    state = log.store.read.entries(1, 2)[0]
    assert found_by(client, "1") == [1]
    assert found_by(client, leaf_hash(state).hex()) == [1]
    assert found_by(client, "99999") == []


def test_a_service_is_found_by_its_name_newest_first(log: Local, client: FlaskClient) -> None:
    found = found_by(client, "chat")
    assert found == sorted(found, reverse=True)
    assert len(found) == 5


@pytest.mark.parametrize("query", ["", " ", "nothing", "0" * 400, "a\0b", "ä", "'; DROP TABLE term; --", "%"])
def test_what_is_not_there_is_not_found(client: FlaskClient, query: str) -> None:
    assert found_by(client, query) == []


def test_the_page_finds_the_same_and_says_how_far_the_index_reaches(log: Local, client: FlaskClient) -> None:
    size = log.store.read.published_size()
    for query in (measurement("r1").hex(), "chat", "1", "nothing"):
        page = client.get("/search", query_string={"q": query}).text
        assert f"Indexed up to size {size}." in page
        for index in found_by(client, query):
            assert f'href="/entries/{index}"' in page


def checked(log: Local) -> None:
    fsck.check_store(log.store.read, ORIGIN, TlogPolicy.parse(log.config.policy.read_text("utf-8")))


def change(log: Local, sql: str) -> None:
    with log.store.write._transaction() as connection, unguarded(connection, term):
        assert connection.execute(text(sql)).rowcount == 1


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        story(found)
        yield found


@pytest.mark.parametrize("window", [2, fsck.TERMS_WINDOW])
@pytest.mark.parametrize(
    ("sql", "check"),
    [
        ("DELETE FROM term WHERE term = '{id}' AND idx = 5", "missing in the search index"),
        ("INSERT INTO term (term, idx) VALUES ('{id}', 1)", "surplus rows in the search index"),
    ],
)
def test_a_missing_and_a_surplus_row_are_found_and_mended(
    own: Local, monkeypatch: pytest.MonkeyPatch, sql: str, check: str, window: int
) -> None:
    monkeypatch.setattr(fsck, "TERMS_WINDOW", window)
    checked(own)
    before = own.store.read.terms(0, 99)
    digest = measurement("r1").hex()
    change(own, sql.format(id=digest))
    with pytest.raises(Rejected, match=check) as caught:
        checked(own)
    assert digest in str(caught.value)
    assert caught.value.next_command == "quotary registry reindex"
    assert reindex(own.store) == own.store.read.published_size()
    assert own.store.read.terms(0, 99) == before
    checked(own)


def test_the_index_only_grows_again_after_it_was_made_anew(own: Local) -> None:
    reindex(own.store)
    with pytest.raises(DBAPIError, match="append-only"), own.store.write._transaction() as connection:
        connection.execute(text("DELETE FROM term"))
    own.append(own.authority.release("r9"))
    assert len(own.store.read.by_term(measurement("r9").hex(), 99, 9)) == 1
    checked(own)


def test_the_command_makes_the_index_anew(own: Local) -> None:
    done = CliRunner().invoke(registry, ["reindex", "--dir", str(own.config.folder)])
    assert done.stdout == f"indexed up to size {own.store.read.published_size()}\n"


def test_the_index_is_made_anew_on_postgresql_too(tmp_path: Path, new_postgres: Callable[[], str]) -> None:
    with local(tmp_path, database=new_postgres()) as log:
        story(log)
        before = log.store.read.terms(0, 99)
        change(log, f"DELETE FROM term WHERE term = '{measurement('r1').hex()}' AND idx = 5")
        store = open_store(log.config.database_url)
        reindex(store)
        assert store.read.terms(0, 99) == before
        with pytest.raises(DBAPIError, match="append-only"), store.write._transaction() as connection:
            connection.execute(text("DELETE FROM term"))
        store.close()
