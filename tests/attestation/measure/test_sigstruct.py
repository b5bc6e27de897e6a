"""SGX signature structures, made here with a key of our own: the vectors have none."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.attestation.measure import sigstruct
from quotary.attestation.measure.sigstruct import measure, read
from quotary.errors import Malformed, Refused, Rejected

MRENCLAVE = bytes(range(32))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


def made(key: rsa.RSAPrivateKey, **changes: bytes) -> bytes:
    """A structure as a signing tool writes it; changes are signed, too."""
    modulus = key.public_key().public_numbers().n
    values = {field.name: bytes(field.length) for field in sigstruct._LAYOUT.fields if not field.reserved}
    values |= {
        "header": sigstruct._HEADER,
        "header2": sigstruct._HEADER2,
        "date": bytes.fromhex("21112620"),
        "modulus": modulus.to_bytes(384, "little"),
        "exponent": b"\3\0\0\0",
        "attributes": b"\4".ljust(16, b"\0"),
        "attribute_mask": b"\xff" * 16,
        "mrenclave": MRENCLAVE,
        "isv_product_id": b"\7\0",
        "isv_svn": b"\2\0",
    }
    values |= changes
    data = sigstruct._LAYOUT.write(values)
    signature = int.from_bytes(key.sign(data[:128] + data[900:1028], PKCS1v15(), SHA256()), "big")
    q1, rest = divmod(signature * signature, modulus)
    numbers = {"signature": signature, "q1": q1, "q2": rest * signature // modulus}
    numbers_read = {name: value.to_bytes(384, "little") for name, value in numbers.items()}
    return sigstruct._LAYOUT.write(values | {n: v for n, v in numbers_read.items() if n not in changes})


def test_a_signed_structure_says_what_its_signer_wrote(key):
    data = made(key)
    found = read(data)
    assert found.mrenclave == MRENCLAVE
    assert found.mrsigner == hashlib.sha256(data[128:512]).digest()
    assert (found.product, found.svn) == (7, 2)
    measured = measure(data)
    assert measured.registers == {"mrenclave": MRENCLAVE}
    assert measured.steps[0].after == MRENCLAVE


def test_every_changed_byte_and_every_other_length_is_noticed(key):
    data = made(key)
    for at in [*range(0, 128, 3), *range(128, 900, 41), *range(900, 1040, 3), *range(1040, 1808, 41)]:
        with pytest.raises((Malformed, Rejected)):
            read(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for length in (0, 1807):
        with pytest.raises(Malformed):
            read(data[:length])
    with pytest.raises(Malformed):
        read(data + b"\0")


def test_an_enclave_that_may_be_debugged_is_refused(key):
    for change in ({"attributes": b"\6".ljust(16, b"\0")}, {"attribute_mask": b"\xfd".ljust(16, b"\xff")}):
        with pytest.raises(Refused, match="debug"):
            read(made(key, **change))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"header": bytes(16)}, Malformed),
        ({"header2": bytes(16)}, Malformed),
        ({"exponent": b"\1\0\1\0"}, Malformed),
        ({"modulus": bytes(384)}, Malformed),
        ({"modulus": b"\2" + bytes(382) + b"\x80"}, Malformed),
        ({"signature": b"\xff" * 384}, Malformed),
        ({"signature": b"\1" + bytes(383)}, Rejected),
        ({"q1": bytes(384)}, Rejected),
        ({"q2": bytes(384)}, Rejected),
    ],
)
def test_a_structure_with_one_thing_wrong_says_so(key, change, error):
    with pytest.raises(error):
        read(made(key, **change))


def test_the_layout_has_no_gap():
    assert sigstruct._LAYOUT.gaps_and_overlaps() == ()
