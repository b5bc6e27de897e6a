"""The verifier as a process: its key, its address, and a result that the command checks offline."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from quotary.canonical import b64
from tests.cli.conftest import Run, run
from tests.conftest import ROOT
from tests.fakes.log import FakeLog, policy_bytes
from tests.fakes.machine import World, hardware

__all__ = ["run"]

CHALLENGE = b"\5" * 64


@pytest.fixture
def served(run: Run, tmp_path: Path) -> Iterator[tuple[World, str]]:
    """A verifier of now for a simulated vendor, on a port of its own."""
    now = datetime.now(UTC).replace(microsecond=0)
    world = World(*hardware(tmp_path, now=now), log=FakeLog(now=now), now=now).publish()
    document = world.policy() | {"minimum": {"size": 1, "time": "2026-01-01T00:00:00Z"}}
    (tmp_path / "policy.json").write_bytes(policy_bytes(document))
    made = run("verifier", "init", "--dir", tmp_path / "verifier")
    assert made.code == 0, made.err
    words = ["verifier", "serve", "--dir", tmp_path / "verifier", "--policy", tmp_path / "policy.json"]
    words += ["--bind", "127.0.0.1:0", "--simulation", "--offline"]
    with (tmp_path / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "quotary", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    yield world, process.stdout.readline().decode().strip() if ready else ""
    process.terminate()
    assert process.wait(60) == 0, (tmp_path / "stderr").read_text()
    process.stdout.close()


def ask(address: str, document: dict[str, object]) -> urllib3.BaseHTTPResponse:
    return urllib3.request("POST", f"{address}/api/verify/tee-attestation", json=document, timeout=60)


def test_a_result_of_a_running_verifier_is_checked_offline(
    run: Run, served: tuple[World, str], tmp_path: Path
) -> None:
    world, address = served
    keys = tmp_path / "verifier" / "jwks.json"
    assert (tmp_path / "verifier" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert urllib3.request("GET", f"{address}/.well-known/jwks.json").data == keys.read_bytes()
    question: dict[str, object] = {
        "report": b64(world.platform.quote(world.registers(), CHALLENGE)),
        "platform": "simulated-intel-tdx",
        "expected_user_data": b64(CHALLENGE),
    }
    # Nothing came with it, and the verifier may ask nobody.
    assert ask(address, question).status == 503
    question["collateral"] = {name: b64(text.encode()) for name, text in world.platform.collateral.items()}
    answer = ask(address, question)
    assert (answer.status, answer.json()["valid"]) == (200, True), answer.data
    result = tmp_path / "result.jwt"
    result.write_text(answer.json()["ear"])
    words = ("verifier", "check", result, "--keys", keys)
    ran = run(*words, "--nonce", b64(CHALLENGE))
    # Nobody affirms a simulator: the answer says it is one, and the result claims nothing.
    assert (ran.code, "simulated-intel-tdx: none" in ran.out, "nonce ok" in ran.out) == (11, True, True)
    assert "ok  quote signature" in ran.out
    assert "nonce not checked" in run(*words).out
    assert json.loads(run(*words, "--json").out)["nonce"] == "not checked"
    assert run(*words, "--nonce", b64(b"\6" * 64)).code == 10
    assert run(*words, "--at", "2030-01-01").code == 10
    result.write_text(answer.json()["ear"][:-2] + "AA")
    assert run(*words).code == 10
    result.write_bytes(b"\xff")
    assert run(*words).code == 30
    # What was sent is kept nowhere.
    assert {path.name for path in (tmp_path / "verifier").iterdir()} == {"key.pem", "jwks.json"}


def test_a_key_is_never_overwritten_and_nothing_is_served_without_one(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "verifier"
    assert run("verifier", "init", "--dir", folder).code == 0
    before = (folder / "key.pem").read_bytes()
    assert run("verifier", "init", "--dir", folder).code == 2
    assert (folder / "key.pem").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_folder_without_a_usable_key_says_so(run: Run, tmp_path: Path, content: bytes | None) -> None:
    world = World(*hardware(tmp_path), log=FakeLog()).publish()
    policy = tmp_path / "policy.json"
    policy.write_bytes(policy_bytes(world.policy()))
    folder = tmp_path / "verifier"
    folder.mkdir()
    if content is not None:
        (folder / "key.pem").write_bytes(content)
    words = ("verifier", "serve", "--dir", folder, "--policy", policy, "--bind", "127.0.0.1:0")
    ran = run(*words, "--simulation")
    assert ran.code == (40 if content is None else 30), ran.err
    assert run(*words).code == 11


def test_a_key_of_another_kind_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("keys", "new", tmp_path / "key.pem").code == 0
    from quotary.errors import Malformed
    from verifier.keys import load_key

    with pytest.raises(Malformed, match="P-256"):
        load_key(tmp_path)


def test_a_good_result_ends_with_zero(run: Run, vectors: Path, tmp_path: Path) -> None:
    from tests.client.test_collateral import AT
    from tests.verifier.test_app import KEY, PATH, client_of, request
    from tests.verifier.test_judge import production, report_data, tdx_kept
    from verifier.keys import key_set

    kept = tdx_kept(vectors)
    found = client_of(production(), AT).post(PATH, json=request(kept, report_data(kept))).json
    (tmp_path / "jwks.json").write_bytes(key_set(KEY.public_key()))
    (tmp_path / "result.jwt").write_text(found["ear"])
    at = ("--at", AT.strftime("%Y-%m-%dT%H:%M:%SZ"))
    ran = run("verifier", "check", tmp_path / "result.jwt", "--keys", tmp_path / "jwks.json", *at)
    assert (ran.code, "status affirming" in ran.out) == (0, True), ran.err
    assert "not checked  challenge" not in ran.out
    assert "not checked  rtmr0" in ran.out
