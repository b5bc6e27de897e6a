"""The signer: it signs one history, remembers it before it answers, and refuses everything else."""

import errno
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary import ed25519
from quotary.canonical import b64, unb64
from quotary.errors import CannotTell, InvalidProof, InvalidSignature, Malformed, Refused
from quotary.statements.cose import CoseHead
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import leaf_hash, path_in, proof_ranges, root_of, verify_inclusion
from quotary.tlog.note import Note
from registry import flush as flush_notes
from registry import wire
from registry.conversations import converse
from registry.errors import FlushFailed, SignerRefused, SignerUnavailable
from registry.identity import (
    FIRST_KEYS,
    LogKeys,
    create_key,
    create_log_keys,
    load_log_keys,
    public_keys,
    read_public,
    write_public,
    write_signing,
)
from registry.memory import create_memory, recall
from registry.promise import BatchPromise, Promise, verify_batch_promise, verify_promise
from registry.signer import Signer, serve
from registry.signing import SignerClient
from tests.fakes.reboot import restart_machine
from tests.fakes.signer import served

ORIGIN = "log.example.org/simulation"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HASHES = [leaf_hash(b"%d" % i) for i in range(20)]


def root(size: int) -> bytes:
    return root_of(HASHES[:size])


def growth(old: int, size: int) -> tuple[bytes, ...]:
    return tuple(root_of(HASHES[low:high]) for low, high in proof_ranges(0, old, size))


@pytest.fixture
def keys(tmp_path: Path) -> LogKeys:
    create_memory(tmp_path / "memory")
    return create_log_keys(tmp_path, ORIGIN)


def signer_of(folder: Path) -> Signer:
    return Signer(ORIGIN, lambda: load_log_keys(folder, ORIGIN), folder / "memory", lambda: NOW)


def ask(signer: Signer, size: int, digest: bytes, proof: Sequence[bytes] = ()) -> dict[str, object]:
    request = {"op": "sign", "size": size, "root": digest.hex(), "proof": [b64(node) for node in proof]}
    return signer.answer(request)


def ask_note(signer: Signer, size: int, digest: bytes, proof: Sequence[bytes] = ()) -> bytes:
    return unb64(str(ask(signer, size, digest, proof)["note"]))


def vkeys(answer: dict[str, object]) -> list[object]:
    found = answer["vkeys"]
    assert isinstance(found, list)
    return found


def test_keys_are_readable_by_their_owner_only(tmp_path: Path, keys: LogKeys) -> None:
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.pem")} == {0o600}
    (tmp_path / "log-ed25519.pem").chmod(0o640)
    with pytest.raises(Refused, match="mode 0640"):
        load_log_keys(tmp_path, ORIGIN)


def test_verifier_keys_can_be_read_without_the_secret_ones(tmp_path: Path, keys: LogKeys) -> None:
    write_public(tmp_path / "public", public_keys(keys))
    assert read_public(tmp_path / "public") == public_keys(keys)


def test_a_head_gets_both_signatures_of_the_log(tmp_path: Path, keys: LogKeys) -> None:
    answer = ask(signer_of(tmp_path), 3, root(3))
    note = Note.parse(recall(tmp_path / "memory").note)
    assert answer == {"note": b64(bytes(note))}
    assert Checkpoint.parse(note.text) == Checkpoint(ORIGIN, 3, root(3))
    assert set(note.verify(public_keys(keys).log)) == set(public_keys(keys).log)


def test_a_larger_head_needs_proof_that_it_continues_the_last(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    ask(signer, 3, root(3))
    for path in [(), growth(3, 7)[:-1], growth(2, 7), growth(3, 7)[::-1]]:
        assert ask(signer, 7, root(7), path)["error"] == "refused"
    other = root_of([leaf_hash(b"x"), *HASHES[1:7]])
    assert ask(signer, 7, other, growth(3, 7))["error"] == "refused"
    assert recall(tmp_path / "memory").size == 3
    assert "note" in ask(signer, 7, root(7), growth(3, 7))


def test_nothing_smaller_and_no_other_root_of_the_same_size_is_signed(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    ask(signer, 7, root(7))
    assert ask(signer, 3, root(3))["error"] == "refused"
    assert ask(signer, 7, root(8))["error"] == "refused"


def test_the_same_head_gets_the_same_note_also_from_the_next_process(tmp_path: Path, keys: LogKeys) -> None:
    first = ask(signer_of(tmp_path), 7, root(7))
    assert ask(signer_of(tmp_path), 7, root(7)) == first
    assert ask(signer_of(tmp_path), 3, root(3))["error"] == "refused"


def test_the_times_in_the_logs_own_signatures_never_go_back(tmp_path: Path, keys: LogKeys) -> None:
    clock = [NOW]
    times = []
    for size, seconds in ((1, 0), (2, -30), (3, -3600), (4, 10)):
        clock[0] = NOW + timedelta(seconds=seconds)
        # A process of its own each time: the memory holds the time as well.
        signer = Signer(
            ORIGIN, lambda: load_log_keys(tmp_path, ORIGIN), tmp_path / "memory", lambda: clock[0]
        )
        note = ask_note(signer, size, root(size), growth(size - 1, size) if size > 1 else ())
        found = Note.parse(note).verify([key.verifier for key in keys.signing])
        times += [time for many in found.values() for time in many]
    start = int(NOW.timestamp())
    assert times == [start, start, start, start + 10]


def test_a_signer_without_memory_does_not_start(tmp_path: Path, keys: LogKeys) -> None:
    (tmp_path / "memory").unlink()
    with pytest.raises(CannotTell, match="memory"):
        signer_of(tmp_path)


def test_a_head_is_not_answered_where_it_cannot_be_remembered(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    (tmp_path / ".memory.new").mkdir()
    with pytest.raises(OSError):
        ask(signer, 3, root(3))
    assert signer.answer({"op": "head"}) == {"size": 0, "root": root_of([]).hex()}


@pytest.mark.parametrize("failing", [0, 1], ids=["the file", "its folder"])
def test_t22_after_a_flush_that_failed_a_signer_gives_up_and_signs_nothing(
    tmp_path: Path, keys: LogKeys, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    given_up: list[str] = []
    load = lambda: load_log_keys(tmp_path, ORIGIN)  # noqa: E731  # read again at each reload
    signer = Signer(ORIGIN, load, tmp_path / "memory", lambda: NOW, lambda: given_up.append("now"))
    calls, real = iter(range(99)), os.fsync

    def flush(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    for size in (3, 3, 5):
        answer = ask(signer, size, root(size))
        assert answer["error"] == "unavailable"
        assert "a write that is on the disk" in str(answer["detail"])
    assert len(given_up) == 3
    assert isinstance(signer.failed, FlushFailed)
    assert signer.answer({"op": "head"}) == {"size": 0, "root": root_of([]).hex()}
    again = Signer(ORIGIN, load, tmp_path / "memory", lambda: NOW)
    assert ask(again, 3, root(3))["error"] == "unavailable"
    restart_machine(tmp_path)
    flush_notes.withdraw(tmp_path / "memory")
    assert "note" in ask(Signer(ORIGIN, load, tmp_path / "memory", lambda: NOW), 3, root(3))


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        {"op": "export"},
        {"op": "head", "more": 1},
        {"op": "sign", "size": 0, "root": "00" * 32, "proof": []},
        {"op": "sign", "size": 1, "root": "00" * 31, "proof": []},
        {"op": "sign", "size": 1, "root": "00" * 32, "proof": ["AA=="]},
        {"op": "sign", "size": 1, "root": "00" * 32, "proof": [1]},
        {"op": "sign", "size": 1, "root": "00" * 32, "proof": [], "origin": "other"},
        {"op": "sign", "size": 1, "root": "00" * 32, "proof": [], "final": 1},
        {"op": "promises", "promises": []},
        {"op": "batch-promise", "count": 0, "root": "00" * 32, "accepted": 1, "deadline": 2},
        {"op": "batch-promise", "count": 1, "root": "00" * 31, "accepted": 1, "deadline": 2},
        {"op": "batch-promise", "count": 1, "root": "00" * 32, "accepted": 1},
        {"op": "promises", "promises": [{"leaf_hash": "00" * 32, "accepted": 1}]},
        {"op": "promises", "promises": [{"leaf_hash": "00" * 32, "accepted": 1, "deadline": 2, "more": 3}]},
        {"op": "promises", "promises": [{"leaf_hash": "00" * 32, "accepted": 1, "deadline": 2}] * 129},
    ],
)
def test_a_strange_request_is_called_malformed(tmp_path: Path, keys: LogKeys, message: object) -> None:
    assert signer_of(tmp_path).answer(message)["error"] == "malformed"


@pytest.fixture
def client(tmp_path: Path, keys: LogKeys) -> Iterator[SignerClient]:
    signer = signer_of(tmp_path)
    deep = tmp_path / ("d" * 90)
    deep.mkdir()

    with served(signer, deep / "signer.sock") as client:
        yield client


def test_the_client_speaks_the_protocol_over_a_socket_with_a_long_path(
    client: SignerClient, keys: LogKeys
) -> None:
    assert client.head().size == 0
    note = client.sign(3, root(3), ())
    assert Checkpoint.parse(Note.parse(note).text).size == 3
    assert client.head().root == root(3)
    with pytest.raises(SignerRefused, match="signed head"):
        client.sign(2, root(2), ())
    assert client.vkeys() == client.reload() == public_keys(keys).log
    client.sign(7, root(7), growth(3, 7), final=True)
    with pytest.raises(SignerRefused, match="end of the log"):
        client.sign(8, root(8), growth(7, 8))


def test_a_promise_is_signed_under_its_own_key(client: SignerClient, keys: LogKeys) -> None:
    note, other = client.promises([(HASHES[0], 100, 700), (HASHES[1], 101, 701)])
    assert Promise.parse(Note.parse(other).text) == Promise(ORIGIN, HASHES[1], 101, 701)
    public = public_keys(keys)
    assert verify_promise(note, public.promise) == Promise(ORIGIN, HASHES[0], 100, 700)
    with pytest.raises(InvalidSignature):
        verify_promise(note, public.log[0])
    for position in range(0, len(note), 7):
        broken = note[:position] + bytes([note[position] ^ 1]) + note[position + 1 :]
        with pytest.raises((InvalidSignature, Malformed)):
            verify_promise(broken, public.promise)


def test_one_promise_of_a_batch_speaks_of_each_of_its_entries_and_of_no_other(
    client: SignerClient, keys: LogKeys
) -> None:
    note, key = client.batch_promise(HASHES[:7], 100, 700), keys.promise.verifier
    found = verify_batch_promise(note, key, HASHES[:7])
    assert found == BatchPromise(ORIGIN, 7, root(7), 100, 700)
    for index, leaf in enumerate(HASHES[:7]):
        verify_inclusion(index, found.count, leaf, path_in(HASHES[:7], index), found.root)
    for others in (HASHES[:6], HASHES[:8], [*HASHES[1:7], HASHES[0]], []):
        with pytest.raises(InvalidProof, match="not these"):
            verify_batch_promise(note, key, others)
    for at in range(len(note)):
        broken = note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :]
        with pytest.raises((InvalidSignature, Malformed)):
            verify_batch_promise(broken, key, HASHES[:7])
    with pytest.raises(Malformed):
        verify_batch_promise(client.promises([(HASHES[0], 100, 700)])[0], key, HASHES[:1])


@pytest.mark.parametrize(
    ("line", "text"),
    [(0, "quotary.dev/promise/v1"), (1, ""), (2, "0"), (2, "07"), (3, "AA=="), (4, "-1"), (5, "x")],
)
def test_a_promise_of_a_batch_has_one_form(line: int, text: str) -> None:
    lines = str(BatchPromise(ORIGIN, 7, root(7), 100, 700)).split("\n")
    assert str(BatchPromise.parse("\n".join(lines))) == "\n".join(lines)
    with pytest.raises(Malformed):
        BatchPromise.parse("\n".join([*lines[:line], text, *lines[line + 1 :]]))


def test_many_promises_are_asked_for_in_few_messages_and_come_in_their_order(client: SignerClient) -> None:
    found = client.promises([(HASHES[0], at, at + 600) for at in range(1, 301)])
    assert [Promise.parse(Note.parse(note).text).accepted for note in found] == list(range(1, 301))


def test_no_socket_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SignerUnavailable) as caught:
        SignerClient(tmp_path / "none.sock").head()
    assert caught.value.next_command == "quotary registry sign"


def test_a_signer_that_ends_answers_those_who_are_asking(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    stop, stopped = socket.socketpair()
    with closing(wire.listen(tmp_path / "s")) as listener, closing(stop), closing(stopped):
        serving = threading.Thread(
            target=converse, args=(lambda connection: serve(connection, signer), listener, stopped)
        )
        serving.start()
        with closing(wire.connect(tmp_path / "s", 10.0)) as left:
            for last in (False, True):
                wire.send(left, {"op": "head"})
                assert wire.receive(left) == {"size": 0, "root": root_of([]).hex()}
                if not last:
                    stop.send(b"x")
            assert serving.is_alive()
        serving.join(10)
        assert not serving.is_alive()


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    with closing(wire.listen(tmp_path / "s")):
        assert os.stat(tmp_path / "s").st_mode & 0o777 == 0o600


def second_keys(folder: Path) -> None:
    names = ("log-ed25519-2.pem", "log-mldsa44-2.pem")
    for name in names:
        create_key(folder / name)
    write_signing(folder, [*FIRST_KEYS, *names])


def test_new_keys_sign_beside_the_old_ones_from_a_reload_on_and_the_memory_covers_both(
    tmp_path: Path, keys: LogKeys
) -> None:
    signer = signer_of(tmp_path)
    before = Note.parse(ask_note(signer, 3, root(3)))
    second_keys(tmp_path)
    assert len(vkeys(signer.answer({"op": "keys"}))) == 2
    assert len(vkeys(signer.answer({"op": "reload"}))) == 4
    assert len(vkeys(signer.answer({"op": "keys"}))) == 4
    assert Note.parse(ask_note(signer, 3, root(3))) == before
    grown = Note.parse(ask_note(signer, 7, root(7), growth(3, 7)))
    signed = [key.verifier for key in load_log_keys(tmp_path, ORIGIN).signing]
    assert list(grown.verify(signed)) == signed
    assert ask(signer, 7, root(8))["error"] == "refused"
    write_signing(tmp_path, ["log-ed25519-2.pem", "log-mldsa44-2.pem"])
    signer.answer({"op": "reload"})
    assert ask(signer, 6, root(6))["error"] == "refused"
    last = Note.parse(ask_note(signer, 9, root(9), growth(7, 9)))
    assert [line.key_id for line in last.signatures] == [key.key_id for key in signed[2:]]


def test_keys_that_cannot_be_read_leave_those_that_sign(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    write_signing(tmp_path, [*FIRST_KEYS, "log-ed25519-9.pem"])
    assert signer.answer({"op": "reload"})["error"] == "malformed"
    assert len(vkeys(signer.answer({"op": "keys"}))) == 2
    assert "note" in ask(signer, 3, root(3))


@pytest.mark.parametrize("text", ["", "../root.pem\n", "log-ed25519.pem\nlog-ed25519.pem\n", "root.pem\n"])
def test_only_key_files_of_the_log_can_be_named_as_signing(tmp_path: Path, keys: LogKeys, text: str) -> None:
    (tmp_path / "signing").write_text(text)
    with pytest.raises(Malformed):
        load_log_keys(tmp_path, ORIGIN)


def test_nothing_is_signed_after_a_final_head_also_by_the_next_process(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    request = {"op": "sign", "size": 3, "root": root(3).hex(), "proof": [], "final": True}
    note = signer.answer(request)
    assert recall(tmp_path / "memory").final
    for again in (signer, signer_of(tmp_path)):
        assert again.answer(request) == note
        refused = ask(again, 7, root(7), growth(3, 7))
        assert refused["check"] == "end of the log"
        assert refused["wanted"] == "the final size 3"


def cose(signer: Signer, note: bytes) -> dict[str, object]:
    return signer.answer({"op": "cose", "note": b64(note)})


def test_a_head_that_was_signed_is_signed_in_cose_too_and_no_other(tmp_path: Path, keys: LogKeys) -> None:
    signer = signer_of(tmp_path)
    note = ask_note(signer, 5, root(5))
    key = keys.signing[0].verifier.public
    found, head = cose(signer, note), CoseHead.of(ORIGIN, 5, key)
    ed25519.verify(key, unb64(str(found["signature"])), head.signed_bytes(root(5)))
    assert found["key"] == head.key.hex()
    ask_note(signer, 9, root(9), growth(5, 9))
    (tmp_path / "other").mkdir()
    assert cose(signer, note) == found  # what was signed once may be said again
    for other in (
        note.replace(b"\n5\n", b"\n6\n", 1),
        note.replace(ORIGIN.encode(), b"log.example.org/other/simulation", 1),
        create_log_keys(tmp_path / "other", ORIGIN).signing[0].line(Note.parse(note).text, 1).encode(),
    ):
        foreign = other if b"\n\n" in other else Note.parse(note).text.encode() + b"\n" + other
        assert cose(signer, foreign)["error"] == "refused"
    assert cose(signer, b"no note")["error"] == "malformed"


def test_no_bytes_that_are_signed_for_cose_are_a_notes_text() -> None:
    signed = CoseHead.of(ORIGIN, 5, bytes(32)).signed_bytes(root(5))
    with pytest.raises(UnicodeDecodeError):
        signed.decode("utf-8")
