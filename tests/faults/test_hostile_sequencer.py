"""A13: web and sequencer belong to the attacker; the signer's socket is all there is between them and a fork."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.canonical import b64
from quotary.tlog.merkle import leaf_hash, proof_ranges, root_of
from registry import wire
from registry.identity import create_log_keys, load_log_keys
from registry.memory import create_memory, recall
from registry.signer import Signer
from tests.fakes.signer import served

ORIGIN = "log.example.org/simulation"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SIZE = 7
HONEST = [leaf_hash(b"%d" % i) for i in range(20)]
FORKED = [*HONEST[: SIZE - 1], leaf_hash(b"other"), *HONEST[SIZE:]]

Ask = Callable[[object], dict[str, object]]


def growth(hashes: Sequence[bytes], old: int, size: int) -> list[bytes]:
    return [root_of(hashes[low:high]) for low, high in proof_ranges(0, old, size)]


def request(size: int, root: bytes, proof: Sequence[bytes] = ()) -> dict[str, object]:
    return {"op": "sign", "size": size, "root": root.hex(), "proof": [b64(node) for node in proof]}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def inconsistent() -> Iterator[dict[str, object]]:
    """Everything that somebody with all entries, but not the signer, could try after size 7 was signed."""
    for size in range(1, SIZE):
        yield request(size, root_of(HONEST[:size]))
        yield request(size, root_of(HONEST[:size]), growth(HONEST, size, SIZE))
    for bit in range(0, 256, 17):
        yield request(SIZE, flipped(root_of(HONEST[:SIZE]), bit))
    for size in (SIZE + 1, 8, 13, 20):
        root, proof = root_of(HONEST[:size]), growth(HONEST, SIZE, size)
        other, forked = root_of(FORKED[:size]), growth(FORKED, SIZE, size)
        yield request(size, other, forked)
        yield request(size, other, proof)
        yield request(size, root, forked)
        yield request(size, root, ())
        yield request(size, root, proof[:-1])
        yield request(size, root, [*proof, bytes(32)])
        yield request(size, root, growth(HONEST, 3, size))
        yield request(4 * size, root, proof)
        if len(proof) > 1 and proof != proof[::-1]:
            yield request(size, root, proof[::-1])
        for place in range(len(proof)):
            yield request(size, root, [*proof[:place], flipped(proof[place], 5), *proof[place + 1 :]])
    yield request(2**53 - 1, root_of(HONEST))
    yield request(SIZE + 1, bytes(32), [bytes(32)] * 63)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_memory(tmp_path / "memory")
    create_log_keys(tmp_path, ORIGIN)
    return tmp_path


@pytest.fixture
def ask(folder: Path) -> Iterator[Ask]:
    """Ask the signer over its socket, after it signed size 7 of the honest log."""
    signer = Signer(ORIGIN, lambda: load_log_keys(folder, ORIGIN), folder / "memory", lambda: NOW)
    with served(signer, folder / "socket"):
        answer = lambda message: exchange(folder / "socket", message)  # noqa: E731  # one per test
        answer(request(SIZE, root_of(HONEST[:SIZE])))
        yield answer


def exchange(socket: Path, message: object) -> dict[str, object]:
    with wire.connect(socket, 10.0) as connection:
        wire.send(connection, message)
        found = wire.receive(connection)
    assert isinstance(found, dict)
    return found


def test_a13_no_inconsistent_request_is_signed_and_the_memory_stays_as_it_is(folder: Path, ask: Ask) -> None:
    before, cases = (folder / "memory").read_bytes(), list(inconsistent())
    assert len(cases) >= 50
    for case in cases:
        assert ask(case).keys() == {"error", "check", "found", "wanted"}, case
        assert (folder / "memory").read_bytes() == before
    root, proof = root_of(HONEST[:13]), growth(HONEST, SIZE, 13)
    assert "note" in ask(request(13, root, proof)), "an honest request is still answered"


def test_a13_of_two_histories_that_are_asked_for_at_once_only_one_is_signed(folder: Path, ask: Ask) -> None:
    trees = [[*HONEST[:SIZE], *(leaf_hash(b"%d %d" % (tree, i)) for i in range(6))] for tree in range(8)]
    answers: list[dict[str, object]] = []

    def attack(tree: list[bytes]) -> None:
        answers.append(ask(request(13, root_of(tree), growth(tree, SIZE, 13))))

    threads = [threading.Thread(target=attack, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.keys() == {"note"} for answer in answers) == [False] * 7 + [True]
    assert recall(folder / "memory").root in [root_of(tree) for tree in trees]


def test_a13_promises_move_nothing(folder: Path, ask: Ask) -> None:
    before = (folder / "memory").read_bytes()
    promise = {"leaf_hash": HONEST[0].hex(), "accepted": 1, "deadline": 2}
    assert "promises" in ask({"op": "promises", "promises": [promise]})
    assert (folder / "memory").read_bytes() == before
