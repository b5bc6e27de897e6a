"""Our witness against the recorded exchange of another implementation, and against everything it must refuse."""

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient

from quotary.canonical import b64
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.merkle import leaf_hash, proof_ranges, root_of
from quotary.tlog.note import Note, SigningKey, VerifierKey
from registry.witness_app import create_app, create_witness, open_witness
from tests.fakes.reboot import restart_machine

HASHES = [leaf_hash(b"%d" % i) for i in range(9)]


def client_of(folder: Path) -> FlaskClient:
    return create_app(str(folder)).test_client()


def test_the_recorded_exchange_gives_the_recorded_answers(vectors: Path, tmp_path: Path) -> None:
    recorded = json.loads((vectors / "tlog/witness-protocol/add-checkpoint-sequence.json").read_text("utf-8"))
    create_witness(tmp_path, recorded["witness_name_in_source"], [VerifierKey.parse(recorded["log_vkey"])])
    client = client_of(tmp_path)
    for case in recorded["cases"]:
        answer = client.post(recorded["path"], data=case["request_body"].encode("utf-8"))
        assert answer.status_code == case["expect_status"], case["name"]
        if answer.status_code == 409:
            assert answer.content_type == recorded["conflict_content_type"]
            assert answer.text == case["expect_body_contains"]
        elif case["expect_status"] == 200:
            assert case["expect_body_contains"] in answer.text, case["name"]


def request_of(
    key: SigningKey, old: int, size: int, proof: Sequence[bytes] = (), hashes: Sequence[bytes] = HASHES
) -> bytes:
    checkpoint = Checkpoint("log.example.org", size, root_of(hashes[:size]))
    lines = "".join(b64(digest) + "\n" for digest in proof)
    return f"old {old}\n{lines}\n".encode() + sign_checkpoint(checkpoint, [key], 1)


@pytest.fixture
def log_key() -> SigningKey:
    return SigningKey.log("log.example.org", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture
def folder(tmp_path: Path, log_key: SigningKey) -> Path:
    create_witness(tmp_path, "witness.example.org", [log_key.verifier])
    return tmp_path


def grown(old: int, size: int, hashes: Sequence[bytes] = HASHES) -> tuple[bytes, ...]:
    return tuple(root_of(hashes[low:high]) for low, high in proof_ranges(0, old, size))


def post(folder: Path, body: bytes) -> tuple[int, str]:
    answer = client_of(folder).post("/add-checkpoint", data=body)
    return answer.status_code, answer.text


def test_what_was_cosigned_is_remembered_by_the_next_process(folder: Path, log_key: SigningKey) -> None:
    assert post(folder, request_of(log_key, 0, 3))[0] == 200
    assert post(folder, request_of(log_key, 0, 5)) == (409, "3\n")
    assert post(folder, request_of(log_key, 3, 5, grown(3, 5)))[0] == 200
    origin_hash = hashlib.sha256(b"log.example.org").hexdigest()
    newest = client_of(folder).get(f"/{origin_hash}/checkpoint").data
    assert Checkpoint.parse(Note.parse(newest).text).size == 5


def test_the_same_size_is_cosigned_again_and_another_root_is_not(folder: Path, log_key: SigningKey) -> None:
    assert post(folder, request_of(log_key, 0, 3))[0] == 200
    assert post(folder, request_of(log_key, 3, 3))[0] == 200
    other = [leaf_hash(b"other")] * 9
    assert post(folder, request_of(log_key, 3, 3, hashes=other))[0] == 422


def test_every_broken_proof_is_refused(folder: Path, log_key: SigningKey) -> None:
    assert post(folder, request_of(log_key, 0, 3))[0] == 200
    good = grown(3, 7)
    broken = [good[:-1], (*good, good[0]), good[::-1], ()]
    broken += [(*good[:i], bytes(32), *good[i + 1 :]) for i in range(len(good))]
    for path in broken:
        assert post(folder, request_of(log_key, 3, 7, path))[0] == 422
    assert post(folder, request_of(log_key, 3, 7, good))[0] == 200


def test_an_unknown_log_is_not_found_and_a_strange_key_is_refused(folder: Path) -> None:
    other = SigningKey.log("log.example.org", Ed25519PrivateKey.generate())
    assert post(folder, request_of(other, 0, 3))[0] == 403
    stranger = SigningKey.log("other.example.org", Ed25519PrivateKey.generate())
    checkpoint = Checkpoint("other.example.org", 1, HASHES[0])
    assert post(folder, b"old 0\n\n" + sign_checkpoint(checkpoint, [stranger], 1))[0] == 404


@pytest.mark.parametrize(
    "first", ["old 00", "old -1", "old x", "old", "new 3", "old 3 ", "old 99999999999999999999"]
)
def test_a_size_in_a_second_spelling_is_malformed(folder: Path, log_key: SigningKey, first: str) -> None:
    note = request_of(log_key, 0, 3).partition(b"\n\n")[2]
    assert post(folder, first.encode() + b"\n\n" + note)[0] == 400


def test_an_old_size_beyond_the_checkpoint_is_malformed(folder: Path, log_key: SigningKey) -> None:
    assert post(folder, request_of(log_key, 4, 3))[0] == 400


def test_a_bad_line_of_a_known_key_is_not_authorised(folder: Path, log_key: SigningKey) -> None:
    good = request_of(log_key, 0, 3)
    at = good.rindex(b" ") + 20
    assert post(folder, good[:at] + (b"A" if good[at : at + 1] != b"A" else b"B") + good[at + 1 :])[0] == 403
    stranger = SigningKey.log("stranger.example.org", Ed25519PrivateKey.generate())
    text = str(Checkpoint("log.example.org", 3, root_of(HASHES[:3])))
    assert post(folder, good + stranger.line(text, 1).encode())[0] == 200


def test_a_conflict_has_the_newest_size_in_its_own_media_type(folder: Path, log_key: SigningKey) -> None:
    client = client_of(folder)
    assert client.post("/add-checkpoint", data=request_of(log_key, 0, 3)).status_code == 200
    for old, size in ((0, 5), (2, 5), (4, 5), (0, 0)):
        answer = client.post("/add-checkpoint", data=request_of(log_key, old, size))
        found = (answer.status_code, answer.data, answer.content_type)
        assert found == (409, b"3\n", "text/x.tlog.size")


def test_an_empty_log_has_one_root_and_a_first_checkpoint_needs_no_proof(
    folder: Path, log_key: SigningKey
) -> None:
    empty = sign_checkpoint(Checkpoint("log.example.org", 0, bytes(32)), [log_key], 1)
    assert post(folder, b"old 0\n\n" + empty)[0] == 422
    assert post(folder, request_of(log_key, 0, 3, [HASHES[0]]))[0] == 422
    assert post(folder, request_of(log_key, 0, 0))[0] == 200
    assert post(folder, request_of(log_key, 0, 3))[0] == 200


def test_an_answer_is_lines_of_cosignatures_with_a_time(folder: Path, log_key: SigningKey) -> None:
    answer = client_of(folder).post("/add-checkpoint", data=request_of(log_key, 0, 3))
    assert answer.text.startswith("\u2014 witness.example.org ")
    assert answer.text.endswith("\n")
    note = Note.parse(request_of(log_key, 0, 3).partition(b"\n\n")[2] + answer.data)
    key = open_witness(folder)._key.verifier
    ((time,),) = note.verify([key]).values()
    assert time > 1_700_000_000


def test_the_newest_checkpoint_has_the_lines_of_log_and_witness_and_before_there_is_none(
    folder: Path, log_key: SigningKey
) -> None:
    client, path = client_of(folder), f"/{hashlib.sha256(b'log.example.org').hexdigest()}/checkpoint"
    assert client.get(path).status_code == 404
    assert client.get(f"/{hashlib.sha256(b'other').hexdigest()}/checkpoint").status_code == 404
    line = client.post("/add-checkpoint", data=request_of(log_key, 0, 3)).data
    assert client.get(path).data == request_of(log_key, 0, 3).partition(b"\n\n")[2] + line
    assert client.get(path.upper().replace("CHECKPOINT", "checkpoint")).status_code == 404


def test_of_two_histories_at_once_only_one_is_cosigned(folder: Path, log_key: SigningKey) -> None:
    """Check and memory are one step, in one process and between two."""
    bodies = [request_of(log_key, 0, 3, hashes=[leaf_hash(b"%d" % n)] * 9) for n in range(24)]
    apps = [create_app(str(folder)) for _ in range(2)]

    def submit(number: int) -> int:
        return apps[number % 2].test_client().post("/add-checkpoint", data=bodies[number]).status_code

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(submit, range(24))) == [200] + [409] * 23


def test_only_posts_are_submissions(folder: Path) -> None:
    client = client_of(folder)
    answers = [client.get("/add-checkpoint"), client.put("/add-checkpoint"), client.delete("/add-checkpoint")]
    assert [answer.status_code for answer in answers] == [405, 405, 405]


def test_t22_after_a_flush_that_failed_a_witness_cosigns_nothing_until_its_machine_is_started_again(
    folder: Path, log_key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(folder)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        assert client.post("/add-checkpoint", data=request_of(log_key, 0, 3)).status_code == 507
    assert client.post("/add-checkpoint", data=request_of(log_key, 0, 3)).status_code == 507
    assert client.get("/healthz").status_code == 507
    again = client_of(folder)
    assert again.post("/add-checkpoint", data=request_of(log_key, 0, 3)).status_code == 507
    assert again.get("/healthz").status_code == 507
    assert restart_machine(folder) == [folder / "seen"]
    after = client_of(folder)
    assert after.post("/add-checkpoint", data=request_of(log_key, 0, 3)).status_code == 200
    assert restart_machine(folder) == []
