"""What the judge seals, the sequencer believes; whatever has no seal that holds, it reads and verifies itself."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from quotary.errors import InvalidSignature
from quotary.statements.envelope import Envelope, Signature, raw_public_key
from quotary.statements.opened import open_entry
from quotary.statements.terms import terms_in
from quotary.tlog.merkle import leaf_hash
from registry.admission import Accepted, admission_of
from registry.batch import Intervals
from registry.opening import Opening
from registry.seal import Finding, Held, Seal, new_key, take_key
from registry.sequencer import Sequencer
from registry.store import Waiting
from tests.fakes.authority import ORIGIN, TS, key
from tests.fakes.inprocess import Local, local

SEAL = Seal(bytes(range(32)))
OTHER = Seal(bytes(32))
KEYS = (raw_public_key(key("builder1")),)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        found.append(found.authority.allocation(), found.authority.delegation(notices=("artefact",)))
        yield found


def admitted(log: Local, *entries: bytes) -> list[Waiting]:
    """Have a judge with the key take entries, and give what waits then."""
    answers = admission_of(log.config, log.store, log.clock, SEAL).submit_all(entries)
    assert all(isinstance(answer, Accepted) for answer in answers), answers
    return log.store.read.waiting(99)


def spoiled(entry: bytes) -> bytes:
    """Give the entry with a signature that does not hold."""
    envelope = Envelope.parse(entry)
    (only,) = envelope.signatures
    return Envelope(envelope.payload, (Signature(only.keyid, only.sig[:32] + bytes(32)),)).encode()


def sealed_as_if_verified(entry: bytes, seal: Seal) -> bytes:
    opened = open_entry(entry)
    found = seal.close(leaf_hash(entry), opened, KEYS)
    assert found is not None
    return found


def outcome(log: Local, entry: bytes, seal: bytes | None, believed: Seal | None) -> str:
    """Let an entry wait as whoever has the database could, and give what a sequencer with a key makes of it."""
    log.store.write.enqueue([(leaf_hash(entry), entry)], 0, {leaf_hash(entry): seal} if seal else None)
    sequencer = Sequencer(log.store, ORIGIN, log.signer, log.clock, believed)
    sequencer.take_over()
    sequencer.integrate()
    index = log.store.read.find(leaf_hash(entry))
    assert index is not None
    found = log.store.read.outcome(index)
    assert found is not None
    return found.code


def test_an_interval_closes_to_the_same_bytes_with_seals_and_without(log: Local) -> None:
    made = log.authority
    rows = admitted(
        log,
        made.release("a", "b"),
        made.release("c"),
        made.revocation(["a"]),
        made.delegation(notices=("artefact",)),
        made.notice(),
    )
    assert [row.seal is not None for row in rows] == [True, True, False, False, False]
    head = log.store.read.head()
    assert head is not None
    closed = [Intervals(ORIGIN, log.store.read, seal).close(head, rows, TS) for seal in (SEAL, OTHER, None)]
    assert closed[0] == closed[1] == closed[2]
    assert {row.code for row in closed[0].outcomes} == {"effective", "notice"}


def test_a_seal_says_what_reading_the_entry_says(log: Local) -> None:
    entry = log.authority.release("a", "b")
    (row,) = admitted(log, entry)
    assert row.seal is not None
    found, opened = SEAL.open(row.leaf_hash, row.data, row.seal), open_entry(entry)
    assert found is not None
    assert found.terms == terms_in(opened)
    assert found.opened.envelope == opened.envelope
    assert found.keys == KEYS
    assert found.opened.statement is not None
    assert opened.statement is not None
    assert found.opened.statement.predicate == opened.statement.predicate.claim  # type: ignore[union-attr]  # a release


def test_a_seal_holds_for_its_entry_under_its_key_and_as_it_was_made(log: Local) -> None:
    entry, other = log.authority.release("a"), log.authority.release("b")
    sealed = sealed_as_if_verified(entry, SEAL)
    assert SEAL.open(leaf_hash(entry), entry, sealed) is not None
    assert SEAL.open(leaf_hash(other), other, sealed) is None
    assert OTHER.open(leaf_hash(entry), entry, sealed) is None
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        assert SEAL.open(leaf_hash(entry), entry, changed) is None
        assert SEAL.open(leaf_hash(entry), entry, sealed[:at]) is None


def test_a_forged_seal_gets_no_unverified_entry_into_effect(log: Local) -> None:
    entry = spoiled(log.authority.release("a"))
    assert outcome(log, entry, sealed_as_if_verified(entry, OTHER), SEAL) == "invalid-signature"
    again = spoiled(log.authority.release("b"))
    assert outcome(log, again, None, SEAL) == "invalid-signature"


def test_a_sequencer_without_the_key_believes_no_seal(log: Local) -> None:
    entry = spoiled(log.authority.release("a"))
    assert outcome(log, entry, sealed_as_if_verified(entry, SEAL), None) == "invalid-signature"


def test_what_a_seal_says_is_not_verified_again(log: Local) -> None:
    """Nobody but the judge has the key: that this has effect shows what the key is worth."""
    entry = spoiled(log.authority.release("a"))
    assert outcome(log, entry, sealed_as_if_verified(entry, SEAL), SEAL) == "effective"


def test_only_the_very_signature_of_the_very_payload_by_the_very_key_need_not_be_verified(log: Local) -> None:
    first, other = (spoiled(log.authority.release(name)) for name in "ab")
    opened = open_entry(first)
    envelope = opened.envelope
    assert envelope is not None
    held = Held()
    held.add(Finding(opened, frozenset(), KEYS))
    (signature,) = envelope.signatures
    held.verify(KEYS[0], signature, envelope.payload)
    more = Signature(signature.keyid, signature.sig[:63] + b"\x01")
    for public, sig, payload in (
        (bytes([KEYS[0][0] ^ 1]) + KEYS[0][1:], signature, envelope.payload),
        (KEYS[0], more, envelope.payload),
        (KEYS[0], signature, Envelope.parse(other).payload),
    ):
        with pytest.raises(InvalidSignature):
            held.verify(public, sig, payload)


def test_entries_without_a_seal_are_read_beside_those_with_one(log: Local) -> None:
    made = log.authority
    rows = admitted(log, made.release("a"))
    late = made.release("b")
    opening = Opening()
    opening.take([*rows, Waiting(9, leaf_hash(late), late)], 7, SEAL)
    assert list(opening.opened) == [7, 8]
    assert {index for _, index in opening.terms} == {7, 8}


def test_a_key_is_handed_on_by_a_descriptor_and_closed_by_who_takes_it(log: Local) -> None:
    entry = log.authority.release("a")
    with new_key() as descriptor:
        first, second = take_key(os.dup(descriptor)), take_key(copy := os.dup(descriptor))
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(copy)
        assert second.open(leaf_hash(entry), entry, sealed_as_if_verified(entry, first)) is not None
    with new_key() as descriptor:
        third = take_key(os.dup(descriptor))
    assert third.open(leaf_hash(entry), entry, sealed_as_if_verified(entry, first)) is None
