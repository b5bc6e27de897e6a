"""Signed notes: a text and lines of signatures over it (c2sp.org/signed-note, c2sp.org/tlog-cosignature).

A line names its key by name and key id. Lines of unknown keys say nothing and are ignored; one bad line
of a known key refuses the whole note.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature as _LibraryRefusal
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from quotary import ed25519
from quotary.canonical import b64, unb64
from quotary.errors import InvalidSignature, Malformed, Unsupported
from quotary.tlog import cosignature
from quotary.tlog.checkpoint import Checkpoint

ED25519 = 0x01
ECDSA = 0x02
COSIGNATURE_ED25519 = 0x04
COSIGNATURE_ML_DSA_44 = 0x06

KEY_ID_LENGTH = 4
MAX_NOTE_LENGTH = 1_000_000
MAX_SIGNATURES = 100

_ML_DSA_44_KEY_LENGTH = 1312
_KNOWN_TYPES = (ED25519, ECDSA, COSIGNATURE_ED25519, COSIGNATURE_ML_DSA_44)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_EM_DASH = "\u2014"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name, as policies and log lists write it ("vkey").

    name:   without spaces and ``+``; for a log key the log's origin
    alg:    the type byte; types other than the four above can be read and compared, not used
    public: key material behind the type byte; for 0x02 an SPKI in DER
    key_id: 4 bytes
    """

    name: str
    alg: int
    public: bytes
    key_id: bytes

    @classmethod
    def of(cls, name: str, alg: int, public: bytes) -> "VerifierKey":
        """Return the key with its key id; a key that could not prove anything is ``Malformed``."""
        assert alg in _KNOWN_TYPES
        key = cls(_checked_name(name), alg, public, _key_id(name, alg, public))
        _check_public(alg, public)
        return key

    @classmethod
    def parse(cls, vkey: str) -> "VerifierKey":
        """Read ``<name>+<key id, 8 hex digits>+<base64 of type byte and key>``."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        data = unb64(encoded)
        if _KEY_ID.fullmatch(key_id) is None or len(data) < 2:
            raise Malformed("a verifier key is written <name>+<key id>+<base64>")
        alg, public = data[0], data[1:]
        if alg not in _KNOWN_TYPES:
            return cls(_checked_name(name), alg, public, bytes.fromhex(key_id))
        key = cls.of(name, alg, public)
        if key.key_id.hex() != key_id:
            raise Malformed(f"key id is {key_id}, name and key give {key.key_id.hex()}")
        return key

    def vkey(self) -> str:
        """Return the text that ``parse`` reads."""
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.alg]) + self.public)}"

    def verify(self, text: str, signature: bytes) -> int | None:
        """Check a line's signature over a note's text; return the time (POSIX seconds) it carries.

        None for the types without one. Raises ``InvalidSignature``, or ``Unsupported`` for an unknown
        type.
        """
        try:
            return self._verify(text, signature)
        except (InvalidSignature, Malformed, _LibraryRefusal) as error:
            raise InvalidSignature(f"the signature of {self.name} does not hold") from error

    def _verify(self, text: str, signature: bytes) -> int | None:
        if self.alg == ED25519:
            ed25519.verify(self.public, signature, text.encode())
            return None
        if self.alg == ECDSA:
            _ecdsa_key(self.public).verify(signature, text.encode(), ec.ECDSA(SHA256()))
            return None
        time, rest = cosignature.split(signature)
        if self.alg == COSIGNATURE_ED25519:
            ed25519.verify(self.public, rest, cosignature.ed25519_message(text, time))
        elif self.alg == COSIGNATURE_ML_DSA_44:
            message = cosignature.checkpoint_message(self.name, time, Checkpoint.parse(text))
            MLDSA44PublicKey.from_public_bytes(self.public).verify(rest, message)
        else:
            raise Unsupported(f"signatures of type 0x{self.alg:02x} cannot be verified")
        return time


class Ed25519Signer(Protocol):
    """An Ed25519 private key, in this process or in a device that signs for it."""

    def sign(self, data: bytes, /) -> bytes:
        """Return 64 bytes."""
        ...

    def public_key(self) -> Ed25519PublicKey:
        """Return the public half."""
        ...


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its public half under a name; ``log`` and ``cosigner`` make one."""

    verifier: VerifierKey
    private: Ed25519Signer | MLDSA44PrivateKey

    @classmethod
    def log(cls, name: str, private: Ed25519Signer) -> "SigningKey":
        """Return a log's Ed25519 key (type 0x01); ``name`` is the origin."""
        return cls(VerifierKey.of(name, ED25519, private.public_key().public_bytes_raw()), private)

    @classmethod
    def cosigner(cls, name: str, private: Ed25519Signer | MLDSA44PrivateKey) -> "SigningKey":
        """Return a witness's key (type 0x04 or 0x06), or a log's own ML-DSA-44 key."""
        alg = COSIGNATURE_ML_DSA_44 if isinstance(private, MLDSA44PrivateKey) else COSIGNATURE_ED25519
        return cls(VerifierKey.of(name, alg, private.public_key().public_bytes_raw()), private)

    @property
    def name(self) -> str:
        """The name that the signature lines carry."""
        return self.verifier.name

    @property
    def alg(self) -> int:
        """The type byte."""
        return self.verifier.alg

    def line(self, text: str, time: int) -> str:
        """Return the signature line over a note's ``text``; type 0x01 has no use for ``time`` (POSIX)."""
        if self.alg == ED25519:
            signature = self.private.sign(text.encode())
        elif self.alg == COSIGNATURE_ED25519:
            signature = cosignature.join(time, self.private.sign(cosignature.ed25519_message(text, time)))
        else:
            message = cosignature.checkpoint_message(self.name, time, Checkpoint.parse(text))
            signature = cosignature.join(time, self.private.sign(message))
        return str(Signature(self.name, self.verifier.key_id, signature))


@dataclass(frozen=True, slots=True)
class Signature:
    """One line of a note, not yet believed."""

    name: str
    key_id: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str) -> "Signature":
        """Read ``— <name> <base64 of key id and signature>`` without its line feed."""
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        data = unb64(encoded)
        if dash != _EM_DASH or len(data) <= KEY_ID_LENGTH:
            raise Malformed("a signature line is an em dash, a key name and base64")
        return cls(_checked_name(name), data[:KEY_ID_LENGTH], data[KEY_ID_LENGTH:])

    def __str__(self) -> str:
        return f"{_EM_DASH} {self.name} {b64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ended by a line feed, and signature lines; nothing is believed before ``verify``."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> "Note":
        """Read a note of at most 1,000,000 bytes and 100 signatures."""
        if len(data) > MAX_NOTE_LENGTH:
            raise Malformed(f"note has {len(data)} bytes, at most {MAX_NOTE_LENGTH} are allowed")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("note is not UTF-8") from error
        if _CONTROL.search(whole):
            raise Malformed("note contains a control character")
        text, separator, block = whole.rpartition("\n\n")
        lines = block.split("\n")
        if not separator or lines.pop() != "" or not lines:
            raise Malformed("a note is a text, an empty line and signature lines")
        if len(lines) > MAX_SIGNATURES:
            raise Malformed(f"note has {len(lines)} signatures, at most {MAX_SIGNATURES} are allowed")
        return cls(text + "\n", tuple(Signature.parse(line) for line in lines))

    def __bytes__(self) -> bytes:
        return (self.text + "\n" + "".join(map(str, self.signatures))).encode()

    def verify(self, keys: Iterable[VerifierKey]) -> dict[VerifierKey, tuple[int, ...]]:
        """Return those of ``keys`` that signed, each with the times (POSIX seconds) of its lines, or raise.

        Keys whose type carries no time come with an empty tuple. Raises ``InvalidSignature`` when no key
        signed, and when any line of one of ``keys`` does not hold.
        """
        known: dict[tuple[str, bytes], VerifierKey] = {}
        for key in keys:
            if known.setdefault((key.name, key.key_id), key) != key:
                raise Malformed(f"two keys share the name {key.name} and the key id {key.key_id.hex()}")
        signed: dict[VerifierKey, tuple[int, ...]] = {}
        for line in self.signatures:
            signer = known.get((line.name, line.key_id))
            if signer is not None:
                time = signer.verify(self.text, line.signature)
                signed[signer] = signed.get(signer, ()) + (() if time is None else (time,))
        if not signed:
            raise InvalidSignature("no known key signed this note")
        return signed


def _checked_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise Malformed("key name is not UTF-8") from error
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise Malformed("a key name is not empty and has no space, plus or control character")
    return name


def _key_id(name: str, alg: int, public: bytes) -> bytes:
    data = public if alg == ECDSA else name.encode() + b"\n" + bytes([alg]) + public
    return hashlib.sha256(data).digest()[:KEY_ID_LENGTH]


def _check_public(alg: int, public: bytes) -> None:
    if alg == ECDSA:
        _ecdsa_key(public)
    elif alg == COSIGNATURE_ML_DSA_44:
        if len(public) != _ML_DSA_44_KEY_LENGTH:
            raise Malformed(f"an ML-DSA-44 key has {_ML_DSA_44_KEY_LENGTH} bytes, found {len(public)}")
    else:
        try:
            ed25519.check_public_key(public)
        except InvalidSignature as error:
            raise Malformed(str(error)) from error


def _ecdsa_key(spki: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("not a public key in DER") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise Malformed("not an ECDSA key of P-256, P-384 or P-521")
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise Malformed("not the canonical DER of an ECDSA key")
    return key
