#!/usr/bin/python3.13 -IBS
"""PID 1 of the root file system: read the measured command line, fetch the policy it names, run the enclave.

The command line is measured, so a host that changes a word changes the measurement; the allow list here is
there so that no word exists whose meaning the measurement's reader has not seen. Standard library only. When
the enclave ends, so does the machine, and the console says with which exit code.
"""

import ctypes
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FIXED = frozenset(
    (
        "console=ttyS0",
        "panic=-1",
        "quiet",
        "net.ifnames=0",
        "random.trust_cpu=on",
        "lockdown=integrity",
        "module.sig_enforce=1",
        "initrd=initrd",  # appended by the firmware at direct boot
        # Where the kernel opens the disks itself (nix/scripts/boot.py); the mapping is compared as a whole.
        "root=/dev/dm-0",
        "rootfstype=erofs",
        "ro",
        "init=/usr/sbin/quotary-first",
        "dm-mod.waitfor=/dev/vda",
        "dm-mod.waitfor=/dev/vdb",
        "dm-mod.waitfor=/dev/vdc",
    )
)
MAPPING = re.compile(r'dm-mod\.create="[^"]*"')
# What a Nitro hypervisor adds to say where its devices are; it is not measured, and names no memory of ours.
HOST = re.compile(r"virtio_mmio\.device=[0-9]{1,4}[Kk]?@0x[0-9a-f]{1,16}:[0-9]{1,3}(:[0-9]{1,3})?")
# A hash tree's root, its data blocks and its salt; what the initial ramdisk has used already.
PIN = r"[0-9a-f]{64}:[1-9][0-9]{0,11}:[0-9a-f]{64}"
ADDRESS = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
# Where connections may be made to, and by which name it is known here: there is no resolver.
WAY = rf"([a-z0-9.-]{{1,253}}@)?{ADDRESS}:[1-9][0-9]{{0,4}}"
LOG = re.compile(rf"(http|https)://({ADDRESS})(:[0-9]{{1,5}})?(/.*)?")
SETTINGS = {
    "quotary.rootfs": PIN,
    "quotary.runtime": PIN,
    "quotary.model": PIN,
    "quotary.weights": r"[0-9a-f]{64}",
    "quotary.policy": r"[0-9a-f]{64}",
    "quotary.service": r"[a-z0-9._:/-]{1,256}",
    "quotary.log": r"https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?(/[a-z0-9._/-]*)?",
    "quotary.network": rf"{ADDRESS}/[0-9]{{1,2}},{ADDRESS}",
    "quotary.egress": rf"{WAY}(,{WAY}){{0,15}}",
    "quotary.forward": r"[1-9][0-9]{3,4}:[0-9]{1,10}:[1-9][0-9]{0,9}",
    "quotary.listen": r"[1-9][0-9]{0,4}|vsock:[1-9][0-9]{0,9}",
    "quotary.tee": r"virtio:[a-z0-9.-]{1,64}|tdx|snp|nitro|auto",
    "quotary.devices": r"[1-9][0-9]?",
    "quotary.run": r"serve|check|imports",
}
POLICY_DISK = "policy"
MAX_POLICY = 1 << 20
RUN = Path("/run/quotary")
USER = 1000
# The disks in the order in which the kernel finds them (nix/scripts/boot.py).
DISKS = ("rootfs", "runtime", "model")
# Where the runtime's disk (torch, transformers) is mounted; an empty folder in an image without one. Python
# looks there last, so nothing on that disk takes the place of a module that the root has.
RUNTIME = "/srv/runtime/usr"
MODULES = [f"{RUNTIME}/local/lib/python3.13/dist-packages", f"{RUNTIME}/lib/python3/dist-packages"]
# The loader has read its variable by then, and the enclave takes none that is not on its list.
START = f"""
import os, runpy, sys
os.environ.pop("LD_LIBRARY_PATH", None)
sys.path += {MODULES}
"""
PROGRAM = "runpy.run_module('quotary', run_name='__main__', alter_sys=True)"
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": str(RUN),
    "LC_ALL": "C.UTF-8",
    "LD_LIBRARY_PATH": f"{RUNTIME}/lib/x86_64-linux-gnu:{RUNTIME}/lib",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# What kernel and ramdisk give to PID 1. A word of the command line that is no parameter would stand here too,
# as the firmware's own `initrd=` does.
HANDED_OVER = frozenset(("HOME", "TERM", "PATH", "PWD", "OLDPWD", "SHLVL", "LC_CTYPE", "initrd"))
# Shut before the enclave starts, for good or for who is not root. A kernel that has no such file was built
# without what it would shut; one that has it and does not take the value stops the machine.
LOCKS = {
    "kernel/modules_disabled": "1",
    "kernel/kexec_load_disabled": "1",
    "kernel/unprivileged_bpf_disabled": "1",
    "kernel/dmesg_restrict": "1",
    "kernel/kptr_restrict": "2",
    "kernel/sysrq": "0",
    "kernel/yama/ptrace_scope": "3",
    "fs/suid_dumpable": "0",
    "user/max_user_namespaces": "0",
    "vm/unprivileged_userfaultfd": "0",
}
NO_NEW_PRIVILEGES = 38  # prctl(2)
BIND = ctypes.c_ulong(0x1000)  # mount(2)
POWER_OFF = 0x4321FEDC  # reboot(2): LINUX_REBOOT_CMD_POWER_OFF
DISK_SECONDS = 10


class Stopped(Exception):
    """Why this machine does not serve."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The words of the command line that are ours, by name; each at most once."""

    words: dict[str, str]

    @classmethod
    def parse(cls, line: str) -> "Settings":
        """Read the command line; raise ``Stopped`` for a word that is unknown, there twice or malformed."""
        found: dict[str, str] = {}
        for word in MAPPING.sub("", line).split():
            if word in FIXED or HOST.fullmatch(word):
                continue
            name, _, value = word.partition("=")
            if name not in SETTINGS:
                raise Stopped(f"the command line has the unknown word {word!r}")
            if name in found:
                raise Stopped(f"the command line has {name} twice")
            if re.fullmatch(SETTINGS[name], value) is None:
                raise Stopped(f"the command line's {name} is malformed")
            found[name] = value
        settings = cls(found)
        if any(text != settings.mapping() for text in MAPPING.findall(line)):
            raise Stopped("the command line maps other disks than it pins")
        return settings

    def get(self, name: str) -> str | None:
        """Return a setting's value, or nothing where it is absent."""
        return self.words.get(f"quotary.{name}")

    def listen(self) -> str | None:
        """Return where to serve: every address of this machine, or a vsock."""
        found = self.get("listen")
        return found if found is None or ":" in found else f"0.0.0.0:{found}"

    def ways(self) -> list[str]:
        """Return where connections may go, as ``[name@]address:port``: what is listed, and the log."""
        listed = (self.get("egress") or "").split(",")
        log = LOG.fullmatch(self.get("log") or "")
        if log is not None:
            listed.append(log[2] + (log[4] or {"http": ":80", "https": ":443"}[log[1]]))
        return [way for way in listed if way]

    def forwarder(self) -> list[str] | None:
        """Return the words that start what carries connections to a port of ours on, through the vsock."""
        found = self.get("forward")
        if found is None:
            return None
        port, _, there = found.partition(":")
        words = ["forward", "--listen", f"127.0.0.1:{port}", "--to", f"vsock:{there}"]
        return [sys.executable, "-I", "-c", START + PROGRAM, "enclave", *words]

    def mapping(self) -> str:
        """Return the word with which the kernel opens the pinned disks itself, as the build writes it."""
        pins = [(name, pin.split(":")) for name in DISKS if (pin := self.get(name))]
        table = ";".join(
            f"{name},,{place},ro,0 {int(blocks) * 8} verity 1 /dev/vd{letter} /dev/vd{letter} 4096 4096"
            f" {blocks} {int(blocks) + 1} sha256 {root} {salt} 1 panic_on_corruption"
            for place, (letter, (name, (root, blocks, salt))) in enumerate(zip("abc", pins, strict=False))
        )
        return f'dm-mod.create="{table}"'

    def command(self, policy: Path | None) -> list[str]:
        """Return the words that start what this machine is for."""
        if self.get("run") == "imports":
            return [sys.executable, "-I", "-c", START + IMPORTS + f"\nLOCKS = {list(LOCKS)}" + FOUND]
        verb = self.get("run") or "serve"
        words = [sys.executable, "-I", "-c", START + PROGRAM, "enclave", verb]
        options = {
            "--policy": str(policy) if policy else None,
            "--service": self.get("service"),
            "--log": self.get("log"),
            "--tee": self.get("tee"),
            "--attest-devices": self.get("devices"),
            "--listen": self.listen() if verb == "serve" else None,
            "--model": "/srv/model" if self.get("model") else None,
        }
        return words + [word for name, value in options.items() if value for word in (name, value)]


# `quotary.run=imports`: the image's own test imports everything that the service imports, says so and ends.
IMPORTS = """
import importlib, time
from importlib.util import find_spec
started = time.monotonic()
names = ["cryptography", "click", "urllib3", "flask", "gunicorn", "quotary", "enclave"]
names += [name for name in ("torch", "transformers", "tokenizers", "safetensors") if find_spec(name)]
for name in names:
    importlib.import_module(name)
    print("imported", name, f"{time.monotonic() - started:.1f} s")
if "torch" in names:
    from transformers import LlamaConfig, LlamaForCausalLM
    import torch
    shape = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
    shape |= dict(num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64)
    model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    print("generated", model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False).shape)
"""


# And what the service would find here, as its own user; a test compares it with what a machine must be.
FOUND = """
import errno, os, resource, socket
def way(kind, address, port):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(5)
        return "shut" if one.connect_ex((address, port)) == errno.EACCES else "open"
def text(path):
    try:
        with open(path) as file: return file.read().strip()
    except OSError as error: return error.strerror
for line in text("/proc/self/mounts").splitlines(): print("found mount", *line.split()[1:4])
for name in LOCKS: print("found", name, text("/proc/sys/" + name))
print("found lockdown", text("/sys/kernel/security/lockdown"))
print("found modules", "known" if os.path.exists("/proc/modules") else "unknown")
print("found sig_enforce", text("/sys/module/module/parameters/sig_enforce"))
print("found core", resource.getrlimit(resource.RLIMIT_CORE))
print("found ways", way(socket.SOCK_STREAM, "192.0.2.1", 443), way(socket.SOCK_DGRAM, "10.0.2.2", 53))
print("found listed", way(socket.SOCK_STREAM, "10.0.2.2", 8000), *text("/etc/hosts").split())
print("found environment", *sorted(os.environ))
print("found user", os.getuid(), os.getgid(), os.getgroups())
status = dict(line.split(":", 1) for line in text("/proc/self/status").splitlines())
print("found privileges", *(status[name].strip() for name in ("CapEff", "CapPrm", "NoNewPrivs")))
sockets = [text("/proc/net/" + kind).splitlines()[1:] for kind in ("tcp", "tcp6", "udp", "udp6")]
print("found sockets", sum(map(len, sockets)))
pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and text(f"/proc/{pid}/cmdline")]
names = [text(f"/proc/{pid}/comm") for pid in pids]
print("found processes", *sorted(names))
for base in ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/libexec"):
    if os.path.isdir(base): print("found programs", base, *sorted(os.listdir(base)))
for path in ("/new", "/usr/bin/new", "/srv/new", "/etc/new", "/dev/new"):
    try: open(path, "w").close(); print("found writable", path)
    except OSError as error: pass
"""


def main() -> int:
    """Boot, run, and return the exit code that the console reports."""
    require_environment(os.environ)
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(RUN, USER, USER)
    settings = Settings.parse(Path("/proc/cmdline").read_text(encoding="ascii"))
    name_ports(Path("/sys/class/virtio-ports"), Path("/dev/virtio-ports"))
    wanted = settings.get("policy")
    policy = fetch_policy(wanted, RUN / "policy.json") if wanted else None
    lock(Path("/proc/sys"))
    give_names(settings, RUN.parent / "hosts")
    hold(settings)
    return supervise(settings.command(policy), settings.forwarder())


def require_environment(found: Mapping[str, str]) -> None:
    """Stop where PID 1 was given a variable that nobody reviewed."""
    unknown = sorted(found.keys() - HANDED_OVER)
    if unknown:
        raise Stopped(f"the environment has the unknown variable {unknown[0]}")


def lock(settings: Path) -> None:
    """Shut what no enclave needs once it runs: modules, kexec, bpf, the kernel's own log, tracing, dumps."""
    for name, value in LOCKS.items():
        path = settings / name
        if path.exists():
            path.write_text(value)
            if path.read_text().strip() != value:
                raise Stopped(f"{name} is {path.read_text().strip()}, wanted {value}")


def give_names(settings: Settings, file: Path) -> None:
    """Let the names of the listed addresses be found, where any has one."""
    named = [way.partition("@")[::2] for way in settings.ways() if "@" in way]
    if named:
        lines = [f"{place.partition(':')[0]} {name}\n" for name, place in named]
        file.write_text("127.0.0.1 localhost\n" + "".join(lines))
        file.chmod(0o644)
        if ctypes.CDLL(None).mount(str(file).encode(), b"/etc/hosts", None, BIND, None) != 0:
            raise Stopped("names cannot be given to addresses")


def hold(settings: Settings) -> None:
    """Let nothing leave this machine but to the listed addresses, and answers from the port it serves."""
    if settings.get("network") is None:
        return
    listen = settings.get("listen") or "vsock:"
    answer = [] if ":" in listen else ["--answer", listen]
    places = [way.rpartition("@")[2] for way in settings.ways()]
    words = [sys.executable, "-I", "-m", "enclave.egress", *answer, *places]
    if subprocess.run(words, env=ENVIRONMENT, check=False).returncode != 0:
        raise Stopped("the network is not held to addresses")


def name_ports(ports: Path, folder: Path) -> None:
    """Link each virtio-serial port under the name that the host gave it, as udev would, and hand it over."""
    folder.mkdir(mode=0o755, exist_ok=True)
    for port in sorted(ports.glob("*")) if ports.is_dir() else []:
        name = (port / "name").read_text().strip() if (port / "name").is_file() else ""
        if re.fullmatch(r"[a-z0-9.-]{1,64}", name):
            os.chown(Path("/dev", port.name), USER, USER)
            (folder / name).symlink_to(Path("/dev", port.name))


def fetch_policy(wanted: str, into: Path) -> Path:
    """Copy the policy from its disk when its SHA-256 is the measured one; padding is zero bytes."""
    with disk(POLICY_DISK).open("rb") as file:
        padded = file.read(MAX_POLICY + 1)
    if len(padded) > MAX_POLICY:
        raise Stopped(f"the policy disk has more than {MAX_POLICY} bytes")
    data = padded.rstrip(b"\0")
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise Stopped(f"the policy on the disk has SHA-256 {found}, the command line wants {wanted}")
    into.write_bytes(data)
    os.chown(into, USER, USER)
    return into


def disk(serial: str) -> Path:
    """Return the block device with a serial number; disks may appear late."""
    deadline = time.monotonic() + DISK_SECONDS
    while time.monotonic() < deadline:
        for device in sorted(Path("/sys/block").glob("vd*")):
            if (device / "serial").read_text().strip() == serial:
                return Path("/dev", device.name)
        # An enclave without disks has them as files of its second ramdisk (nix/guest/init.sh).
        for backing in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
            if backing.read_text().split()[0] == f"/disks/{serial}.img":
                return Path("/dev", backing.parent.parent.name)
        time.sleep(0.1)
    raise Stopped(f"no disk with the serial number {serial}")


def supervise(words: list[str], forwarder: list[str] | None = None) -> int:
    """Run the enclave as an ordinary user, collect orphans, and return its exit code.

    forwarder: runs beside it; a machine whose forwarder has ended has no way to its log, and ends
    """
    beside = None if forwarder is None else _start(forwarder)
    child = _start(words)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)
        if beside is not None and pid == beside.pid:
            child.kill()
            raise Stopped(f"the forwarder ended with exit code {os.waitstatus_to_exitcode(status)}")


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words, env=ENVIRONMENT, user=USER, group=USER, extra_groups=(), cwd=RUN, preexec_fn=_renounce
    )


def _renounce() -> None:
    """In the child: nothing that it starts gains privileges, and nobody's memory is dumped."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs is not there")


def end_machine() -> None:
    """Power off; the kernel panics, and so ends too, should PID 1 ever return."""
    os.sync()
    time.sleep(0.2)
    ctypes.CDLL(None).reboot(ctypes.c_int(POWER_OFF))


def run(work: Callable[[], int]) -> None:
    """Do what this machine is for, say how it ended, and end the machine."""
    try:
        print(f"quotary: ended with exit code {work()}", flush=True)
    except (Stopped, OSError, ValueError) as error:
        print(f"quotary: stopped: {error}", flush=True)
    end_machine()


if __name__ == "__main__":
    run(main)
