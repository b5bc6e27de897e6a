"""SIGSTRUCT: what the signer of an SGX enclave says of it (Intel SDM volume 3D, "Enclave Signature
Structure").

MRENCLAVE is not computed here: the loaders differ from release to release, and none is ours. It is read from
the structure that the enclave's signer made, whose RSA signature is checked as EINIT will. Numbers are little
endian; MRSIGNER is the hash of the signer's modulus.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.measure.trace import Measured, Step
from quotary.errors import Malformed, Refused, Rejected

DEBUG = 1 << 1
EXPONENT = 3
MODULUS_BITS = 3072

_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_LAYOUT = Layout(
    "SIGSTRUCT",
    1808,
    fields(
        ("header", 0, 16),
        ("vendor", 16, 4),
        ("date", 20, 4),
        ("header2", 24, 16),
        ("software_defined", 40, 4),
        ("reserved 1", 44, 84),
        ("modulus", 128, 384),
        ("exponent", 512, 4),
        ("signature", 516, 384),
        ("misc_select", 900, 4),
        ("misc_mask", 904, 4),
        ("cet_attributes", 908, 1),
        ("cet_mask", 909, 1),
        ("reserved 2", 910, 2),
        ("isv_family_id", 912, 16),
        ("attributes", 928, 16),
        ("attribute_mask", 944, 16),
        ("mrenclave", 960, 32),
        ("reserved 3", 992, 16),
        ("isv_ext_product_id", 1008, 16),
        ("isv_product_id", 1024, 2),
        ("isv_svn", 1026, 2),
        ("reserved 4", 1028, 12),
        ("q1", 1040, 384),
        ("q2", 1424, 384),
    ),
)
# What the signature covers.
_SIGNED = ((0, 128), (900, 1028))


@dataclass(frozen=True, slots=True)
class Enclave:
    """An enclave as its signer describes it.

    mrenclave, mrsigner: 32 bytes each
    attributes, mask:    16 bytes each; an enclave starts only with ``attributes`` under ``mask``
    """

    mrenclave: bytes
    mrsigner: bytes
    product: int
    svn: int
    attributes: bytes
    mask: bytes


def read(data: bytes) -> Enclave:
    """Read and check a SIGSTRUCT of 1808 bytes, or raise.

    1. Its constants are the architecture's; reserved bytes are zero (``Malformed``).
    2. The signer's key signed it, and the two helper numbers are those of the signature (``Rejected``).
    3. An enclave of it cannot be debugged (``Refused``).
    """
    found = _LAYOUT.read(data)
    if found["header"] != _HEADER or found["header2"] != _HEADER2:
        raise Malformed("SIGSTRUCT does not begin as the architecture says")
    if little(found["exponent"]) != EXPONENT:
        raise Malformed(f"SIGSTRUCT's exponent is {little(found['exponent'])}, {EXPONENT} is needed")
    _verify(found, b"".join(data[start:end] for start, end in _SIGNED))
    attributes, mask = found["attributes"], found["attribute_mask"]
    if little(attributes) & DEBUG or not little(mask) & DEBUG:
        raise Refused("debug", "an enclave that may be debugged", "attribute bit 1 clear and in the mask")
    return Enclave(
        found["mrenclave"],
        hashlib.sha256(found["modulus"]).digest(),
        little(found["isv_product_id"]),
        little(found["isv_svn"]),
        attributes,
        mask,
    )


def measure(data: bytes) -> Measured:
    """Give the register ``mrenclave`` of a signed enclave, with the structure as its one step."""
    value = read(data).mrenclave
    step = Step("mrenclave", "SIGSTRUCT (SHA-384)", hashlib.sha384(data).digest(), value)
    return Measured({"mrenclave": value}, (step,))


def _verify(found: dict[str, bytes], message: bytes) -> None:
    modulus, signature = little(found["modulus"]), little(found["signature"])
    if modulus.bit_length() != MODULUS_BITS or modulus % 2 == 0 or signature >= modulus:
        raise Malformed(f"SIGSTRUCT's modulus is not of {MODULUS_BITS} bits or below its signature")
    try:
        key = RSAPublicNumbers(EXPONENT, modulus).public_key()
        key.verify(found["signature"][::-1], message, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as error:
        raise Rejected(
            "sigstruct signature", "one that does not hold", "one over exactly these bytes"
        ) from error
    q1, rest = divmod(signature * signature, modulus)
    if (little(found["q1"]), little(found["q2"])) != (q1, rest * signature // modulus):
        raise Rejected("sigstruct helper numbers", "q1 or q2 of another signature", "those of this signature")
