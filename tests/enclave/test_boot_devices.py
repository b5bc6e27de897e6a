"""The boot check of a machine with GPUs: the same step that a client makes, and what only the machine can ask."""

import base64
import json
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from enclave.boot import Machine, SelfCheck, Setup, consequence
from enclave.device import DeviceEvidence, Evidence, require_confidential
from enclave.doors.keys import ECDSA, VLLM_PROXY, DoorKeys
from enclave.doors.reports import report, report_data
from enclave.placement import AUTO, CPU, CUDA
from enclave.serve import Options, device_of
from quotary.attestation.binding import gpu_nonce, keyset_digest
from quotary.attestation.document import AttestationDocument
from quotary.attestation.tdx import TDXQuote
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verify import judge
from quotary.errors import Judged, QuotaryError, Refused, Rejected
from simulator.nvidia import NVIDIAMachine, NVIDIAVendor
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.fakes import authority
from tests.fakes.authority import SERVICE
from tests.fakes.gpus import GPUs, device_floor, nvidia_vendor
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, SEED, World, hardware, keyset, registers


@dataclass(slots=True)
class Box:
    """A device whose GPUs are whatever somebody plugged in."""

    world: World
    gpus: NVIDIAMachine
    asked: list[tuple[bytes, ...]] = field(default_factory=list)

    def quote(self, report_data: bytes) -> Evidence:
        return Evidence(
            self.world.platform.quote(registers(SEED), report_data), self.world.platform.collateral
        )

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        self.asked.append(tuple(nonces))
        shown = self.gpus.show(nonces, self.world.now)
        require_confidential(shown.mode)
        return DeviceEvidence(shown.devices, shown.collateral)


@dataclass(slots=True)
class Served:
    world: World

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        return self.world.bundle()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> NVIDIAVendor:
    return nvidia_vendor(tmp_path_factory.mktemp("nvidia"))


Boxed = Callable[[int, int], tuple[Machine, Box]]


@pytest.fixture
def boxed(vendor: tuple[PKI, Platform], nvidia: NVIDIAVendor) -> Boxed:
    """A machine with so many GPUs and switches, whose release demands exactly them."""

    def make(gpus: int, switches: int) -> tuple[Machine, Box]:
        found = GPUs.of(nvidia, gpus, switches)
        world = World(*vendor, gpus=found).publish()
        policy = Policy.parse(policy_bytes(world.policy()))
        assert policy.enclave is not None
        maker = world.log.maker
        rows = [authority.row(SEED, devices=found.demands())]
        world.release = maker.release(rows=rows, policy_sha256=policy.digest.hex())
        world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
        world.log.close(world.ts)
        box = Box(world, found.machine)
        log, clock = Served(world), FixedClock(world.now)
        setup = Setup(
            policy, policy.enclave, SERVICE, box, log, ProcessMemory(), clock, devices=gpus + switches
        )
        return Machine(setup), box

    return make


def own(box: Box) -> bytes:
    return keyset(box.world.channel.public).encode()


def outcomes(found: SelfCheck) -> dict[str, str]:
    return {check.name: check.outcome for check in found.checks}


@pytest.mark.parametrize(("gpus", "switches"), [(1, 0), (8, 4)])
def test_a_machine_with_its_gpus_may_serve_and_a_client_agrees(
    boxed: Boxed, gpus: int, switches: int
) -> None:
    machine, box = boxed(gpus, switches)
    keys = own(box)
    believed = machine.check(keys)
    assert outcomes(believed)["devices"] == "ok"
    wanted = tuple(gpu_nonce(keyset_digest(keys), at) for at in range(gpus + switches))
    assert box.asked == [wanted]
    shown = AttestationDocument.parse(machine.attest(believed, NONCE))
    # The CPU answers each client's nonce; the GPUs answered this keyset, and are not asked again.
    assert (shown.devices, shown.keyset, box.asked) == (believed.document.devices, keys, [wanted])
    assert shown.bundle is not None
    policy, clock = machine.setup.policy, machine.setup.clock
    verdict = judge(shown, NONCE, shown.bundle, policy, ProcessMemory(), clock)
    assert {check.name: check.outcome for check in verdict.checks}["devices"] == "ok"
    machine.check(keyset(b"\x01" * 1216).encode())
    assert set(box.asked[1]).isdisjoint(wanted)


def splice(box: Box, nvidia: NVIDIAVendor) -> None:
    theirs = NVIDIAMachine(nvidia, 2, 8, 4, authority.NOW).devices
    box.gpus = copy(box.gpus)
    box.gpus.devices = (*box.gpus.devices[:7], theirs[7], *box.gpus.devices[8:])


def take_one_out(box: Box, nvidia: NVIDIAVendor) -> None:
    box.gpus = copy(box.gpus)
    box.gpus.devices = box.gpus.devices[1:]


def open_to_tools(box: Box, nvidia: NVIDIAVendor) -> None:
    box.gpus = copy(box.gpus)
    box.gpus.mode = "devtools"


@pytest.mark.parametrize(
    ("change", "kind", "check", "said"),
    [
        (splice, Rejected, "devices", "gpu links"),
        (take_one_out, Refused, "devices", "12 nonces"),
        (open_to_tools, Refused, "confidential mode", "devtools"),
    ],
)
def test_a_machine_with_other_gpus_does_not_start(
    boxed: Boxed,
    nvidia: NVIDIAVendor,
    change: Callable[[Box, NVIDIAVendor], None],
    kind: type[Judged],
    check: str,
    said: str,
) -> None:
    machine, box = boxed(8, 4)
    change(box, nvidia)
    with pytest.raises(kind, match=said) as caught:
        machine.check(own(box))
    assert (type(caught.value), caught.value.check) == (kind, check)


def test_a_machine_that_is_told_of_no_devices_is_refused_where_the_release_demands_some(
    boxed: Boxed,
) -> None:
    machine, box = boxed(1, 0)
    setup = machine.setup
    blind = Machine(Setup(setup.policy, setup.rules, SERVICE, box, setup.log, ProcessMemory(), setup.clock))
    with pytest.raises(Refused, match="none presented"):
        blind.check(own(box))
    assert box.asked == []


def test_devices_that_the_release_does_not_demand_are_not_shown_as_if_verified(
    boxed: Boxed, vendor: tuple[PKI, Platform]
) -> None:
    machine, box = boxed(1, 0)
    maker = box.world.log.maker
    named = {"policy_sha256": machine.setup.policy.digest.hex()}
    box.world.release = maker.release(rows=[authority.row(SEED)], **named)
    box.world.log.append(box.world.release, maker.rebuild(box.world.release, {SEED: True}))
    box.world.log.close(box.world.ts)
    with pytest.raises(Refused, match="devices: found 1 to be shown, wanted 0, which the release demands"):
        machine.check(own(box))


def test_a_model_lies_on_a_gpu_only_where_the_boot_check_verifies_it(boxed: Boxed, tmp_path: Path) -> None:
    machine, _ = boxed(1, 0)
    setup = machine.setup
    production = replace(setup, policy=replace(setup.policy, environment="production"))
    blind = replace(production, devices=0)
    for wanted in (AUTO, CPU, CUDA):
        assert device_of(Options(production, tmp_path, wanted)) == wanted
        assert device_of(Options(replace(setup, devices=0), tmp_path, wanted)) == wanted
    assert [device_of(Options(blind, tmp_path, wanted)) for wanted in (AUTO, CPU)] == [CPU, CPU]
    with pytest.raises(Refused, match="gpu evidence: found a release that demands no devices"):
        device_of(Options(blind, tmp_path, CUDA))


def test_a_floor_that_rises_above_the_gpus_ends_the_process(boxed: Boxed) -> None:
    machine, box = boxed(1, 0)
    believed = machine.check(own(box))
    raised = device_floor(minimum={"driver": 999_001_002, "vbios": 0x9900000001})
    log = box.world.log
    log.append(log.maker.floor(platform="sim-nvidia", product="gh100", floor=raised))
    log.close(box.world.ts)
    with pytest.raises(Refused, match="tcb minimum: driver") as caught:
        machine.renew(believed)
    assert consequence(caught.value).code == "tcb_refused"
    assert consequence(caught.value).final


def test_devices_that_fail_for_another_reason_do_not_end_the_process() -> None:
    for error in (
        Rejected("devices", "device revocation: an answer of yesterday", "one of today"),
        Refused("devices", "device count: 7 gh100", "8"),
    ):
        assert isinstance(error, QuotaryError)
        assert not consequence(error).final


@pytest.mark.parametrize(("gpus", "switches"), [(1, 0), (2, 4)])
def test_a_doors_report_has_gpus_that_answer_its_own_nonce(boxed: Boxed, gpus: int, switches: int) -> None:
    machine, box = boxed(gpus, switches)
    believed = machine.check(own(box))
    keys, nonce = DoorKeys((VLLM_PROXY,)), b"N" * 32
    shown = machine.show(believed, report_data(keys, ECDSA, nonce), nonce)
    assert box.asked[-1] == (nonce,) * (gpus + switches)
    assert TDXQuote.parse(shown.quote).body["report_data"] == report_data(keys, ECDSA, nonce)
    payload = json.loads(str(report(keys, ECDSA, nonce, shown)["nvidia_payload"]))
    assert (payload["nonce"], payload["arch"]) == (nonce.hex(), "HOPPER")
    assert len(payload["evidence_list"]) == gpus
    for item in payload["evidence_list"]:
        assert item.keys() == {"arch", "certificate", "evidence"}
        assert base64.b64decode(item["certificate"]).startswith(b"-----BEGIN CERTIFICATE-----")
