"""The simulator's commands, as processes of their own."""

import json
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from quotary.statements.row import parse_row
from simulator.files import ENCLAVE_REQUIREMENTS
from simulator.nvidia import open_nvidia_vendor
from simulator.pki import FMSPC, open_pki
from simulator.process import Program
from simulator.tcb import CURRENT
from tests.conftest import ROOT
from tests.fakes.log import policy_bytes, policy_document
from tests.simulator.conftest import NOW

SECONDS = 120


@pytest.fixture
def words(program: Program, tmp_path: Path) -> list[str]:
    """The options that every command about an enclave takes, with a policy that an enclave can read."""
    policy = policy_document(root=open_pki(tmp_path / "vendor" / "pki", NOW).root_sha256.hex())
    (tmp_path / "policy.json").write_bytes(policy_bytes(policy))
    words = ["--policy", str(tmp_path / "policy.json"), "--model", str(program.model)]
    return [*words, "--service", "chat", "--listen", "127.0.0.1:1"]


def quotary(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quotary", *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=ROOT,
        check=False,
    )


def test_a_vendor_is_made_once_and_says_what_policies_and_floors_need(tmp_path) -> None:
    first, again = (
        quotary("enclave", "simulate-init", "--directory", str(tmp_path / "d"), "--json") for _ in range(2)
    )
    assert (first.returncode, first.stdout) == (0, again.stdout)
    found = json.loads(first.stdout)
    assert found["root_sha256"] == open_pki(tmp_path / "d" / "pki", NOW).root_sha256.hex()
    assert found["product"] == FMSPC.hex()
    nvidia = open_nvidia_vendor(tmp_path / "d" / "nvidia", NOW)
    assert found["device_root_sha256"] == nvidia.root_sha256.hex()
    assert found["device_rim_root_sha256"] == nvidia.rim_root_sha256.hex()
    assert found["minimum"]["tee_tcb_svn"] == CURRENT.tee_tcb_svn.hex()


def test_the_prediction_is_a_row_for_a_release(words) -> None:
    done = quotary("measure", "process", *words, "--registry", "http://127.0.0.1:1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    row = parse_row(found["rows"][0])
    assert (row.platform, row.measurement.hex()) == ("sim-tdx", found["measurement"])
    assert "--tee fd:100" in " ".join(found["material"]["argv"])
    assert row.require.devices == ()


def test_a_machine_with_gpus_is_another_row_that_demands_them(words) -> None:
    more = ("--registry", "http://127.0.0.1:1", "--gpus", "8", "--switches", "4", "--json")
    done = quotary("measure", "process", *words, *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    demanded = parse_row(found["rows"][0]).require.devices
    assert [(each.architecture, each.count) for each in demanded] == [("gh100", 8), ("ls10", 4)]
    assert "--attest-devices 12" in " ".join(found["material"]["argv"])


def test_the_enclave_asks_its_device_then_the_log_and_gets_our_signals(words, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as registry:
        registry.settimeout(SECONDS)
        address = f"http://127.0.0.1:{registry.getsockname()[1]}"
        rest = ("--registry", address, "--directory", str(tmp_path / "vendor"))
        simulator = subprocess.Popen(
            [sys.executable, "-m", "quotary", "enclave", "simulate", *words, *rest],
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            # The bundle's address holds the measurement id, so the device has answered.
            connection, _ = registry.accept()
            with connection:
                assert b"/api/v1/bundles/chat/" in connection.recv(4096)
                simulator.send_signal(signal.SIGTERM)
                _, said = simulator.communicate(timeout=SECONDS)
        finally:
            simulator.kill()
    assert simulator.returncode == 128 + signal.SIGTERM
    assert b"proves nothing against the owner of this machine" in said
    assert not list((tmp_path / "vendor" / "run").iterdir())


def test_the_enclaves_exit_code_is_passed_on(words, program, tmp_path) -> None:
    broken = ["--policy", str(program.policy)]
    done = quotary(
        *("enclave", "simulate", *words, *broken, "--registry", "http://127.0.0.1:1"),
        *("--directory", str(tmp_path / "vendor")),
    )
    assert done.returncode == 30, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--switches", "1"),
        ("--tcb-svn", "0g"),
        ("--tcb-svn", "00"),
        ("--evaluation-number", "0"),
        ("--pce-svn", "70000"),
    ],
)
def test_a_level_that_cannot_be_is_a_usage_error(words, tmp_path, options) -> None:
    directory = ("--directory", str(tmp_path / "vendor"))
    done = quotary("enclave", "simulate", *words, "--registry", "http://127.0.0.1:1", *directory, *options)
    assert done.returncode == 2, done.stderr


def test_what_is_measured_as_dependencies_is_what_the_enclave_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["enclave"]
    assert sorted(ENCLAVE_REQUIREMENTS) == sorted({Requirement(text).name for text in declared})
