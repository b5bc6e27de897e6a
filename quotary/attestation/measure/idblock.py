"""ID block and ID authentication of an SEV-SNP launch (AMD SEV-SNP ABI specification, SNP_LAUNCH_FINISH,
tables "ID Block" and "ID Authentication Information").

A signed statement of which launch digest a guest must have: the firmware refuses to finish another launch,
and the report shows digests of the keys that signed. One block binds one digest, so a release signs one for
each shape. Little endian; keys and signatures are P-384. HOST_DATA, 32 bytes, is set beside it and signed by
nobody but the report: ``host_data`` says what we put there.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.p384 import SIGNATURE_LENGTH, verify_p384
from quotary.errors import Malformed

VERSION = 1
ECDSA_P384, NO_AUTHOR = 1, 0
MIGRATE, DEBUG, ALWAYS_ONE = 1 << 18, 1 << 19, 1 << 17

_P384_CURVE = 2
_BLOCK = Layout(
    "ID block",
    96,
    fields(
        ("measurement", 0, 48),
        ("family", 48, 16),
        ("image", 64, 16),
        ("version", 80, 4),
        ("svn", 84, 4),
        ("policy", 88, 8),
    ),
)
_KEY = Layout(
    "public key", 1028, fields(("curve", 0, 4), ("x", 4, 72), ("y", 76, 72), ("reserved", 148, 880))
)
_SIGNATURE = Layout("signature", 512, fields(("r", 0, 72), ("s", 72, 72), ("reserved", 144, 368)))
_AUTH = Layout(
    "ID authentication",
    4096,
    fields(
        ("id_algorithm", 0, 4),
        ("author_algorithm", 4, 4),
        ("reserved 1", 8, 56),
        ("block_signature", 64, 512),
        ("id_key", 576, 1028),
        ("reserved 2", 1604, 60),
        ("id_key_signature", 1664, 512),
        ("author_key", 2176, 1028),
        ("reserved 3", 3204, 892),
    ),
)


@dataclass(frozen=True, slots=True)
class IDBlock:
    """Which guest may be started.

    measurement: 48 bytes, the launch digest
    family, image: 16 bytes each of the owner's choice, as the report shows them
    svn:         the guest's security version, u32
    policy:      the guest policy, u64; debugging and migration are refused
    """

    measurement: bytes
    family: bytes
    image: bytes
    svn: int
    policy: int

    @classmethod
    def parse(cls, data: bytes) -> "IDBlock":
        """Read 96 bytes."""
        found = _BLOCK.read(data)
        if little(found["version"]) != VERSION:
            raise Malformed(f"ID block of version {little(found['version'])}, {VERSION} is known")
        numbers = little(found["svn"]), little(found["policy"])
        block = cls(found["measurement"], found["family"], found["image"], *numbers)
        block._require_sound()
        return block

    def encode(self) -> bytes:
        """Write the 96 bytes that are signed."""
        self._require_sound()
        return _BLOCK.write(
            {
                "measurement": self.measurement,
                "family": self.family,
                "image": self.image,
                "version": VERSION.to_bytes(4, "little"),
                "svn": self.svn.to_bytes(4, "little"),
                "policy": self.policy.to_bytes(8, "little"),
            }
        )

    def _require_sound(self) -> None:
        if not 0 <= self.svn < 1 << 32 or not 0 <= self.policy < 1 << 64:
            raise Malformed("an ID block's svn has 32 bits and its policy 64")
        if self.policy & (DEBUG | MIGRATE) or not self.policy & ALWAYS_ONE:
            raise Malformed(f"guest policy {self.policy:#x} allows debugging or migration, or lacks bit 17")


@dataclass(frozen=True, slots=True)
class Identified:
    """A block that its keys signed.

    id_key, author_key: digests of 48 bytes, as the report shows them; zero for no author
    """

    block: IDBlock
    id_key: bytes
    author_key: bytes


def key_digest(key: ec.EllipticCurvePublicKey) -> bytes:
    """Hash a public key as the report's ID_KEY_DIGEST and AUTHOR_KEY_DIGEST do (48 bytes)."""
    return hashlib.sha384(key_blob(key)).digest()


def key_blob(key: ec.EllipticCurvePublicKey) -> bytes:
    """Write a public key as ID authentication holds it (1028 bytes); an author signs these bytes."""
    if not isinstance(key.curve, ec.SECP384R1):
        raise Malformed(f"a key on {key.curve.name}, P-384 is needed")
    point = key.public_numbers()
    return _KEY.write(
        {
            "curve": _P384_CURVE.to_bytes(4, "little"),
            "x": point.x.to_bytes(72, "little"),
            "y": point.y.to_bytes(72, "little"),
        }
    )


def id_auth(
    id_key: ec.EllipticCurvePublicKey,
    block_signature: bytes,
    author: tuple[ec.EllipticCurvePublicKey, bytes] | None,
) -> bytes:
    """Write the 4096 bytes beside an ID block.

    block_signature: 96 bytes r || s, big endian, by the ID key over the block's 96 bytes
    author:          a key that vouches for the ID key, and its signature over ``key_blob(id_key)``
    """
    author_key, author_signature = (bytes(1028), bytes(512))
    if author is not None:
        author_key, author_signature = key_blob(author[0]), _signature_blob(author[1])
    return _AUTH.write(
        {
            "id_algorithm": ECDSA_P384.to_bytes(4, "little"),
            "author_algorithm": (NO_AUTHOR if author is None else ECDSA_P384).to_bytes(4, "little"),
            "block_signature": _signature_blob(block_signature),
            "id_key": key_blob(id_key),
            "id_key_signature": author_signature,
            "author_key": author_key,
        }
    )


def verify(block: bytes, auth: bytes) -> Identified:
    """Check both signatures as the firmware will; raises ``Rejected`` or ``Malformed``.

    Whose the keys are is for the verifier of the report to say: their digests come back.
    """
    parsed, found = IDBlock.parse(block), _AUTH.read(auth)
    if little(found["id_algorithm"]) != ECDSA_P384:
        raise Malformed("ID authentication is of another algorithm than ECDSA on P-384")
    key = _public_key(found["id_key"])
    verify_p384("id block signature", key, _signature(found["block_signature"]), block)
    authors = little(found["author_algorithm"])
    if authors == NO_AUTHOR and not any(found["author_key"]) and not any(found["id_key_signature"]):
        return Identified(parsed, key_digest(key), bytes(48))
    if authors != ECDSA_P384:
        raise Malformed("ID authentication has an author of another algorithm than ECDSA on P-384")
    author = _public_key(found["author_key"])
    verify_p384("id key signature", author, _signature(found["id_key_signature"]), found["id_key"])
    return Identified(parsed, key_digest(key), key_digest(author))


def host_data(domain: str, document: bytes) -> bytes:
    """Hash a configuration document for HOST_DATA: ``SHA-256(domain || 0x00 || document)``."""
    if not domain or not domain.isascii() or not domain.isprintable():
        raise Malformed("the domain of a configuration digest is of printable characters")
    return hashlib.sha256(domain.encode() + b"\0" + document).digest()


def _public_key(blob: bytes) -> ec.EllipticCurvePublicKey:
    found = _KEY.read(blob)
    if little(found["curve"]) != _P384_CURVE:
        raise Malformed(f"a key on the curve {little(found['curve'])}, P-384 (2) is needed")
    try:
        numbers = ec.EllipticCurvePublicNumbers(little(found["x"]), little(found["y"]), ec.SECP384R1())
        return numbers.public_key()
    except ValueError as error:
        raise Malformed("a key whose point is not on P-384") from error


def _signature_blob(signature: bytes) -> bytes:
    if len(signature) != SIGNATURE_LENGTH:
        raise Malformed(f"signature has {len(signature)} bytes, {SIGNATURE_LENGTH} are needed")
    halves = signature[:48][::-1], signature[48:][::-1]
    return _SIGNATURE.write({name: half.ljust(72, b"\0") for name, half in zip("rs", halves, strict=True)})


def _signature(blob: bytes) -> bytes:
    found = _SIGNATURE.read(blob)
    if any(found["r"][48:]) or any(found["s"][48:]):
        raise Malformed("a signature's number has more than 384 bits")
    return found["r"][47::-1] + found["s"][47::-1]
