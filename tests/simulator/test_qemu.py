"""Image mode: registers of the very files that run, and a real guest that asks for a quote."""

import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cpio import archive, regular
from quotary.canonical import canonical, unb64
from quotary.errors import CannotTell, Malformed, Refused
from simulator.qemu import PROGRAM, Image, MeasuredMachine, registers
from tests.conftest import ROOT

MEMORY = 512
REQUEST = canonical({"op": "quote", "report_data": "07" * 64})

# The guest asks twice, once for too much, and prints the answers in base64; then it says goodbye like the real one.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec > /dev/console 2>&1
for port in /sys/class/virtio-ports/*; do
  if [ "$(cat "$port/name")" = quotary.tee ]; then exec 3<>"/dev/${port##*/}"; fi
done
ask() {
  dd bs=4096 <"$1" >&3 2>/dev/null
  size=$((0x$(dd bs=1 count=4 <&3 2>/dev/null | hexdump -e '4/1 "%02x"')))
  echo "answer $(dd bs=1 count=$size <&3 2>/dev/null | base64 | tr -d '\n')"
}
ask /greedy
ask /request
echo "quotary: ended with exit code 7"
poweroff -f
"""


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The ``ci`` image, built here unless ``QUOTARY_IMAGE`` names one."""
    if shutil.which(PROGRAM) is None or shutil.which("nix-build") is None:
        pytest.skip(f"{PROGRAM} or Nix is not installed")
    folder = os.environ.get("QUOTARY_IMAGE") or str(tmp_path_factory.mktemp("image") / "ci")
    if not Path(folder).exists():
        command = [sys.executable, "-m", "quotary", "build", "run", "--fresh-lock", "--out", folder]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=900)
    return Image.load(Path(folder))


@pytest.fixture
def asking(built: Image) -> Image:
    """The built kernel with a guest that only asks: Linux unpacks the archives one after the other."""
    greedy = canonical({"op": "quote", "report_data": "07" * 64, "rtmr1": "00" * 48})
    more = archive(
        [
            regular("init", INIT.encode(), executable=True),
            regular("request", frame(REQUEST)),
            regular("greedy", frame(greedy)),
        ]
    )
    padding = bytes(-len(built.initrd) % 4)
    line = "console=ttyS0 panic=-1 quiet"
    return replace(built, initrd=built.initrd + padding + more, command_line=line, disks=())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.image
def test_a_guest_gets_a_quote_of_the_files_it_was_started_from(asking, platform, believe) -> None:
    console = io.BytesIO()
    with MeasuredMachine(asking, MEMORY, free_port(), platform, console) as machine:
        assert machine.wait(120) == 7, console.getvalue().decode(errors="replace")
        with pytest.raises(Refused, match="it is off"):
            machine.quote(bytes(64))
    answers = [
        json.loads(unb64(line.split()[1].decode()))
        for line in console.getvalue().splitlines()
        if line.startswith(b"answer ")
    ]
    assert answers[0]["error"]["kind"] == "malformed"
    facts = believe(unb64(answers[1]["quote"]), answers[1]["collateral"])
    expected = registers(asking, MEMORY)
    assert {name: getattr(expected, name) for name in facts.registers} == dict(facts.registers)
    assert facts.report_data == bytes([7]) * 64


@pytest.mark.image
def test_a_machine_that_does_not_end_is_ended(asking, platform) -> None:
    with (
        pytest.raises(CannotTell, match="still ran"),
        MeasuredMachine(asking, MEMORY, free_port(), platform, io.BytesIO()) as machine,
    ):
        machine.wait(0.2)
    assert machine.child.process.returncode is not None


@pytest.mark.image
def test_each_launched_file_changes_its_register(built) -> None:
    before = registers(built, MEMORY)

    def changed(image: Image, memory: int = MEMORY) -> set[str]:
        after = registers(image, memory)
        return {
            name
            for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2")
            if getattr(before, name) != getattr(after, name)
        }

    assert changed(built) == set()
    assert changed(replace(built, command_line=built.command_line + " x")) == {"rtmr2"}
    assert changed(replace(built, firmware=bytes([1]) + built.firmware[1:])) == {"rtmr0"}
    assert changed(built, MEMORY * 2) == {"rtmr0", "rtmr1"}


def image_folder(folder: Path, **boot: object) -> Path:
    folder.mkdir()
    names = ("firmware", "vmlinuz", "initrd.img")
    files = {name: {"sha256": "00" * 32, "size": 32} for name in names}
    document = {"cmdline": {"text": "quiet quotary.listen=8443"}, "disks": [], "files": files} | boot
    (folder / "boot.json").write_text(json.dumps(document))
    for name in names:
        (folder / name).write_bytes(hashlib.sha256(name.encode()).digest())
    return folder


def test_an_image_folder_is_read_with_its_disks_and_policy(tmp_path) -> None:
    disk = {"serial": "rootfs", "file": "rootfs.img", "root": "00", "blocks": 1, "salt": "00", "label": "x"}
    folder = image_folder(tmp_path / "image", disks=[disk])
    (folder / "policy.img").write_bytes(b"{}")
    image = Image.load(folder)
    assert image.command_line == "quiet quotary.listen=8443"
    assert image.disks == (("rootfs", folder / "rootfs.img"), ("policy", folder / "policy.img"))


def test_an_image_without_a_ramdisk_starts_without_one(tmp_path) -> None:
    image = Image.load(image_folder(tmp_path / "image", files={}))
    assert image.initrd is None


@pytest.mark.parametrize(
    "boot",
    [
        {"disks": [{"serial": "a", "file": "../x"}]},
        {"disks": [{"serial": "a", "file": ".x"}]},
        {"cmdline": 1},
    ],
)
def test_an_image_folder_that_leads_elsewhere_is_malformed(tmp_path, boot) -> None:
    with pytest.raises(Malformed):
        Image.load(image_folder(tmp_path / "image", **boot))


def test_what_is_no_image_is_not_launched(tmp_path, platform) -> None:
    image = Image.load(image_folder(tmp_path / "image"))
    with pytest.raises(Malformed):
        MeasuredMachine(image, MEMORY, 1, platform, io.BytesIO())
    (tmp_path / "image" / "vmlinuz").unlink()
    with pytest.raises(CannotTell, match="cannot read"):
        Image.load(tmp_path / "image")
