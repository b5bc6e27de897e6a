"""The built image in a virtual machine: it checks itself against a real log, and serves only while it may.

The machine is emulated in software, its evidence comes from the simulator, with the registers that the image's
files would give on hardware. ``ci`` holds no model library, so it only runs the boot check; ``cpu`` serves.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from builder.build import Recipe, build
from builder.choose import choose
from builder.measure import compute, material_of, row_of
from builder.model import make_model
from builder.nix import Nix
from builder.prefetch import Cache
from builder.release import release_predicate
from builder.statement import Head
from quotary.attestation.measure.shape import Shape
from quotary.statements.envelope import sign
from quotary.statements.schema import statement_payload
from simulator.pki import FMSPC, open_pki
from simulator.qemu import Image, MeasuredMachine
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.builder.test_images import snapshot
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.processes import Log, start_log, until
from tests.journeys.test_enclave import SERVICE, Caller, floor_of, free_port, policy_of, question

pytestmark = [
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
PROFILE = "tdx/simulated-direct-boot/v1"
MIB = 1 << 20


@dataclass(slots=True)
class Ground:
    """A log with an allocated service, a vendor, and what images are built from."""

    folder: Path
    log: Log
    platform: Platform
    policy: bytes
    recipe: Recipe
    nix: Nix

    def build(self, profile: str, words: dict[str, str], model: Path | None = None) -> Path:
        """Build an image under the log's policy; its bundles come from this machine's loopback, as 10.0.2.2."""
        port = self.log.address.rsplit(":", 1)[1]
        settings = {
            "service": SERVICE,
            "log": f"http://10.0.2.2:{port}",
            "network": "10.0.2.15/24,10.0.2.2",
            "tee": "virtio:quotary.tee",
        }
        wanted = replace(
            self.recipe, profile=profile, model=model, policy=self.policy, settings=settings | words
        )
        cache, work = Cache.default(), Cache.default().folder.parent / "work"
        chosen = choose(wanted, self.nix, cache, work, print)
        return build(chosen.recipe, self.nix, cache, work, self.folder / profile, print).folder

    def release(self, folder: Path, memory_mib: int, *profiles: str) -> bytes:
        """Sign the release of an image folder as ``quotary release new`` writes it."""
        shape = Shape(memory=memory_mib * MIB)
        chosen = profiles or (PROFILE,)
        rows = [row_of("sim-tdx", name, shape, compute(folder, "sim-tdx", name, shape)) for name in chosen]
        return self.signed(folder, rows)

    def signed(self, folder: Path, rows: list[dict[str, object]]) -> bytes:
        """Sign the release of an image folder with these rows."""
        makes = self.log.authority
        members = makes.head("release", SERVICE, None)
        head = Head(str(members["log"]), SERVICE, int(str(members["sequence"])), makes.now)
        material = material_of(folder)
        predicate = release_predicate(folder, rows, material, head, days=90, source_uri="https://example.org")
        return sign(statement_payload("release", predicate), [authority.key("builder1")])

    def start(self, folder: Path, memory_mib: int, port: int) -> MeasuredMachine:
        return MeasuredMachine(Image.load(folder), memory_mib, port, self.platform, sys.stderr.buffer)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("vm")
    nix = Nix.open(folder / "store")
    yield from laid(folder, nix)
    nix.remove()


def laid(folder: Path, nix: Nix) -> Iterator[Ground]:
    """Start a log with an allocated service and a vendor; end them when the caller has used them."""
    log = start_log(folder)
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor = open_pki(folder / "pki", now)
        policy = policy_of(log, vendor.root_sha256)
        makes = log.authority
        log.submit(makes.allocation(), makes.delegation(), makes.floor(product=FMSPC.hex(), floor=floor_of()))
        platform = Platform(vendor, CURRENT, LATEST, now)
        yield Ground(folder, log, platform, policy, snapshot(folder / "source"), nix)
    finally:
        log.stop()


@pytest.mark.image
def test_an_image_boots_only_with_a_logged_and_unrevoked_release(ground: Ground, capfd) -> None:  # type: ignore[no-untyped-def]
    folder = ground.build("ci", {"run": "check"})
    with ground.start(folder, 512, free_port()) as machine:
        assert machine.wait(300) == 12, capfd.readouterr().err[-3000:]
    release = ground.release(folder, 512)
    ground.log.submit(release)
    with ground.start(folder, 512, free_port()) as machine:
        assert machine.wait(300) == 0, capfd.readouterr().err[-3000:]
    ground.log.submit(ground.log.authority.revocation(release))
    with ground.start(folder, 512, free_port()) as machine:
        assert machine.wait(300) == 11, capfd.readouterr().err[-3000:]
    assert "revoked" in capfd.readouterr().err


@dataclass(frozen=True, slots=True)
class Place:
    """Where a caller finds the machine, and what it demands of it."""

    address: str
    policy: bytes


@pytest.mark.soak
def test_the_cpu_image_answers_a_sealed_prompt_in_a_measured_machine(ground: Ground, capfd) -> None:  # type: ignore[no-untyped-def]
    folder = serving(ground, "cpu-debian", capfd)
    capfd.readouterr()
    with ground.start(with_another_runtime(folder), 2048, free_port()) as machine:
        machine.wait(300)
    said = capfd.readouterr().err
    assert "is corrupted" in said
    assert "quotary: " not in said


def serving(ground: Ground, profile: str, capfd) -> Path:  # type: ignore[no-untyped-def]
    """Build an image with a model, log it, start it, and let it answer a sealed prompt; give its folder."""
    model = make_model(ground.folder / "model", source=ROOT / "quotary", steps=1)
    folder = ground.build(profile, {"listen": "8080"}, model.folder)
    ground.log.submit(ground.release(folder, 2048))
    port = free_port()
    caller = Caller(Place(f"127.0.0.1:{port}", ground.policy), urllib3.PoolManager())  # type: ignore[arg-type]  # the two members it reads
    with ground.start(folder, 2048, port) as machine:
        until(lambda: machine.child.has_ended or caller.phase() == "ready", "the machine is ready", 600)
        assert not machine.child.has_ended, capfd.readouterr().err[-3000:]
        keyset, verdict = caller.attest()
        assert verdict.simulated
        assert verdict.predicate.weights_sha256 == model.digest
        _, opener, answer = caller.ask(keyset, verdict, question())
        assert opener.head is not None
        assert opener.head.status == 200
        assert answer
        assert opener.receipt is not None
    caller.http.clear()
    return folder


def with_another_runtime(folder: Path) -> Path:
    """Flip a bit of the runtime's disk, in the label of its file system, which is of no use to the guest."""
    with (folder / "runtime.img").open("r+b") as file:
        file.seek(1024 + 80)
        byte = file.read(1)
        file.seek(1024 + 80)
        file.write(bytes([byte[0] ^ 1]))
    return folder
