"""A simulated vendor, a model folder and a small program that can be measured and started."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.attestation.roots import simulator_root
from quotary.attestation.tdx import TDXQuote, verify
from simulator.pki import PKI, open_pki
from simulator.process import TEE, Program
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform

NOW = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)

# What a measured child does: read a word, ask its device as often as it says, print what came back.
CHILD = """
import json, os, struct, sys

def ask(request, fd=int(sys.argv[1].removeprefix("fd:"))):
    data = json.dumps(request, separators=(",", ":"), sort_keys=True).encode()
    os.write(fd, struct.pack(">I", len(data)) + data)
    size = struct.unpack(">I", os.read(fd, 4))[0]
    answer = b""
    while len(answer) < size:
        answer += os.read(fd, size - len(answer))
    return json.loads(answer)

if __name__ == "__main__":
    extra = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    print(json.dumps({
        "reply": ask({"op": "quote", "report_data": "07" * 64, **extra}),
        "environment": dict(os.environ),
        "path": sys.path,
        "folder": sorted(os.listdir()),
        "policy": open("policy.json").read(),
    }), flush=True)
"""


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return open_pki(tmp_path_factory.mktemp("vendor") / "pki", NOW)


@pytest.fixture(scope="session")
def platform(pki: PKI) -> Platform:
    return Platform(pki, CURRENT, LATEST, NOW)


@pytest.fixture(scope="session")
def believe(pki: PKI) -> Callable[[bytes, object], Facts]:
    """Verify a quote and its collateral as a client does that names this vendor's root."""
    root = simulator_root("tdx", hashlib.sha256(pki.root_der).digest())
    return lambda quote, collateral: verify(TDXQuote.parse(quote), Collateral.parse(collateral), NOW, (root,))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A package ``child`` with no dependency but a small one, a policy and a model of one file."""
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "__init__.py").write_text("")
    (tmp_path / "child" / "__main__.py").write_text(CHILD)
    (tmp_path / "p.json").write_text('{"v":1}')
    (tmp_path / "m").mkdir()
    weights = b"weights"
    (tmp_path / "m" / "w.bin").write_bytes(weights)
    (tmp_path / "m" / "MANIFEST").write_text(
        f"{hashlib.sha256(weights).hexdigest()}  {len(weights)}  w.bin\n"
    )
    return Program(
        code={"child": tmp_path / "child"},
        requirements=("rfc8785",),
        arguments=("-m", "child", TEE),
        environment={},
        policy=tmp_path / "p.json",
        model=tmp_path / "m",
    )
