"""Our witness against the recorded exchange of another implementation, and against everything it must refuse."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient

from quotary.canonical import b64
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.merkle import leaf_hash, proof_ranges, root_of
from quotary.tlog.note import Note, SigningKey, VerifierKey
from registry.witness_app import create_app, create_witness

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
