"""Sealed bytes: their length, what they are bound to, every byte broken, and old ones presented again."""

import struct
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from enclave import collect
from enclave.seal import MAX_COUNTER, MAX_SECRET, key_source, seal, unseal
from quotary.errors import CannotTell, Malformed, Refused, Rejected, Unsupported
from tests.enclave.test_collect import snp_driver

SECRET = b"s" * 33


@dataclass(frozen=True)
class Source:
    vendor: str = "sim-tdx"
    key: bytes = b"k" * 32

    def secret(self) -> bytes:
        return self.key


class Number:
    def __init__(self, value: int = 0) -> None:
        self._value = value

    def value(self) -> int:
        return self._value

    def advance(self, value: int) -> None:
        assert value > self._value
        self._value = value


def test_33_bytes_seal_to_61_and_open_again() -> None:
    counter = Number()
    sealed = seal(Source(), "keyset", SECRET, counter)
    assert (len(sealed), counter.value()) == (61, 1)
    assert unseal(Source(), "keyset", sealed, counter) == SECRET


@given(st.binary(max_size=300), st.text(min_size=1, max_size=20), st.integers(0, 1 << 40))
def test_whatever_is_sealed_opens(secret: bytes, key_id: str, number: int) -> None:
    counter = Number(number)
    sealed = seal(Source(), key_id, secret, counter)
    assert len(sealed) == len(secret) + 28
    assert unseal(Source(), key_id, sealed, counter) == secret


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_sealed_data_can_change(bit: int) -> None:
    counter = Number()
    sealed = seal(Source(), "keyset", SECRET, counter)
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1 << bit]) + sealed[index + 1 :]
        with pytest.raises(Rejected, match=r"^sealed data"):
            unseal(Source(), "keyset", changed, counter)


def test_no_length_but_its_own_opens() -> None:
    counter = Number()
    sealed = seal(Source(), "keyset", SECRET, counter)
    for length in range(len(sealed)):
        with pytest.raises(Malformed if length < 28 else Rejected):
            unseal(Source(), "keyset", sealed[:length], counter)
    with pytest.raises(Rejected):
        unseal(Source(), "keyset", sealed + b"\0", counter)


@pytest.mark.parametrize(
    ("source", "key_id"),
    [
        (Source(vendor="snp"), "keyset"),
        (Source(key=b"K" * 32), "keyset"),
        (Source(), "weights"),
        (Source(vendor="sim-tdxkey"), "set"),
    ],
)
def test_another_vendor_machine_or_key_id_opens_nothing(source: Source, key_id: str) -> None:
    counter = Number()
    sealed = seal(Source(), "keyset", SECRET, counter)
    with pytest.raises(Rejected, match=r"^sealed data"):
        unseal(source, key_id, sealed, counter)


def test_old_sealed_data_are_refused_after_newer_ones() -> None:
    counter = Number()
    old = seal(Source(), "keyset", b"old", counter)
    new = seal(Source(), "keyset", b"new", counter)
    assert unseal(Source(), "keyset", new, counter) == b"new"
    with pytest.raises(Rejected, match="number 2"):
        unseal(Source(), "keyset", old, counter)


def test_a_counter_at_its_end_seals_nothing_more() -> None:
    with pytest.raises(Refused, match="rollback counter"):
        seal(Source(), "keyset", SECRET, Number(MAX_COUNTER))


def test_the_vendors_key_does_not_encrypt_by_itself() -> None:
    sealed = seal(Source(), "keyset", SECRET, Number(), lambda length: bytes(length))
    direct = AESGCM(b"k" * 32).encrypt(bytes(12), SECRET, None)
    assert sealed[12:45] != direct[:33]


@pytest.mark.parametrize("key", [b"", b"k" * 31, bytes(32)])
def test_a_key_that_is_none_is_not_used(key: bytes) -> None:
    with pytest.raises(Malformed, match="empty"):
        seal(Source(key=key), "keyset", SECRET, Number())


@pytest.mark.parametrize("key_id", ["", "x" * 256])
def test_a_key_id_has_1_to_255_bytes(key_id: str) -> None:
    with pytest.raises(Malformed, match="1 to 255"):
        seal(Source(), key_id, SECRET, Number())


def test_too_long_a_secret_is_not_sealed() -> None:
    counter = Number()
    with pytest.raises(Malformed, match="can be sealed"):
        seal(Source(), "keyset", bytes(MAX_SECRET + 1), counter)
    assert counter.value() == 0


def test_the_chip_gives_a_guest_its_key() -> None:
    asked: list[bytes] = []
    driver = snp_driver(collect.SNP_GET_DERIVED_KEY, bytes(32) + b"k" * 32, asked=asked)
    source = key_source("snp", driver)
    sealed = seal(source, "keyset", SECRET, Number())
    assert unseal(Source("snp"), "keyset", sealed, Number(1)) == SECRET
    assert asked[0] == struct.pack("<IIQIIQ", 0, 0, 0b1111, 0, 0, 0)
    with pytest.raises(CannotTell):
        key_source("snp", snp_driver(collect.SNP_GET_DERIVED_KEY, b"\1" + bytes(63))).secret()


@pytest.mark.parametrize(("platform", "said"), [("tdx", "key service"), ("nitro", "KMS"), ("x", "'x'")])
def test_a_platform_without_a_sealing_key_says_so(platform: str, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        key_source(platform, snp_driver(0, b""))
