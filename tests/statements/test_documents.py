"""State entries and other reserved records, bundles, keysets, records and measurement ids."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from quotary.canonical import b64, canonical
from quotary.errors import Malformed, Refused, Rejected
from quotary.statements.bundle import AbsenceBundle, Bundle, Included, Proven, parse_bundle
from quotary.statements.f1 import F1
from quotary.statements.keys import key_measurement, key_service, key_tcb
from quotary.statements.keyset import Keyset, KeysetKey, TLSKey
from quotary.statements.measurement import REGISTERS, base_platform, measurement_id, register_length
from quotary.statements.records import History, Mark, MeasurementRecord, TCBRecord, parse_record
from quotary.statements.state_entry import (
    MAX_TS,
    StateEntry,
    is_reserved,
    state_of,
)
from tests.fakes.authority import DAY, FLOOR, NOW, ORIGIN, TS, Authority

Change = Callable[[dict[str, Any]], object]
FIRST = StateEntry(3, {"F1": bytes(32)}, TS, None)
SECOND = StateEntry(9, {"F1": b"\x01" * 32, "F2": b"\x02" * 32}, TS + 1, 3)
LAST = StateEntry(12, {"F1": bytes(32)}, TS + 2, 9, "freeze")


@pytest.mark.parametrize("state", [FIRST, SECOND, LAST])
def test_a_state_entry_reads_back(state: StateEntry) -> None:
    assert StateEntry.parse(state.encode()) == state
    assert is_reserved(state.encode())


def test_the_state_entry_looks_as_documented() -> None:
    text = '{"maps":{"F1":"' + "00" * 32 + '"},"size":3,"ts":1795262400,"type":"state","v":1}'
    assert FIRST.encode() == text.encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(v=2), lambda d: d.update(type="freeze"), lambda d: d.update(extra=1), lambda d: d.pop("ts"),
        lambda d: d.update(ts=MAX_TS + 1), lambda d: d.update(ts=-1), lambda d: d.update(size=-1), lambda d: d.update(prev=9),
        lambda d: d["maps"].update(F1="00"), lambda d: d.update(maps=[]),
        lambda d: d.update(end="state"), lambda d: d.update(end=1),
    ],
)  # fmt: skip
def test_a_changed_state_entry_is_refused(change: Change) -> None:
    document = json.loads(SECOND.encode())
    change(document)
    with pytest.raises(Malformed):
        StateEntry.parse(canonical(document))


def test_a_state_entry_continues_the_one_before() -> None:
    FIRST.check_follows(None)
    SECOND.check_follows(FIRST)
    replace(SECOND, ts=FIRST.ts).check_follows(FIRST)
    with pytest.raises(Rejected, match="prev None, wanted prev 3"):
        replace(SECOND, prev=None).check_follows(FIRST)
    with pytest.raises(Rejected, match="prev 3, wanted prev None"):
        SECOND.check_follows(None)
    with pytest.raises(Rejected, match="log time"):
        replace(SECOND, ts=TS - 1).check_follows(FIRST)
    LAST.check_follows(SECOND)
    with pytest.raises(Rejected, match="nothing after the freeze"):
        StateEntry(13, {"F1": bytes(32)}, TS + 2, 12).check_follows(LAST)


def test_only_a_record_of_type_state_is_read_as_a_state_entry() -> None:
    assert state_of(SECOND.encode()) == SECOND
    assert state_of(b'{"a":{"type":"state"},"type":"else"}') is None
    with pytest.raises(Malformed):
        state_of(b'{"type":"state"}')


def test_only_objects_with_a_type_and_without_a_payload_are_reserved() -> None:
    assert is_reserved(b'{"type":"anything"}')
    for entry in (
        Authority().genesis(),
        b"",
        b"[]",
        b'{"type":1',
        b'{"a":1}',
        b'{"a":1,"payload":2,"type":3}',
        b'{"payload":1,"type":2}',
    ):
        assert not is_reserved(entry)


INCLUDED = Included(7, b"entry", (bytes(32), b"\x01" * 32))
BUNDLE = Bundle(b"note", INCLUDED, INCLUDED, (replace(INCLUDED, index=0), INCLUDED), (Proven(b"{}", b"p"),))
ABSENT = AbsenceBundle(b"note", INCLUDED, bytes(32), b"")


def test_bundles_of_each_kind_read_back() -> None:
    for bundle in (BUNDLE, replace(BUNDLE, release=None), replace(BUNDLE, state=replace(INCLUDED, path=()))):
        assert Bundle.parse(bundle.encode()) == bundle
        with pytest.raises(Malformed, match="a bundle where an absence"):
            AbsenceBundle.parse(bundle.encode())
    assert AbsenceBundle.parse(ABSENT.encode()) == ABSENT
    assert parse_bundle(ABSENT.encode()) == ABSENT
    with pytest.raises(Malformed, match="an absence bundle where"):
        Bundle.parse(ABSENT.encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(v=2), lambda d: d.update(extra=1), lambda d: d.pop("checkpoint"), lambda d: d.update(authority=[]),
        lambda d: d.update(records=[]), lambda d: d["state"].update(path=[b64(bytes(31))]), lambda d: d["state"].update(path=[1]),
        lambda d: d["state"].update(path=[b64(bytes(32))] * 64), lambda d: d["state"].update(index=-1), lambda d: d["state"].update(entry=""),
        lambda d: d["state"].update(extra=1), lambda d: d["records"][0].update(proof=1), lambda d: d["records"][0].update(extra=1),
        lambda d: d.update(absence={"key": "00" * 32, "proof": ""}), lambda d: d.update(authority=d["authority"] * 129),
        lambda d: d["release"].pop("path"),
    ],
)  # fmt: skip
def test_a_changed_bundle_is_refused(change: Change) -> None:
    document = json.loads(BUNDLE.encode())
    change(document)
    with pytest.raises(Malformed):
        parse_bundle(canonical(document))


def test_every_truncation_of_a_bundle_is_refused() -> None:
    data = BUNDLE.encode()
    for end in range(len(data)):
        with pytest.raises(Malformed):
            parse_bundle(data[:end])


KEYSET = Keyset(
    "chat",
    "0a1b",
    NOW,
    NOW + timedelta(hours=1),
    (
        KeysetKey("channel", "channel", "x-wing", bytes(1216)),
        KeysetKey("receipt", "receipt", "ed25519", bytes([3] + [0] * 31)),
    ),
    (TLSKey("chat.example.org", bytes(32)),),
    ("sealed",),
)


def test_a_keyset_reads_back_and_names_its_keys() -> None:
    assert Keyset.parse(KEYSET.encode()) == KEYSET
    assert KEYSET.digest == hashlib.sha256(KEYSET.encode()).digest()
    assert [key.id for key in KEYSET.of_role("receipt")] == ["receipt"]
    assert KEYSET.of_role("gateway") == ()


def test_a_keyset_is_valid_from_its_first_second_until_before_its_last() -> None:
    KEYSET.check_valid_at(NOW)
    KEYSET.check_valid_at(NOW + timedelta(minutes=59, seconds=59))
    for now in (NOW - timedelta(seconds=1), NOW + timedelta(hours=1)):
        with pytest.raises(Refused, match="keyset"):
            KEYSET.check_valid_at(now)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(not_after="2026-11-21T13:00:01Z"), "at most an hour"),
        (lambda d: d.update(not_after=d["not_before"]), "at most an hour"),
        (lambda d: d.update(keys=[]), "0 items"),
        (lambda d: d["keys"].reverse(), "ascending"),
        (lambda d: d["keys"][0].update(alg="rsa"), "cannot have the algorithm rsa"),
        (lambda d: d["keys"][0].update(role="receipt"), "cannot have the algorithm x-wing"),
        (lambda d: d["keys"][1].update(pub=b64(bytes(31))), "31 bytes, 32"),
        (lambda d: d["keys"].append({**d["keys"][1], "id": "second"}), "a key has two roles"),
        (lambda d: d["keys"][0].update(extra=1), "unknown member"),
        (lambda d: d["tls"][0].update(extra=1), "unknown member"),
        (lambda d: d["tls"].append(d["tls"][0]), "ascending"),
        (lambda d: d.update(extra=1), "unknown member"),
        (lambda d: d.update(service="A"), "not a name"),
    ],
)
def test_a_changed_keyset_is_refused(change: Change, message: str) -> None:
    document = json.loads(KEYSET.encode())
    change(document)
    with pytest.raises(Malformed, match=message):
        Keyset.parse(canonical(document))


@pytest.mark.parametrize(("alg", "curve"), [("p-256", ec.SECP256R1()), ("secp256k1", ec.SECP256K1())])
def test_a_doors_key_is_a_point_of_its_curve(alg: str, curve: ec.EllipticCurve) -> None:
    point = (
        ec.derive_private_key(7, curve)
        .public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    found = replace(KEYSET, keys=(KEYSET.keys[0], KeysetKey("door", "door", alg, point), KEYSET.keys[1]))
    assert Keyset.parse(found.encode()) == found
    for wrong in (point[:-1] + bytes([point[-1] ^ 1]), b"\x05" + point[1:], bytes(65)):
        with pytest.raises(Malformed, match=f"no uncompressed point of {alg}"):
            replace(
                found, keys=(KEYSET.keys[0], KeysetKey("door", "door", alg, wrong), KEYSET.keys[1])
            ).encode()


def test_a_keyset_that_nobody_would_read_is_not_written() -> None:
    with pytest.raises(Malformed, match="ascending"):
        replace(KEYSET, keys=KEYSET.keys[::-1]).encode()


def records() -> dict[str, bytes]:
    """One record of each kind, with everything a record can have."""
    by, f1 = Authority(), F1(ORIGIN)
    entries = [by.genesis(), by.allocation(), by.delegation()]
    release = by.release()
    entries += [release, by.rebuild(release, {"a": True}), by.revocation(["a"], suspend=DAY), by.floor()]
    lower = {**FLOOR, "evaluation_number": 1}
    entries += [by.floor(signers=["root1", "root2"], floor=lower), by.revocation(["new"])]
    lost = [{"key": "sha256:" + "00" * 32, "from_index": 5}]
    entries.append(by.delegation(compromised=lost))
    closed = f1.close(enumerate(entries), TS)
    found = {}
    for record in closed.changes.values():
        document = json.loads(record)
        found[document["kind"] if "release" in document or document["kind"] != "measurement" else "new"] = (
            record
        )
    return found


def test_records_of_each_kind_read_back() -> None:
    for data in records().values():
        assert parse_record(data).encode() == data
    measured, fresh = parse_record(records()["measurement"]), parse_record(records()["new"])
    assert isinstance(measured, MeasurementRecord)
    assert (measured.status, measured.suspended_until) == ("active", NOW + DAY)
    assert isinstance(fresh, MeasurementRecord)
    assert (fresh.status, fresh.release, fresh.not_after) == ("revoked", None, None)


def test_a_lowered_floor_is_in_force_from_its_time_on() -> None:
    record = parse_record(records()["tcb"])
    assert isinstance(record, TCBRecord)
    later = NOW + timedelta(hours=72)
    assert record.at(later - timedelta(seconds=1)).floor.evaluation_number == 17
    assert record.at(later).floor.evaluation_number == 1


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("measurement", lambda d: d.update(v=2)), ("measurement", lambda d: d.update(key="00" * 32)),
        ("measurement", lambda d: d.update(service="other")), ("measurement", lambda d: d.update(id="00" * 32)),
        ("measurement", lambda d: d.update(status="deprecated")), ("measurement", lambda d: d.pop("not_after")),
        ("measurement", lambda d: d.update(extra=1)), ("measurement", lambda d: d.update(count=0)),
        ("measurement", lambda d: d["rebuilders"].append(d["rebuilders"][0])), ("measurement", lambda d: d["rebuilders"][0].update(extra=1)),
        ("measurement", lambda d: d.update(kind="tcb")), ("service", lambda d: d.update(service="log")),
        ("service", lambda d: d.update(compromised=[])), ("service", lambda d: d["compromised"][0].update(extra=1)),
        ("tcb", lambda d: d.update(product="00806f050000")), ("tcb", lambda d: d["next"].update(extra=1)),
        ("tcb", lambda d: d["next"].pop("from")), ("tcb", lambda d: d["floor"].update(extra=1)),
    ],
)  # fmt: skip
def test_a_changed_record_is_refused(kind: str, change: Change) -> None:
    document = json.loads(records()[kind])
    change(document)
    with pytest.raises(Malformed):
        parse_record(canonical(document))


def test_map_keys_are_digests_of_a_context_and_names() -> None:
    one = bytes(range(32))
    assert (
        key_measurement("chat", one)
        == hashlib.sha256(b"quotary-map/measurement/v1\nchat\n" + one.hex().encode()).digest()
    )
    assert key_tcb("tdx", "50806f000000") == hashlib.sha256(b"quotary-map/tcb/v1\ntdx\n50806f000000").digest()
    assert key_service("chat") == hashlib.sha256(b"quotary-map/service/v1\nchat").digest()


@pytest.mark.parametrize("platform", ["tdx", "snp", "nitro", "sgx", "sim-tdx"])
def test_a_measurement_id_is_over_exactly_the_platforms_registers(platform: str) -> None:
    names = REGISTERS[base_platform(platform)]
    length = register_length(platform)
    registers = {name: bytes([at]) * length for at, name in enumerate(names)}
    text = ",".join(f'"{name}":"{registers[name].hex()}"' for name in sorted(names))
    document = f'quotary-measurement/v1\n{{"platform":"{platform}","registers":{{{text}}}}}'
    wanted = hashlib.sha256(document.encode()).digest()
    assert measurement_id(platform, registers) == wanted
    assert measurement_id(platform, {**registers, "rtmr3": b"anything"}) == wanted
    for name in names:
        with pytest.raises(Malformed, match=f"{name} of {platform} is missing"):
            measurement_id(platform, {key: value for key, value in registers.items() if key != name})
        with pytest.raises(Malformed, match=f"{length - 1} bytes"):
            measurement_id(platform, {**registers, name: bytes(length - 1)})


@given(st.integers(0, 3 * 48 * 8 - 1))
def test_every_bit_of_every_register_counts(bit: int) -> None:
    flat = bytearray(144)
    before = {"mrtd": bytes(48), "rtmr1": bytes(48), "rtmr2": bytes(48)}
    flat[bit // 8] ^= 1 << bit % 8
    after = {"mrtd": bytes(flat[:48]), "rtmr1": bytes(flat[48:96]), "rtmr2": bytes(flat[96:])}
    assert measurement_id("tdx", before) != measurement_id("tdx", after)
    assert measurement_id("tdx", before) != measurement_id("sim-tdx", before)


@given(
    st.builds(
        MeasurementRecord,
        st.sampled_from(["example.org/chat", "a"]),
        st.binary(min_size=32, max_size=32),
        st.sampled_from(["active", "revoked"]),
        st.none() | st.just(NOW),
        st.none() | st.just("sha256:" + "0f" * 32),
        st.just(NOW),
        st.integers(0, 2**53 - 1),
        st.integers(0, 2**53 - 1),
        st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
        st.just(())
        | st.just((Mark("sha256:" + "00" * 32, "match", 7), Mark("sha256:" + "11" * 32, "failed", 9))),
        st.builds(History, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32)),
    )
)
def test_a_measurement_record_is_canonical_as_it_is_written(record: MeasurementRecord) -> None:
    if record.release is None:
        record = replace(record, not_after=None)
    data = record.encode()
    assert parse_record(data) == record
    assert canonical(json.loads(data)) == data


def test_an_unknown_platform_is_refused() -> None:
    for platform in ("arm", "sim-sim-tdx", ""):
        with pytest.raises(Malformed, match="is not known"):
            measurement_id(platform, {})


def test_f1_refuses_indices_that_do_not_rise_and_times_that_cannot_be_written() -> None:
    by = Authority()
    f1 = F1(ORIGIN)
    f1.close([(0, by.genesis())], TS)
    with pytest.raises(Malformed, match="entry 0 comes after entry 0"):
        f1.close([(0, by.allocation())], TS)
    for ts in (-1, MAX_TS + 1):
        with pytest.raises(Malformed, match="log time"):
            f1.close([], ts)
    end = "9999-12-31T23:59:59Z"
    late, by = F1(ORIGIN), Authority()
    late.close(enumerate([by.genesis(expires=end), by.floor(expires=end)]), MAX_TS - 1)
    lower = by.floor(signers=["root1", "root2"], floor={**FLOOR, "evaluation_number": 1}, expires=end)
    (outcome,) = late.close([(2, lower)], MAX_TS).outcomes
    assert outcome.effect


def test_a_copy_goes_on_separately() -> None:
    by = Authority()
    f1 = F1(ORIGIN)
    f1.close(enumerate([by.genesis(), by.allocation(), by.delegation()]), TS)
    release = by.release()
    other = f1.copy()
    assert other.close([(3, release)], TS).outcomes[0].effect
    assert other.would(release, TS).code == "replay"
    assert f1.would(release, TS).effect


def test_a_notice_needs_the_role_of_its_kind_to_be_admitted() -> None:
    by = Authority()
    f1 = F1(ORIGIN)
    f1.close(enumerate([by.genesis(), by.allocation(), by.delegation(notices=("artefact",))]), TS)
    granted, other = f1.would(by.notice(), TS), f1.would(by.notice("location"), TS)
    assert (granted.code, granted.effect, granted.admissible) == ("notice", False, True)
    assert (other.code, other.admissible) == ("threshold", False)
    assert f1.would(by.release(), TS).admissible
