"""A registry of real processes on loopback: submitted, published, proven, killed, restarted, rolled back."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymerkle import InmemoryTree, InvalidProof, verify_inclusion

from quotary.canonical import b64, parse_canonical, unb64
from quotary.statements.keys import key_measurement
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.merkle import leaf_hash, root_of, verify_consistency
from quotary.tlog.note import Note
from quotary.tlog.proof import TlogProof
from quotary.tlog.tiles import decode_entry_bundle, entries_path, tile_path
from registry.identity import read_public
from registry.promise import verify_batch_promise, verify_promise
from tests.fakes.authority import measurement
from tests.fakes.processes import Log, command, start_log, until


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """One log that the reading tests share; it holds a service with a release and a floor."""
    found = start_log(tmp_path_factory.mktemp("journey"))
    story(found)
    yield found
    found.stop()


@pytest.fixture
def own_log(tmp_path: Path) -> Iterator[Log]:
    """A log that a test may break."""
    found = start_log(tmp_path)
    yield found
    found.stop()


def story(log: Log) -> list[int]:
    made = log.authority
    return log.submit(made.allocation(), made.delegation(), made.floor(), made.release("r1"))


def published(log: Log) -> tuple[int, bytes, list[bytes]]:
    """The size, the note and all entries that the tiles give."""
    note = log.get("/checkpoint")
    checkpoint = log.policy.verify(note).checkpoint
    entries = decode_entry_bundle(log.get("/" + entries_path(0, checkpoint.size)), width=checkpoint.size)
    assert root_of([leaf_hash(entry) for entry in entries]) == checkpoint.root
    return checkpoint.size, note, list(entries)


def test_the_checkpoint_carries_both_log_signatures_and_the_quorum(log: Log) -> None:
    verified = log.policy.verify(log.get("/checkpoint"))
    assert len(log.policy.logs) == 2
    assert set(verified.cosignatures) == {"witness.example.org"}
    assert verified.quorum_time is not None


def test_root_and_inclusion_agree_with_a_second_implementation(log: Log) -> None:
    size, note, entries = published(log)
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    checkpoint = log.policy.verify(note).checkpoint
    assert tree.get_root() == checkpoint.root
    for index, entry in enumerate(entries):
        proof = TlogProof.parse(log.get(f"/api/v1/proofs/{index}"))
        found = proof.verify(entry, log.policy).checkpoint
        second = tree.prove_inclusion(index + 1, found.size) if found.size <= size else None
        if second is not None:
            verify_inclusion(leaf_hash(entry), found.root, second)
            assert list(proof.path) == second.path[1:]
        with pytest.raises(Exception, match=r"lead|path|root"):
            proof.verify(entry + b" ", log.policy)
    assert issubclass(InvalidProof, Exception)


def test_tiles_hold_the_leaf_hashes_and_nothing_beyond_the_published_size(log: Log) -> None:
    size, _, entries = published(log)
    assert log.get("/" + tile_path(0, 0, size)) == b"".join(leaf_hash(entry) for entry in entries)
    assert log.get("/" + tile_path(0, 0, 1)) == leaf_hash(entries[0])
    answer = log.request("GET", "/" + tile_path(0, 0))
    assert answer.status == 404
    assert json.loads(answer.data)["type"] == "/problems/not-yet-published"


def test_consistency_is_proven_between_published_sizes(log: Log) -> None:
    size, _, entries = published(log)
    hashes = [leaf_hash(entry) for entry in entries]
    for old in range(1, size + 1):
        found = log.json(f"/api/v1/consistency?old={old}&new={size}")
        path = [unb64(text) for text in found["path"]]  # type: ignore[attr-defined]
        verify_consistency(old, size, root_of(hashes[:old]), root_of(hashes), path)


def test_an_entry_is_served_byte_for_byte_by_index_and_by_hash(log: Log) -> None:
    _, _, entries = published(log)
    for index, entry in enumerate(entries):
        assert log.get(f"/api/v1/entries/{index}") == entry
        answer = log.request("GET", f"/api/v1/entries/by-hash/{leaf_hash(entry).hex()}")
        assert (answer.data, answer.headers["Quotary-Index"]) == (entry, str(index))


def test_the_last_entry_of_a_checkpoint_is_its_state_entry(log: Log) -> None:
    size, _, entries = published(log)
    state = StateEntry.parse(entries[-1])
    assert state.index == size - 1


def test_the_bundle_of_a_release_proves_its_status(log: Log) -> None:
    digest = measurement("r1").hex()
    bundle = parse_canonical(log.get(f"/api/v1/bundles/chat/{digest}"), 1 << 20)
    assert isinstance(bundle, dict)
    checkpoint = log.policy.verify(unb64(bundle["checkpoint"])).checkpoint
    for item in [bundle["state"], bundle["release"], *bundle["authority"]]:
        note = TlogProof(item["index"], tuple(map(unb64, item["path"])), unb64(bundle["checkpoint"]))
        note.verify(unb64(item["entry"]), log.policy)
    root = StateEntry.parse(unb64(bundle["state"]["entry"])).maps["F1"]
    kinds = []
    for item in bundle["records"]:
        record = unb64(item["record"])
        fields = parse_canonical(record, 1 << 20)
        assert isinstance(fields, dict)
        trie.verify_presence(
            root, bytes.fromhex(fields["key"]), hashlib.sha256(record).digest(), unb64(item["proof"])
        )
        kinds.append(fields["kind"])
    assert kinds == ["measurement", "service", "tcb"]
    assert bundle["state"]["index"] == checkpoint.size - 1
    assert bundle["authority"][0]["index"] == 0


def test_an_unknown_measurement_gets_a_proof_of_its_absence(log: Log) -> None:
    bundle = parse_canonical(log.get(f"/api/v1/bundles/chat/{'ab' * 32}"), 1 << 20)
    assert isinstance(bundle, dict)
    root = StateEntry.parse(unb64(bundle["state"]["entry"])).maps["F1"]
    key = key_measurement("chat", bytes.fromhex("ab" * 32))
    assert bundle["absence"]["key"] == key.hex()
    trie.verify_absence(root, key, unb64(bundle["absence"]["proof"]))
    assert log.request("GET", f"/api/v1/measurements/chat/{'ab' * 32}").status == 404


def test_a_service_a_status_and_a_search_say_where_to_look(log: Log) -> None:
    digest = measurement("r1").hex()
    service = log.json("/api/v1/services/chat")
    assert service["releases"][0]["measurements"] == [digest]  # type: ignore[index]
    assert service["next_sequence"]["release"] == 2  # type: ignore[index]
    status = log.json(f"/api/v1/measurements/chat/{digest}")
    assert status["record"]["status"] == "active"  # type: ignore[index]
    index = service["releases"][0]["index"]  # type: ignore[index]
    for query in (digest, str(index), status["record"]["release"], "chat"):  # type: ignore[index]
        found = log.json(f"/api/v1/search?q={query}")
        assert index in [result["index"] for result in found["results"]]  # type: ignore[attr-defined]
    floors = log.json("/api/v1/tcb/sim-tdx")["floors"]
    assert [floor["kind"] for floor in floors] == ["tcb"]  # type: ignore[attr-defined]
    assert log.json("/api/v1/services")["services"] == ["chat", "log"]


def test_the_log_describes_itself(log: Log) -> None:
    found = log.json("/api/v1/log")
    assert found["tlog_policy"] == log.policy_text
    assert found["vkeys"] == [key.vkey() for key in log.policy.logs]
    assert found["genesis"] == leaf_hash(log.get("/api/v1/entries/0")).hex()
    paths = log.json("/openapi.json")["paths"]
    assert {"/checkpoint", "/api/v1/entries", "/api/v1/bundles/{service}/{measurement}"} <= set(paths)  # type: ignore[call-overload]


def test_the_same_bytes_again_get_the_same_place(log: Log) -> None:
    _, _, entries = published(log)
    for index in (0, 2):
        answer = log.request("POST", "/api/v1/entries", entries[index])
        assert (answer.status, json.loads(answer.data)["index"]) == (200, index)


def test_an_idle_log_appends_nothing_and_refreshes_its_cosignatures(log: Log) -> None:
    first = log.policy.verify(log.get("/checkpoint"))

    def newer() -> bytes | None:
        note = log.get("/checkpoint")
        found = log.policy.verify(note)
        assert found.checkpoint == first.checkpoint
        return note if (found.quorum_time or 0) > (first.quorum_time or 0) else None

    assert until(newer, "a cosignature with a newer time")


def test_the_exported_folder_holds_what_the_server_serves(log: Log) -> None:
    size, note, _ = published(log)
    public = log.folder / "public"
    digest = measurement("r1").hex()
    for path in (tile_path(0, 0, size), entries_path(0, size)):
        assert (public / path).read_bytes() == log.get("/" + path)
    bundle = until(
        lambda: _equal_bundles(log, public / f"api/v1/bundles/chat/{digest}", digest), "the exported bundle"
    )
    assert bundle["v"] == 1
    assert (
        log.policy.verify((public / "checkpoint").read_bytes()).checkpoint
        == log.policy.verify(note).checkpoint
    )


def _equal_bundles(log: Log, path: Path, digest: str) -> dict[str, object] | None:
    exported, served = json.loads(path.read_bytes()), json.loads(log.get(f"/api/v1/bundles/chat/{digest}"))
    return exported if exported == served else None


def test_an_accepted_entry_comes_with_a_promise_that_its_key_signed(own_log: Log) -> None:
    entry = own_log.authority.allocation()
    answer = json.loads(own_log.request("POST", "/api/v1/entries", entry).data)
    key = read_public(own_log.folder / "keys" / "public").promise
    promise = verify_promise(answer["promise"].encode(), key)
    assert promise.leaf_hash == leaf_hash(entry)
    assert promise.deadline - promise.accepted == 600
    assert until(lambda: own_log.request("GET", answer["location"]).status == 200, "the location answers")


def test_a_batch_is_judged_line_by_line_and_in_order(own_log: Log) -> None:
    made = own_log.authority
    lines = [
        made.allocation(),
        made.delegation(),
        made.release("r1"),
        b"{}",
        made.release("r2", signers=("stranger",)),
    ]
    answer = own_log.request("POST", "/api/v1/batches", b"\n".join(lines) + b"\n")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *found, last = [json.loads(line) for line in answer.data.splitlines()]
    assert [item["status"] for item in found] == [202, 202, 202, 400, 403]
    assert [item.get("promised") for item in found] == [0, 1, 2, None, None]
    key = read_public(own_log.folder / "keys" / "public").promise
    promise = verify_batch_promise(last["promise"].encode(), key, [leaf_hash(entry) for entry in lines[:3]])
    assert promise.deadline - promise.accepted == 600
    assert found[3]["type"] == "/problems/malformed"
    assert found[4]["type"] == "/problems/not-admitted"
    until(lambda: own_log.request("GET", found[2]["location"]).status == 200, "the batch is published")
    again = own_log.request("POST", "/api/v1/batches", b"\n".join(lines)).data.splitlines()
    assert [json.loads(line)["status"] for line in again] == [200, 200, 200, 400, 403]


def test_everything_is_there_after_a_restart_and_the_log_goes_on(own_log: Log) -> None:
    story(own_log)
    size, _, entries = published(own_log)
    assert own_log.stop_registry() == 0, own_log.registry.log()
    own_log.registry.start()
    own_log.wait_ready()
    again, _, after = published(own_log)
    assert again >= size
    assert after[:size] == entries
    index = own_log.publish(own_log.authority.release("r2"))
    assert index == size


@pytest.mark.parametrize("rounds", [3])
def test_a_sequencer_killed_again_and_again_loses_nothing(own_log: Log, rounds: int) -> None:
    story(own_log)
    accepted = []
    for number in range(rounds):
        for step in range(4):
            entry = own_log.authority.release(f"r{10 * number + step + 2}")
            assert own_log.request("POST", "/api/v1/entries", entry).status == 202
            accepted.append(entry)
        own_log.registry.kill_child("sequence")
    for entry in accepted:
        own_log.publish(entry)
    _, _, entries = published(own_log)
    assert [entries.count(entry) for entry in accepted] == [1] * len(accepted)
    own_log.stop_registry()
    checked = command("fsck", "--dir", str(own_log.folder))
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    assert checked.stdout.startswith("equal:")


def test_killed_workers_and_signers_are_started_again(own_log: Log) -> None:
    for verb in ("sign", "gunicorn"):
        (before,) = own_log.registry.children(verb)
        own_log.registry.kill_child(verb)
        until(
            lambda verb=verb, before=before: own_log.registry.children(verb) not in ([], [before]),
            f"a new {verb}",
        )
        own_log.wait_ready()
    story(own_log)


def test_nothing_survives_a_supervisor_that_was_killed(own_log: Log) -> None:
    assert own_log.registry.process is not None
    pids = [pid for verb in ("sign", "sequence", "gunicorn") for pid in own_log.registry.children(verb)]
    assert len(pids) == 3
    own_log.registry.process.kill()
    assert own_log.stop_registry() == -9
    until(lambda: not [pid for pid in pids if alive(pid)], "every child ends")
    own_log.registry.start()
    own_log.wait_ready()
    story(own_log)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def restore(log: Log, keep: Callable[[Path], bool]) -> None:
    """Put back the database of the backup, and of the keys what ``keep`` says."""
    backup = log.folder.parent / "backup"
    for path in backup.rglob("*"):
        if path.is_file() and keep(path.relative_to(backup)):
            shutil.copy2(path, log.folder / path.relative_to(backup))
    for name in ("log.db-wal", "log.db-shm"):
        if not (backup / name).exists():
            (log.folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("who", ["signer", "witness"])
def test_a_restored_old_database_is_refused(own_log: Log, who: str) -> None:
    story(own_log)
    assert own_log.stop_registry() == 0
    shutil.copytree(own_log.folder, own_log.folder.parent / "backup", ignore=shutil.ignore_patterns("*.sock"))
    own_log.registry.start()
    own_log.wait_ready()
    own_log.publish(own_log.authority.release("r2"))
    assert own_log.stop_registry() == 0
    with_memory = who == "witness"
    restore(
        own_log,
        lambda path: path.name.startswith("log.db") or (with_memory and path.name == "signed-head.json"),
    )
    own_log.registry.start()
    assert own_log.registry.process is not None
    assert own_log.registry.process.wait(30) == 11
    own_log.stop_registry()
    assert f"size at {'the signer' if who == 'signer' else 'witness'}" in own_log.registry.log()
    assert "recover --from-mirror" in own_log.registry.log()
    recovered = command(
        "recover", "--dir", str(own_log.folder), "--from-mirror", str(own_log.folder / "public")
    )
    assert (recovered.returncode, recovered.stderr.startswith("next: ")) == (0, True), recovered
    own_log.registry.start()
    own_log.wait_ready()
    assert own_log.publish(own_log.authority.release("r3")) == 12


def test_a_silent_witness_stops_publishing_and_nothing_else(own_log: Log) -> None:
    story(own_log)
    size, _, _ = published(own_log)
    own_log.witness.stop()
    entry = own_log.authority.release("r2")
    assert own_log.request("POST", "/api/v1/entries", entry).status == 202
    until(lambda: int(str(own_log.json("/api/v1/log")["signed"])) > size, "the log goes on and is signed")
    assert published(own_log)[0] == size
    assert own_log.request("GET", f"/api/v1/entries/by-hash/{leaf_hash(entry).hex()}").status == 404
    own_log.witness.words[-1] = own_log.witness.address.removeprefix("http://")
    own_log.witness.start()
    until(lambda: published(own_log)[0] > size, "published again")


def test_a_port_in_use_is_said_plainly(log: Log) -> None:
    port = log.address.removeprefix("http://")
    found = command("serve", "--dir", str(log.folder), "--bind", port)
    assert found.returncode == 40
    assert f"cannot listen on {port}" in found.stderr
    assert "next: choose another --bind" in found.stderr


def test_a_second_sequencer_and_a_second_signer_are_refused(log: Log) -> None:
    for verb in ("sequence", "sign"):
        found = command(verb, "--dir", str(log.folder))
        assert (found.returncode, "already runs" in found.stderr) == (2, True)


def test_the_doctor_finds_what_is_wrong(log: Log, own_log: Log) -> None:
    assert command("doctor", "--dir", str(log.folder)).returncode == 0
    own_log.stop_registry()
    (own_log.folder / "keys" / "log-ed25519.pem").chmod(0o644)
    found = command("doctor", "--dir", str(own_log.folder))
    assert found.returncode == 40
    wrong = [line for line in found.stdout.splitlines() if line.startswith("wrong")]
    assert any("0644" in line for line in wrong)
    assert any("signer answers" in line for line in wrong)


def test_no_secret_stands_in_a_log_or_in_the_public_folder(log: Log) -> None:
    secrets = [
        line
        for path in (log.folder / "keys").glob("*.pem")
        for line in path.read_text("ascii").splitlines()
        if "-----" not in line
    ]
    assert len(secrets) >= 3
    texts = [log.registry.log(), log.witness.log()]
    texts += [
        path.read_bytes().decode("latin-1") for path in (log.folder / "public").rglob("*") if path.is_file()
    ]
    assert not [secret for secret in secrets for text in texts if secret in text]
    assert b64(b"") == ""
    assert Note.parse(log.get("/checkpoint")).signatures
