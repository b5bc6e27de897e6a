"""GPUs and switches beside the CPU: what a row demands is proven together, and everything foreign is refused."""

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from quotary.attestation.binding import gpu_nonce, keyset_digest
from quotary.canonical import time_text
from quotary.client.clock import FixedClock
from quotary.client.devices import require_devices
from quotary.client.files import EvidenceFile, verify_file
from quotary.client.policy import Policy
from quotary.client.standing import Times
from quotary.client.verdict import NAMES, Trail
from quotary.errors import Judged, Malformed, Refused, Rejected
from quotary.statements.row import parse_row
from simulator.nvidia import Device, NVIDIAMachine, NVIDIAVendor, open_nvidia_vendor
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.gpus import GPUs, device_floor, nvidia_vendor
from tests.fakes.log import policy_bytes, tlog_policy
from tests.fakes.machine import SEED, World, keyset

Hardware = tuple[PKI, Platform]
Change = Callable[[Attempt], object]


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> NVIDIAVendor:
    return nvidia_vendor(tmp_path_factory.mktemp("nvidia"))


@pytest.fixture(scope="module")
def boxes(nvidia: NVIDIAVendor) -> tuple[GPUs, GPUs]:
    """Two machines with eight GPUs and four switches each."""
    return GPUs.of(nvidia, 8, 4, number=1), GPUs.of(nvidia, 8, 4, number=2)


@pytest.fixture
def attempt(vendor: Hardware, boxes: tuple[GPUs, GPUs]) -> Attempt:
    return Attempt.of(World(*vendor, gpus=boxes[0]).publish())


def box_of(devices: Sequence[Device], machine: NVIDIAMachine) -> GPUs:
    """Any devices as if they were one machine's."""
    shown = copy(machine)
    shown.devices = tuple(devices)
    return GPUs(shown)


def show(attempt: Attempt, devices: Sequence[Device]) -> None:
    """Let the measured enclave present these devices: the CPU's quote hashes their evidence."""
    assert attempt.world.gpus is not None
    box = box_of(devices, attempt.world.gpus.machine)
    present(attempt, box.evidence(keyset_digest(attempt.document.keyset)))
    attempt.change_document(device_collateral=box.collateral(attempt.now))


def present(attempt: Attempt, evidence: bytes) -> None:
    collateral = attempt.document.device_collateral
    attempt.document = attempt.world.document(devices=evidence)
    attempt.change_document(device_collateral=collateral)


def refused(attempt: Attempt, kind: type[Judged]) -> str:
    """Judge, require that the step refuses, after everything before it held, and give what was found."""
    with pytest.raises(kind) as raised:
        attempt.judge()
    assert (type(raised.value), raised.value.check) == (kind, "devices")
    *before, last = attempt.trail.checks
    assert (last.name, last.outcome) == ("devices", "failed")
    assert "failed" not in {check.outcome for check in before}
    return raised.value.found


@pytest.mark.parametrize(("gpus", "switches"), [(1, 0), (8, 4)])
def test_a_machine_with_the_devices_of_its_row_is_accepted(
    vendor: Hardware, nvidia: NVIDIAVendor, gpus: int, switches: int
) -> None:
    attempt = Attempt.of(World(*vendor, gpus=GPUs.of(nvidia, gpus, switches)).publish())
    verdict = attempt.judge()
    outcomes = {check.name: check.outcome for check in verdict.checks}
    assert {name for name in outcomes if ":" not in name} == NAMES
    # What no field of a device's report says is never shown as if it held.
    assert [name for name, outcome in outcomes.items() if outcome != "ok"] == ["devices: confidential mode"]
    assert outcomes["devices: 0 GH100: device signature"] == "ok"
    assert outcomes["devices: 0 GH100: golden values"] == "ok"
    assert outcomes["devices: floor of gh100 (log): tcb minimum"] == "ok"
    assert ("devices: one machine" in outcomes) == (gpus > 1)
    assert ("devices: floor of ls10 (policy): tcb minimum" in outcomes) == (switches > 0)


def test_the_verdict_can_be_repeated_offline_at_its_time(attempt: Attempt) -> None:
    kept = EvidenceFile(
        attempt.document.encode(), attempt.bundle.encode(), attempt.nonce, None, attempt.now
    ).encode()
    policy = Policy.parse(policy_bytes(attempt.policy))
    verdict = verify_file(EvidenceFile.parse(kept), policy)
    assert verdict.checks[:-1] == attempt.judge().checks


# What is foreign, old, twice or missing


def splice_a_gpu(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, [*ours[:7], theirs[7], *ours[8:]])


def take_a_switch_of_another_box(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, [*ours[:11], theirs[11]])


def take_all_gpus_of_another_box(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, [*theirs[:8], *ours[8:]])


def leave_a_gpu_out(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, ours[1:])


def leave_a_switch_out(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, ours[:11])


def show_a_gpu_twice(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, [ours[0], ours[0], *ours[2:]])


def swap_two(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    assert attempt.world.gpus is not None
    keys, order = keyset_digest(attempt.document.keyset), [1, 0, *range(2, 12)]
    box = box_of([ours[at] for at in order], attempt.world.gpus.machine)
    present(attempt, box.machine.evidence([gpu_nonce(keys, at) for at in order]))


def replay_another_keysets_evidence(
    attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]
) -> None:
    assert attempt.world.gpus is not None
    other = keyset_digest(keyset(b"\x01" * 1216).encode())
    present(attempt, attempt.world.gpus.evidence(other))


def change_its_firmware(attempt: Attempt, ours: Sequence[Device], theirs: Sequence[Device]) -> None:
    show(attempt, [replace(ours[0], blocks=(bytes(48), *ours[0].blocks[1:])), *ours[1:]])


@pytest.mark.parametrize(
    ("change", "kind", "check"),
    [
        (splice_a_gpu, Rejected, "gpu links"),
        (take_a_switch_of_another_box, Rejected, "gpu links"),
        (take_all_gpus_of_another_box, Rejected, "gpu links"),
        (leave_a_gpu_out, Refused, "device count"),
        (leave_a_switch_out, Refused, "device count"),
        (show_a_gpu_twice, Rejected, "device identity"),
        (swap_two, Rejected, "device nonce"),
        (replay_another_keysets_evidence, Rejected, "device nonce"),
        (change_its_firmware, Rejected, "golden values"),
    ],
)
def test_devices_that_are_not_this_machines_for_these_keys_are_refused(
    attempt: Attempt, boxes: tuple[GPUs, GPUs], change: Any, kind: type[Judged], check: str
) -> None:
    ours, theirs = (box.machine.devices for box in boxes)
    change(attempt, ours, theirs)
    assert refused(attempt, kind).startswith(f"{check}: ")


def test_evidence_that_is_swapped_behind_the_quote_is_not_bound(
    attempt: Attempt, boxes: tuple[GPUs, GPUs]
) -> None:
    keys = keyset_digest(attempt.document.keyset)
    attempt.change_document(devices=boxes[1].evidence(keys))
    with pytest.raises(Rejected, match="as bound") as raised:
        attempt.judge()
    assert raised.value.check == "binding"


def test_a_gpu_that_the_row_does_not_demand_is_refused(vendor: Hardware, nvidia: NVIDIAVendor) -> None:
    attempt = Attempt.of(World(*vendor, gpus=GPUs.of(nvidia, 1, 0)).publish())
    show(attempt, GPUs.of(nvidia, 2, 1).machine.devices)
    assert refused(attempt, Refused) == "device architecture: ls10"
    show(attempt, GPUs.of(nvidia, 2, 0).machine.devices)
    attempt.trail = Trail()
    assert refused(attempt, Refused) == "device count: 2 gh100"


def test_gpus_that_are_not_linked_are_not_one_machine(vendor: Hardware, nvidia: NVIDIAVendor) -> None:
    attempt = Attempt.of(World(*vendor, gpus=GPUs.of(nvidia, 2, 0)).publish())
    assert refused(attempt, Rejected).startswith("gpu links: ")


# What the policy wants to know


def demand_no_devices(attempt: Attempt) -> None:
    del attempt.policy["devices"]


def present_none(attempt: Attempt) -> None:
    attempt.world = replace(attempt.world, gpus=None)
    attempt.document = attempt.world.document()


def admit_another_vendor(attempt: Attempt) -> None:
    attempt.policy["devices"]["simulator_root_sha256"] = "ab" * 32


def admit_another_publisher(attempt: Attempt) -> None:
    attempt.policy["devices"]["simulator_rim_root_sha256"] = "ab" * 32


def admit_single_gpus_only(attempt: Attempt) -> None:
    attempt.policy["devices"]["modes"] = ["single-gpu"]


def raise_the_driver_floor(attempt: Attempt) -> None:
    floor = device_floor(minimum={"driver": 999_001_002})
    attempt.policy["devices"]["floors"]["gh100"] = floor


def raise_the_switch_floor(attempt: Attempt) -> None:
    attempt.policy["devices"]["floors"]["ls10"] = device_floor(minimum={"vbios": 0x9910000002})


def have_no_floor_for_switches(attempt: Attempt) -> None:
    del attempt.policy["devices"]["floors"]["ls10"]


def deny_a_chip(attempt: Attempt) -> None:
    assert attempt.world.gpus is not None
    leaf = attempt.world.gpus.machine.devices[3].chain[0].certificate
    denied = device_floor(denied_chips=[f"{leaf.serial_number:x}"])
    attempt.policy["devices"]["floors"]["gh100"] = denied


def admit_all_but_one(attempt: Attempt) -> None:
    assert attempt.world.gpus is not None
    leaves = [device.chain[0].certificate for device in attempt.world.gpus.machine.devices]
    attempt.policy["devices"]["machines"] = sorted(f"{leaf.serial_number:x}" for leaf in leaves[1:])


def lose(prefix: str) -> Change:
    def change(attempt: Attempt) -> None:
        kept = {
            name: text
            for name, text in attempt.document.device_collateral.items()
            if not name.startswith(prefix)
        }
        attempt.change_document(device_collateral=kept)

    return change


def lose_the_answers_about_manifests(attempt: Attempt) -> None:
    assert attempt.world.gpus is not None
    vendor = attempt.world.gpus.machine.vendor
    for signer in (vendor.rim_signer, vendor.rim_ca):
        lose(f"ocsp:{signer.certificate.serial_number:x}")(attempt)


def show_answers_of_yesterday(attempt: Attempt) -> None:
    assert attempt.world.gpus is not None
    old = attempt.world.gpus.collateral(attempt.now - timedelta(hours=24, minutes=1))
    attempt.change_document(device_collateral=old)


def lose_the_floors(attempt: Attempt) -> None:
    attempt.change_bundle(records=attempt.bundle.records[:3])  # type: ignore[union-attr]


def let_the_floors_end(attempt: Attempt) -> None:
    world = attempt.world
    assert world.gpus is not None
    ends = time_text(world.now + timedelta(seconds=60))
    floor = world.gpus.floors["gh100"]
    world.log.append(world.log.maker.floor(platform="sim-nvidia", product="gh100", floor=floor, expires=ends))
    attempt.renew()
    attempt.now += timedelta(seconds=60)


def raise_the_logged_floor(attempt: Attempt) -> None:
    floor = device_floor(minimum={"driver": 999_001_002, "vbios": 0x9900000001})
    attempt.world.log.append(
        attempt.world.log.maker.floor(platform="sim-nvidia", product="gh100", floor=floor)
    )
    attempt.renew()


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (demand_no_devices, Refused, "a policy without rules"),
        (present_none, Refused, "none presented"),
        (admit_another_vendor, Rejected, "root: "),
        (admit_another_publisher, Rejected, "root: "),
        (admit_single_gpus_only, Refused, "device mode: protected-pcie"),
        (raise_the_driver_floor, Refused, "tcb minimum: driver 999001001"),
        (raise_the_switch_floor, Refused, "tcb minimum: vbios"),
        (have_no_floor_for_switches, Refused, "device floor: architecture ls10"),
        (deny_a_chip, Refused, "denied chip: "),
        (admit_all_but_one, Refused, "machine: GH100 "),
        (lose("SIM_vbios"), Refused, "golden values: no manifest"),
        (lose("SIM_driver"), Refused, "golden values: no manifest"),
        (lose("SIM_switch"), Refused, "golden values: no manifest"),
        (lose("ocsp:"), Refused, "device revocation: nothing about"),
        (lose_the_answers_about_manifests, Refused, "rim revocation: not checked"),
        (show_answers_of_yesterday, Rejected, "device revocation: "),
        (lose_the_floors, Refused, "device floor: no logged floor"),
        (raise_the_logged_floor, Refused, "tcb minimum: driver 999001001"),
        (let_the_floors_end, Refused, "device floor: one of gh100 that ended"),
    ],
    ids=lambda value: value.__name__ if callable(value) and not isinstance(value, type) else None,
)
def test_each_demand_on_devices_refuses_alone(
    attempt: Attempt, change: Change, kind: type[Judged], said: str
) -> None:
    change(attempt)
    assert refused(attempt, kind).startswith(said)


def test_listed_devices_are_admitted_by_serial_or_pdi(attempt: Attempt) -> None:
    assert attempt.world.gpus is not None
    devices = attempt.world.gpus.machine.devices
    serials = [f"{device.chain[0].certificate.serial_number:x}" for device in devices]
    boots = [device.chain[1].certificate.serial_number.to_bytes(9, "big")[1:].hex() for device in devices]
    names = [*serials[:6], *boots[6:]]
    attempt.policy["devices"]["machines"] = sorted(names)
    found = {check.name: check.found for check in attempt.judge().checks}
    assert found["devices: machine"] == "12 devices"


def test_versions_that_the_row_does_not_list_are_refused(vendor: Hardware, nvidia: NVIDIAVendor) -> None:
    gpus = GPUs.of(nvidia, 1, 0)
    world = World(*vendor, gpus=gpus)
    attempt = Attempt.of(world.publish())
    for change in ({"drivers": ["999.1.2"]}, {"vbios": ["99.00.00.00.02"]}):
        world.run(authority.row(SEED, devices=[{**gpus.demands()[0], **change}]))
        attempt.renew()
        attempt.trail = Trail()
        assert "version: 99" in refused(attempt, Refused)


def test_a_policy_that_asks_for_no_answers_is_told_that_revocation_was_not_checked(attempt: Attempt) -> None:
    attempt.policy["devices"]["revocation"] = "any"
    lose("ocsp:")(attempt)
    outcomes = {check.name: check.outcome for check in attempt.judge().checks}
    assert outcomes["devices: 0 GH100: device revocation"] == "not checked"
    assert outcomes["devices: 11 LS10: rim revocation"] == "not checked"


def test_a_policy_that_leaves_the_floors_to_the_log_takes_the_logged_ones(attempt: Attempt) -> None:
    attempt.policy["devices"]["floors"] = "log"
    names = {check.name for check in attempt.judge().checks}
    assert "devices: floor of gh100 (log): tcb minimum" in names
    assert "devices: floor of gh100 (policy): tcb minimum" not in names


@pytest.mark.parametrize("evidence", [b"devices", b"[]", b"[{}]"])
def test_bytes_that_are_no_evidence_are_malformed(attempt: Attempt, evidence: bytes) -> None:
    present(attempt, evidence)
    with pytest.raises(Malformed):
        attempt.judge()
    assert (attempt.trail.checks[-1].name, attempt.trail.checks[-1].outcome) == ("devices", "failed")


def test_production_refuses_simulated_devices_on_sight(attempt: Attempt) -> None:
    """Even beside real CPU evidence, and before a signature is looked at: the simulated one is broken here."""
    policy = attempt.policy
    rules = policy["platforms"].pop("sim-tdx")
    del rules["simulator_root_sha256"]
    for name in ("simulator_root_sha256", "simulator_rim_root_sha256"):
        del policy["devices"][name]
    production = {"environment": "production", "tlog_policy": tlog_policy("log.example.org/tee")}
    found = Policy.parse(policy_bytes({**policy, **production, "platforms": {"tdx": rules}}))
    gpus = attempt.world.gpus
    assert gpus is not None
    row = parse_row(authority.row(SEED, "tdx", devices=gpus.demands()))
    broken = list(gpus.machine.devices)
    broken[0] = replace(broken[0], chain=(broken[1].chain[0], *broken[0].chain[1:]))
    show(attempt, broken)
    now = FixedClock(attempt.now).now()
    with pytest.raises(Refused, match="simulated evidence"):
        require_devices(attempt.document, row, {}, found, now, Times(now, now, now), Trail())


def test_a_simulation_refuses_devices_of_another_simulator(
    attempt: Attempt, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = open_nvidia_vendor(tmp_path_factory.mktemp("other") / "nvidia", authority.NOW)
    show(attempt, NVIDIAMachine(other, 1, 8, 4, authority.NOW).devices)
    assert refused(attempt, Rejected).startswith("root: ")


def test_twelve_devices_are_judged_in_not_many_times_what_one_costs(
    vendor: Hardware, nvidia: NVIDIAVendor, attempt: Attempt
) -> None:
    """What they share is verified for each, and nothing grows with their square: by count, not by milliseconds."""
    one = Attempt.of(World(*vendor, gpus=GPUs.of(nvidia, 1, 0)).publish())
    took = {}
    for name, each in (("one", one), ("twelve", attempt)):
        took[name] = min(processor_seconds(each) for _ in range(5))
    assert took["twelve"] < 8 * took["one"], took


def processor_seconds(attempt: Attempt) -> float:
    started = time.process_time()
    attempt.judge()
    return time.process_time() - started
