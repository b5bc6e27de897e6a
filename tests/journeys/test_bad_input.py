"""What the machine and other people can do wrong, really done to the real commands: a typed error, its exit
code, what to do next, no traceback, and nothing half-written (docs/errors.md).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builder.errors import DiskFull, SandboxMissing
from builder.nix import Nix
from quotary.canonical import canonical
from quotary.statements.envelope import Envelope, sign
from quotary.tlog.merkle import leaf_hash
from tests.cli.conftest import Live, Ran, Run, live, run
from tests.conftest import ROOT
from tests.fakes.authority import Authority, key
from tests.fakes.disk import fill, small_disk
from tests.fakes.enclave import FakeEnclave, over_http
from tests.fakes.log import FakeLog, policy_document
from tests.fakes.machine import NONCE, World, hardware
from tests.fakes.processes import Log, start_log, until

__all__ = ["live", "run"]

needs_nix = pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed")


def quotary(*words: object, env: dict[str, str] | None = None, under: tuple[str, ...] = ()) -> Ran:
    """Run the command to its end as a user would, and demand that no traceback is shown."""
    ran = subprocess.run(
        [*under, sys.executable, "-m", "quotary", *map(str, words)],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in ran.stdout + ran.stderr
    assert "our bug" not in ran.stderr
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of loopback that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def enclave_policy(folder: Path) -> Path:
    document = policy_document() | {"enclave": {"poll_seconds": 1, "plaintext": "refused"}}
    path = folder / "policy.json"
    path.write_bytes(canonical(document, multiline=True))
    return path


def enclave_words(folder: Path, port: int) -> list[str]:
    """The command line of an enclave whose device never answers."""
    return [
        "--policy", str(enclave_policy(folder)), "--registry", "http://127.0.0.1:1", "--service", "chat",
        "--model", str(folder), "--listen", f"127.0.0.1:{port}", "--tee", "fd:0",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["registry", "witness", "enclave", "machine", "demo"])
def test_a_port_in_use_is_named_before_anything_starts(what: str, taken: int, tmp_path: Path) -> None:
    folder, bind = tmp_path / "d", f"127.0.0.1:{taken}"
    if what == "registry":
        assert (
            quotary("registry", "init", "--dir", folder, "--origin", "log.example.org/simulation").code == 0
        )
        ran = quotary("registry", "serve", "--dir", folder, "--bind", bind)
    elif what == "witness":
        assert quotary("registry", "witness", "init", "--dir", folder, "--name", "w.example.org").code == 0
        ran = quotary("registry", "witness", "serve", "--dir", folder, "--bind", bind)
    elif what == "enclave":
        ran = quotary("enclave", "serve", *enclave_words(tmp_path, taken), env={})
    elif what == "machine":
        folder.mkdir()
        vendor = ("--directory", tmp_path / "vendor")
        ran = quotary("enclave", "simulate-vm", "--image", folder, "--port", taken, *vendor)
    else:
        ran = quotary("demo", "--folder", folder, "--port", taken, "--exit")
    assert (ran.code, ran.out) == (40, ""), ran.err
    assert f"error: cannot listen on {bind}: Address already in use" in ran.err
    assert "next: choose another --" in ran.err


def test_the_proxy_names_a_port_in_use_and_asks_nothing(run: Run, live: Live, taken: int) -> None:
    enclave = FakeEnclave(live.world)
    with over_http(enclave) as url:
        words = ("--policy", live.policy, "--simulation", "--log", url, "--port", taken)
        ran = run("proxy", url, *words)
    assert ran.code == 40
    assert (
        f"cannot listen on 127.0.0.1:{taken}: Address already in use\nnext: choose another --port" in ran.err
    )
    assert enclave.prompts == []


def test_a_second_demo_in_the_same_folder_is_told_about_the_first(tmp_path: Path) -> None:
    import fcntl

    with open(tmp_path / "run.lock", "w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        ran = quotary("demo", "--folder", tmp_path, "--port", "0", "--exit")
    assert ran.code == 2
    assert "another demo runs" in ran.err
    assert "next: quotary demo --folder OTHER" in ran.err


def test_a_full_disk_refuses_entries_and_loses_none(tmp_path: Path) -> None:
    with small_disk(tmp_path / "log", 12 << 10) as disk:
        log = start_log(tmp_path)
        try:
            made = log.authority
            log.submit(made.allocation(), made.delegation())
            filler = fill(disk)
            refused = b""
            for number in range(200):
                entry = made.release(f"r{number}", material={"note": "x" * 40_000})
                answer = log.request("POST", "/api/v1/entries", entry)
                if answer.status == 507:
                    refused = entry
                    break
                assert answer.status in (200, 202), answer.data
            assert refused, "the disk never became full"
            problem = json.loads(answer.data)
            assert (problem["type"], problem["status"]) == ("/problems/full", 507)
            assert b"Nothing was written" in log.get(problem["type"])
            path = f"/api/v1/entries/by-hash/{leaf_hash(refused).hex()}"
            assert log.request("GET", path).status == 404
            assert log.get("/checkpoint")
            filler.unlink()
            log.publish(refused)
            assert "Traceback" not in [line for line in log.registry.log().splitlines() if line[:1] != "{"]
        finally:
            log.stop()
        checked = quotary("registry", "fsck", "--dir", log.folder)
        assert checked.code == 0, checked.err
        assert checked.out.startswith("equal: ")


def test_a_registry_that_finds_no_room_is_not_half_made(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 64) as disk:
        words = ("registry", "init", "--dir", disk / "log", "--origin", "log.example.org/simulation")
        ran = quotary(*words)
        assert ran.code == 40, ran.err
        assert ran.err.startswith("error: the d")
        assert "next: make room" in ran.err or "next: df -h" in ran.err
        assert list(disk.iterdir()) == []


def test_a_file_that_finds_no_room_is_not_half_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 64) as disk:
        filler = fill(disk)
        ran = quotary("keys", "new", disk / "owner.key")
        assert ran.code == 40
        assert "error: cannot write " in ran.err
        assert "No space left on device\nnext: df -h" in ran.err
        assert list(disk.iterdir()) == [filler]


def test_a_witness_that_cannot_remember_cosigns_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "witness", 256) as disk:
        log = start_log(tmp_path)
        try:
            before = log.json("/api/v1/log")["published"]
            filler = fill(disk)
            log.authority.last_delegation.setdefault("log", "")
            answer = log.request("POST", "/api/v1/entries", log.authority.allocation())
            assert answer.status == 202
            until(lambda: "507" in log.registry.log() or _signed_beyond(log), "the log has grown")
            seen = log.json("/api/v1/log")
            assert seen["published"] == before
            filler.unlink()
            until(lambda: log.json("/api/v1/log")["published"] != before, "the witness cosigns again")
        finally:
            log.stop()


def _signed_beyond(log: Log) -> bool:
    found = log.json("/api/v1/log")
    return str(found["signed"]) > str(found["published"])


@needs_nix
def test_a_build_on_a_full_disk_leaves_no_image(tmp_path: Path) -> None:
    with small_disk(tmp_path / "store", 1 << 10) as disk:
        large = tmp_path / "large"
        large.write_bytes(os.urandom(2 << 20))
        nix = Nix.open(disk)
        with pytest.raises(DiskFull, match="no space left"):
            nix.add(large)
        fill(disk)
        env = {**os.environ, "QUOTARY_STORE": str(disk)}
        words = ("--profile", "ci", "--source", ROOT, "--out", tmp_path / "image")
        ran = quotary("build", "run", *words, "--fresh-lock", env=env)
    assert ran.code == 40, ran.err
    assert "next: df -h" in ran.err
    assert not (tmp_path / "image").exists()


def test_without_nix_a_build_says_how_to_get_it(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    for verb in ("run", "check", "prefetch"):
        out = ("--out", tmp_path / "image") if verb == "run" else ()
        ran = quotary("build", verb, "--profile", "ci", "--source", ROOT, *out, env=env)
        assert (ran.code, ran.out) == (40, ""), ran.err
        assert "is not installed\nnext: apt-get install nix-bin" in ran.err
    assert list(tmp_path.iterdir()) == []


SANDBOX = """
import sys
from pathlib import Path
from builder.nix import Nix
from quotary.cli import quotary, main
from quotary.errors import QuotaryError
folder = Path(sys.argv[1])
try:
    Nix.open(folder / "store").build(folder / "one.nix", [])
except QuotaryError as error:
    print(type(error).__name__, error.exit_code, error.next_command, error)
"""


@needs_nix
def test_without_namespaces_nothing_is_built_outside_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "one.nix").write_text(
        'derivation { name = "one"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }'
    )
    # In a user namespace of its own the kernel is told to give no further ones, as a hardened machine does.
    closed = "echo 0 > /proc/sys/user/max_mnt_namespaces && echo 0 > /proc/sys/user/max_user_namespaces"
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*inside, closed], capture_output=True).returncode:
        pytest.skip("no user namespace can be had to take the others away in")
    words = [*inside, f'{closed} && exec "$0" "$@"', sys.executable, "-c", SANDBOX, str(tmp_path)]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    said = "SandboxMissing 40 sysctl kernel.unprivileged_userns_clone=1 this machine does not let Nix isolate"
    assert ran.stdout.startswith(said), ran.stdout + ran.stderr
    assert SandboxMissing.exit_code == 40
    assert not list((tmp_path / "store" / "nix" / "store").glob("*-one"))


def test_an_image_without_firmware_is_not_measured_and_not_started(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    boot = {"cmdline": {"text": "quotary.listen=8080"}, "disks": []}
    (image / "boot.json").write_text(json.dumps(boot))
    vendor = ("--directory", tmp_path / "vendor")
    ran = quotary("enclave", "simulate-vm", "--image", image, "--port", free_port(), *vendor)
    assert ran.code == 40
    assert f"cannot read {image / 'firmware'}: No such file or directory\nnext: quotary build run" in ran.err
    ran = quotary("measure", "run", image, "--platform", "tdx")
    assert ran.code in (30, 40)
    assert ran.err.startswith("error: ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_stale_checkpoint_is_refused_by_its_age(run: Run, tmp_path: Path) -> None:
    old = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    pki, platform = hardware(tmp_path, now=old)
    yesterday = Live(World(pki, platform, log=FakeLog(now=old), now=old).publish(), tmp_path)
    bundle = yesterday.file("bundle.json", yesterday.world.bundle())
    ran = run("verify", bundle, "--policy", yesterday.policy, "--simulation", "--offline")
    assert ran.code == 11, ran.err
    assert ran.err.startswith("error: age: found ")
    assert "FAILED" in ran.out


def test_an_answer_to_another_nonce_is_rejected(run: Run, live: Live) -> None:
    bundle = live.file("bundle.json", live.world.bundle())
    document = live.file("document.json", live.world.document().encode())
    words = ("verify", document, "--policy", live.policy, "--simulation", "--bundle", bundle)
    assert run(*words, "--nonce", NONCE.hex()).code == 0
    ran = run(*words, "--nonce", "00" * 32)
    assert ran.code == 10
    assert ran.err.startswith("error: nonce: found ")


def test_a_truncated_answer_is_not_shown(run: Run, live: Live, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    with over_http(FakeEnclave(live.world, cut=5)) as url:
        words = ("--policy", live.policy, "--simulation", "--log", url, "--prompt", "x", "--keep", kept)
        ran = run("chat", url, *words)
    assert (ran.code, ran.out) == (40, ""), ran.err
    assert "error: stream truncated after " in ran.err
    assert not kept.exists()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    running = start_log(tmp_path_factory.mktemp("registry"))
    running.submit(running.authority.allocation(), running.authority.delegation())
    yield running
    running.stop()


def _flipped(entry: bytes) -> bytes:
    """The same entry with another, canonical signature of the same length."""
    document = json.loads(entry)
    first = document["signatures"][0]["sig"]
    document["signatures"][0]["sig"] = ("B" if first[0] != "B" else "C") + first[1:]
    return canonical(document)


def _of_an_unknown_kind(made: Authority) -> bytes:
    payload = Envelope.parse(made.release("kind", sequence=1)).payload
    return sign(payload.replace(b"quotary.dev/release/v1", b"quotary.dev/wish/v1"), [key("builder1")])


@pytest.mark.parametrize(
    ("what", "status", "problem", "code"),
    [
        ("malformed", 400, "malformed", 30),
        ("a wrong signature", 403, "not-admitted", 41),
        ("no authority", 403, "not-admitted", 41),
        ("an oversized body", 413, "too-large", 30),
        ("an unknown kind", 415, "unsupported", 20),
    ],
)
def test_a_bad_submission_is_refused_and_nothing_is_logged(
    log: Log, run: Run, tmp_path: Path, what: str, status: int, problem: str, code: int
) -> None:
    made = log.authority
    entry = {
        "malformed": lambda: b'{"payload":',
        "a wrong signature": lambda: _flipped(made.release("wrong", sequence=1)),
        "no authority": lambda: made.release("nobody", sequence=1, signers=("stranger",)),
        "an oversized body": lambda: bytes(70_000),
        "an unknown kind": lambda: _of_an_unknown_kind(made),
    }[what]()
    before = log.json("/api/v1/log")["integrated"]
    answer = log.request("POST", "/api/v1/entries", entry)
    found = json.loads(answer.data)
    assert (answer.status, found["type"]) == (status, f"/problems/{problem}"), found
    assert found["detail"]
    assert log.get(found["type"])
    file = tmp_path / "bad.entry"
    file.write_bytes(entry)
    ran = run("submit", file, "--url", log.address)
    assert ran.code == code, ran.err
    assert ran.err.startswith("error: ")
    assert log.request("GET", f"/api/v1/entries/by-hash/{leaf_hash(entry).hex()}").status == 404
    assert log.json("/api/v1/log")["integrated"] == before


def test_an_unknown_index_says_how_far_the_log_goes(log: Log, run: Run) -> None:
    answer = log.request("GET", "/api/v1/entries/99999")
    found = json.loads(answer.data)
    assert (answer.status, found["type"]) == (404, "/problems/not-yet-published")
    assert found["size"] == log.json("/api/v1/log")["published"]
    ran = run("get", "99999", "--url", log.address)
    assert ran.code == 40
    assert "covers" in ran.err


def test_a_witness_without_a_folder_says_how_to_make_one(tmp_path: Path) -> None:
    ran = quotary("registry", "witness", "serve", "--dir", tmp_path / "none", "--bind", "127.0.0.1:0")
    assert ran.code == 40
    assert "next: quotary registry witness init" in ran.err
    ran = quotary("registry", "serve", "--dir", tmp_path / "none")
    assert ran.code == 40
    assert "next: quotary registry init" in ran.err
    assert list(tmp_path.iterdir()) == []


HOSTILE = {
    "LD_PRELOAD": "/nowhere/hook.so",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSTARTUP": "/nowhere/start.py",
    "PYTHONWARNINGS": "ignore",
    "PYTHONDEVMODE": "1",
    "QUOTARY_SKIP_VERIFICATION": "1",
    "QUOTARY_INSECURE": "1",
    "QUOTARY_POLICY": "/nowhere/policy.json",
    "QUOTARY_LOG": "http://127.0.0.1:1",
    "GUNICORN_CMD_ARGS": "--workers 9",
    "FLASK_DEBUG": "1",
    "HTTPS_PROXY": "http://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_variable_never_lets_a_start_through(name: str, tmp_path: Path) -> None:
    """The start is refused for the variable itself, before the device is asked for anything."""
    ran = quotary("enclave", "serve", *enclave_words(tmp_path, 0), env={name: HOSTILE[name]})
    assert ran.code == 11, ran.err
    assert f"environment: found the variable {name}" in ran.err
    assert "next: " in ran.err


def test_all_of_them_together_change_no_verdict(run: Run, live: Live, tmp_path: Path) -> None:
    """A refused bundle stays refused, an accepted one accepted, whatever the environment asks for."""
    policy, trust = str(live.policy), {"QUOTARY_TRUST": str(tmp_path / "t")}
    good = live.file("bundle.json", live.world.bundle())
    bad = live.file("bad.json", live.world.bundle()[:-40])
    words = ("--policy", policy, "--offline")
    for env in (trust, {**HOSTILE, **trust}):
        assert quotary("verify", good, *words, "--simulation", env=env).code == 0
        assert quotary("verify", good, *words, env=env).code == 11
        assert quotary("verify", bad, *words, "--simulation", env=env).code == 30


def test_a_boot_check_without_a_device_is_no_boot_check_in_any_environment(tmp_path: Path) -> None:
    words = enclave_words(tmp_path, 0)
    del words[words.index("--listen") : words.index("--listen") + 2]
    for env in ({}, HOSTILE):
        ran = quotary("enclave", "check", *words, env=env)
        assert ran.code == 40, ran.err
        assert "the TEE device does not answer" in ran.err


@pytest.mark.parametrize("index", ["9" * 50, "9" * 5000, "²", "-1", "0x1"])
def test_an_index_that_is_none_is_no_bug_of_ours(run: Run, index: str) -> None:
    ran = run("get", "--url", "http://127.0.0.1:1", "--", index)
    assert ran.code in (2, 30), ran.err
    assert "our bug" not in ran.err
    ran = run("demo", "--port", "0", "--folder", "/proc/nowhere/x", "--exit")
    assert (ran.code, "our bug" in ran.err) == (40, False), ran.err
