"""Event logs: real ones replay to real quotes, a forged one does not, and RTMR0 is held slot by slot."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation.measure import ccel, dstack
from quotary.attestation.measure.events import Event, proven_data, verify_replay
from quotary.attestation.measure.events import replay as replay_events
from quotary.attestation.measure.hob import td_hob
from quotary.attestation.measure.profiles import tdx_profile
from quotary.attestation.measure.rtmr0 import Replay, check_rtmr0, material_digests, material_of
from quotary.attestation.measure.tdvf import Section
from quotary.errors import Malformed, Refused, Rejected, Unsupported

PROFILE = tdx_profile("tdx/qemu-direct-boot+edk2-202502/v1")
SIMULATED = "tdx/simulated-direct-boot/v1"
ACPI = ("acpi-loader", "acpi-rsdp", "acpi-tables")
AREA = 1 << 16


def load(vectors: Path, name: str) -> bytes:
    return (vectors / "measure" / "tdx" / name).read_bytes()


def registers_of(quote: bytes) -> dict[str, bytes]:
    return {f"rtmr{number}": quote[48 + 328 + 48 * number :][:48] for number in range(4)}


def sections_of(vectors: Path) -> list[Section]:
    rows = json.loads(load(vectors, "td-hob.json"))["sections"]
    return [Section(0, 0, int(gpa, 16), int(size, 16), kind, 0) for gpa, size, kind in rows]


@pytest.fixture(scope="module")
def real(vectors):
    """The log of a real launch of profile A, and the registers of its quote."""
    events = dstack.parse(load(vectors, "dstack-eventlog.json"))
    return events, registers_of(load(vectors, "dstack-quote.bin"))


@pytest.fixture(scope="module")
def known(vectors, real):
    """What a release of that firmware says in its material; its TD has 64 GiB."""
    material = material_of(sections_of(vectors), b"")
    material["cfv_sha384"] = real[0][1].digest.hex()
    return material_digests({"tdx": material}, 64 << 30)


def written(events) -> bytes:
    return ccel.encode(events, AREA)


def test_real_logs_replay_to_the_published_registers_and_to_their_quotes(vectors):
    for vector in json.loads(load(vectors, "eventlogs.json"))["vectors"]:
        raw = load(vectors, vector["log"])
        events = dstack.parse(raw) if vector["log"].endswith(".json") else ccel.parse(raw)
        found = replay_events(events).registers
        for name, value in vector.get("replay", {}).items():
            assert found[name].hex() == value, vector["log"]
        if "quote" not in vector:
            continue
        quote = registers_of(load(vectors, vector["quote"]))
        if vector["expect"].startswith("RTMR0..3 replay == quote"):
            verify_replay(events, quote)
        else:
            with pytest.raises(Rejected, match="event log"):
                verify_replay(events, quote)


def test_the_hob_of_a_real_log_is_that_of_its_memory(vectors):
    first = ccel.parse(load(vectors, "ovmf-2g-ccel.bin"))[0]
    assert first.digest == hashlib.sha384(td_hob(2 << 30, sections_of(vectors))).digest()


def test_data_of_real_logs_is_what_was_hashed_where_it_can_be(vectors, real):
    events = (*ccel.parse(load(vectors, "gcp-cos113-ccel.bin")), *real[0])
    proven = 0
    for event in events:
        if event.type in (4, 0x80000001, 0x80000002, 0x80000007):
            assert hashlib.sha384(proven_data(event)).digest() == event.digest
            proven += 1
            with pytest.raises(Rejected):
                proven_data(replace(event, digest=bytes(48)))
        elif event.type in (10, 0x80000003, 0x8000000A, 0x8000000B):
            with pytest.raises(Malformed):
                proven_data(event)
    assert proven > 20
    for data in (bytes(31), bytes(33)):
        with pytest.raises(Malformed):
            proven_data(Event("rtmr0", 0x80000002, bytes(48), data))
    with pytest.raises(Malformed):
        proven_data(Event("rtmr2", 13, bytes(48), b"another loader"))
    grub = Event("rtmr2", 13, hashlib.sha384(b"linux").digest(), b"grub_cmd: linux\0")
    assert proven_data(grub) == b"linux"


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(
            Event,
            st.sampled_from(["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]),
            st.integers(1, 0xFFFFFFFF),
            st.binary(min_size=48, max_size=48),
            st.binary(max_size=40),
        ),
        max_size=8,
    )
)
def test_every_log_reads_back_as_it_was_written(events):
    assert ccel.parse(ccel.encode(events, 4096)) == tuple(events)


@settings(max_examples=60)
@given(st.integers(0, 1500), st.integers(1, 255))
def test_a_changed_byte_is_malformed_or_another_log(vectors, at, flip):
    data = load(vectors, "ovmf-2g-ccel.bin")[:4096]
    before = ccel.parse(data)
    changed = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    try:
        after = ccel.parse(changed)
    except Malformed:
        return
    # Register and padding of the first event, platform class and version of the specification are no events.
    assert after != before or at in range(4) or at in range(48, 56)


def test_every_truncation_is_malformed_or_a_shorter_log(vectors):
    data = load(vectors, "ovmf-2g-ccel.bin")[:2200]
    whole = ccel.parse(data)
    for length in range(len(data)):
        try:
            found = ccel.parse(data[:length])
        except Malformed:
            continue
        assert found == whole[: len(found)]


def test_logs_that_are_none_are_malformed():
    good = ccel.encode([Event("rtmr1", 4, bytes(48), b"\0\0\0\0")], 256)
    assert len(ccel.parse(good)) == 1
    spec = 32
    broken = {
        "type": good[:4] + b"\4" + good[5:],
        "digest": good[:8] + b"\1" + good[9:],
        "signature": good[:spec] + b"X" + good[spec + 1 :],
        "no algorithm": good[: spec + 24] + bytes(4) + good[spec + 28 :],
        "many algorithms": good[: spec + 24] + b"\6" + good[spec + 25 :],
        "unknown algorithm": good[: spec + 28] + b"\x0b" + good[spec + 29 :],
        "other length": good[: spec + 30] + b"\x31" + good[spec + 31 :],
        "vendor data": good[: spec + 32] + b"\1" + good[spec + 33 :],
        "register": good[: spec + 33] + b"\5" + good[spec + 34 :],
        "two digests": good[: spec + 41] + b"\2" + good[spec + 42 :],
        "unannounced": good[: spec + 45] + b"\x0b" + good[spec + 46 :],
        "long data": good[: spec + 95] + b"\xff" + good[spec + 96 :],
        "behind the end": good[:-1] + b"\0",
        "too long": bytes(ccel.MAX_LOG + 1),
        "empty": b"",
    }
    for what, data in broken.items():
        with pytest.raises(Malformed):
            print(what, ccel.parse(data))
    for events in ([Event("rtmr9", 4, bytes(48), b"")], [Event("rtmr0", 4, b"", b"")]):
        with pytest.raises(Malformed):
            ccel.encode(events, 256)
    with pytest.raises(Malformed):
        ccel.encode([], 16)


def test_a_log_is_bounded_and_may_be_padded_with_zeros(monkeypatch):
    event = Event("rtmr1", 4, bytes(48), b"")
    data = ccel.encode([event, event], 256)
    zeros = data.rstrip(b"\xff").ljust(256, b"\0")
    assert ccel.parse(zeros) == (event, event)
    monkeypatch.setattr(ccel, "MAX_EVENTS", 1)
    with pytest.raises(Malformed, match="more than"):
        ccel.parse(data)


def test_an_event_that_extends_mrtd_is_malformed_and_no_action_extends_nothing():
    with pytest.raises(Malformed):
        replay_events([Event("mrtd", 4, bytes(48), b"")])
    assert replay_events([Event("mrtd", 3, bytes(48), b"")]).registers["rtmr0"] == bytes(48)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"{}",
        b"[1]",
        b'[{"event":1,"event_type":4}]',
        b'[{"imr":4,"event_type":4,"event":"","event_payload":"","digest":"' + b"00" * 48 + b'"}]',
        b'[{"imr":3,"event_type":134217729,"event":"a","event_payload":"","digest":"' + b"00" * 48 + b'"}]',
        b" " * ((4 << 20) + 1),
    ],
)
def test_json_that_is_no_log_is_malformed(data):
    with pytest.raises(Malformed):
        dstack.parse(data)


def test_rtmr0_of_a_real_launch_is_explained_with_the_acpi_slots_free(real, known):
    events, registers = real
    check = check_rtmr0(registers, ACPI, Replay(written(events), PROFILE, known))
    assert check.found == registers["rtmr0"].hex()
    assert "acpi-tables" in check.wanted


def rebuilt(events, at: int, event: Event):
    """The log with one event exchanged, and the registers that it replays to: the hardware of a liar."""
    changed = [*events[:at], event, *events[at + 1 :]]
    return changed, replay_events(changed).registers


def test_any_other_event_in_a_slot_that_is_not_free_is_rejected(real, known):
    events, _ = real
    slots = [number for number, event in enumerate(events) if event.register == "rtmr0"]
    for name, at in zip(PROFILE.rtmr0, slots, strict=True):
        other = replace(events[at], digest=hashlib.sha384(b"another").digest())
        changed, registers = rebuilt(events, at, other)
        attempt = Replay(written(changed), PROFILE, known)
        if name in ACPI:
            assert check_rtmr0(registers, ACPI, attempt)
            continue
        with pytest.raises(Rejected, match=name):
            check_rtmr0(registers, ACPI, attempt)
        assert check_rtmr0(registers, (*ACPI, name), attempt)


def test_data_that_are_not_what_was_measured_are_rejected(real, known):
    events, registers = real
    at = next(number for number, event in enumerate(events) if event.type == 4)
    changed, same = rebuilt(events, at, replace(events[at], data=b"\1\0\0\0"))
    assert same == registers
    with pytest.raises(Rejected, match="event data"):
        check_rtmr0(registers, ACPI, Replay(written(changed), PROFILE, known))


def test_an_event_too_many_or_too_few_or_another_order_is_rejected(real, known):
    events, _ = real
    lists = ([*events, events[0]], events[1:], [events[1], events[0], *events[2:]])
    for changed in lists:
        registers = replay_events(changed).registers
        with pytest.raises(Rejected, match="rtmr0"):
            check_rtmr0(registers, ACPI, Replay(written(changed), PROFILE, known))


def test_a_log_that_is_not_of_this_machine_is_rejected(real, known):
    events, registers = real
    for name in registers:
        with pytest.raises(Rejected, match="event log"):
            check_rtmr0({**registers, name: bytes(47) + b"\1"}, ACPI, Replay(written(events), PROFILE, known))


def test_without_a_log_a_known_slot_or_sense_nothing_is_accepted(real, known):
    events, registers = real
    for absent in (None, Replay(None, PROFILE, known)):
        with pytest.raises(Refused, match="event log"):
            check_rtmr0(registers, ACPI, absent)
    with pytest.raises(Unsupported, match="td-hob"):
        check_rtmr0(registers, ACPI, Replay(written(events), PROFILE, {}))
    with pytest.raises(Unsupported, match="acpi-loader"):
        check_rtmr0(registers, (), Replay(written(events), PROFILE, {**known, "acpi-loader": b""}))
    # A machine without ACPI tables has three events of nothing, and they are not free.
    with pytest.raises(Rejected, match="acpi-loader"):
        check_rtmr0(registers, (), Replay(written(events), tdx_profile(SIMULATED), known))
    with pytest.raises(Malformed, match="frees"):
        check_rtmr0(registers, ("kernel",), Replay(written(events), PROFILE, known))
    with pytest.raises(Malformed):
        check_rtmr0(registers, ACPI, Replay(b"\0", PROFILE, known))


def test_material_gives_the_firmware_events_and_bad_material_is_malformed(vectors):
    sections = sections_of(vectors)
    material = material_of(sections, b"volume")
    found = material_digests({"tdx": material}, 2 << 30)
    assert found["cfv"] == hashlib.sha384(b"volume").digest()
    assert found["td-hob"] == hashlib.sha384(td_hob(2 << 30, sections)).digest()
    assert set(material_digests({"tdx": material}, None)) == {"cfv"}
    assert material_digests({}, 2 << 30) == {}
    for wrong in (
        1,
        {},
        material | {"more": 1},
        material | {"sections": [[1, 2, 3]]},
        material | {"sections": ["x"]},
        material | {"sections": [["0" * 16, "0" * 16]]},
        material | {"sections": [["0x" + "0" * 14, "0" * 16, 2]]},
    ):
        with pytest.raises(Malformed):
            material_digests({"tdx": wrong}, 2 << 30)
