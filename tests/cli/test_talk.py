"""``quotary chat`` and ``quotary proxy``: verify first, then talk, then keep the evidence."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Live, Run
from tests.fakes.enclave import ANSWER, FakeEnclave, over_http

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def enclave(live: Live) -> FakeEnclave:
    return FakeEnclave(live.world)


@pytest.fixture
def address(enclave: FakeEnclave) -> Iterator[str]:
    with over_http(enclave) as url:
        yield url


def test_one_question_gets_a_verified_answer_and_evidence(
    run: Run, live: Live, address: str, tmp_path: Path
) -> None:
    kept = tmp_path / "answer.evidence.json"
    words = ("--policy", live.policy, "--simulation", "--log", address, "--prompt", "What is this?")
    ran = run("chat", address, *words, "--keep", kept)
    assert (ran.code, ran.out) == (0, "a log\n"), ran.err
    assert "SIMULATED" in ran.err
    ran = run("verify", kept, "--policy", live.policy, "--simulation", "--offline")
    assert ran.code == 0, ran.err
    ran = run("receipt", "verify", kept, "--policy", live.policy, "--simulation")
    assert ran.code == 0, ran.err
    assert "complete: True" in ran.out
    assert run("chat", address, *words, "--keep", kept).code == 2
    assert json.loads(run("chat", address, *words, "--json").out)["text"] == "a log"


def test_a_refused_machine_is_asked_nothing(run: Run, live: Live, enclave: FakeEnclave, address: str) -> None:
    enclave.measured_as = "malware"
    words = ("--policy", live.policy, "--simulation", "--log", address)
    ran = run("chat", address, *words, "--prompt", "a secret")
    assert ran.code == 12
    assert run("proxy", address, *words).code == 12
    assert enclave.prompts == []


def test_nothing_to_ask_is_a_usage_error(run: Run, live: Live, address: str) -> None:
    assert run("chat", address, "--policy", live.policy, "--simulation", "--prompt", " ").code == 2


def test_the_proxy_serves_until_it_is_interrupted(live: Live, address: str, tmp_path: Path) -> None:
    words = [
        "proxy", address, "--policy", str(live.policy), "--simulation", "--log", address, "--port", "0",
        "--keep", str(tmp_path / "kept"),
    ]  # fmt: skip
    environment = {"QUOTARY_TRUST": str(tmp_path / "trust"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-m", "quotary", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env=environment, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url + "/chat/completions", b'{"messages":[]}') as reply:
            assert reply.read() == ANSWER
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert "stopped" in process.stderr.read()
    [file] = (tmp_path / "kept").iterdir()
    assert file.name == "ab" * 16 + ".evidence.json"
