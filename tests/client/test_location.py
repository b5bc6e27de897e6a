"""Where a machine is: logged statements by whom the policy names, judged with the machine, each refusal by name."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from quotary.attestation.document import AttestationDocument, LoggedStatement
from quotary.client.clock import FixedClock
from quotary.client.location import find_location
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Check, Trail
from quotary.client.verify import judge
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused, Rejected
from quotary.statements.location import CLASSES, Location, parse_location
from quotary.statements.notice import Notice
from simulator.pki import PKI
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.authority import NOW
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, World

AUDITOR, KEY = "example.org/auditor", "builder2"


def location(world: World, **changes: object) -> Location:
    assert isinstance(world.pki, PKI)
    found = Location(
        (world.pki.ppid.hex(),),
        "de-fra-1",
        "auditors-visit",
        b"R" * 32,
        NOW - timedelta(days=1),
        NOW + timedelta(days=30),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def rules(**changes: object) -> dict[str, object]:
    signers = {"keys": authority.keys(KEY), "threshold": 1}
    return {
        "service": AUDITOR,
        "signers": signers,
        "places": ["de-fra-1"],
        "classes": ["auditors-visit"],
        **changes,
    }


def policy_of(world: World, **changes: object) -> Policy:
    return Policy.parse(policy_bytes({**world.policy(), "require_location": rules(**changes)}))


def shown(
    world: World,
    said: Location,
    signers: Sequence[str] = (KEY,),
    kind: str = "location",
    service: str = AUDITOR,
) -> LoggedStatement:
    """Log a statement, and give it with its proof."""
    entry = world.log.maker.notice(kind, service, signers, **said.members())  # type: ignore[arg-type]  # members of a predicate
    world.log.append(entry)
    world.log.close(world.ts)
    return LoggedStatement(entry, world.log.proof(world.log.entries.index(entry), world.ts))


def judged(world: World, statement: LoggedStatement | None, **changes: object) -> list[Check]:
    trail = Trail()
    document = replace(world.document(), location=statement)
    judge(
        document,
        NONCE,
        world.bundle(),
        policy_of(world, **changes),
        ProcessMemory(),
        FixedClock(world.now),
        trail,
    )
    return trail.checks


def test_a_machine_in_an_admitted_place_is_accepted_and_the_verdict_says_on_what_it_rests(
    world: World,
) -> None:
    statement = shown(world, location(world))
    check = judged(world, statement)[-1]
    assert (check.name, check.outcome) == ("location", "ok")
    assert "de-fra-1, by auditors-visit" in check.found
    again = AttestationDocument.parse(replace(world.document(), location=statement).encode())
    assert again.location == statement


def test_a_policy_that_demands_no_place_looks_at_no_statement(world: World) -> None:
    trail = Trail()
    document = replace(world.document(), location=LoggedStatement(b"x", b"y"))
    policy = Policy.parse(policy_bytes(world.policy()))
    judge(document, NONCE, world.bundle(), policy, ProcessMemory(), FixedClock(world.now), trail)
    assert all(check.name != "location" for check in trail.checks)


def test_a_machine_without_a_statement_is_refused_where_a_place_is_demanded(world: World) -> None:
    with pytest.raises(Refused, match="no statement"):
        judged(world, None)


OTHER = "00" * 16
REFUSED: dict[str, tuple[dict[str, object], dict[str, object], str]] = {
    "another machine": ({"machines": (OTHER,)}, {}, "one of the statement's 1 machines"),
    "another place": ({"place": "us-iad-1"}, {}, "us-iad-1"),
    "a weaker class": ({"evidence": "operators-word", "document": None}, {}, "known by operators-word"),
    "another class": ({"evidence": "cloud-document"}, {}, "known by cloud-document"),
    "an end": ({"not_after": NOW}, {}, "a statement in force"),
    "a beginning": ({"not_before": NOW + timedelta(hours=1)}, {}, "a statement in force"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_is_refused_for(world: World, name: str) -> None:
    changes, policy, message = REFUSED[name]
    with pytest.raises(Refused, match=message):
        judged(world, shown(world, location(world, **changes)), **policy)


def test_an_operators_word_counts_where_the_policy_says_so_and_stays_one(world: World) -> None:
    said = location(world, evidence="operators-word", document=None)
    check = judged(world, shown(world, said), classes=["operators-word"])[-1]
    assert "by operators-word" in check.found


def test_a_statement_by_others_of_another_kind_or_service_or_outside_the_log_is_rejected(
    world: World,
) -> None:
    said, service = location(world), authority.SERVICE
    good = shown(world, said)
    cases: list[tuple[LoggedStatement, type[QuotaryError], str]] = [
        (shown(world, said, signers=("builder1",)), Rejected, "0 signatures by its signers"),
        (shown(world, said, kind="artefact"), Rejected, "a artefact"),
        (shown(world, said, service=service), Rejected, f"one of {service}"),
        (replace(good, entry=good.entry + b" "), Rejected, "location"),
    ]
    for statement, kind, message in cases:
        with pytest.raises(kind, match=message):
            judged(world, statement)
    with pytest.raises(Malformed):
        judged(world, replace(good, proof=b"not a proof"))


def notice(said: Location, change: Callable[[dict[str, object]], object] = lambda data: None) -> Notice:
    from quotary.canonical import Fields
    from quotary.statements.notice import parse_notice

    members = dict(said.members())
    data = dict(members["data"])  # type: ignore[call-overload]  # it was just made
    change(data)
    head = {"log": "l", "service": "s", "sequence": 1, "issued": "2026-11-21T12:00:00Z"}
    return parse_notice(Fields(head | members | {"data": data}, "notice"))


def test_a_location_is_read_back_as_it_was_written(world: World) -> None:
    for evidence in CLASSES:
        document = None if evidence == "operators-word" else b"R" * 32
        said = location(world, evidence=evidence, document=document)
        assert parse_location(notice(said)) == said


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update({"class": "hearsay"}),
        lambda data: data.pop("document"),
        lambda data: data.update({"class": "operators-word"}),
        lambda data: data.update({"document": "00"}),
        lambda data: data.pop("place"),
        lambda data: data.update({"more": 1}),
        lambda data: data.update({"not_after": "2027-11-21T12:00:00Z"}),
        lambda data: data.update({"not_after": data["not_before"]}),
    ],
)
def test_a_statement_of_another_form_is_malformed(
    world: World, change: Callable[[dict[str, object]], object]
) -> None:
    with pytest.raises(Malformed):
        parse_location(notice(location(world), change))


def test_the_example_of_the_format_page_is_one(world: World) -> None:
    page = (ROOT / "docs" / "formats" / "location.md").read_text()
    data = json.loads(page.partition("```json location\n")[2].partition("\n```")[0])
    found = parse_location(notice(location(world), lambda members: members.update(data)))
    assert (found.place, found.evidence, found.document) == ("de-fra-1", "auditors-visit", b"R" * 32)


def test_an_item_that_is_not_its_machines_digest_is_malformed(world: World) -> None:
    found = notice(location(world))
    spoiled = replace(found, items=(replace(found.items[0], sha256=bytes(32)),))
    with pytest.raises(Malformed, match="digest of its identity"):
        parse_location(spoiled)


class Listing(LogClient):
    """A log's answers about one service, as its search gives them."""

    def __init__(self, world: World, statements: Sequence[LoggedStatement]) -> None:
        self.world, self.statements = (
            world,
            {world.log.entries.index(each.entry): each for each in statements},
        )

    def search(self, query: str) -> Mapping[str, object]:
        assert query == AUDITOR
        rows = [{"index": index, "kind": "location"} for index in self.statements]
        return {
            "results": [*rows, {"index": "7", "kind": "location"}, "no row", {"index": 0, "kind": "release"}]
        }

    def entry(self, index: int) -> bytes:
        return self.statements[index].entry

    def proof(self, entry: int | bytes) -> bytes:
        assert isinstance(entry, int)
        return self.statements[entry].proof


def test_an_enclave_shows_the_newest_statement_that_the_policy_admits(world: World) -> None:
    said = location(world)
    old, new = shown(world, said), shown(world, replace(said, not_after=said.not_after - timedelta(days=1)))
    ended = shown(world, replace(said, not_after=NOW))
    foreign = shown(world, replace(said, machines=(OTHER,)))
    policy, chips = policy_of(world), said.machines
    listed = Listing(world, [old, new, ended, foreign])
    assert find_location(listed, policy, chips, NOW) == new
    assert find_location(listed, Policy.parse(policy_bytes(world.policy())), chips, NOW) is None
    with pytest.raises(CannotTell, match="no location of this machine"):
        find_location(Listing(world, [ended, foreign]), policy, chips, NOW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["hearsay"]}, "there are"),
        ({"classes": []}, "classes"),
        ({"places": []}, "places"),
        ({"more": 1}, "more"),
    ],
)
def test_a_policys_demand_of_another_form_is_malformed(
    world: World, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        policy_of(world, **changes)
