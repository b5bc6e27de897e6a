"""The log's roots order, against real processes: keys rotate under load, and a frozen log convinces nobody."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import FileMemory, Memory, ProcessMemory
from quotary.client.verify import verify_bundle, verify_proof
from quotary.errors import QuotaryError, Refused
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.schema import parse_statement
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.merkle import leaf_hash, path_in, root_of
from quotary.tlog.note import Note, SigningKey
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from registry import keys
from registry.identity import load_log_keys
from tests.cli.conftest import Run, run
from tests.fakes.authority import SERVICE, Authority, key, measurement
from tests.fakes.log import policy_bytes, policy_document
from tests.fakes.processes import Log, Server, command, start_log, until

__all__ = ["run"]

MINUTES_15 = 15 * 60


@contextmanager
def started(folder: Path) -> Iterator[Log]:
    log = start_log(folder)
    try:
        log.submit(log.authority.allocation(), log.authority.delegation(), log.authority.release("a"))
        yield log
    finally:
        log.stop()


def policy_file(log: Log, path: Path) -> Path:
    document = policy_document(genesis=leaf_hash(log.get("/api/v1/entries/0")).hex())
    document |= {"tlog_policy": log.policy_text, "map_auditor": "none", "rebuilders": "none"}
    document["minimum"] = {"size": 1, "time": "2026-01-01T00:00:00Z"}
    path.write_bytes(policy_bytes(document))
    return path


def root_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.pem"
    path.write_bytes(key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


def do(*words: object) -> str:
    ran = command(*(str(word) for word in words))
    assert ran.returncode == 0, ran
    return ran.stdout


def obeyed(log: Log, order: Path, folder: Path) -> str:
    """Two roots sign, one after the other, and the log publishes it."""
    for name in ("root1", "root2"):
        do("order", "sign", order, "--key", root_file(folder, name))
    return do("order", "log", "--dir", log.folder, order)


@contextmanager
def watched(log: Log) -> Iterator[list[bytes]]:
    """Collect every checkpoint that is published meanwhile."""
    notes: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            note = log.get("/checkpoint")
            if note not in notes:
                notes.append(note)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield notes
    finally:
        done.set()
        thread.join()


def judged(log: Log, policy: Path, memory: Memory) -> int:
    """Verify the release as a client does, and give the size of the log."""
    bundle = log.get(f"/api/v1/bundles/{SERVICE}/{measurement('a').hex()}")
    clock = FixedClock(datetime.now(UTC))
    return verify_bundle(bundle, measurement("a"), Policy.parse(policy.read_bytes()), memory, clock).size


def test_the_logs_keys_rotate_while_it_is_written_read_witnessed_mirrored_and_audited(
    run: Run, tmp_path: Path
) -> None:
    with started(tmp_path) as log:
        old, memory = policy_file(log, tmp_path / "old.json"), ProcessMemory()
        before = log.policy
        judged(log, old, memory)
        with watched(log) as notes:
            do("keys", "rotate", "--dir", log.folder, "--overlap-days", 0, "--out", tmp_path / "r.json")
            log.submit(log.authority.release("b"))
            assert "take the place of" in obeyed(log, tmp_path / "r.json", tmp_path)
            new = policy_file(log, tmp_path / "new.json")
            after = log.policy
            for policy in (old, new):
                log.submit(log.authority.release(policy.stem))
                assert judged(log, policy, memory) >= 12
                words = ("--policy", policy, "--simulation")
                assert run("audit", log.address, *words, "--store", tmp_path / "store").code == 0
                assert run("mirror", log.address, tmp_path / "copy", *words).code == 0
        assert len(notes) >= 3
        for note in notes:
            before.verify(note)
        follow = [word for found in (*before.logs, *after.logs) for word in ("--log", found.vkey())]
        do("witness", "follow", "--dir", tmp_path / "witness", *follow)
        assert do("keys", "retire", "--dir", log.folder).split() == [found.vkey() for found in after.logs]
        log.submit(log.authority.release("c"))
        assert judged(log, new, memory) > 12
        with pytest.raises(Refused, match="log keys"):
            before.verify(log.get("/checkpoint"))
        ran = run("audit", log.address, "--policy", new, "--simulation", "--store", tmp_path / "store")
        assert ran.code == 0, ran.err
        assert "take the place of" in ran.out
        assert do("keys", "show", "--dir", log.folder).split() == [found.vkey() for found in after.logs]
        assert "every check" in ran.out
        do("fsck", "--dir", log.folder)


def frozen(log: Log, folder: Path) -> None:
    origin, out = log.authority.origin, folder / "freeze.json"
    do("order", "freeze", "--origin", origin, "--reason", "the log's key was stolen", "--out", out)
    obeyed(log, out, folder)


def stolen_proof(log: Log, folder: Path) -> tuple[bytes, bytes]:
    """What a thief of all keys, the witness's too, makes after the freeze: one more entry, and its proof."""
    size = int(str(log.json("/api/v1/log")["published"]))
    entries = [log.get(f"/api/v1/entries/{index}") for index in range(size)]
    forged = log.authority.revocation(["a"])
    hashes = [leaf_hash(entry) for entry in [*entries, forged]]
    checkpoint = Checkpoint(log.authority.origin, size + 1, root_of(hashes))
    now = int(time.time())
    note = sign_checkpoint(checkpoint, load_log_keys(log.folder / "keys", log.authority.origin).signing, now)
    witness = keys.load_ed25519(folder / "witness" / "witness-ed25519.pem")
    line = cosign(Note.parse(note).text, SigningKey.cosigner("witness.example.org", witness), now)
    return forged, bytes(TlogProof(size, path_in(hashes, size), note + line.encode()))


def refusal(act: Callable[[], object]) -> QuotaryError:
    with pytest.raises(Refused) as refused:
        act()
    return refused.value


def drill(folder: Path, clients: int) -> None:
    """Freeze, see it with every client, then show each what the thief signs; 15 minutes at most."""
    started_at = time.monotonic()
    with started(folder) as log:
        policy = policy_file(log, folder / "policy.json")
        memories = [FileMemory(folder / f"trust{number}") for number in range(clients)]
        for memory in memories:
            judged(log, policy, memory)
        asleep = ProcessMemory()
        judged(log, policy, asleep)
        frozen(log, folder)
        for memory in memories:
            assert "a log that ended with the freeze" in str(refusal(lambda m=memory: judged(log, policy, m)))
        assert log.request("POST", "/api/v1/entries", log.authority.release("b")).status == 410
        size = log.json("/api/v1/log")["published"]
        entry, proof = stolen_proof(log, folder)
        parsed, clock = Policy.parse(policy.read_bytes()), FixedClock(datetime.now(UTC))
        # Without the freeze in mind the forgery is good: every key and the quorum signed it.
        assert verify_proof(proof, entry, parsed, asleep, clock).index == size
        for memory in memories:
            found = refusal(lambda m=memory: verify_proof(proof, entry, parsed, m, clock))
            assert "with which the log ended" in str(found)
            assert len(memory.evidence()) == 2
        _refreshed(log, policy)
        do("fsck", "--dir", log.folder)
    assert time.monotonic() - started_at < MINUTES_15


def _refreshed(log: Log, policy: Path) -> None:
    """The frozen log's checkpoint gets new cosignatures, at the same size."""
    tlog: TlogPolicy = Policy.parse(policy.read_bytes()).tlog
    first = tlog.verify(log.get("/checkpoint"))

    def newer() -> bool:
        found = tlog.verify(log.get("/checkpoint"))
        assert found.checkpoint == first.checkpoint
        return (found.quorum_time or 0) > (first.quorum_time or 0)

    until(newer, "the frozen checkpoint is refreshed")


def test_a25_after_a_freeze_no_client_that_saw_it_believes_the_stolen_keys(tmp_path: Path) -> None:
    drill(tmp_path, clients=3)


@pytest.mark.soak
def test_a25_the_whole_freeze_drill_with_a_hundred_clients_and_restarts(tmp_path: Path) -> None:
    drill(tmp_path / "first", clients=100)
    with started(tmp_path / "second") as log:
        frozen(log, tmp_path / "second")
        size = log.json("/api/v1/log")["published"]
        for _ in range(5):
            log.stop_registry()
            log.registry.start()
            log.wait_ready()
            assert log.request("POST", "/api/v1/entries", log.authority.release("b")).status == 410
            assert log.json("/api/v1/log")["published"] == size


def test_a_closed_log_goes_on_in_its_successor_and_nothing_leaves_revoked(run: Run, tmp_path: Path) -> None:
    origin = "log2.example.org/simulation"
    new = ("--dir", tmp_path / "log2")
    with started(tmp_path) as log:
        log.submit(log.authority.revocation(["a"]), log.authority.floor())
        made = do("init", *new, "--origin", origin, "--successor", "--publish-interval", "0.1")
        vkeys = made.split()[:2]
        assert (
            "a log that goes on"
            in command("succeed", *map(str, new), "--predecessor", str(log.folder)).stderr
        )
        close = ["--origin", log.authority.origin, "--reason", "retired", "--successor", origin]
        do("order", "close", *close, *(w for v in vkeys for w in ("--vkey", v)), "--out", tmp_path / "c.json")
        assert f"{origin} goes on" in obeyed(log, tmp_path / "c.json", tmp_path)
        roots = [word for name in ("a", "b", "c") for word in ("--root", root_file(tmp_path, f"new-{name}"))]
        succeed = ("succeed", *new, "--predecessor", log.folder, *roots, "--threshold", 2)
        assert "3 statements taken over" in do(*succeed)
        assert not (tmp_path / "log2" / "keys" / "root.pem").exists()
        assert command(*map(str, succeed)).returncode == 11
        old_policy = policy_file(log, tmp_path / "old.json")
        ran = run("audit", log.address, "--policy", old_policy, "--simulation", "--store", tmp_path / "a1")
        assert ran.code == 0, ran.err
        assert "ENDED" in ran.out
        last = Checkpoint.parse(Note.parse(log.get("/checkpoint")).text)
        server = Server(["serve", "--dir", str(tmp_path / "log2"), "--bind", "127.0.0.1:0"], tmp_path / "e")
        successor = Log(tmp_path / "log2", server.start(), log.witness, Authority(origin))
        try:
            successor.wait_ready()
            _check_successor(successor, run, tmp_path, last)
            _check_succession(successor, log, run, tmp_path)
        finally:
            successor.stop_registry()


def _check_successor(log: Log, run: Run, folder: Path, last: Checkpoint) -> None:
    genesis = parse_statement(Envelope.parse(log.get("/api/v1/entries/0")).payload).predicate
    assert isinstance(genesis, Delegation)
    assert genesis.predecessor is not None
    bound = (genesis.predecessor.origin, genesis.predecessor.size, genesis.predecessor.root)
    assert bound == (last.origin, last.size, last.root)
    record = log.json(f"/api/v1/measurements/{SERVICE}/{measurement('a').hex()}")["record"]
    assert isinstance(record, dict)
    assert (record["status"], record["reason"]) == ("revoked", "CVE-2026-0001")
    assert log.json("/api/v1/tcb/sim-tdx")["floors"]
    assert log.json("/api/v1/log")["published"] == 5
    document = policy_document(
        origin=log.authority.origin, genesis=leaf_hash(log.get("/api/v1/entries/0")).hex()
    )
    document |= {"tlog_policy": log.policy_text, "map_auditor": "none", "rebuilders": "none"}
    policy = folder / "new.json"
    policy.write_bytes(policy_bytes(document))
    ran = run("audit", log.address, "--policy", policy, "--simulation", "--store", folder / "a2")
    assert ran.code == 0, ran.err


def _check_succession(log: Log, old: Log, run: Run, folder: Path) -> None:
    """Whoever has both logs sees that one took over everything from the other, which is closed."""
    policies = ("--policy", folder / "new.json", "--predecessor-policy", folder / "old.json", "--simulation")
    store = ("--store", folder / "a3")
    ran = run("audit", log.address, "--predecessor", old.address, *policies, *store, "--json")
    assert ran.code == 0, ran.err
    size = old.json("/api/v1/log")["published"]
    found = {"origin": old.authority.origin, "size": size, "statements": 3}
    assert json.loads(ran.out)["predecessor"] == found
    ran = run("audit", log.address, "--predecessor", old.address, *policies, *store)
    assert f"from {old.authority.origin}, audited to its end at {size}: 3 statements" in ran.out
    ran = run("audit", log.address, "--predecessor", log.address, *policies, *store)
    assert (ran.code, "finding about the predecessor" in ran.err) == (10, True)
    for words in (("--predecessor", old.address), ("--predecessor-policy", folder / "old.json")):
        assert run("audit", log.address, "--policy", folder / "new.json", "--simulation", *words).code == 2
    watching = (*policies, *store, "--continuous")
    assert run("audit", log.address, "--predecessor", old.address, *watching).code == 2
