"""Keys born inside: valid keysets, overlap, expiry, and destruction for good."""

from datetime import UTC, datetime

import pytest

from enclave.keyset import LIFE_SECONDS, ROTATE_SECONDS, SKEW_SECONDS, Keyring, LiveKeyset
from quotary.client.sealed import key_id
from quotary.ed25519 import verify
from quotary.errors import Refused
from quotary.statements.keyset import CHANNEL, RECEIPT, Keyset

NOW = 1_795_000_000


def born(now: int = NOW) -> LiveKeyset:
    return LiveKeyset.born("example.org/chat", "1f", now).with_evidence(b"e" * 32)


def test_the_document_is_a_keyset_of_exactly_these_keys() -> None:
    live = born()
    keyset = Keyset.parse(live.document)
    assert keyset.digest == live.digest
    (channel,), (receipt,) = keyset.of_role(CHANNEL), keyset.of_role(RECEIPT)
    assert channel.public == live.channel.public
    signature = live.sign(b"message")
    assert signature.key_id == receipt.id
    verify(receipt.public, signature.value, b"message")


def test_a_keyset_is_valid_from_a_little_before_its_birth_to_its_end() -> None:
    keyset = Keyset.parse(born().document)
    for at in (NOW - SKEW_SECONDS, NOW, NOW + LIFE_SECONDS - 1):
        keyset.check_valid_at(datetime.fromtimestamp(at, UTC))
    for at in (NOW - SKEW_SECONDS - 1, NOW + LIFE_SECONDS):
        with pytest.raises(Refused):
            keyset.check_valid_at(datetime.fromtimestamp(at, UTC))


def test_a_new_keyset_is_due_before_the_old_one_ends() -> None:
    ring = Keyring()
    assert ring.due(NOW)
    ring.add(born())
    assert not ring.due(NOW + ROTATE_SECONDS - 1)
    assert ring.due(NOW + ROTATE_SECONDS)
    assert ROTATE_SECONDS < LIFE_SECONDS


def test_old_and_new_are_found_until_the_old_one_ends() -> None:
    ring, old, new = Keyring(), born(), born(NOW + ROTATE_SECONDS)
    ring.add(old)
    ring.add(new)
    assert ring.current() == new
    assert ring.find(key_id(old.channel.public), NOW + LIFE_SECONDS - 1) == old
    assert ring.find(key_id(old.channel.public), NOW + LIFE_SECONDS) is None
    assert ring.find(key_id(new.channel.public), NOW + LIFE_SECONDS) == new


def test_what_is_destroyed_stays_destroyed() -> None:
    ring, live = Keyring(), born()
    ring.add(live)
    ring.destroy()
    ring.add(born())
    assert ring.current() is None
    assert ring.find(key_id(live.channel.public), NOW) is None


def test_two_keysets_share_nothing() -> None:
    first, second = born(), born()
    assert first.digest != second.digest
    assert first.channel.public != second.channel.public
