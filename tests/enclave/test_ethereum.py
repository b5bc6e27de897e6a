"""Keccak and Ethereum's signatures, held against ``hashlib`` and against eth-account."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given, settings
from hypothesis import strategies as some

from enclave.doors import ethereum
from enclave.doors.keccak import RATE, SHA3, keccak256


@pytest.mark.parametrize("length", [0, 1, RATE - 1, RATE, RATE + 1, 2 * RATE, 1000])
def test_with_the_other_padding_it_is_sha3(length: int) -> None:
    data = bytes(at % 251 for at in range(length))
    assert keccak256(data, SHA3) == hashlib.sha3_256(data).digest()
    assert keccak256(data) != hashlib.sha3_256(data).digest()


def test_the_empty_string_has_ethereums_digest() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@settings(max_examples=40)
@given(number=some.integers(1, 2**255), text=some.text(max_size=200))
def test_address_and_signature_are_those_of_eth_account(number: int, text: str) -> None:
    key, account = ec.derive_private_key(number, ec.SECP256K1()), Account.from_key(number.to_bytes(32, "big"))
    address = ethereum.checksummed(ethereum.address(ethereum.public_bytes(key.public_key())))
    assert address == account.address
    signature = ethereum.personal_sign(key, text)
    assert signature == "0x" + account.sign_message(encode_defunct(text=text)).signature.hex()
    assert Account.recover_message(encode_defunct(text=text), signature=signature) == address
