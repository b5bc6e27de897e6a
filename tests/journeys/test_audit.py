"""Audit, mirror and map auditor against a real registry: what auditors run, and what they must see."""

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from quotary.canonical import parse_canonical
from quotary.client.keys import create
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import VerifierKey
from quotary.tlog.policy import TlogPolicy
from registry.identity import read_public
from registry.setup import WitnessLine, write_policy
from tests.cli.conftest import Run, run
from tests.conftest import ROOT
from tests.fakes.authority import measurement
from tests.fakes.log import policy_bytes, policy_document
from tests.fakes.mail import mail_server
from tests.fakes.processes import SECONDS, Log, command, start_log, until

__all__ = ["run"]

NAME = "auditor.example.net/map"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    running = start_log(tmp_path_factory.mktemp("registry"))
    maker = running.authority
    release = maker.release("a", "b")
    running.submit(
        maker.allocation(), maker.delegation(), release, maker.rebuild(release, {"a": True, "b": True})
    )
    yield running
    running.stop()


def policy_file(log: Log, folder: Path, **changes: object) -> Path:
    document = policy_document(genesis=leaf_hash(log.get("/api/v1/entries/0")).hex())
    document |= {"tlog_policy": log.policy_text, "map_auditor": "none", "rebuilders": "none"}
    document["minimum"] = {"size": 1, "time": "2026-01-01T00:00:00Z"}
    path = folder / "policy.json"
    path.write_bytes(policy_bytes({**document, **changes}))
    return path


def test_a_real_log_passes_twice_and_the_second_time_reads_only_what_is_new(
    log: Log, run: Run, tmp_path: Path
) -> None:
    words = ("--policy", policy_file(log, tmp_path), "--simulation", "--store", tmp_path / "store", "--json")
    ran = run("audit", log.address, *words, "--cross-check")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["outcomes"]["effective"] >= 5
    assert found["replayed_now"] == found["cross_checked_paths"] == found["size"]
    assert "entries" in ran.err
    log.submit(log.authority.release("c"))
    again = json.loads(run("audit", log.address, *words).out)
    assert again["replayed_now"] == again["size"] - found["size"] >= 2
    assert again["continued_checkpoints"] == 1


def test_a_mirror_is_byte_exact_and_is_audited_offline(log: Log, run: Run, tmp_path: Path) -> None:
    policy, copy = policy_file(log, tmp_path), tmp_path / "copy"
    ran = run("mirror", log.address, copy, "--policy", policy, "--simulation", "--json")
    assert ran.code == 0, ran.err
    size = json.loads(ran.out)["size"]
    paths = [
        path.relative_to(copy) for path in copy.rglob("*") if path.is_file() and path.name != "checkpoint"
    ]
    assert len(paths) == 2
    for path in paths:
        assert (copy / path).read_bytes() == log.get(f"/{path}")
    words = ("--policy", policy, "--simulation", "--store", tmp_path / "store", "--json")
    assert json.loads(run("audit", copy, *words).out)["size"] == size


def test_a_changed_copy_ends_with_exit_code_10_and_an_evidence_file(
    log: Log, run: Run, tmp_path: Path
) -> None:
    policy, copy, store = policy_file(log, tmp_path), tmp_path / "copy", tmp_path / "store"
    assert run("mirror", log.address, copy, "--policy", policy, "--simulation").code == 0
    bundle = next((copy / "tile" / "entries").rglob("000*/*"))
    changed = bytearray(bundle.read_bytes())
    changed[200] ^= 1
    bundle.write_bytes(changed)
    ran = run("audit", copy, "--policy", policy, "--simulation", "--store", store)
    assert ran.code == 10
    assert "leaf hash" in ran.err
    [path] = (store / "findings").iterdir()
    assert str(path) in ran.err
    document = parse_canonical(path.read_bytes(), 1 << 24)
    assert isinstance(document, dict)
    assert document["check"] == "leaf hash"


def test_a_simulated_log_is_audited_only_on_request(log: Log, run: Run, tmp_path: Path) -> None:
    assert run("audit", log.address, "--policy", policy_file(log, tmp_path)).code == 11


def test_cosign_without_a_name_is_a_mistake(log: Log, run: Run, tmp_path: Path) -> None:
    words = ("--policy", policy_file(log, tmp_path), "--simulation", "--store", tmp_path)
    assert run("audit", log.address, *words, "--cosign", tmp_path / "key").code == 2
    assert run("audit", tmp_path / "nowhere", *words).code == 2
    create(tmp_path / "key")
    cosign = ("--cosign", tmp_path / "key", "--name", NAME)
    assert run("audit", tmp_path, *words, *cosign).code == 2
    assert run("audit", log.address, *words, *cosign, "--bind", "here").code == 2


def watch_file(folder: Path, **outputs: object) -> Path:
    """One rule that wants to hear of everything of the service."""
    rule = {"name": "all", "events": ["release", "revocation", "delegation"], "services": ["chat"]}
    document = {
        "v": 1,
        "type": "quotary/watch/v1",
        "rules": [rule],
        "log": {"stale_seconds": 900, "each_witness": True},
        "outputs": outputs,
    }
    path = folder / "watch.json"
    path.write_text(json.dumps(document, indent=2))
    return path


def test_the_monitor_tells_of_a_new_release_by_mail_feed_and_exit_code(
    log: Log, run: Run, tmp_path: Path
) -> None:
    feed = tmp_path / "alerts.atom"
    with mail_server() as server:
        mail = {"server": server.address, "tls": "none", "from": "m@example.org", "to": ["a@example.org"]}
        words = ["monitor", log.address, "--policy", policy_file(log, tmp_path), "--simulation"]
        words += ["--watch", watch_file(tmp_path, mail=mail, feed=str(feed)), "--store", tmp_path / "store"]
        first = run(*words)
        assert first.code == 0, first.err
        assert run(*words, "--self-test").code == 0
        (index,) = log.submit(log.authority.release("told"))
        told = run(*words, "--json")
        assert told.code == 11, told.err
        assert run(*words).code == 0
    (alert,) = json.loads(told.out)["alerts"]
    assert (alert["event"], alert["rule"], alert["index"]) == ("release", "all", index)
    assert ["This is a test" in str(message) for message in server.messages] == [True, False]
    assert alert["text"] in feed.read_text()
    unheard = run(*words, "--self-test")
    assert unheard.code == 40
    assert "did not take the mail" in unheard.err


@contextmanager
def started(*words: str, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs until it ends by itself or the test is over."""
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "quotary", *words],
            stdout=subprocess.PIPE,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[str]:
    """The first lines that it prints."""
    assert process.stdout is not None
    found = b""
    while found.count(b"\n") < count:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS)
        assert ready
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, "it ended"
        found += piece
    return found.decode().splitlines()[:count]


def test_a_mirror_serves_renews_and_sends_a_revocation_on(log: Log, run: Run, tmp_path: Path) -> None:
    words = ["mirror", log.address, str(tmp_path / "copy"), "--policy", str(policy_file(log, tmp_path))]
    words += ["--simulation", "--interval", "1", "--serve", "127.0.0.1:0"]
    with started(*words, errors=tmp_path / "errors") as process:
        address = lines_of(process, 3)[2]
        audited = ("--policy", tmp_path / "policy.json", "--simulation", "--store", tmp_path / "store")
        assert run("audit", address, *audited).code == 0
        entry = log.authority.revocation(["b"])
        with urllib3.PoolManager(retries=False) as pool:
            answer = pool.request("POST", f"{address}/revocations", body=entry, timeout=SECONDS)
            assert answer.status == 200, answer.data
            leaf = leaf_hash(entry).hex()
            until(
                lambda: pool.request("GET", f"{log.address}/api/v1/proofs/{leaf}").status == 200,
                "the log has the revocation",
            )
            size = log.json("/log.json")["size"]
            until(
                lambda: (
                    int(pool.request("GET", f"{address}/checkpoint").data.split(b"\n")[1]) >= int(str(size))
                ),
                "the copy has it too",
            )


def test_a_continuous_audit_ends_with_the_first_finding(log: Log, run: Run, tmp_path: Path) -> None:
    policy, copy = policy_file(log, tmp_path), tmp_path / "copy"
    assert run("mirror", log.address, copy, "--policy", policy, "--simulation").code == 0
    words = ["audit", str(copy), "--policy", str(policy), "--simulation", "--store", str(tmp_path / "store")]
    watch = ("--continuous", "--interval", "1")
    with started(*words, *watch, errors=tmp_path / "errors") as process:
        assert lines_of(process, 1)[0].startswith("every check held")
        origin, size, rest = (copy / "checkpoint").read_bytes().split(b"\n", 2)
        (copy / "checkpoint").write_bytes(b"\n".join([origin, size + b"0", rest]))
        assert process.wait(SECONDS) == 10
    assert "checkpoint" in (tmp_path / "errors").read_text()


def test_a_log_with_a_map_auditor_publishes_what_he_derived_and_clients_accept_it(
    run: Run, tmp_path: Path
) -> None:
    log = start_log(tmp_path)
    plain = policy_file(log, tmp_path)
    create(tmp_path / "auditor.key")
    words = ["audit", log.address, "--policy", str(plain), "--simulation", "--store", str(tmp_path / "store")]
    cosign = ["--cosign", str(tmp_path / "auditor.key"), "--name", NAME, "--bind", "127.0.0.1:0"]
    try:
        with started(*words, *cosign, errors=tmp_path / "auditor.errors") as auditor:
            address, vkey = lines_of(auditor, 2)
            restart_with(log, WitnessLine(address, VerifierKey.parse(vkey)))
            maker = log.authority
            log.submit(maker.allocation(), maker.delegation(), maker.release("a"))
            policy = policy_file(log, tmp_path, map_auditor=[NAME])
            assert NAME in TlogPolicy.parse(log.policy_text).verify(log.get("/checkpoint")).cosignatures
            judged = ("--url", log.address, "--policy", policy, "--simulation")
            ran = run("bundle", "chat", measurement("a").hex(), *judged)
            assert ran.code == 0, ran.out + ran.err
            assert NAME in ran.out
            ran = run("audit", log.address, *judged[2:], "--store", tmp_path / "other")
            assert ran.code == 0, ran.err
    finally:
        log.stop()


def restart_with(log: Log, auditor: WitnessLine) -> None:
    """Give the log a second cosigner that its quorum needs, at the same address."""
    known = [WitnessLine(found.url, found.key) for found in log.policy.witnesses.values()]
    log.stop_registry()
    settings = log.folder / "registry.toml"
    settings.write_text(settings.read_text().replace("127.0.0.1:0", log.address.removeprefix("http://")))
    write_policy(
        log.folder / "policy.tlog", read_public(log.folder / "keys" / "public"), [*known, auditor], 2
    )
    log.registry.start()
    until(lambda: log._is_ready(), "the registry is ready again")


def test_a_log_that_lost_its_database_is_restored_from_a_mirror(run: Run, tmp_path: Path) -> None:
    log = start_log(tmp_path)
    try:
        log.submit(log.authority.allocation(), log.authority.delegation())
        policy, copy = policy_file(log, tmp_path), tmp_path / "copy"
        ran = run("mirror", log.address, copy, "--policy", policy, "--simulation", "--json")
        assert ran.code == 0, ran.err
        log.stop_registry()
        for lost in (*log.folder.glob("log.db*"), *log.folder.glob("public/*")):
            shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        recovered = command("recover", "--dir", str(log.folder), "--from-mirror", str(copy))
        assert recovered.returncode == 0, recovered
        log.registry.start()
        log.wait_ready()
        assert log.publish(log.authority.release("a")) >= json.loads(ran.out)["size"]
        words = ("--policy", policy, "--simulation", "--store", tmp_path / "store")
        assert run("audit", log.address, *words, "--checkpoint", copy / "checkpoint").code == 0
    finally:
        log.stop()
