"""Statements of every kind: read back, and refused with each rule broken in turn."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from quotary.canonical import b64, canonical
from quotary.errors import Malformed, Unsupported
from quotary.statements.envelope import Envelope, spki
from quotary.statements.floor import TCBFloor
from quotary.statements.notice import NOTICE_KINDS
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import KINDS, parse_statement, predicate_type, statement_payload
from tests.fakes.authority import DAY, Authority, keyid, keys, measurement, public, registers, role, row

Change = Callable[[dict[str, Any]], object]


def predicate_of(entry: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Envelope.parse(entry).payload)["predicate"]
    return found


def tdx_row() -> dict[str, object]:
    return row(
        "t",
        "tdx",
        configuration=["11" * 48],
        rtmr0={"replay": {"free": ["acpi-tables", "td-hob"]}},
        td_attributes={"mask": "ffffffffffffffff", "value": "0000000010000000"},
        xfam={"mask": "ffffffffffffffff", "value": "00000000000602e7"},
        guest=["acpi-sandbox"],
        devices=[
            {"architecture": "gh100", "count": 8, "drivers": ["580.95.05"], "vbios": ["96.00.DA.00.11"]}
        ],
    ) | {"shape": {"vcpus": 4, "memory_bytes": 1 << 33}}


def examples() -> dict[str, dict[str, Any]]:
    by = Authority()
    genesis, allocation = by.genesis(), by.allocation()
    compromised = [{"key": keyid("lost"), "from_index": 7}]
    release = by.release(rows=[tdx_row(), row("exact", "tdx", rtmr0={"exact": ["00" * 48]}), row("p"),
                               row("s", "snp", guest_policy={"mask": "00000000000f0000", "value": "0000000000030000"}),
                               row("n", "nitro"), row("g", "sgx", configuration=["22" * 64])],
                         material={"kernel": {"sha256": "00" * 32}, "sections": [["0x800000", 1]]})  # fmt: skip
    one = measurement("a").hex()
    rows = [{"measurement": one, "match": False, "found": {"rtmr1": "00" * 48}}]
    return {
        "genesis": predicate_of(genesis),
        "allocation": predicate_of(allocation),
        "delegation": predicate_of(by.delegation(compromised=compromised, notices=("artefact", "keyset"))),
        "release": predicate_of(release),
        "rebuild": predicate_of(by.rebuild(release, {"a": True, "b": True})),
        "mismatch": predicate_of(
            by.rebuild(release, {}, verdict="mismatch", rows=rows, detail="rtmr1 differs")
        ),
        "failed": predicate_of(by.rebuild(release, {})),
        "revocation": predicate_of(by.revocation(["a", "b"], advisory="https://example.org/1")),
        "suspension": predicate_of(by.revocation(release, suspend=DAY, replacement="sha256:" + "00" * 32)),
        "floor": predicate_of(by.floor()),
        "notice": predicate_of(by.notice(uri="https://example.org/w", data={"layers": 2})),
    }


KIND = {
    "genesis": "delegation", "allocation": "delegation", "mismatch": "rebuild", "failed": "rebuild",
    "suspension": "revocation", "floor": "tcb-floor", "notice": "artefact",
}  # fmt: skip


@pytest.mark.parametrize("name", examples())
def test_every_kind_reads_back(name: str) -> None:
    predicate = examples()[name]
    payload = statement_payload(KIND.get(name, name), predicate)
    statement = parse_statement(payload)
    assert statement.kind == KIND.get(name, name)
    assert statement.log == predicate["log"]
    assert statement.service == predicate["service"]
    assert statement.sequence == predicate["sequence"]
    assert statement.issued.isoformat() == "2026-11-21T12:00:00+00:00"
    assert json.loads(payload)["predicate"] == predicate


def test_the_typed_values_are_those_that_were_written() -> None:
    parsed = {
        name: parse_statement(statement_payload(KIND.get(name, name), found)).predicate
        for name, found in examples().items()
    }
    release, mismatch, suspension, floor = (
        parsed[name] for name in ("release", "mismatch", "suspension", "floor")
    )
    assert isinstance(release, Release)
    assert release.rows[0].require.rtmr0 is not None
    assert release.rows[0].require.rtmr0.free == ("acpi-tables", "td-hob")
    assert release.rows[0].require.devices[0].count == 8
    assert release.rows[2].measurement == measurement("p")
    assert release.rows[2].require.configuration == ()
    assert isinstance(mismatch, Rebuild)
    assert mismatch.rows[0].found == (("rtmr1", "00" * 48),)
    assert isinstance(suspension, Revocation)
    assert suspension.measurements == ()
    assert isinstance(floor, TCBFloor)
    assert floor.floor.minimum["tee_tcb_svn"] == b"\x05" * 16
    assert floor.floor.document() == examples()["floor"]["floor"]


OPTIONAL = {
    "advisory", "compromised", "data", "detail", "devices", "found", "guest_policy", "nar_sha256", "replacement",
    "rtmr0", "shape", "size", "td_attributes", "uri", "xfam",
}  # fmt: skip
FREE = {"material", "kernel", "data", "shape"}
NAMED_BY_DATA = {"roles", "found"}


@pytest.mark.parametrize("name", examples())
def test_each_missing_and_each_unknown_member_is_refused(name: str) -> None:
    example = examples()[name]
    for path in _objects(example, ()):
        if FREE & set(path):
            continue
        members = set() if NAMED_BY_DATA & set(path[-1:]) else set(_at(example, path)) - OPTIONAL
        for member in members | {"unknown-member"}:
            changed = copy.deepcopy(example)
            found = _at(changed, path)
            if found.pop(member, None) is None:
                found[member] = "x"
            with pytest.raises(Malformed):
                statement_payload(KIND.get(name, name), changed)


def _objects(value: object, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    found = [path] if isinstance(value, dict) else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in pairs:
        found += _objects(item, (*path, name))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    for name in path:
        value = value[name]
    assert isinstance(value, dict)
    return value


BROKEN: list[tuple[str, Change, str]] = [
    ("release", lambda p: p.update(log="Log"), "log is not of the characters"),
    ("release", lambda p: p.update(service="a//b"), "service is not a name"),
    ("release", lambda p: p.update(service="../b"), "service is not a name"),
    ("release", lambda p: p.update(service="a" * 101), "101 characters"),
    ("release", lambda p: p.update(sequence=0), "sequence is 0"),
    ("release", lambda p: p.update(service="log"), "a release cannot be of the service log"),
    ("release", lambda p: p["source"].update(uri=""), "0 characters"),
    ("release", lambda p: p.update(outputs=[]), "0 items"),
    ("release", lambda p: p.update(outputs=p["outputs"] * 2), "two outputs have the same name"),
    ("release", lambda p: p["outputs"][0].update(nar_sha256="00"), "nar_sha256"),
    ("release", lambda p: p.update(rows=p["rows"][:1] * 2), "same measurement id"),
    ("release", lambda p: p.update(material={"A": 1}), "material has a member name"),
    ("release", lambda p: p.update(material={"a": [{"é": 1}]}), "member name"),
    ("release", lambda p: p.update(material={"a": [{"B": 1}]}), "material has a member name"),
    ("release", lambda p: p["rows"][0].update(platform="arm"), "'arm' is not known"),
    ("release", lambda p: p["rows"][0]["registers"].update(rtmr3="00" * 48), "exactly mrtd, rtmr1, rtmr2"),
    ("release", lambda p: p["rows"][0]["registers"].update(mrtd="00" * 32), "registers.mrtd not 96"),
    ("release", lambda p: p["rows"][0]["require"].update(configuration=[]), "0 items"),
    ("release", lambda p: p["rows"][0]["require"].update(configuration="any"), "not an array"),
    ("release", lambda p: p["rows"][0]["require"].update(configuration=["00" * 32]), "96 lower-case"),
    ("release", lambda p: p["rows"][4]["require"].update(configuration=["00"]), "nitro has no configuration"),
    ("release", lambda p: p["rows"][0]["require"].pop("guest"), "free ACPI slots"),
    ("release", lambda p: p["rows"][0]["require"].update(guest=["other"]), "guest knows only"),
    ("release", lambda p: p["rows"][0]["require"].update(rtmr0={}), "replay is missing"),
    ("release", lambda p: p["rows"][0]["require"].update(rtmr0={"exact": ["00"]}), "96 lower-case"),
    ("release", lambda p: p["rows"][0]["require"]["xfam"].update(mask="00" * 8), "outside its mask"),
    ("release", lambda p: p["rows"][3]["require"].update(rtmr0={"exact": ["00" * 48]}), "unknown member 'rtmr0'"),
    ("release", lambda p: p["rows"][0]["require"].update(guest_policy={}), "unknown member 'guest_policy'"),
    ("release", lambda p: p["rows"][0]["require"].update(devices=p["rows"][0]["require"]["devices"] * 2), "devices are not"),
    ("allocation", lambda p: p.update(previous="sha256:" + "00" * 32), "previous is absent"),
    ("allocation", lambda p: p.update(compromised=[{"key": keyid("x"), "from_index": 0}]), "a first delegation"),
    ("allocation", lambda p: p["roles"].update(builder=role(["owner1"], 1)), "only the role owner"),
    ("allocation", lambda p: p.update(service="log"), "cannot have the role 'owner'"),
    ("allocation", lambda p: p.update(roles={}), "the role owner is missing"),
    ("delegation", lambda p: p.pop("previous"), "previous is absent"),
    ("delegation", lambda p: p["roles"].update(root=role(["owner1"], 1)), "cannot have the role 'root'"),
    ("delegation", lambda p: p["roles"].pop("builder") and p["roles"].pop("artefact") and p["roles"].pop("keyset"), "has no role"),
    ("delegation", lambda p: p["roles"]["owner"].update(threshold=4), "threshold is 4, allowed are 1 to 3"),
    ("delegation", lambda p: p["roles"]["owner"].update(threshold=0), "threshold is 0"),
    ("delegation", lambda p: p["roles"].update(owner=role(["stranger"], 1)), "not in keys"),
    ("delegation", lambda p: p["roles"]["owner"]["keys"].reverse(), "ascending order"),
    ("delegation", lambda p: p["keys"].update({keyid("x"): public("y")}), "has the id"),
    ("delegation", lambda p: p["keys"].update({keyid("x"): 1}), "a key is not a string"),
    ("delegation", lambda p: p["keys"].update({keyid("x"): b64(spki(bytes(32)))}), "degenerate"),
    ("delegation", lambda p: p.update(compromised=[]), "0 items"),
    ("delegation", lambda p: p["compromised"].append(p["compromised"][0]), "compromised keys are not"),
    ("delegation", lambda p: p["compromised"][0].update(key=keyid("owner1")), "compromised and still in keys"),
    ("genesis", lambda p: p["roles"].pop("root") and p.update(keys=keys("tcb1", "tcb2", "security1", "rebuilder1", "rebuilder2")), "the role root is missing"),
    ("genesis", lambda p: p["roles"].update(owner=role(["root1"], 1)), "cannot have the role 'owner'"),
    ("rebuild", lambda p: p.update(service="log"), "a rebuild cannot be"),
    ("rebuild", lambda p: p.update(verdict="mismatch"), "do not say mismatch"),
    ("rebuild", lambda p: p.update(verdict="failed"), "do not say failed"),
    ("rebuild", lambda p: p.update(verdict="maybe"), "is not one of"),
    ("rebuild", lambda p: p["rows"].reverse(), "ascending order"),
    ("rebuild", lambda p: p["rows"][0].update(match=False), "do not say match"),
    ("rebuild", lambda p: p["rows"][0].update(found={"rtmr1": "00"}), "no differing registers"),
    ("mismatch", lambda p: p["rows"][0].update(found={"rtmr1": 1}), "is not a string"),
    ("mismatch", lambda p: p["rows"][0].update(found={"rtmr1": "0"}), "hex"),
    ("mismatch", lambda p: p["rows"][0].update(found={}), "found is absent"),
    ("mismatch", lambda p: p["rows"][0].update(found={"rtmr1": "00" * 65}), "has 130 characters"),
    ("failed", lambda p: p.update(verdict="match"), "do not say match"),
    ("revocation", lambda p: p.update(until="2026-11-22T00:00:00Z"), "until is present for suspend"),
    ("revocation", lambda p: p.update(release="sha256:" + "00" * 32), "not both"),
    ("revocation", lambda p: p.pop("measurements"), "not both"),
    ("revocation", lambda p: p["measurements"].reverse(), "ascending order"),
    ("revocation", lambda p: p.update(measurements=[1]), "something other than strings"),
    ("revocation", lambda p: p.update(measurements=["00"]), "64 lower-case"),
    ("suspension", lambda p: p.pop("until"), "until is present for suspend"),
    ("suspension", lambda p: p.update(action="delete"), "action is not one of"),
    ("floor", lambda p: p.update(service="chat"), "a tcb-floor is of the service log"),
    ("floor", lambda p: p.update(product="SPR"), "product"),
    ("floor", lambda p: p["floor"]["minimum"].pop("pce_svn"), "names exactly pce_svn"),
    ("floor", lambda p: p["floor"]["minimum"].update(pce_svn=65_536), "pce_svn is 65536"),
    ("floor", lambda p: p["floor"]["minimum"].update(tee_tcb_svn="00"), "tee_tcb_svn not 32"),
    ("floor", lambda p: p["floor"].update(accepted_status=["UpToDate", "OutOfDate"]), "ascending order"),
    ("floor", lambda p: p["floor"].update(accepted_status=[]), "0 items"),
    ("floor", lambda p: p["floor"].update(denied_chips=[f"{n:04x}" for n in range(257)]), "257 items"),
    ("floor", lambda p: p.update(platform="gh100", product="x") or p["floor"].update(minimum={"driver": "0"}), "driver not 2"),
    ("floor", lambda p: p.update(platform="gh100", product="x") or p["floor"].update(minimum={"driver": True}), "not an integer"),
    ("notice", lambda p: p.update(items=[]), "0 items"),
    ("notice", lambda p: p.update(items=p["items"] * 2), "two items have the same name"),
    ("notice", lambda p: p.update(data={"A": 1}), "data has a member name"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_a_broken_rule_is_refused_by_name(name: str, change: Change, message: str) -> None:
    changed = examples()[name]
    change(changed)
    with pytest.raises(Malformed, match=message):
        statement_payload(KIND.get(name, name), changed)


def test_kinds_that_are_not_ours_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="weather"):
        statement_payload("weather", {})
    document = json.loads(statement_payload("release", examples()["release"]))
    for uri in (
        "https://quotary.dev/weather/v1",
        "https://quotary.dev/release/v2",
        "release",
        "https://quotary.dev/release",
    ):
        with pytest.raises(Unsupported, match="not known"):
            parse_statement(canonical({**document, "predicateType": uri}))


@pytest.mark.parametrize("name", examples())
def test_the_subject_must_be_what_the_predicate_is_about(name: str) -> None:
    document = json.loads(statement_payload(KIND.get(name, name), examples()[name]))
    for subject in ([], document["subject"] * 2, [{**document["subject"][0], "name": "other"}], "x"):
        with pytest.raises(Malformed, match="subject"):
            parse_statement(canonical({**document, "subject": subject}))


def test_another_statement_type_or_member_is_refused() -> None:
    document = json.loads(statement_payload("release", examples()["release"]))
    for change in ({"_type": "https://in-toto.io/Statement/v0.1"}, {"extra": 1}):
        with pytest.raises(Malformed):
            parse_statement(canonical({**document, **change}))


def test_every_notice_kind_has_the_same_shape() -> None:
    for kind in NOTICE_KINDS:
        assert parse_statement(statement_payload(kind, examples()["notice"])).kind == kind
    assert set(NOTICE_KINDS) < set(KINDS)
    assert predicate_type("keyset") == "https://quotary.dev/keyset/v1"


def test_registers_of_the_examples_are_whole() -> None:
    assert registers("t", "tdx").keys() == {"mrtd", "rtmr1", "rtmr2"}
