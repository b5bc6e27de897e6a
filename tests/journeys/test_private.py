"""Token, relay, capsule, enclave, receipt: real processes, and what each hop saw and wrote down."""

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3

from builder.model import make_model
from private.issuing import Epoch, create_account, create_key
from quotary.canonical import canonical
from quotary.statements.envelope import sign
from simulator.pki import open_pki
from simulator.process import snapshot
from simulator.program import enclave_program as program_of
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.processes import Log, Server, start_log, until
from tests.journeys.test_enclave import SERVICE, World, free_port, policy_of, published

ISSUER = "example.org/issuer"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A log and a released program under a policy that takes capsules and wants tokens."""
    log = start_log(tmp_path)
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor = open_pki(tmp_path / "pki", now)
        model = make_model(tmp_path / "model", source=ROOT / "quotary", steps=1)
        document = json.loads(policy_of(log, vendor.root_sha256))
        document["enclave"] = {"poll_seconds": 1, "plaintext": "refused", "oblivious": "offered"}
        signers = {"keys": authority.keys("builder2"), "threshold": 1}
        document["issuer"] = {"name": "issuer.example.org", "service": ISSUER, "signers": signers}
        policy = canonical(document, multiline=True)
        (tmp_path / "policy.json").write_bytes(policy)
        address = f"127.0.0.1:{free_port()}"
        program = program_of(tmp_path / "policy.json", model.folder, log.address, SERVICE, address, None, ())
        taken = snapshot(program)
        release = published(log, taken)
        yield World(
            tmp_path, log, Platform(vendor, CURRENT, LATEST, now), policy, taken, model, release, address
        )
    finally:
        log.stop()


def log_issuer(log: Log, folder: Path) -> str:
    """Give the issuer a service, log its key, and make an account; returns the account's secret."""
    makes, now = log.authority, datetime.now(UTC).replace(microsecond=0)
    log.submit(
        makes.allocation(ISSUER),
        makes.delegation(ISSUER, builders=("builder2",), notices=("issuer-key",)),
    )
    epoch = Epoch("standard", now - timedelta(hours=1), now + timedelta(days=7), makes.origin, ISSUER, 1)
    log.submit(sign(create_key(folder, epoch), [authority.key("builder2")]))
    return create_account(folder, "standard", 100)


def test_a_question_through_relay_and_token_is_answered_and_no_hop_knows_both_ends(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What this user accepted of another log of that name does not speak against this one.
    monkeypatch.setenv("QUOTARY_TRUST", str(tmp_path / "trust"))
    canary = f"canary-{secrets.token_hex(8)}"
    secret = log_issuer(world.log, tmp_path / "issuer")
    (tmp_path / "account").write_text(secret)
    with ExitStack() as stack, world.start() as child:
        issuer = serve(stack, tmp_path / "issuer.err", "issuer", "serve", "--dir", tmp_path / "issuer")
        relay = serve(
            stack, tmp_path / "relay.err", "relay", "serve", "--gateway", f"chat=http://{world.address}"
        )
        state = f"http://{world.address}/v1/state"
        until(lambda: child.child.process.poll() is not None or is_ready(state), "the enclave is ready", 150)
        assert child.child.process.poll() is None, capfd.readouterr().err
        ask = (
            "chat", f"http://{world.address}", "--policy", tmp_path / "policy.json", "--simulation",
            "--relay", f"{relay.address}/chat", "--issuer", issuer.address, "--account", tmp_path / "account",
            "--log", world.log.address, "--max-tokens", "8", "--prompt", canary, "--json",
        )  # fmt: skip
        answered = run(*ask, "--keep", tmp_path / "evidence.json")
        assert answered.returncode == 0, answered.stderr
        without = run(*ask[:7], *ask[11:])
        assert without.returncode == 40
        assert "an answer costs a token" in without.stderr
        relay.stop()
        unreachable = run(*ask)
        assert unreachable.returncode == 40, "without its relay a client does not go there by itself"
        child.child.process.terminate()
        child.child.process.wait(30)
    said = {"enclave": capfd.readouterr().err, "relay": relay.log(), "issuer": issuer.log()}
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "issuer").rglob("*") if path.is_file())
    for hop, text in said.items():
        assert canary not in text, hop
        assert secret not in text, hop
    assert "127.0.0.1" not in said["relay"] + said["issuer"]
    assert canary.encode() not in on_disk
    verified = run(
        "verify",
        tmp_path / "evidence.json",
        "--policy",
        tmp_path / "policy.json",
        "--simulation",
        "--offline",
    )
    assert verified.returncode == 0, verified.stderr


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "quotary", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


def serve(stack: ExitStack, errors: Path, *words: object) -> Server:
    server = Server([*map(str, words), "--bind", "127.0.0.1:0"], errors, module="quotary").start()
    stack.callback(server.stop)
    assert server.address, server.log()
    return server


def is_ready(url: str) -> bool:
    try:
        found = urllib3.request("GET", url, retries=False, timeout=5)
    except urllib3.exceptions.HTTPError:
        return False
    return bool(json.loads(found.data).get("phase") == "ready")
