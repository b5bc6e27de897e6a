"""Our own kernel in virtual machines: without a ramdisk, as unified image under OVMF, and with an enclave's ramdisks.

The kernel is compiled in the user's store, once for a configuration (``QUOTARY_STORE`` names another); the image
around it is the small one of ``ci``. Each machine is ended after a limit.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from builder.build import Recipe, default_store
from builder.choose import choose
from builder.eif import eif_of
from builder.measure import row_of
from builder.model import make_model
from builder.nix import Nix
from builder.prefetch import Cache
from quotary.attestation.measure.profiles import tdx_profile
from quotary.attestation.measure.shape import Shape
from quotary.attestation.measure.tdx import TDXLaunch, measure
from simulator.qemu import UNIFIED_PROFILE, Image, MeasuredMachine
from tests.builder.test_images import LOCKED
from tests.conftest import ROOT
from tests.fakes import aml
from tests.fakes.processes import until
from tests.journeys.test_enclave import free_port
from tests.journeys.test_vm import MIB, PROFILE, Ground, laid, serving

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]
MEMORY, LIMIT_SECONDS = 512, 300
# Where QEMU leaves the command line of a kernel that it starts directly: memory that no other code writes.
COMMAND_LINE = 0x20000
# What Debian's kernel is asked to shut and ours does not have.
WITHOUT = (
    *("sig_enforce", "kernel/modules_disabled", "kernel/kexec_load_disabled"),
    *("kernel/unprivileged_bpf_disabled", "kernel/sysrq", "vm/unprivileged_userfaultfd"),
)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    for ground in laid(tmp_path_factory.mktemp("own-kernel"), Nix.open(default_store())):
        described = ground.recipe.source / "nix" / "image.json"
        image = json.loads(described.read_bytes())
        image["profiles"]["bare"] = {**image["profiles"]["ci"], "kernel": "own", "ramdisk": False}
        described.write_text(json.dumps(image))
        yield ground


@pytest.fixture(scope="module")
def released(ground: Ground) -> tuple[Path, bytes]:
    """An image that checks itself and powers off, and its logged release: started directly, and by firmware."""
    folder = ground.build("bare", {"run": "check"})
    release = ground.release(folder, MEMORY, PROFILE, UNIFIED_PROFILE)
    with start(ground, Image.load(folder)) as machine:
        assert machine.wait(LIMIT_SECONDS) == 12
    ground.log.submit(release)
    return folder, release


def start(ground: Ground, image: Image, memory: int = MEMORY, port: int | None = None) -> MeasuredMachine:
    return MeasuredMachine(image, memory, port or free_port(), ground.platform, sys.stderr.buffer)


def test_without_a_ramdisk_it_boots_only_with_a_logged_release(
    ground: Ground, released: tuple[Path, bytes]
) -> None:
    folder, _ = released
    image = Image.load(folder)
    assert image.initrd is None
    with start(ground, image) as machine:
        assert machine.wait(LIMIT_SECONDS) == 0


def test_as_a_unified_image_it_boots_under_firmware(ground: Ground, released: tuple[Path, bytes]) -> None:
    folder, _ = released
    image = Image.load(folder, unified=True)
    with start(ground, image) as machine:
        assert machine.wait(LIMIT_SECONDS) == 0
    # Its registers are others than those of the directly started kernel, and each row admits its own.
    with start(ground, replace(image, unified=None, command_line=f"{image.command_line} quiet")) as machine:
        assert machine.wait(LIMIT_SECONDS) == 12


def test_with_the_ramdisks_of_an_enclave_image_it_boots_without_disks(ground: Ground) -> None:
    """QEMU of Debian 12 has no Nitro machine: kernel, command line and ramdisks are those of the file.

    The runtime's 400 MB are in the second ramdisk, and in memory twice while the machine starts.
    """
    folder, memory = ground.build("nitro", {"run": "check"}), 2048
    enclave, firmware = eif_of(folder), Image.load(folder).firmware
    assert len(enclave.ramdisks) == 2
    ramdisk = b"".join(enclave.ramdisks)
    launch = TDXLaunch(firmware, enclave.kernel, ramdisk, enclave.command_line, memory * MIB, {})
    row = row_of("sim-tdx", PROFILE, Shape(memory=memory * MIB), measure(launch, tdx_profile(PROFILE)))
    ground.log.submit(ground.signed(folder, [row]))
    with start(ground, Image(firmware, enclave.kernel, ramdisk, enclave.command_line, ()), memory) as machine:
        assert machine.wait(LIMIT_SECONDS) == 0


def test_it_is_locked_down_and_says_so(ground: Ground) -> None:
    """As the booted ``ci`` image does under Debian's kernel; what this kernel was built without has no file."""
    console = io.BytesIO()
    image = Image.load(ground.build("bare", {"run": "imports"}))
    with MeasuredMachine(image, MEMORY, free_port(), ground.platform, console) as machine:
        assert machine.wait(LIMIT_SECONDS) == 0
    lines = console.getvalue().decode(errors="replace").splitlines()
    found = [line.strip().removeprefix("found ") for line in lines if line.startswith("found ")]
    absent = dict.fromkeys(WITHOUT, "No such file or directory")
    ours = {"modules": "unknown", "processes": "python3.13 quotary-first"}
    ours["listed"] = "shut 127.0.0.1 localhost"  # its log is at another port than the one that is tried
    for name, wanted in (LOCKED | absent | ours).items():
        assert f"{name} {wanted}" in found, (name, [line for line in found if line.startswith(name)])
    assert [line for line in found if line.startswith("writable")] == []
    assert "mount /sys/kernel/security securityfs ro,nosuid,nodev,noexec,relatime" in found


def test_the_whole_cpu_image_answers_a_sealed_prompt(ground: Ground, capfd) -> None:  # type: ignore[no-untyped-def]
    folder = serving(ground, "cpu", capfd)
    assert [serial for serial, _ in Image.load(folder).disks] == ["rootfs", "runtime", "model", "policy"]


def test_it_answers_within_ten_seconds_of_power_on(ground: Ground) -> None:
    """By the emulator's own processor time: other programs may have the cores."""
    model = make_model(ground.folder / "small", source=ROOT / "quotary", steps=1)
    folder = ground.build("bare", {"listen": "8080"}, model.folder)
    ground.log.submit(ground.release(folder, MEMORY))
    port, http, began = free_port(), urllib3.PoolManager(), time.monotonic()

    def answers() -> bool:
        try:
            reply = http.request("GET", f"http://127.0.0.1:{port}/v1/state", retries=False, timeout=1)
            return bool(reply.data)
        except urllib3.exceptions.HTTPError:
            return False

    with start(ground, Image.load(folder), port=port) as machine:
        until(answers, "the machine answers", LIMIT_SECONDS)
        used = processor_seconds(machine.child.process.pid)
    load = os.getloadavg()[0]
    print(
        f"answered after {used:.1f} s of processor, {time.monotonic() - began:.1f} s of wall, load {load:.0f}"
    )
    assert used < 10
    http.clear()


def processor_seconds(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_byte_code_of_the_host_reads_memory_under_debians_kernel_and_not_under_ours(
    ground: Ground, tmp_path: Path
) -> None:
    table = tmp_path / "thief.aml"
    table.write_bytes(aml.thief(COMMAND_LINE))
    debian, own = (kernel(ground, profile) for profile in ("ci", "bare"))
    taken, _ = boot_with(table, debian, tmp_path / "debian")
    assert taken == b"cons"
    taken, said = boot_with(table, own, tmp_path / "own")
    assert taken == b""
    assert f"sandbox: no access to memory at {COMMAND_LINE:#018x}" in said


def kernel(ground: Ground, profile: str) -> Path:
    wanted = replace(ground.recipe, profile=profile)
    recipe: Recipe = choose(
        wanted, ground.nix, Cache.default(), Cache.default().folder.parent / "work", print
    ).recipe
    (path,) = ground.nix.build(
        recipe.source / "nix", ["kernel"], recipe.arguments(), visible=recipe.visible()
    )
    return ground.nix.physical(path) / "vmlinuz"


def boot_with(table: Path, image: Path, said: Path) -> tuple[bytes, str]:
    """Boot a kernel without any disk until it panics; give what came out of the port, and its console."""
    words = ["qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]
    words += ["-machine", "q35", "-accel", "tcg,thread=single", "-smp", "1", "-cpu", "Nehalem", "-m", "512"]
    words += ["-kernel", str(image), "-append", "console=ttyS0 panic=-1", "-serial", "stdio"]
    words += ["-acpitable", f"file={table}", "-chardev", f"file,id=port,path={said}"]
    words += ["-device", f"isa-debugcon,iobase={aml.PORT:#x},chardev=port"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_SECONDS)
    return said.read_bytes(), done.stdout.decode(errors="replace")


def test_the_kernel_is_compiled_again_to_the_same_bytes(ground: Ground) -> None:
    kernel(ground, "bare")
    recipe = replace(ground.recipe, profile="bare")
    source = recipe.source / "nix"
    arguments, visible = recipe.arguments(), recipe.visible()
    ground.nix.build(source, ["kernel-compiled"], arguments, visible=visible, check=True, cores=1)
