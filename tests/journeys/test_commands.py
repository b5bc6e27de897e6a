"""The command line against a real registry and witness: write, read, prove, and be told when something is missing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.client.policy import Policy
from quotary.tlog.merkle import leaf_hash
from tests.cli.conftest import Run, run
from tests.fakes import authority
from tests.fakes.log import policy_bytes
from tests.fakes.machine import FLOOR, PRODUCT, SEED, World, hardware, registers
from tests.fakes.processes import Log, start_log

__all__ = ["run"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    running = start_log(tmp_path_factory.mktemp("registry"))
    maker = running.authority
    release = maker.release(rows=[authority.row(SEED)])
    entries = [maker.allocation(), maker.delegation(), maker.floor(product=PRODUCT, floor=FLOOR), release]
    running.submit(*entries, maker.rebuild(release, {SEED: True}))
    yield running
    running.stop()


@pytest.fixture
def policy(log: Log, run: Run, tmp_path: Path) -> Path:
    """The policy that a person would write from what the log says of itself."""
    owner = tmp_path / "owner.key"
    assert run("keys", "new", owner).code == 0
    path = tmp_path / "policy.json"
    ran = run(
        "policy", "new", "--from-log", log.address, "--service", "chat", "--owner", owner, "--platform", "sim-tdx",
        "--floors", "log", "--simulator-root", "11" * 32, "--map-auditor", "none", "--rebuilders", "none",
        "--max-age", "900", "--minimum-time", "2026-01-01", "--out", path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    document = json.loads(path.read_bytes())
    document["services"]["chat"]["owner"] = {
        "keys": authority.keys("owner1", "owner2", "owner3"),
        "threshold": 2,
    }
    path.unlink()
    path.write_bytes(policy_bytes(document))
    assert Policy.parse(path.read_bytes()).origin == authority.ORIGIN
    return path


def test_entries_are_found_fetched_and_proven(log: Log, policy: Path, run: Run, tmp_path: Path) -> None:
    ran = run("search", "chat", "--url", log.address, "--json")
    found = json.loads(ran.out)
    assert found["proven"] is False
    [release] = [item for item in found["results"] if item["kind"] == "release"]
    ran = run("get", release["index"], "--url", log.address, "--out", tmp_path / "release.entry")
    assert ran.code == 0
    assert "not verified" in ran.out
    ran = run(
        "proof", release["index"], "--policy", policy, "--simulation", "--url", log.address,
        "--out", tmp_path / "release.tlog-proof",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ran = run(
        "verify", tmp_path / "release.tlog-proof", "--policy", policy, "--simulation", "--offline",
        "--entry", tmp_path / "release.entry",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ran = run("verify", tmp_path / "release.entry", "--policy", policy, "--simulation", "--url", log.address)
    assert ran.code == 0, ran.err
    assert "is active" in ran.out


def test_cose_receipts_are_fetched_and_verified_again_offline(
    log: Log, policy: Path, run: Run, tmp_path: Path
) -> None:
    judged = ("--policy", policy, "--simulation")
    asked = (*judged, "--url", log.address)
    entry, other, old = tmp_path / "1.entry", tmp_path / "2.entry", tmp_path / "checkpoint"
    old.write_bytes(log.get("/checkpoint"))
    assert run("get", "1", "--url", log.address, "--out", entry).code == 0
    assert run("get", "2", "--url", log.address, "--out", other).code == 0
    ran = run("cose", "inclusion", "1", *asked, "--out", tmp_path / "1.cose")
    assert ran.code == 0, ran.err
    assert "not checked: witnesses" in ran.out
    digest = leaf_hash(entry.read_bytes()).hex()
    assert run("cose", "inclusion", digest, *asked, "--out", tmp_path / "hash.cose").code == 0
    ran = run("cose", "verify", tmp_path / "hash.cose", *judged, "--entry", entry, "--json")
    assert (ran.code, json.loads(ran.out)["index"]) == (0, 1)
    assert run("cose", "verify", tmp_path / "1.cose", *judged, "--entry", other).code == 10
    assert run("cose", "verify", tmp_path / "1.cose", *judged).code == 2
    assert run("cose", "inclusion", "one", *asked, "--out", tmp_path / "no.cose").code == 2
    assert run("cose", "inclusion", "9999", *asked, "--out", tmp_path / "no.cose").code == 40
    ran = run("cose", "consistency", "--old", old, *asked, "--out", tmp_path / "new.cose")
    assert ran.code == 0, ran.err
    assert run("cose", "verify", tmp_path / "new.cose", *judged, "--old", old).code == 0
    assert run("cose", "verify", tmp_path / "1.cose", *judged, "--old", old).code == 10


def test_a_bundle_is_fetched_kept_and_verified_again_offline(
    log: Log, policy: Path, run: Run, tmp_path: Path
) -> None:
    measurement = authority.measurement(SEED).hex()
    words = ("--policy", policy, "--simulation", "--url", log.address)
    ran = run("bundle", "chat", measurement, *words, "--out", tmp_path / "bundle.json")
    assert ran.code == 0, ran.err
    ran = run("verify", tmp_path / "bundle.json", "--policy", policy, "--simulation", "--offline")
    assert ran.code == 0, ran.err
    ran = run("bundle", "chat", "ab" * 32, *words)
    assert ran.code == 12
    assert "has no measurement" in ran.err


def test_a_machine_that_is_not_in_the_log_is_told_the_nearest_release(
    log: Log, policy: Path, run: Run, tmp_path: Path
) -> None:
    pki, platform = hardware(tmp_path, now=log.authority.now)
    document = json.loads(policy.read_bytes())
    document["platforms"]["sim-tdx"]["simulator_root_sha256"] = pki.root_sha256.hex()
    policy.unlink()
    policy.write_bytes(policy_bytes(document))
    world = World(pki, platform, now=log.authority.now).publish()
    changed = registers(rtmr2=b"\x07" * 48)
    file = tmp_path / "document.json"
    file.write_bytes(world.document(found=changed).encode())
    ran = run("verify", file, "--policy", policy, "--simulation", "--url", log.address)
    assert ran.code == 12, ran.err
    assert "hint (unproven): the nearest logged release of chat" in ran.err
    assert f"rtmr2 is {changed.rtmr2.hex()}" in ran.err


def test_statements_are_signed_numbered_and_published(log: Log, run: Run, tmp_path: Path) -> None:
    floor = tmp_path / "floor.json"
    floor.write_text(json.dumps({**FLOOR, "evaluation_number": 21}))
    names = []
    for name in ("tcb1", "tcb2"):
        path = tmp_path / f"{name}.key"
        names += ["--key", path]
        path.touch(mode=0o600)
        path.write_bytes(pem(name))
    words = (
        "floor", "--platform", "sim-tdx", "--product", PRODUCT, "--floor", floor, "--origin", authority.ORIGIN,
        "--expires", "2027-01-01", "--url", log.address, "--submit", "--json",
    )  # fmt: skip
    ran = run(*words, *names)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["index"] > 0
    ran = run(*words, *names[:2])
    assert ran.code == 41
    assert "answered 403" in ran.err


def test_a_log_that_does_not_answer_cannot_be_asked(policy: Path, run: Run) -> None:
    ran = run("get", "0", "--url", "http://127.0.0.1:1")
    assert ran.code == 40
    ran = run("proof", "99999", "--policy", policy, "--simulation")
    assert ran.code in (2, 40)


def pem(name: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return authority.key(name).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
