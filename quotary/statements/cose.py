"""Proofs of the log as COSE receipts (RFC 9942, RFC 9162 trees), for verifiers that read CBOR and no notes.

A tagged COSE_Sign1 (RFC 9052) under the log's Ed25519 key. Its protected header names origin and size beside
algorithm, key and kind of tree, because the root alone would not say of how many entries it is. Witnesses are
not in it: who needs those takes a checkpoint (docs/formats/cose.md).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary import ed25519
from quotary.attestation.cbor import Value, decode
from quotary.attestation.cbor_encode import Encodable, Tagged, encode
from quotary.errors import InvalidSignature, Malformed, Rejected
from quotary.statements.envelope import spki
from quotary.tlog.merkle import root_from_path, verify_consistency

MEDIA_TYPE = 'application/cose; cose-type="cose-sign1"'
MAX_RECEIPT = 8192

_ALG, _KID, _CLAIMS, _VDS, _PROOFS = 1, 4, 15, 395, 396
_ED_DSA, _RFC9162_SHA256 = -8, 1
_ISSUER, _SUBJECT = 1, 2
_INCLUSION, _CONSISTENCY = -1, -2
_TAG, _TAG_BYTE = 18, b"\xd2"
_HASH, _SIGNATURE = 32, 64


@dataclass(frozen=True, slots=True)
class CoseHead:
    """What the log signs in COSE's words: ``size`` entries of ``origin`` have the signed root.

    key: SHA-256 of the signing key's SubjectPublicKeyInfo, 32 bytes
    """

    origin: str
    size: int
    key: bytes

    @classmethod
    def of(cls, origin: str, size: int, public: bytes) -> "CoseHead":
        """Name a head and the key (Ed25519, 32 bytes) that signs it."""
        return cls(origin, size, hashlib.sha256(spki(public)).digest())

    def protected(self) -> bytes:
        """The protected header, deterministic CBOR."""
        claims: dict[int | str, Encodable] = {_ISSUER: self.origin, _SUBJECT: f"checkpoint/{self.size}"}
        return encode({_ALG: _ED_DSA, _KID: self.key, _CLAIMS: claims, _VDS: _RFC9162_SHA256})

    def signed_bytes(self, root: bytes) -> bytes:
        """What the key signs (RFC 9052 section 4.4); no note's text begins with such a byte."""
        return encode(["Signature1", self.protected(), b"", root])

    @classmethod
    def parse(cls, protected: bytes) -> "CoseHead":
        header = decode(protected, MAX_RECEIPT)
        claims = header.get(_CLAIMS) if isinstance(header, dict) else None
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise Malformed("a COSE receipt's protected header names no issuer and subject")
        origin, subject, key = claims.get(_ISSUER), claims.get(_SUBJECT), header.get(_KID)
        if not isinstance(origin, str) or not isinstance(subject, str) or not isinstance(key, bytes):
            raise Malformed("a COSE receipt's protected header names no origin, size or key")
        size = subject.removeprefix("checkpoint/")
        if not (size.isascii() and size.isdecimal() and len(size) < 17):
            raise Malformed("a COSE receipt's subject is checkpoint/ and a size")
        found = cls(origin, int(size), key)
        # Whatever else it says, in another order or besides, is not what we know the meaning of.
        if found.protected() != protected:
            raise Malformed("a COSE receipt's protected header is another than ours")
        return found


@dataclass(frozen=True, slots=True)
class CoseReceipt:
    """A parsed receipt, not yet believed.

    index: of the entry that is included; None where it is a receipt of consistency
    old:   the older size; None where it is one of inclusion
    path:  32-byte hashes; root: attached to a receipt of consistency only
    """

    head: CoseHead
    signature: bytes
    path: tuple[bytes, ...]
    index: int | None = None
    old: int | None = None
    root: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> "CoseReceipt":
        if not data.startswith(_TAG_BYTE):
            raise Malformed("a COSE receipt begins with the tag 18")
        parts = decode(data[1:], MAX_RECEIPT)
        if not isinstance(parts, tuple) or len(parts) != 4:
            raise Malformed("a COSE receipt has four parts")
        protected, unprotected, root, signature = parts
        if not isinstance(protected, bytes) or not isinstance(signature, bytes):
            raise Malformed("a COSE receipt's header and signature are bytes")
        if len(signature) != _SIGNATURE or (root is not None and not _is_hash(root)):
            raise Malformed("a COSE receipt's signature has 64 bytes, its payload 32 or none")
        head, (kind, numbers, path) = CoseHead.parse(protected), _proof(unprotected)
        if numbers[kind == _CONSISTENCY] != head.size:
            raise Malformed(f"the proof is of another size than the signed {head.size}")
        assert root is None or isinstance(root, bytes)  # looked at above
        if kind == _INCLUSION and root is None:
            return cls(head, signature, path, index=numbers[1])
        if kind == _CONSISTENCY and root is not None:
            return cls(head, signature, path, old=numbers[0], root=root)
        raise Malformed("the root is attached to receipts of consistency, and to no others")

    def encode(self) -> bytes:
        if self.index is not None:
            kind, numbers = _INCLUSION, (self.head.size, self.index)
        else:
            assert self.old is not None  # one of the two
            kind, numbers = _CONSISTENCY, (self.old, self.head.size)
        proof = encode([*numbers, list(self.path)])
        proofs: dict[int | str, Encodable] = {kind: [proof]}
        unprotected: dict[int | str, Encodable] = {_PROOFS: proofs}
        return encode(Tagged(_TAG, [self.head.protected(), unprotected, self.root, self.signature]))


def verify_inclusion_receipt(
    data: bytes, leaf: bytes, keys: Mapping[bytes, bytes], origin: str
) -> CoseReceipt:
    """Prove that the entry with this leaf hash stands in the log, at the receipt's index.

    keys: the log's Ed25519 keys (32 bytes) that are believed, by SHA-256 of their SubjectPublicKeyInfo
    """
    found = CoseReceipt.parse(data)
    if found.index is None:
        raise Rejected("cose receipt", "one of consistency", "one of inclusion")
    _verify(found, root_from_path(found.index, found.head.size, leaf, found.path), keys, origin)
    return found


def verify_consistency_receipt(
    data: bytes, old: tuple[int, bytes], keys: Mapping[bytes, bytes], origin: str
) -> CoseReceipt:
    """Prove that the log continues an older one; old: its size and its root."""
    found = CoseReceipt.parse(data)
    if found.root is None:
        raise Rejected("cose receipt", "one of inclusion", "one of consistency")
    _verify(found, found.root, keys, origin)
    if found.old != old[0]:
        raise Rejected("cose receipt", f"one that continues size {found.old}", f"size {old[0]}")
    verify_consistency(old[0], found.head.size, old[1], found.root, found.path)
    return found


def _verify(found: CoseReceipt, root: bytes, keys: Mapping[bytes, bytes], origin: str) -> None:
    head = found.head
    if head.origin != origin:
        raise Rejected("cose receipt", f"origin {head.origin}", origin)
    if head.key not in keys:
        raise InvalidSignature(f"the receipt is signed by {head.key.hex()}, which is no key of {origin}")
    ed25519.verify(keys[head.key], found.signature, head.signed_bytes(root))


def _proof(unprotected: Value) -> tuple[int, tuple[int, int], tuple[bytes, ...]]:
    """Read the one proof of an unprotected header: its kind, two sizes or a size and an index, its path."""
    proofs = unprotected.get(_PROOFS) if isinstance(unprotected, dict) else None
    if not isinstance(unprotected, dict) or len(unprotected) != 1 or not isinstance(proofs, dict):
        raise Malformed("a COSE receipt's unprotected header holds proofs and nothing else")
    (kind, listed), *more = proofs.items() or [(None, None)]
    if more or kind not in (_INCLUSION, _CONSISTENCY) or not isinstance(listed, tuple) or len(listed) != 1:
        raise Malformed("a COSE receipt holds one proof, of inclusion or of consistency")
    proof = decode(listed[0], MAX_RECEIPT) if isinstance(listed[0], bytes) else None
    if not isinstance(proof, tuple) or len(proof) != 3:
        raise Malformed("a COSE receipt's proof is two numbers and a path")
    first, second, path = proof
    if not all(type(number) is int and number >= 0 for number in (first, second)):
        raise Malformed("a COSE receipt's proof has two numbers")
    if not isinstance(path, tuple) or not all(map(_is_hash, path)):
        raise Malformed("a COSE receipt's path is hashes of 32 bytes")
    assert isinstance(first, int) and isinstance(second, int) and isinstance(kind, int)  # noqa: PT018
    return kind, (first, second), tuple(item for item in path if isinstance(item, bytes))


def _is_hash(value: Value | Sequence[Value]) -> bool:
    return isinstance(value, bytes) and len(value) == _HASH
