"""Documents of a simulated Nitro hypervisor: untagged COSE_Sign1 with ES384, as AWS writes them.

AWS "Nitro Enclaves Attestation Process", section 2.2.1. The leaf is issued anew for each document and lives
three hours, as AWS's do.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from simulator.keys import Signer, Wish, issue, open_signers, sign_p384_big

CA_LIFE, LEAF_LIFE = timedelta(days=3650), timedelta(hours=3)
PROTECTED = bytes.fromhex("a1013822")
PCR_COUNT = 16


@dataclass(frozen=True, slots=True)
class NitroVendor:
    """One installation's AWS: root, zone and instance."""

    root: Signer
    zone: Signer
    instance: Signer
    module_id: str

    @property
    def root_sha256(self) -> bytes:
        """What a simulation policy pins as ``simulator_root_sha256``."""
        return hashlib.sha256(self.root.der).digest()


def open_nitro_vendor(directory: Path, now: datetime) -> NitroVendor:
    """Load the vendor of this directory, or make it."""
    found = open_signers(directory, lambda: _create(now))
    serial = found["instance"].certificate.serial_number
    return NitroVendor(found["root"], found["zone"], found["instance"], f"i-simulated-{serial:x}"[:40])


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the enclave puts into a document; None where it puts nothing."""

    user_data: bytes | None = None
    nonce: bytes | None = None
    public_key: bytes | None = None


def make_document(vendor: NitroVendor, pcrs: Mapping[int, bytes], chosen: Chosen, now: datetime) -> bytes:
    """Sign PCRs of 48 bytes and the enclave's choice at this time; those of 0 to 15 not given are zero."""
    key = ec.generate_private_key(ec.SECP384R1())
    begin = now.replace(microsecond=0)
    leaf = issue(Wish(vendor.module_id, LEAF_LIFE, ca=False), key, vendor.instance, begin)
    payload = encode(
        {
            "module_id": vendor.module_id,
            "digest": "SHA384",
            "timestamp": int(now.timestamp() * 1000),
            "pcrs": {number: pcrs.get(number, bytes(48)) for number in range(PCR_COUNT)},
            "certificate": leaf.der,
            "cabundle": [vendor.root.der, vendor.zone.der, vendor.instance.der],
            "public_key": chosen.public_key,
            "user_data": chosen.user_data,
            "nonce": chosen.nonce,
        }
    )
    signature = sign_p384_big(key, encode(["Signature1", PROTECTED, b"", payload]))
    return encode([PROTECTED, {}, payload, signature])


def encode(value: object) -> bytes:
    """Write the little CBOR that a document needs (RFC 8949, section 4.2: shortest forms)."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            data = value.encode("utf-8")
            return _head(3, len(data)) + data
        case list():
            return _head(4, len(value)) + b"".join(encode(item) for item in value)
        case dict():
            return _head(5, len(value)) + b"".join(encode(key) + encode(item) for key, item in value.items())
    raise AssertionError(f"no CBOR for {type(value).__name__}")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    exponent = next(exponent for exponent in range(4) if number < 1 << (8 << exponent))
    return bytes([major << 5 | 24 + exponent]) + number.to_bytes(1 << exponent, "big")


def _create(now: datetime) -> dict[str, Signer]:
    def key() -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP384R1())

    root = issue(Wish("aws.nitro-enclaves", CA_LIFE), key(), None, now)
    zone = issue(Wish(f"{secrets.token_hex(8)}.zone.simulated", CA_LIFE, path_length=1), key(), root, now)
    instance = issue(Wish("instance.simulated", CA_LIFE, path_length=0), key(), zone, now)
    return {"root": root, "zone": zone, "instance": instance}
