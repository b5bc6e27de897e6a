"""All devices of one machine: the list, the nonces, and that no device of another machine is among them."""

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import devices, spdm
from quotary.attestation.devices import (
    DeviceEvidence,
    meet_floor,
    meet_rules,
    mode,
    parse_evidence,
    require_one_machine,
    verify_devices,
    version_number,
)
from quotary.attestation.nvidia import DeviceFacts
from quotary.attestation.roots import VENDOR_ROOTS, simulator_root
from quotary.errors import Malformed, Refused, Rejected
from tests.attestation.test_nvidia import LISTS, NOW
from tests.fakes import nvidia as fake


@dataclass(frozen=True)
class Rule:
    architecture: str = "gh100"
    count: int = 8
    drivers: tuple[str, ...] = ("580.159.03",)
    vbios: tuple[str, ...] = ("96.00.74.00.20",)


SWITCHES = Rule("ls10", 4, ("none",), ("96.10.55.00.01",))
RULES = (Rule(), SWITCHES)

ROOT = fake.issue("NVIDIA Device Identity CA", organisation="NVIDIA")
ROOTS = (simulator_root("nvidia", fake.fingerprint(ROOT)),)


@pytest.fixture(scope="module")
def ours() -> fake.Machine:
    return fake.machine(ROOT, 1)


@pytest.fixture(scope="module")
def theirs() -> fake.Machine:
    return fake.machine(ROOT, 2)


def nonces(count: int) -> list[bytes]:
    return [bytes([index + 1]) * 32 for index in range(count)]


def judged(*found: fake.Device) -> tuple[DeviceFacts, ...]:
    list_ = parse_evidence(fake.evidence_list(list(found), nonces(len(found))))
    return verify_devices(list_, nonces(len(found)), (), fake.NOW, ROOTS)


@pytest.fixture(scope="module")
def our_facts(ours: fake.Machine) -> tuple[DeviceFacts, ...]:
    return judged(*ours.gpus, *ours.switches)


@pytest.fixture(scope="module")
def their_facts(theirs: fake.Machine) -> tuple[DeviceFacts, ...]:
    return judged(*theirs.gpus, *theirs.switches)


@pytest.mark.parametrize("name", LISTS)
def test_real_lists_are_read(vectors: Path, name: str) -> None:
    found = parse_evidence((vectors / "nvidia" / f"{name}.json").read_bytes())
    assert len(found) == LISTS[name]


def test_a_real_list_that_shows_one_switch_four_times_is_refused(vectors: Path) -> None:
    found = parse_evidence((vectors / "nvidia" / "switch-ls10-multi-sdk.json").read_bytes())
    with pytest.raises(Rejected, match=r"device identity: found .* twice"):
        verify_devices(found, [item.report.nonce for item in found], (), NOW, VENDOR_ROOTS)
    assert verify_devices(found[:1], [found[0].report.nonce], (), NOW, VENDOR_ROOTS)[0].kind == "switch"


def test_one_machine_is_one_machine(our_facts: tuple[DeviceFacts, ...]) -> None:
    (check,) = require_one_machine(our_facts, 4)
    assert check.found == "8 GPUs on 4 switches"
    assert require_one_machine(our_facts[:8], 0)


def test_a_spliced_gpu_is_refused_with_and_without_switches(our_facts, their_facts) -> None:
    spliced = (their_facts[0], *our_facts[1:])
    with pytest.raises(Rejected, match="gpu links: found 2 sets"):
        require_one_machine(spliced, 4)
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine(spliced[:8], 0)


def test_all_gpus_of_another_machine_are_refused_by_the_switches(our_facts, their_facts) -> None:
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine((*their_facts[:8], *our_facts[8:]), 4)


def test_one_switch_of_another_machine_is_refused(our_facts, their_facts) -> None:
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine((*our_facts[:11], their_facts[11]), 4)


def test_a_gpu_that_is_left_out_is_missed_by_the_switches(our_facts) -> None:
    with pytest.raises(Rejected, match="switch gpus"):
        require_one_machine(our_facts[1:], 4)


def test_a_switch_that_lists_other_gpus_is_refused(our_facts) -> None:
    other = replace(our_facts[8], gpus=our_facts[8].gpus[1:])
    with pytest.raises(Rejected, match="switch gpus"):
        require_one_machine((*our_facts[:8], other, *our_facts[9:]), 4)


@pytest.mark.parametrize("switches", [0, 3, 5])
def test_switches_are_counted(our_facts, switches: int) -> None:
    with pytest.raises(Refused, match="switch count"):
        require_one_machine(our_facts, switches)


def test_a_switch_that_is_left_out_is_missed_by_the_gpus(our_facts) -> None:
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine(our_facts[:11], 3)


def test_gpus_that_report_no_links_prove_nothing(our_facts) -> None:
    silent = tuple(replace(device, links=()) for device in our_facts[:8])
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine(silent, 0)
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine((), 0)
    with pytest.raises(Rejected, match="gpu links"):
        require_one_machine(our_facts[8:], 4)


def test_each_device_is_there_once(ours: fake.Machine) -> None:
    with pytest.raises(Rejected, match="device identity"):
        judged(ours.gpus[0], ours.gpus[0])


def test_one_pdi_under_two_leaves_is_one_device() -> None:
    authority = fake.authority("GH100", ROOT)
    twins = [fake.device(authority, b"\1" * 8), fake.device(authority, b"\1" * 8)]
    assert twins[0].chain[0].certificate != twins[1].chain[0].certificate
    with pytest.raises(Rejected, match="device identity"):
        judged(*twins)


def test_each_device_answers_the_nonce_of_its_place(ours: fake.Machine) -> None:
    found = parse_evidence(fake.evidence_list(list(ours.gpus[:2]), nonces(2)))
    with pytest.raises(Rejected, match="device nonce"):
        verify_devices(found[::-1], nonces(2), (), fake.NOW, ROOTS)
    with pytest.raises(Rejected, match="device count"):
        verify_devices(found, nonces(3), (), fake.NOW, ROOTS)
    with pytest.raises(Rejected, match="device count"):
        verify_devices((), nonces(1), (), fake.NOW, ROOTS)


def test_a_list_is_bounded_and_names_each_member_once() -> None:
    member = fake.device(fake.authority(), bytes(8)).evidence()

    def listed(**changes: bytes) -> bytes:
        return json.dumps([member | {name: encoded(value) for name, value in changes.items()}]).encode()

    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode()

    assert len(parse_evidence(listed())) == 1
    for data, said in (
        (bytes(devices.MAX_EVIDENCE + 1), "at most 1048576"),
        (json.dumps([{}] * (devices.MAX_DEVICES + 1)).encode(), "list of 1 to 64 devices"),
        (listed(certificate=bytes(devices.MAX_CHAIN + 1)), "longer than 16384 bytes"),
        (listed(certificate=b"\xff"), "or no text"),
        (listed().replace(b'"arch": "HOPPER"', b'"arch": "HOPPER", "arch": "HOPPER"'), "a member twice"),
    ):
        with pytest.raises(Malformed, match=said):
            parse_evidence(data)


def test_a_row_is_met_by_the_gpus_it_names(our_facts) -> None:
    (check,) = meet_rules(our_facts, RULES, ["protected-pcie"], "any")
    assert check.found == "8 gh100, 4 ls10"


@pytest.mark.parametrize(
    ("rule", "modes", "check"),
    [
        (Rule(count=7), ["protected-pcie"], "device count"),
        (Rule(architecture="gb100"), ["protected-pcie"], "device architecture"),
        (Rule(drivers=("580.159.04",)), ["protected-pcie"], "driver version"),
        (Rule(drivers=()), ["protected-pcie"], "driver version"),
        (Rule(vbios=("96.00.74.00.21",)), ["protected-pcie"], "vbios version"),
        (Rule(), ["single-gpu"], "device mode"),
        (Rule(), [], "device mode"),
    ],
)
def test_a_row_that_is_not_met_is_refused_by_name(our_facts, rule: Rule, modes, check: str) -> None:
    with pytest.raises(Refused) as caught:
        meet_rules(our_facts, (rule, SWITCHES), modes, "any")
    assert caught.value.check == check


def test_a_row_may_demand_that_the_vendor_answered_for_every_device(our_facts) -> None:
    with pytest.raises(Refused, match="nothing about") as caught:
        meet_rules(our_facts, RULES, ["protected-pcie"], "required")
    assert caught.value.check == "device revocation"
    answered = [replace(device, good_until=fake.NOW) for device in our_facts]
    assert meet_rules(answered, RULES, ["protected-pcie"], "required")
    with pytest.raises(Refused, match=f"nothing about {our_facts[-1].serial}"):
        meet_rules([*answered[:-1], our_facts[-1]], RULES, ["protected-pcie"], "required")


@dataclass(frozen=True)
class Floor:
    minimum: dict[str, int | bytes]
    evaluation_number: int = 0
    accepted_status: tuple[str, ...] = ("none",)
    grace_seconds: int = 0
    denied_advisories: tuple[str, ...] = ()
    denied_families: tuple[str, ...] = ()
    denied_chips: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("name", "reached", "missed"),
    [("driver", 580_159_003, 580_159_004), ("vbios", 0x9600740020, 0x9600740021)],
)
def test_a_floor_is_the_least_version_of_driver_and_vbios(
    our_facts, name: str, reached: int, missed: int
) -> None:
    assert meet_floor(our_facts[:8], Floor({name: reached}))
    with pytest.raises(Refused, match=f"tcb minimum: found {name} {reached}, wanted at least {missed}"):
        meet_floor(our_facts[:8], Floor({name: missed}))


def test_what_a_device_does_not_report_reaches_no_floor(our_facts) -> None:
    odd = [replace(our_facts[0], driver="580.r1", vbios="96.00")]
    for found, minimum in (
        (our_facts[8:], {"driver": 0}),
        (our_facts[:8], {"firmware": 0}),
        (our_facts[:8], {"vbios": bytes(5)}),
        (odd, {"driver": 0}),
        (odd, {"vbios": 0}),
    ):
        with pytest.raises(Refused) as caught:
            meet_floor(found, Floor(minimum))
        assert caught.value.check == "tcb minimum"


@pytest.mark.parametrize(
    ("version", "number"),
    [("545.00", 545_000_000), ("580.95.05", 580_095_005), ("580", None), ("580.1.2.3", None), ("٥.1", None)],
)
def test_versions_are_numbers_that_have_their_order(our_facts, version: str, number: int | None) -> None:
    assert version_number(replace(our_facts[0], driver=version), "driver") == number


def test_a_floor_denies_devices_by_name(our_facts) -> None:
    assert meet_floor(our_facts, Floor({}, denied_families=("gb100",), denied_chips=("00",)))
    for floor, check in (
        (Floor({}, denied_families=("ls10",)), "denied family"),
        (Floor({}, denied_chips=(our_facts[3].serial,)), "denied chip"),
        (Floor({}, denied_chips=(our_facts[11].pdi.hex(),)), "denied chip"),
        (Floor({}, evaluation_number=1), "tcb evaluation number"),
        (Floor({}, accepted_status=("UpToDate",)), "tcb status"),
    ):
        with pytest.raises(Refused) as caught:
            meet_floor(our_facts, floor)
        assert caught.value.check == check


@pytest.mark.parametrize(
    ("flag", "protected", "wanted"),
    [
        (b"\0\0", b"\x55", "single-gpu"),
        (b"\0\0", None, "single-gpu"),
        (b"\1\0", None, "multi-gpu"),
        (b"\2\0", b"\xaa", "protected-pcie"),
        (b"\2\0", b"\x55", "unknown"),
        (b"\2\0", None, "unknown"),
        (b"\0\0", b"\xaa", "unknown"),
        (b"\3\0", b"\x55", "unknown"),
        (None, b"\xaa", "protected-pcie"),
        (None, b"\x55", "unreported"),
        (None, None, "unreported"),
    ],
)
def test_the_mode_needs_both_fields_to_agree(our_facts, flag, protected, wanted: str) -> None:
    opaque = {spdm.FEATURE_FLAG: flag, spdm.PROTECTED_PCIE: protected}
    found = replace(our_facts[0], opaque={kind: value for kind, value in opaque.items() if value is not None})
    assert mode(found) == wanted


def member(ours: fake.Machine, **changes: object) -> dict[str, object]:
    return {**ours.gpus[0].evidence(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": 5},
        {"certificate": "x"},
        {"certificate": "AAAA"},
        {"certificate": "/////w=="},
        {"certificate": "A" * 30_000},
        {"evidence": "AAAA"},
        {"evidence": None},
        {"more": "x"},
    ],
)
def test_a_member_of_another_kind_is_malformed(ours: fake.Machine, changes) -> None:
    with pytest.raises(Malformed):
        parse_evidence(json.dumps([member(ours, **changes)]).encode())


@pytest.mark.parametrize("name", ["arch", "certificate", "evidence", "nonce"])
def test_a_member_is_there_or_the_list_is_malformed(ours: fake.Machine, name: str) -> None:
    found = member(ours)
    del found[name]
    with pytest.raises(Malformed):
        parse_evidence(json.dumps([found]).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b"5",
        b"[]",
        b"[1]",
        b"[[]]",
        b"[NaN]",
        b"[Infinity]",
        b'[{"a":1,"a":1}]',
        b"[" * 100_000,
        b"[" + b"1" * 5000 + b"]",
        b" " * (devices.MAX_EVIDENCE + 1),
        json.dumps([{}] * 65).encode(),
    ],
)
def test_another_list_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_evidence(data)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_bytes_from_anywhere_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_evidence(data)


def test_labels_beside_evidence_are_not_believed(ours: fake.Machine) -> None:
    honest = parse_evidence(json.dumps([member(ours)]).encode())
    (labelled,) = parse_evidence(json.dumps([member(ours, arch="BLACKWELL", nonce="00")]).encode())
    assert isinstance(labelled, DeviceEvidence)
    assert (
        verify_devices([labelled], [honest[0].report.nonce], (), fake.NOW, ROOTS)[0].architecture == "GH100"
    )
