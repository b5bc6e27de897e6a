"""The entry of a statement: a DSSE envelope in its one canonical form (design sections 3 and 4).

``JCS{payload, payloadType, signatures:[{keyid, sig}]}`` with padded standard base64, signatures sorted
by key id, at most 65,535 bytes. What is signed is DSSE's pre-authentication encoding
(secure-systems-lab/dsse protocol.md). Signatures are Ed25519 in the strict form of ``quotary.ed25519``.
"""

import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary import ed25519
from quotary.canonical import Fields, b64, canonical, parse_canonical, unb64
from quotary.errors import InvalidSignature, Malformed

MAX_ENTRY = 65_535
MAX_SIGNATURES = 32
PAYLOAD_TYPE = "application/vnd.in-toto+json"

# How an entry is written, around the payload's base64. Padding and last letter of a signature are those of 64
# bytes, so this text reads and writes as the same.
_HEAD = b'{"payload":"'
_SIGNATURE = rb'\{"keyid":"(sha256:[0-9a-f]{64})","sig":"([A-Za-z0-9+/]{85}[AQgw]==)"\}'
_SIGNATURES = re.compile(_SIGNATURE)
_TAIL = re.compile(
    rb'","payloadType":"%s","signatures":\[(%s(?:,%s)*)\]\}'
    % (re.escape(PAYLOAD_TYPE.encode()), _SIGNATURE, _SIGNATURE)
)

# SubjectPublicKeyInfo of an Ed25519 key, RFC 8410 section 4: this prefix and the 32 bytes of the key.
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope: ``sig`` is 64 bytes, R || S."""

    keyid: str
    sig: bytes

    @classmethod
    def parse(cls, value: object) -> "Signature":
        """Read ``{keyid, sig}``."""
        fields = Fields(value, "signature")
        found = cls(fields.identity("keyid"), fields.base64("sig", length=64))
        fields.done()
        return found


@dataclass(frozen=True, slots=True)
class Envelope:
    """An entry, taken apart; nothing is verified yet.

    payload:    the statement's canonical bytes
    signatures: at least one, sorted by key id, each key once
    """

    payload: bytes
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, entry: bytes) -> "Envelope":
        """Read an entry's bytes, or raise ``Malformed``."""
        return _as_written(entry) or cls._read(entry)

    @classmethod
    def _read(cls, entry: bytes) -> "Envelope":
        fields = Fields(parse_canonical(entry, MAX_ENTRY), "entry")
        payload = fields.base64("payload", limit=MAX_ENTRY)
        fields.choice("payloadType", PAYLOAD_TYPE)
        signatures = tuple(map(Signature.parse, fields.items("signatures", MAX_SIGNATURES, low=1)))
        fields.done()
        if not _in_order(signatures):
            raise Malformed("signatures are not sorted by key id, each key once")
        return cls(payload, signatures)

    def encode(self) -> bytes:
        """Write the entry's bytes."""
        signatures = [{"keyid": item.keyid, "sig": b64(item.sig)} for item in self.signatures]
        document = {"payload": b64(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
        entry = canonical(document)
        if len(entry) > MAX_ENTRY:
            raise Malformed(f"entry has {len(entry)} bytes, at most {MAX_ENTRY} are allowed")
        return entry

    @property
    def statement_id(self) -> str:
        """The name by which other statements refer to this one; signatures are not part of it."""
        return statement_id(self.payload)


def _as_written(entry: bytes) -> Envelope | None:
    """Read an entry that is plainly what ``encode`` writes; of any other, ``_read`` says what is wrong.

    One match of the text around the payload instead of reading it as JSON and writing it again.
    """
    end = entry.find(b'"', len(_HEAD))
    tail = _TAIL.fullmatch(entry, end) if entry.startswith(_HEAD) and len(_HEAD) < end else None
    if tail is None or len(entry) > MAX_ENTRY:
        return None
    signatures = tuple(
        Signature(keyid.decode("ascii"), binascii.a2b_base64(sig))
        for keyid, sig in _SIGNATURES.findall(tail[1])
    )
    if len(signatures) > MAX_SIGNATURES or not _in_order(signatures):
        return None
    try:
        return Envelope(unb64(entry[len(_HEAD) : end].decode("ascii")), signatures)
    except (Malformed, UnicodeDecodeError):
        return None


def _in_order(signatures: tuple[Signature, ...]) -> bool:
    names = [signature.keyid for signature in signatures]
    return names == sorted(set(names))


def statement_id(payload: bytes) -> str:
    """Name a statement: ``sha256:`` and SHA-256 of its payload in hex."""
    return "sha256:" + hashlib.sha256(payload).hexdigest()


def pae(payload: bytes) -> bytes:
    """Encode what the signatures of a statement cover (DSSE v1)."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def spki(public_key: bytes) -> bytes:
    """Wrap an Ed25519 public key (32 bytes) as SubjectPublicKeyInfo DER (44 bytes)."""
    assert len(public_key) == 32
    return _SPKI_PREFIX + public_key


def key_id(public_key: bytes) -> str:
    """Name an Ed25519 public key (32 bytes): ``sha256:`` and SHA-256 of its SPKI DER in hex."""
    return "sha256:" + hashlib.sha256(spki(public_key)).hexdigest()


def parse_spki(der: bytes) -> bytes:
    """Take the Ed25519 public key (32 bytes) out of its SPKI DER; degenerate keys are ``Malformed``."""
    if len(der) != 44 or not der.startswith(_SPKI_PREFIX):
        raise Malformed("not the SPKI DER of an Ed25519 key (44 bytes)")
    try:
        ed25519.check_public_key(der[12:])
    except InvalidSignature as error:
        raise Malformed("the Ed25519 key is degenerate") from error
    return der[12:]


class Signer(Protocol):
    """Whatever signs with Ed25519: a key of ``cryptography``, or one inside a token."""

    def public_key(self) -> Ed25519PublicKey: ...

    def sign(self, data: bytes, /) -> bytes: ...


def raw_public_key(key: Signer) -> bytes:
    """Give the 32 bytes of a private key's public half."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(payload: bytes, keys: Iterable[Signer]) -> bytes:
    """Make the entry of a statement with one signature by each key."""
    message = pae(payload)
    made = {key_id(raw_public_key(key)): key.sign(message) for key in keys}
    return Envelope(payload, tuple(Signature(name, made[name]) for name in sorted(made))).encode()


def verify(public_key: bytes, signature: Signature, payload: bytes) -> None:
    """Return if the key (32 bytes) signed the payload, else raise ``InvalidSignature``."""
    ed25519.verify(public_key, signature.sig, pae(payload))
