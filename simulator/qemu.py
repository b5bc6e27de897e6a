"""Image mode: the built image in QEMU by software emulation, with the registers it would have as a TD.

The registers are computed by ``quotary.attestation.measure.tdx`` from what is launched: kernel, initial
ramdisk and command line are read once, hashed and written where QEMU takes them from; disks are pinned by
hash trees in the command line. The firmware is measured as a TD's VMM would do it, and run only where it
starts a unified kernel image: otherwise QEMU boots the kernel directly. The guest asks for quotes on the
virtio-serial port ``quotary.tee``; nobody else can. This is software: it proves nothing against whoever runs
it.
"""

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from quotary.attestation.measure.profiles import tdx_profile
from quotary.attestation.measure.tdx import TDXLaunch, measure
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused
from simulator.child import Child
from simulator.device import DeviceEvidence, Evidence, serve
from simulator.launch import hang_up
from simulator.nvidia import NVIDIAMachine, show_devices
from simulator.tdx import Platform, Registers

PORT = "quotary.tee"
PROFILE = "tdx/simulated-direct-boot/v1"
UNIFIED_PROFILE = "tdx/simulated-uki/v1"
PROGRAM = "qemu-system-x86_64"
MIB = 1 << 20
MAX_FILE = 256 * MIB
MAX_BOOT = 1 << 20
INITRD = "initrd.img"
UNIFIED = "enclave.efi"

_ENDED = re.compile(rb"quotary: ended with exit code (-?[0-9]{1,3})\s*")
_STOPPED = re.compile(rb"quotary: stopped: ")
STOPPED = 40

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Image:
    """What is launched: the contents that are measured, and disks by serial number; None for no initrd.

    unified: the image that firmware starts from a disk in place of kernel, initrd and command line, or None
    """

    firmware: bytes
    kernel: bytes
    initrd: bytes | None
    command_line: str
    disks: tuple[tuple[str, Path], ...]
    unified: bytes | None = None

    @classmethod
    def load(cls, folder: Path, *, unified: bool = False) -> "Image":
        """Read an image folder as ``quotary build run`` writes it (``boot.json``)."""
        try:
            boot = Fields(json.loads(_read(folder / "boot.json", MAX_BOOT)), "boot.json")
        except (ValueError, RecursionError) as error:
            raise Malformed("boot.json is not JSON") from error
        disks = [_disk(value, folder) for value in boot.items("disks", 8)]
        if (folder / "policy.img").exists():
            disks.append(("policy", folder / "policy.img"))
        return cls(
            _read(folder / "firmware", MAX_FILE),
            _read(folder / "vmlinuz", MAX_FILE),
            _read(folder / INITRD, MAX_FILE) if INITRD in boot.mapping("files", 32) else None,
            boot.fields("cmdline").text("text"),
            tuple(disks),
            _read(folder / UNIFIED, MAX_FILE) if unified else None,
        )


def registers(image: Image, memory_mib: int) -> Registers:
    """Compute what the image would measure as a TD with this much memory."""
    memory, name = memory_mib * MIB, PROFILE
    launch = TDXLaunch(image.firmware, image.kernel, image.initrd, image.command_line, memory, acpi={})
    if image.unified is not None:
        launch, name = TDXLaunch.unified(image.firmware, image.unified, memory, acpi={}), UNIFIED_PROFILE
    found = measure(launch, tdx_profile(name)).registers
    return Registers(**{name: found[name] for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")})


class MeasuredMachine:
    """A running virtual machine and its device; leaving the context ends it.

    port:    on the host's loopback; behind it is the guest's own (``quotary.listen`` of the command line)
    console: where the guest's console goes, line by line
    """

    def __init__(
        self,
        image: Image,
        memory_mib: int,
        port: int,
        platform: Platform,
        console: IO[bytes],
        devices: NVIDIAMachine | None = None,
    ) -> None:
        self._registers, self._devices = registers(image, memory_mib), devices
        self._platform = platform
        self._code: int | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="quotary-vm-"))
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                words = _words(image, memory_mib, port, self._folder, theirs.fileno())
                self.child = Child(_start(words, theirs.fileno()))
            except BaseException:
                self._socket.close()
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        self._threads = [
            threading.Thread(target=self._serve, name="tee-device", daemon=True),
            threading.Thread(target=self._relay, args=(console,), name="console", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "MeasuredMachine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.close()
        hang_up(self._socket)
        for thread in self._threads:
            thread.join()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self, limit_seconds: float) -> int:
        """Wait until the machine is off; the exit code that its console told, or QEMU's own.

        Raises ``CannotTell`` when the limit is reached.
        """
        try:
            code = self.child.wait(limit_seconds)
        except subprocess.TimeoutExpired as error:
            raise CannotTell(f"the machine still ran after {limit_seconds:g} s") from error
        self._threads[1].join()
        return code if self._code is None else self._code

    def quote(self, report_data: bytes) -> Evidence:
        """Quote the machine's registers; raises ``Refused`` when it is off."""
        if self.child.has_ended:
            raise Refused("measured machine", "it is off", "a running one")
        return Evidence(self._platform.quote(self._registers, report_data), self._platform.collateral)

    def show(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        """Show the machine's GPUs and switches over these nonces."""
        return show_devices(self._devices, nonces)

    def _serve(self) -> None:
        try:
            serve(_Stream(self._socket), self)
        except (QuotaryError, OSError) as error:
            log.warning("device.closed", extra={"reason": str(error)})
        finally:
            hang_up(self._socket)

    def _relay(self, console: IO[bytes]) -> None:
        output = self.child.process.stdout
        assert output is not None
        for line in output:
            console.write(line)
            console.flush()
            ended = _ENDED.search(line)
            if ended is not None:
                code = int(ended[1])
                self._code = code if code >= 0 else 128 - code
            elif _STOPPED.search(line):
                self._code = STOPPED
        output.close()


class _Stream:
    """QEMU's end of the port: whoever is behind it is the guest that we started."""

    def __init__(self, stream: socket.socket) -> None:
        self.receive = stream.recv
        self.send = stream.sendall


def _words(image: Image, memory_mib: int, port: int, folder: Path, device: int) -> list[str]:
    """Lay out the measured contents and write QEMU's command line over them."""
    # fmt: off
    words = [
        PROGRAM, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
        "-machine", "q35", "-accel", "tcg,thread=single", "-smp", "1", "-cpu", "Nehalem",
        "-m", str(memory_mib),
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-device", "virtio-rng-pci",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=tee,fd={device}", "-device", f"virtserialport,chardev=tee,name={PORT}",
        "-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:{_guest_port(image)}",
        "-device", "virtio-net-pci,netdev=net,romfile=",
    ]
    # fmt: on
    for serial, path in image.disks:
        if "," in str(path):
            raise Malformed(f"QEMU cannot take a disk whose path has a comma: {path}")
        words += ["-drive", f"if=none,id={serial},file={path},format=raw,readonly=on"]
        words += ["-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
    words += (
        _kernel(image, folder) if image.unified is None else _unified(image.firmware, image.unified, folder)
    )
    return words


def _kernel(image: Image, folder: Path) -> list[str]:
    (folder / "kernel").write_bytes(image.kernel)
    words = ["-kernel", str(folder / "kernel"), "-append", image.command_line]
    if image.initrd is not None:
        (folder / "initrd").write_bytes(image.initrd)
        words += ["-initrd", str(folder / "initrd")]
    return words


def _unified(firmware: bytes, image: bytes, folder: Path) -> list[str]:
    """Let firmware run and start the image from a disk behind the guest's own, ``vda`` to ``vdc``."""
    place = folder / "disk/EFI/BOOT/BOOTX64.EFI"
    place.parent.mkdir(parents=True)
    place.write_bytes(image)
    (folder / "firmware").write_bytes(firmware)
    drive = f"if=none,id=boot,file=fat:{folder / 'disk'},format=raw,readonly=on"
    device = "virtio-blk-pci,drive=boot,serial=boot,bootindex=0"
    return ["-bios", str(folder / "firmware"), "-drive", drive, "-device", device]


def _start(words: list[str], device: int) -> subprocess.Popen[bytes]:
    program = shutil.which(words[0])
    if program is None:
        raise CannotTell(f"{words[0]} is not installed", next_command="apt-get install qemu-system-x86")
    return subprocess.Popen(
        [program, *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=(device,),
        start_new_session=True,
        env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
    )


def _guest_port(image: Image) -> int:
    words = dict(word.partition("=")[::2] for word in image.command_line.split())
    listen = words.get("quotary.listen", "8080")
    if not (listen.isascii() and listen.isdigit() and len(listen) <= 5 and 1 <= int(listen) <= 65535):
        raise Malformed(f"quotary.listen is {listen!r}, wanted a port")
    return int(listen)


def _disk(value: object, folder: Path) -> tuple[str, Path]:
    fields = Fields(value, "disk")
    name = fields.name("file", 64)
    if "/" in name or name.startswith("."):
        raise Malformed(f"boot.json names the disk file {name!r}")
    return fields.name("serial", 20), folder.resolve() / name


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}", next_command="quotary build run") from error
    if len(data) > limit:
        raise Malformed(f"{path.name} has more than {limit} bytes")
    return data
