"""A measured process with eight simulated GPUs and four switches: it judges them at its start, and so do clients."""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from builder.model import make_model
from quotary.attestation.document import AttestationDocument
from quotary.canonical import canonical
from quotary.client.clock import SystemClock
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.client.verify import judge
from quotary.errors import Refused
from simulator.launch import MeasuredProcess
from simulator.nvidia import NVIDIAMachine, open_nvidia_vendor
from simulator.pki import FMSPC, open_pki
from simulator.process import snapshot
from simulator.program import enclave_program
from simulator.row import describe
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.conftest import ROOT
from tests.fakes.gpus import GPUs
from tests.fakes.log import tlog_policy
from tests.fakes.processes import start_log, until
from tests.journeys.test_enclave import SERVICE, Caller, World, floor_of, free_port, policy_of

GPU_COUNT, SWITCH_COUNT = 8, 4
DEVICES = GPU_COUNT + SWITCH_COUNT


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[World, GPUs]]:
    """A log with a release that demands the devices of one simulated machine, and that machine."""
    log = start_log(tmp_path)
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor, nvidia = open_pki(tmp_path / "pki", now), open_nvidia_vendor(tmp_path / "nvidia", now)
        gpus = GPUs(NVIDIAMachine(nvidia, 1, GPU_COUNT, SWITCH_COUNT, now))
        model = make_model(tmp_path / "model", source=ROOT / "quotary", steps=1)
        document = {**json.loads(policy_of(log, vendor.root_sha256)), "devices": gpus.rules()}
        policy = canonical(document, multiline=True)
        (tmp_path / "policy.json").write_bytes(policy)
        address = f"127.0.0.1:{free_port()}"
        taken = snapshot(
            enclave_program(
                tmp_path / "policy.json", model.folder, log.address, SERVICE, address, None, (), None, DEVICES
            )
        )
        described, _ = describe(taken, GPU_COUNT, SWITCH_COUNT)
        makes = log.authority
        log.submit(makes.allocation(), makes.delegation(), makes.floor(product=FMSPC.hex(), floor=floor_of()))
        for name, floor in gpus.floors.items():
            log.submit(makes.floor(platform="sim-nvidia", product=name, floor=floor))
        members = ("policy_sha256", "weights_sha256", "rows", "material")
        release = makes.release(**{name: described[name] for name in members})  # type: ignore[arg-type]
        log.submit(release)
        platform = Platform(vendor, CURRENT, LATEST, now)
        yield World(tmp_path, log, platform, policy, taken, model, release, address), gpus
    finally:
        log.stop()


def start(world: World, devices: NVIDIAMachine) -> MeasuredProcess:
    return MeasuredProcess(world.taken, world.platform, world.folder, devices)


def test_a_machine_with_its_gpus_serves_and_one_with_a_foreign_gpu_does_not_start(
    world: tuple[World, GPUs], capfd: pytest.CaptureFixture[str]
) -> None:
    ours, gpus = world
    http = urllib3.PoolManager()
    caller = Caller(ours, http)
    with start(ours, gpus.machine) as child:
        until(
            lambda: child.child.process.poll() is not None or caller.phase() == "ready",
            "the enclave is ready",
            150,
        )
        assert child.child.process.poll() is None, capfd.readouterr().err
        keyset, verdict = caller.attest()
        checks = {check.name: check.outcome for check in verdict.checks}
        assert checks["devices"] == checks["devices: one machine"] == "ok"
        assert checks[f"devices: {DEVICES - 1} LS10: golden values"] == "ok"
        assert verdict.simulated
        _, _, answer = caller.ask(keyset, verdict, question())
        assert json.loads(answer)["choices"]
        refused_in_production(ours, caller)
        child.child.process.terminate()
        assert child.child.process.wait(30) == 0
    http.clear()
    capfd.readouterr()
    foreign = NVIDIAMachine(gpus.machine.vendor, 2, GPU_COUNT, SWITCH_COUNT, datetime.now(UTC))
    spliced = copy(gpus.machine)
    spliced.devices = (*gpus.machine.devices[:7], foreign.devices[7], *gpus.machine.devices[8:])
    with start(ours, spliced) as child:
        assert child.child.process.wait(60) == 10
    said = capfd.readouterr().err
    assert "devices: found gpu links: 2 sets of switches" in said
    assert "Traceback" not in said


def question() -> bytes:
    asked = {"model": SERVICE, "messages": [{"role": "user", "content": "What is a GPU?"}], "max_tokens": 8}
    return json.dumps(asked).encode()


def refused_in_production(world: World, caller: Caller) -> None:
    """What a client finds that believes vendors only; the quote is spoiled, for no signature is to be looked at."""
    reply = caller.get("/v1/attestation")
    shown = AttestationDocument.parse(reply.data)
    broken = bytearray(shown.evidence)
    broken[48 + 584 + 4] ^= 1
    document = json.loads(world.policy)
    rules = document["platforms"].pop("sim-tdx")
    del rules["simulator_root_sha256"]
    del document["devices"]
    document |= {
        "environment": "production",
        "tlog_policy": tlog_policy("log.example.org/tee"),
        "platforms": {"tdx": rules},
    }
    policy = Policy.parse(canonical(document, multiline=True))
    assert shown.bundle is not None
    with pytest.raises(Refused, match="simulated evidence"):
        judge(
            replace(shown, evidence=bytes(broken)), None, shown.bundle, policy, ProcessMemory(), SystemClock()
        )
