"""PID 1 of the guest: which command lines it accepts, and what it makes of them."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from enclave.environment import check_environment
from tests.conftest import ROOT

PIN = f"{'ab' * 32}:9695:{'cd' * 32}"
LINE = f"console=ttyS0 panic=-1 quiet quotary.rootfs={PIN} quotary.listen=8080"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem + "_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


BOOT = load(ROOT / "nix" / "scripts" / "boot.py")
PINNED = {"root": "ab" * 32, "blocks": 9695, "salt": "cd" * 32}


@pytest.fixture(scope="module")
def init() -> ModuleType:
    return load(ROOT / "nix" / "guest" / "init.py")


@pytest.fixture(scope="module")
def first() -> ModuleType:
    return load(ROOT / "nix" / "guest" / "first.py")


def test_a_command_line_of_known_words_is_read(init: ModuleType) -> None:
    found = init.Settings.parse(LINE + " quotary.tee=virtio:quotary.tee initrd=initrd\n")
    assert (found.get("listen"), found.get("tee"), found.get("model")) == ("8080", "virtio:quotary.tee", None)


def test_an_unknown_variable_stops_the_machine(init: ModuleType) -> None:
    init.require_environment({"HOME": "/", "TERM": "linux"})
    with pytest.raises(init.Stopped, match="unknown variable LD_PRELOAD"):
        init.require_environment({"HOME": "/", "LD_PRELOAD": "/srv/model/x.so"})


def test_what_an_enclave_does_not_need_is_shut_and_what_does_not_shut_stops_the_machine(
    init: ModuleType, tmp_path: Path
) -> None:
    for name in list(init.LOCKS)[1:]:  # a kernel without modules has no such file
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("7\n")
    init.lock(tmp_path)
    assert {name: (tmp_path / name).read_text() for name in list(init.LOCKS)[1:]} == {
        name: value for name, value in init.LOCKS.items() if name != "kernel/modules_disabled"
    }
    (tmp_path / "kernel" / "modules_disabled").symlink_to("/dev/null")
    with pytest.raises(init.Stopped, match="kernel/modules_disabled is , wanted 1"):
        init.lock(tmp_path)


@pytest.mark.parametrize("tee", ["tdx", "snp", "nitro", "auto"])
def test_a_guest_on_real_hardware_may_show_devices(init: ModuleType, tee: str) -> None:
    found = init.Settings.parse(f"{LINE} quotary.tee={tee} quotary.devices=12")
    words = found.command(None)
    assert words[words.index("--tee") + 1] == tee
    assert words[words.index("--attest-devices") + 1] == "12"


@pytest.mark.parametrize(
    "word",
    [
        "quotary.tee=sgx",
        "quotary.devices=0",
        "quotary.devices=100",
        "init=/bin/sh",
        "rdinit=/bin/sh",
        "systemd.unit=x",
        "console=tty0",
        "quotary.debug=1",
        "quotary.listen=0",
        "quotary.listen=8080x",
        "quotary.listen=",
        "quotary.listen",
        "quotary.listen=1 quotary.listen=1",
        "quotary.policy=" + "AB" * 32,
        "quotary.policy=" + "ab" * 31,
        "quotary.model=" + "ab" * 32,
        "quotary.runtime=" + "ab" * 32,
        "quotary.log=ftp://example.org",
        "quotary.log=http://example.org/?x",
        "quotary.network=10.0.2.15,10.0.2.2",
        "quotary.tee=fd:3",
        "quotary.run=shell",
        "quotary.service=UPPER",
        "quotary.listen=vsock:0",
        "quotary.listen=vsock:",
        "quotary.listen=0.0.0.0:80",
        "quotary.egress=10.0.0.1",
        "quotary.egress=log.example.org:443",
        "quotary.egress=10.0.0.1:443,",
        "quotary.egress=a@b@10.0.0.1:443",
        "quotary.egress=" + ",".join(["10.0.0.1:443"] * 17),
        "quotary.forward=8000:3",
        "quotary.forward=80:3:80",
        "quotary.forward=8000:example.org:80",
    ],
)
def test_an_unknown_doubled_or_malformed_word_stops_the_machine(init: ModuleType, word: str) -> None:
    line = LINE.replace(" quotary.listen=8080", "") if "listen" in word else LINE
    with pytest.raises(init.Stopped):
        init.Settings.parse(f"{line} {word}")


def test_the_fixed_words_are_those_that_the_image_writes(init: ModuleType) -> None:
    kernels = json.loads((ROOT / "nix" / "image.json").read_text())["kernels"].values()
    words = {word for kernel in kernels for word in kernel["words"]}
    disks = [{"serial": name, **PINNED} for name in BOOT.DISKS]
    words |= {word for count in (1, 2, 3) for word in BOOT.mapping(disks[:count])[:-1]}
    assert init.FIXED - {"initrd=initrd"} == words


@pytest.mark.parametrize(
    "names", [("rootfs",), ("rootfs", "model"), ("rootfs", "runtime"), ("rootfs", "runtime", "model")]
)
def test_the_guest_accepts_the_mapping_of_the_disks_that_are_pinned(
    init: ModuleType, names: tuple[str, ...]
) -> None:
    mapping = " ".join(BOOT.mapping([{"serial": name, **PINNED} for name in names]))
    pins = " ".join(f"quotary.{name}={PIN}" for name in names)
    found = init.Settings.parse(f"quiet {mapping} {pins} quotary.listen=80")
    assert found.get("listen") == "80"
    assert f'{found.mapping()}"'.count("verity") == len(names)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ab" * 32 + " " + "cd" * 32, "ac" * 32 + " " + "cd" * 32),
        (" 9695 9696", " 9694 9695"),
        ("panic_on_corruption", "ignore_corruption"),
        ("rootfs,,0,ro", "rootfs,,0,rw"),
        ("/dev/vda /dev/vda", "/dev/vdb /dev/vdb"),
        ('"rootfs', '"evil,,1,ro,0 8 linear /dev/vdc 0;rootfs'),
        (" verity 1", " linear 1"),
    ],
)
def test_a_mapping_of_other_disks_than_the_pinned_ones_stops_the_machine(
    init: ModuleType, old: str, new: str
) -> None:
    mapping = " ".join(BOOT.mapping([{"serial": "rootfs", **PINNED}]))
    assert old in mapping
    with pytest.raises(init.Stopped, match="maps other disks"):
        init.Settings.parse(f"quiet {mapping.replace(old, new)} quotary.rootfs={PIN}")


def test_a_second_mapping_and_one_without_pins_stop_the_machine(init: ModuleType) -> None:
    mapping = BOOT.mapping([{"serial": "rootfs", **PINNED}])[-1]
    with pytest.raises(init.Stopped, match="maps other disks"):
        init.Settings.parse(f'{mapping} dm-mod.create="x,,1,ro,0 8 zero" quotary.rootfs={PIN}')
    with pytest.raises(init.Stopped, match="maps other disks"):
        init.Settings.parse(mapping)
    with pytest.raises(init.Stopped, match="unknown word"):
        init.Settings.parse(f"quotary.rootfs={PIN} {mapping[:-1]}")


def test_a_hypervisor_may_say_where_its_devices_are_and_nothing_else(init: ModuleType) -> None:
    assert init.Settings.parse(f"{LINE} virtio_mmio.device=4K@0xd0000000:5").get("listen") == "8080"
    for word in ("virtio_mmio.device=", "virtio_mmio.device=4K@0xd0000000:5,x", "virtio_mmio.other=1"):
        with pytest.raises(init.Stopped, match="unknown word"):
            init.Settings.parse(f"{LINE} {word}")


def test_the_network_is_set_up_by_the_requests_that_the_kernel_knows(first: ModuleType) -> None:
    assert [(name, request) for name, request, _ in first.requests(None)] == [(b"lo", 0x8914)]
    wanted = first.requests("10.0.2.15/24,10.0.2.2")
    assert [name for name, _, _ in wanted] == [b"lo", b"eth0", b"eth0", b"eth0", None]
    values = [value for _, _, value in wanted]
    assert values[1].hex() == "020000000a00020f" + "00" * 8
    assert values[2].hex() == "02000000ffffff00" + "00" * 8
    assert len(values[4]) == 120
    assert values[4][24:40].hex() == "020000000a000202" + "00" * 8
    assert values[4][56:58] == b"\x03\0"


def test_a_mount_that_the_kernel_refuses_names_its_place(first: ModuleType) -> None:
    with pytest.raises(OSError, match="/nonexistent"):
        first.mount("none", "/nonexistent", "tmpfs", first.PLAIN)


def test_every_setting_that_a_build_may_write_is_one_that_the_guest_reads(init: ModuleType) -> None:
    assert {f"quotary.{name}" for name in BOOT.SETTINGS} <= set(init.SETTINGS)


def test_options_are_passed_where_the_command_line_has_the_word(init: ModuleType) -> None:
    line = f"{LINE} quotary.model={PIN} quotary.service=example.org/chat quotary.log=http://10.0.2.2:8000"
    words = init.Settings.parse(line).command(Path("/run/quotary/policy.json"))
    assert words[words.index("enclave") :][:2] == ["enclave", "serve"]
    options = dict(
        zip(words[words.index("serve") + 1 :: 2], words[words.index("serve") + 2 :: 2], strict=True)
    )
    assert options["--policy"] == "/run/quotary/policy.json"
    assert options["--service"] == "example.org/chat"
    assert options["--model"] == "/srv/model"
    assert "--tee" not in options


def test_what_lies_on_the_runtimes_disk_comes_last_and_takes_no_modules_place(init: ModuleType) -> None:
    words = init.Settings.parse(f"{LINE} quotary.runtime={PIN}").command(None)
    assert words[1:3] == ["-I", "-c"]
    program = words[3].replace(init.PROGRAM, "print(*sys.path, sep='\\n')")
    said = subprocess.run([sys.executable, *words[1:3], program], capture_output=True, text=True, timeout=30)
    assert said.stdout.split("\n")[-3:-1] == init.MODULES
    assert said.stdout.count(init.RUNTIME) == 2


def test_an_enclave_serves_on_every_address_or_on_a_vsock(init: ModuleType) -> None:
    tcp = init.Settings.parse(LINE).command(None)
    assert tcp[tcp.index("--listen") + 1] == "0.0.0.0:8080"
    vsock = init.Settings.parse(LINE.replace("8080", "vsock:8443")).command(None)
    assert vsock[vsock.index("--listen") + 1] == "vsock:8443"


NETWORK = "quotary.network=10.0.2.15/24,10.0.2.2"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("quotary.log=http://10.0.2.2:8000", ["--answer", "8080", "10.0.2.2:8000"]),
        ("quotary.log=https://10.0.2.2/log", ["--answer", "8080", "10.0.2.2:443"]),
        ("quotary.log=http://log.example.org", ["--answer", "8080"]),
        ("quotary.egress=log.example.org@10.0.2.3:443,10.0.2.4:80", ["--answer", "8080", "10.0.2.3:443", "10.0.2.4:80"]),
        ("", ["--answer", "8080"]),
    ],
)  # fmt: skip
def test_a_machine_with_a_network_is_held_to_its_log_and_what_is_listed(
    init: ModuleType, monkeypatch: pytest.MonkeyPatch, words: str, asked: list[str]
) -> None:
    ran: list[list[str]] = []

    def run(found: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        ran.append(found)
        return subprocess.CompletedProcess(found, code)

    monkeypatch.setattr(init.subprocess, "run", run)
    code = 0
    init.hold(init.Settings.parse(f"{LINE} {NETWORK} {words}"))
    assert ran == [[sys.executable, "-I", "-m", "enclave.egress", *asked]]
    init.hold(init.Settings.parse(f"{LINE} {words}"))
    assert len(ran) == 1
    code = 1
    with pytest.raises(init.Stopped, match="not held"):
        init.hold(init.Settings.parse(f"{LINE} {NETWORK} {words}"))


def test_nothing_is_answered_over_the_network_where_a_vsock_is_served(
    init: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(init.subprocess, "run", lambda words, **_: ran.append(words) or done)
    init.hold(init.Settings.parse(f"{LINE.replace('8080', 'vsock:8443')} {NETWORK}"))
    assert ran == [[sys.executable, "-I", "-m", "enclave.egress"]]


def test_listed_names_are_found_in_the_guests_own_table(
    init: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted: list[tuple[object, ...]] = []
    libc = type("Library", (), {"mount": staticmethod(lambda *words: mounted.append(words) or 0)})
    monkeypatch.setattr(init.ctypes, "CDLL", lambda _: libc)
    init.give_names(init.Settings.parse(f"{LINE} quotary.egress=10.0.2.4:80"), tmp_path / "hosts")
    assert mounted == []
    listed = f"{LINE} quotary.egress=log.example.org@10.0.2.3:443,10.0.2.4:80"
    init.give_names(init.Settings.parse(listed), tmp_path / "hosts")
    assert (tmp_path / "hosts").read_text() == "127.0.0.1 localhost\n10.0.2.3 log.example.org\n"
    assert [words[:2] for words in mounted] == [(str(tmp_path / "hosts").encode(), b"/etc/hosts")]


def test_a_forwarder_runs_beside_the_enclave_and_its_end_is_the_machines(
    init: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = init.Settings.parse(f"{LINE} quotary.forward=8000:3:8001").forwarder()
    assert words[-5:] == ["forward", "--listen", "127.0.0.1:8000", "--to", "vsock:3:8001"]
    assert init.Settings.parse(LINE).forwarder() is None
    program = [sys.executable, "-c"]
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(init.signal, "signal", lambda *_: None)
    monkeypatch.setattr(init, "_start", lambda found: started.append(subprocess.Popen(found)) or started[-1])
    waits = [*program, "import signal; signal.pause()"]
    with pytest.raises(init.Stopped, match="the forwarder ended with exit code 7"):
        init.supervise(waits, [*program, "raise SystemExit(7)"])
    assert started[1].wait(10) == -9
    assert init.supervise([*program, "raise SystemExit(3)"], waits) == 3
    for process in started:
        process.kill()
        process.wait(10)


def test_the_enclave_accepts_the_environment_that_it_is_given(init: ModuleType) -> None:
    program = init.START + "print(*os.environ)"
    said = subprocess.run(
        [sys.executable, "-I", "-c", program],
        env=init.ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "HF_HUB_OFFLINE" in said.stdout.split()
    check_environment(dict.fromkeys(said.stdout.split(), ""))


def test_the_loader_keeps_the_runtimes_libraries_when_its_variable_is_gone(
    init: ModuleType, tmp_path: Path
) -> None:
    library = next(Path("/").glob("lib/*-linux-gnu/libz.so.1"))
    shutil.copyfile(library, tmp_path / "libonly-there.so")
    program = (
        init.START + "import ctypes; ctypes.CDLL('libonly-there.so'); print('LD_LIBRARY_PATH' in os.environ)"
    )
    environment = {**init.ENVIRONMENT, "LD_LIBRARY_PATH": str(tmp_path)}
    words = [sys.executable, "-I", "-c", program]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)
    assert said.stdout == "False\n", said.stderr


def test_a_policy_is_taken_from_its_disk_only_under_the_measured_digest(
    init: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = b'{"v":1}'
    device = tmp_path / "vdb"
    device.write_bytes(policy + bytes(4096 - len(policy)))
    monkeypatch.setattr(init, "disk", lambda serial: device)
    monkeypatch.setattr(init, "USER", os.getuid())
    wanted = hashlib.sha256(policy).hexdigest()
    assert init.fetch_policy(wanted, tmp_path / "policy.json").read_bytes() == policy
    device.write_bytes(policy + b" " + bytes(4088))
    with pytest.raises(init.Stopped, match="SHA-256"):
        init.fetch_policy(wanted, tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()
    device.write_bytes(bytes(init.MAX_POLICY + 1))
    with pytest.raises(init.Stopped, match="more than"):
        init.fetch_policy(wanted, tmp_path / "other.json")


def assembled(tools: Path, kernel: Path, line: Path, initrd: Path | None, out: Path) -> None:
    out.write_bytes(kernel.read_bytes() + line.read_bytes() + (initrd.read_bytes() if initrd else b""))


def what(tmp_path: Path, **changes: object) -> dict[str, object]:
    for name in ("kernel/vmlinuz", "initrd/initrd.img", "rootfs/rootfs.img", "firmware/firmware"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "rootfs" / "verity.json").write_text(
        f'{{"root": "{"ab" * 32}", "blocks": 7, "salt": "{"cd" * 32}", "label": "rootfs-ci"}}'
    )
    folders = {name: str(tmp_path / name) for name in ("kernel", "initrd", "rootfs", "firmware")}
    given = {
        "profile": "ci",
        "runtime": None,
        "model": None,
        "policySha256": "",
        "settings": {},
        "words": ["quiet"],
        "uki": "x",
    }
    return {**folders, **given, **changes}


def test_the_command_line_pins_disk_and_policy_in_a_fixed_order(tmp_path: Path) -> None:
    given = what(tmp_path, policySha256="ef" * 32, settings={"tee": "virtio:quotary.tee", "listen": "80"})
    BOOT.build(given, tmp_path / "out", assembled)
    assert (tmp_path / "out" / "cmdline").read_text() == (
        f"quiet quotary.rootfs={'ab' * 32}:7:{'cd' * 32} quotary.policy={'ef' * 32} quotary.listen=80 quotary.tee=virtio:quotary.tee"
    )


@pytest.mark.parametrize(
    "settings",
    [{"listen": "80 init=/bin/sh"}, {"debug": "1"}, {"log": 'http://"x"'}, {"log": "http://" + "a" * 2048}],
)
def test_no_setting_can_smuggle_a_word_onto_the_command_line(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    with pytest.raises(SystemExit):
        BOOT.build(what(tmp_path, settings=settings), tmp_path / "out", assembled)


def test_a_kernel_without_a_ramdisk_is_told_the_disks_and_the_image_says_so(
    tmp_path: Path, init: ModuleType
) -> None:
    BOOT.build(what(tmp_path, initrd=None), tmp_path / "out", assembled)
    line = (tmp_path / "out" / "cmdline").read_text()
    assert line.startswith(
        "quiet root=/dev/dm-0 rootfstype=erofs ro init=/usr/sbin/quotary-first dm-mod.waitfor=/dev/vda "
    )
    assert init.Settings.parse(line).mapping() in line
    files = json.loads((tmp_path / "out" / "boot.json").read_text())["files"]
    assert set(files) == {"vmlinuz", "rootfs.img", "firmware", "enclave.efi"}
    unified = (tmp_path / "out" / "enclave.efi").read_bytes()
    assert files["enclave.efi"]["sha256"] == hashlib.sha256(unified).hexdigest()
