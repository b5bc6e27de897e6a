"""Step 11 with a row whose RTMR0 is replayed: the machine's event log decides, and only with the release."""

import hashlib
from dataclasses import replace

import pytest

from quotary.attestation.measure import ccel
from quotary.attestation.measure.events import Event
from quotary.attestation.measure.events import replay as replay_events
from quotary.attestation.measure.hob import td_hob
from quotary.attestation.measure.profiles import profile_sha256, tdx_profile
from quotary.attestation.measure.rtmr0 import material_of
from quotary.attestation.measure.tdvf import TD_HOB, Section
from quotary.attestation.measure.tdx import (
    _GLOBAL,
    _VARIABLES,
    ACPI_BLOBS,
    empty_variable,
    fixed_digest,
    sha384,
)
from quotary.errors import Judged, Malformed, Refused, Rejected, Unsupported
from quotary.statements.measurement import measurement_id
from simulator.pki import PKI
from simulator.tdx import Platform, Registers
from tests.fakes.attempt import Attempt
from tests.fakes.machine import FLOOR, PRODUCT, World

NAME = "tdx/qemu-direct-boot/edk2-202502/v1"
MEMORY = 1 << 30
SECTIONS = [Section(0, 0, 0x809000, 0x2000, 0, 0), Section(0, 0, 0x810000, 0x2000, TD_HOB, 0)]
MATERIAL = {"tdx": material_of(SECTIONS, b"volume")}


def events() -> list[Event]:
    profile = tdx_profile(NAME)
    given = {"td-hob": sha384(td_hob(MEMORY, SECTIONS)), "cfv": sha384(b"volume")}
    found = []
    for name in profile.rtmr0:
        digest = fixed_digest(name, profile) or given.get(name) or sha384(name.encode())
        found.append(Event("rtmr0", 10, digest, b"ACPI DATA"))
    return [*found, Event("rtmr1", 10, sha384(b"kernel"), b""), Event("rtmr2", 10, sha384(b"line"), b"")]


def described() -> list[Event]:
    """The events with the data that firmware logs where the digest is of them."""
    profile, found = tdx_profile(NAME), events()
    for number, name in enumerate(profile.rtmr0):
        if name in _VARIABLES:
            data = empty_variable(name, _VARIABLES[name])
            found[number] = replace(found[number], type=0x80000001, data=data)
        elif name == "separator":
            found[number] = replace(found[number], type=4, data=bytes(4))
        elif name in profile.data:
            value = profile.data[name]
            head = _GLOBAL.bytes_le + (1).to_bytes(8, "little") + len(value).to_bytes(8, "little")
            found[number] = replace(found[number], type=0x80000002, data=head + b"B\0" + value)
    return found


def attempt_of(vendor: tuple[PKI, Platform], log: list[Event], **changes: object) -> Attempt:
    """A machine that booted with these events, and a release whose row replays RTMR0."""
    registers = {**replay_events(log).registers, "mrtd": hashlib.sha384(b"firmware").digest()}
    row = {
        "platform": "sim-tdx",
        "profile": NAME,
        "profile_sha256": profile_sha256(NAME).hex(),
        "registers": {name: registers[name].hex() for name in ("mrtd", "rtmr1", "rtmr2")},
        "require": {
            "configuration": "none",
            "guest": ["acpi-sandbox"],
            "rtmr0": {"replay": {"free": sorted(ACPI_BLOBS)}},
        },
        "shape": {"memory_bytes": MEMORY},
        **changes,
    }
    world = World(*vendor)
    maker = world.log.maker
    world.log.append(
        maker.genesis(), maker.allocation(), maker.delegation(), maker.floor(product=PRODUCT, floor=FLOOR)
    )
    world.log.append(maker.release(rows=[row], material=MATERIAL))
    world.log.close(world.ts)
    document = world.document(found=Registers(**registers))
    identity = measurement_id("sim-tdx", registers)
    attempt = Attempt(world, document, world.log.bundle(identity, ts=world.ts), world.policy(), world.now)
    attempt.policy["rebuilders"] = "none"
    attempt.change_document(event_log=ccel.encode(log, 1 << 14))
    return attempt


def refused(attempt: Attempt, error: type[Judged]) -> str:
    with pytest.raises(error) as found:
        attempt.judge()
    return str(found.value)


def test_a_machine_whose_log_explains_rtmr0_is_accepted(vendor: tuple[PKI, Platform]) -> None:
    verdict = attempt_of(vendor, described()).judge()
    assert any("replayed" in check.wanted for check in verdict.checks)


def test_a_machine_without_its_log_is_refused(vendor: tuple[PKI, Platform]) -> None:
    attempt = attempt_of(vendor, described())
    attempt.change_document(event_log=None)
    assert "event log" in refused(attempt, Refused)


def test_a_log_of_another_boot_is_rejected(vendor: tuple[PKI, Platform]) -> None:
    attempt = attempt_of(vendor, described())
    other = [*described()[:-1], Event("rtmr2", 10, sha384(b"init=/bin/sh"), b"")]
    attempt.change_document(event_log=ccel.encode(other, 1 << 14))
    assert "event log" in refused(attempt, Rejected)


@pytest.mark.parametrize("name", ["td-hob", "cfv", "SecureBoot", "Boot0000"])
def test_a_boot_that_measured_something_else_is_rejected(vendor: tuple[PKI, Platform], name: str) -> None:
    changed = described()
    at = tdx_profile(NAME).rtmr0.index(name)
    changed[at] = replace(changed[at], digest=sha384(b"another"))
    assert name in refused(attempt_of(vendor, changed), Rejected)


@pytest.mark.parametrize("name", ["separator", "SecureBoot", "Boot0000"])
def test_data_that_the_event_was_not_measured_over_are_rejected(
    vendor: tuple[PKI, Platform], name: str
) -> None:
    # The digests are those of the profile, so the registers agree; what the log says beside them is a lie.
    log = described()
    at = tdx_profile(NAME).rtmr0.index(name)
    log[at] = replace(log[at], data=log[at].data[:-1] + b"\x07")
    assert "event data" in refused(attempt_of(vendor, log), Rejected)


def test_an_event_too_many_or_too_few_is_rejected(vendor: tuple[PKI, Platform]) -> None:
    log = described()
    for other in ([log[0], *log], log[1:]):
        assert "events" in refused(attempt_of(vendor, other), Rejected)


def test_a_row_frees_only_events_that_its_profile_has(vendor: tuple[PKI, Platform]) -> None:
    require = {"configuration": "none", "rtmr0": {"replay": {"free": ["grub"]}}}
    with pytest.raises(Malformed, match="grub"):
        attempt_of(vendor, described(), require=require).judge()


def test_acpi_tables_are_free_where_the_row_says_so(vendor: tuple[PKI, Platform]) -> None:
    changed = described()
    at = tdx_profile(NAME).rtmr0.index("acpi-tables")
    changed[at] = replace(changed[at], digest=sha384(b"another machine's"))
    assert attempt_of(vendor, changed).judge()
    strict = {"configuration": "none", "guest": ["acpi-sandbox"], "rtmr0": {"replay": {"free": ["td-hob"]}}}
    with pytest.raises(Unsupported, match="acpi-loader"):
        attempt_of(vendor, changed, require=strict).judge()


def test_a_profile_or_shape_that_does_not_say_enough_is_unsupported(vendor: tuple[PKI, Platform]) -> None:
    with pytest.raises(Unsupported, match="not the one"):
        attempt_of(vendor, described(), profile_sha256="00" * 32).judge()
    with pytest.raises(Unsupported, match="does not measure"):
        attempt_of(vendor, described(), profile="process/v1").judge()
    with pytest.raises(Unsupported, match="td-hob"):
        attempt_of(vendor, described(), shape={"vcpus": 1}).judge()
    attempt = attempt_of(vendor, described())
    attempt.change_document(event_log=b"no log")
    with pytest.raises(Malformed):
        attempt.judge()
