"""The map auditor: a cosignature is given after the map root was derived, and never otherwise."""

import hashlib
import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.canonical import b64
from quotary.client.cosigner import Cosigner, CosignServer
from quotary.client.finding import Finding
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.errors import CannotTell, InvalidProof, Malformed, NotAuthorised
from quotary.statements.state_entry import StateEntry
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash, root_of
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import consistency_path
from quotary.tlog.witness import Conflict
from tests.fakes.authority import NOW, ORIGIN, TS
from tests.fakes.files import MemorySource, files_of
from tests.fakes.log import AUDITOR, WITNESS, FakeLog, policy_bytes, policy_document, signed_note, witness_key


class Scene:
    """A log, its auditor, and what the auditor can read of it."""

    def __init__(self, folder: Path, store: ReplayStore) -> None:
        self.log = FakeLog()
        self.log.append(self.log.maker.genesis(), self.log.maker.allocation(), self.log.maker.delegation())
        self.log.close()
        self.findings = folder / "findings"
        self.source = MemorySource({})
        self.store = store
        self.cosigner = self.restarted()

    def restarted(self) -> Cosigner:
        document = policy_document(genesis=self.log.genesis)
        policy = Policy.parse(policy_bytes(document))
        key, files = witness_key(AUDITOR), Files(self.source)
        return Cosigner(policy, self.store, files, key, lambda: NOW, self.findings)

    def publish(self, entries: list[bytes], old: int = 0, witnesses: tuple[str, ...] = ()) -> bytes:
        """Let the auditor read these entries, and give the request for them."""
        self.source.files = files_of(entries)
        root = root_of([leaf_hash(entry) for entry in entries])
        path = consistency_path(old, len(entries), Files(self.source)) if 0 < old < len(entries) else ()
        note = signed_note(Checkpoint(ORIGIN, len(entries), root), TS, witnesses)
        return "".join([f"old {old}\n", *(b64(digest) + "\n" for digest in path), "\n"]).encode() + note

    def grow(self) -> list[bytes]:
        self.log.append(self.log.maker.release(f"seed {len(self.log.entries)}"))
        self.log.close(TS + len(self.log.entries))
        return self.log.entries


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ReplayStore(tmp_path / "store", ORIGIN) as store:
        yield Scene(tmp_path, store)


def test_what_it_cosigned_satisfies_a_policy_that_lists_it_as_map_auditor(scene: Scene) -> None:
    body = scene.publish(scene.log.entries, witnesses=(WITNESS,))
    line = scene.cosigner.add_checkpoint(body)
    policy = Policy.parse(policy_bytes(policy_document(genesis=scene.log.genesis)))
    verified = policy.tlog.verify(body.split(b"\n\n", 1)[1] + line)
    assert set(policy.map_auditors) <= verified.cosignatures.keys()
    assert verified.cosignatures[AUDITOR] == (TS,)


def test_it_goes_on_from_what_it_cosigned_also_after_a_restart(scene: Scene) -> None:
    scene.cosigner.add_checkpoint(scene.publish(scene.log.entries))
    scene.cosigner.add_checkpoint(scene.publish(scene.grow(), old=4))
    again = scene.restarted()
    with pytest.raises(Conflict) as found:
        again.add_checkpoint(scene.publish(scene.log.entries, old=4))
    assert found.value.size == 6
    again.add_checkpoint(scene.publish(scene.log.entries, old=6))
    again.add_checkpoint(scene.publish(scene.grow(), old=6))


def test_a_wrong_map_root_is_never_cosigned_and_leaves_evidence(scene: Scene) -> None:
    scene.cosigner.add_checkpoint(scene.publish(scene.log.entries))
    entries = scene.grow()
    forged = replace(StateEntry.parse(entries[-1]), maps={"F1": hashlib.sha256(b"forged").digest()})
    for cosigner in (scene.cosigner, scene.cosigner, scene.restarted()):
        body = scene.publish([*entries[:-1], forged.encode()], old=4)
        with pytest.raises(Finding) as found:
            cosigner.add_checkpoint(body)
        assert found.value.check == "map root"
    assert len(list(scene.findings.iterdir())) >= 1
    newest = scene.cosigner.newest(hashlib.sha256(ORIGIN.encode()).hexdigest())
    assert newest is not None
    assert newest.startswith(f"{ORIGIN}\n4\n".encode())


def test_after_a_forged_batch_it_judges_as_if_it_had_not_seen_it(scene: Scene) -> None:
    body = scene.publish([*scene.log.entries[:-1], scene.log.entries[-1].replace(b"F1", b"F2")])
    for _ in range(2):
        with pytest.raises(Finding, match="map root"):
            scene.cosigner.add_checkpoint(body)
    assert scene.store.progress().frontier.size == 0


def test_it_replays_what_is_published_before_it_is_asked(scene: Scene) -> None:
    seen: list[tuple[int, int]] = []
    scene.source.files = files_of(scene.log.entries)
    scene.cosigner.catch_up(Files(scene.source), lambda done, size: seen.append((done, size)))
    assert seen == [(4, 4)]
    scene.cosigner.add_checkpoint(scene.publish(scene.log.entries))
    forged = [*scene.grow()[:-1], scene.log.entries[-1].replace(b"F1", b"F2")]
    scene.source.files = files_of(forged)
    with pytest.raises(Finding):
        scene.cosigner.catch_up(Files(scene.source), lambda done, size: None)
    assert len(list(scene.findings.iterdir())) == 1


def test_what_it_cannot_read_is_not_cosigned(scene: Scene) -> None:
    body = scene.publish(scene.log.entries)
    scene.source.files = {}
    with pytest.raises(CannotTell):
        scene.cosigner.add_checkpoint(body)
    scene.cosigner.add_checkpoint(scene.publish(scene.log.entries))


def test_another_history_is_not_cosigned(scene: Scene) -> None:
    scene.cosigner.add_checkpoint(scene.publish(scene.log.entries))
    body = scene.publish(scene.grow(), old=4)
    head, note = body.split(b"\n\n", 1)
    lines = head.split(b"\n")
    lines[1] = b64(bytes(32)).encode()
    with pytest.raises(InvalidProof):
        scene.cosigner.add_checkpoint(b"\n".join(lines) + b"\n\n" + note)


def test_a_checkpoint_of_other_keys_is_not_cosigned(scene: Scene) -> None:
    body = scene.publish(scene.log.entries)
    one = signed_note(Checkpoint(ORIGIN, 4, bytes(32)), TS, (), log_signers=1)
    for note in (one, body.split(b"\n\n", 1)[1].replace(ORIGIN.encode(), b"log.example.net/simulation")):
        with pytest.raises(NotAuthorised):
            scene.cosigner.add_checkpoint(b"old 0\n\n" + note)


def test_an_old_size_beyond_the_checkpoint_is_malformed(scene: Scene) -> None:
    with pytest.raises(Malformed):
        scene.cosigner.add_checkpoint(scene.publish(scene.log.entries, old=9))


@contextmanager
def served(cosigner: Cosigner, said: list[str]) -> Iterator[http.client.HTTPConnection]:
    with CosignServer(("127.0.0.1", 0), cosigner, said.append) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, str, bytes]:
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_over_http_each_outcome_has_the_status_of_the_protocol(scene: Scene) -> None:
    name = hashlib.sha256(ORIGIN.encode()).hexdigest()
    said: list[str] = []
    with served(scene.cosigner, said) as connection:
        assert ask(connection, "GET", "/healthz")[0] == 200
        assert ask(connection, "GET", f"/{name}/checkpoint")[0] == 404
        assert ask(connection, "GET", "/00/checkpoint")[0] == 404
        assert ask(connection, "POST", "/add-checkpoint", b"nothing")[0] == 400
        assert ask(connection, "POST", "/elsewhere", b"")[0] == 404
        body = scene.publish(scene.log.entries)
        scene.source.files = {}
        assert ask(connection, "POST", "/add-checkpoint", body)[0] == 503
        status, _, line = ask(connection, "POST", "/add-checkpoint", scene.publish(scene.log.entries))
        assert status == 200
        assert line.startswith(f"\u2014 {AUDITOR} ".encode())
        assert ask(connection, "GET", f"/{name}/checkpoint")[2].endswith(line)
        assert ask(connection, "POST", "/add-checkpoint", body) == (409, "text/x.tlog.size", b"4\n")
        other = scene.publish([*scene.log.entries, scene.log.entries[-1]], old=4)
        assert ask(connection, "POST", "/add-checkpoint", other)[0] == 403
        connection.putrequest("POST", "/add-checkpoint")
        connection.putheader("Content-Length", str(1 << 30))
        connection.endheaders()
        assert connection.getresponse().status == 413
    assert [line.split(":")[0] for line in said] == ["not cosigned"] * 2


def test_the_fake_policy_really_demands_the_auditor(scene: Scene) -> None:
    text = TlogPolicy.parse(str(policy_document()["tlog_policy"]))
    assert AUDITOR in text.groups["both"].members
