"""Sealing small secrets to this hardware: what one enclave wrote, only the same enclave on it can read.

Sealed bytes are ``nonce(12) || ciphertext || tag(16)`` of AES-256-GCM: 28 bytes more than the secret. The
vendor's key never encrypts by itself: HKDF-SHA256 makes one key for each vendor, key id and counter. Hardware
cannot stop its owner from presenting old sealed bytes; the counter can, as far as its store can.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from enclave.collect import Kernel, snp_derived_key
from quotary.errors import Malformed, Refused, Rejected, Unsupported

NONCE_LENGTH, TAG_LENGTH, KEY_LENGTH = 12, 16, 32
MAX_SECRET = 1 << 20
MAX_KEY_ID = 255
MAX_COUNTER = (1 << 64) - 1

# Guest field select of SNP_GET_DERIVED_KEY: policy, image id, family id and measurement. Not the TCB: new
# firmware must be able to read what old firmware wrote.
SNP_FIELDS = 0b1111

_CONTEXT = b"quotary-seal/v1\n"


class KeySource(Protocol):
    """Where a vendor's sealing key comes from."""

    @property
    def vendor(self) -> str:
        """Name the platform, such as ``snp`` or ``sim-tdx``; it separates the keys."""
        ...

    def secret(self) -> bytes:
        """Give 32 bytes that only this enclave on this hardware gets, every time the same."""
        ...


class Counter(Protocol):
    """A number that only grows; its store must be one that the host cannot set back."""

    def value(self) -> int:
        """Give the number now."""
        ...

    def advance(self, value: int) -> None:
        """Raise the number to ``value``; it is on disk, or wherever it is kept, when this returns."""
        ...


@dataclass(frozen=True, slots=True)
class SNPKeySource:
    """The chip's key for a guest of this policy, image and measurement."""

    kernel: Kernel
    vmpl: int

    @property
    def vendor(self) -> str:
        return "snp"

    def secret(self) -> bytes:
        return snp_derived_key(self.kernel, SNP_FIELDS, self.vmpl)


def key_source(platform: str, kernel: Kernel) -> KeySource:
    """Give a platform's key source, or say why it has none."""
    if platform == "snp":
        return SNPKeySource(kernel, 0)
    reasons = {
        "tdx": "Intel TDX gives a guest no sealing key; a key service must release one",
        "nitro": "a Nitro enclave has no sealing key; AWS KMS releases one against its document",
    }
    raise Unsupported(reasons.get(platform, f"no sealing key is known for the platform {platform!r}"))


def seal(
    source: KeySource,
    key_id: str,
    secret: bytes,
    counter: Counter,
    random: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Seal a secret under the next number of ``counter``; everything sealed before can no longer be read.

    33 bytes give 61. The number is advanced before the bytes are handed out: a crash between loses them.
    """
    if len(secret) > MAX_SECRET:
        raise Malformed(f"secret has {len(secret)} bytes, at most {MAX_SECRET} can be sealed")
    number = counter.value() + 1
    if number > MAX_COUNTER:
        raise Refused("rollback counter", "its last number", "a number that can grow")
    key = AESGCM(_key(source, key_id, number))
    nonce = random(NONCE_LENGTH)
    sealed = nonce + key.encrypt(nonce, secret, _bound(source.vendor, key_id, number))
    counter.advance(number)
    return sealed


def unseal(source: KeySource, key_id: str, sealed: bytes, counter: Counter) -> bytes:
    """Give the secret, or raise ``Rejected`` (check ``sealed data``).

    Other hardware, another enclave, another key id, an older number and a changed byte look the same here.
    """
    if not NONCE_LENGTH + TAG_LENGTH <= len(sealed) <= MAX_SECRET + NONCE_LENGTH + TAG_LENGTH:
        raise Malformed(f"sealed data have {len(sealed)} bytes, {NONCE_LENGTH + TAG_LENGTH} is the least")
    number = counter.value()
    nonce, rest = sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:]
    try:
        key = AESGCM(_key(source, key_id, number))
        return key.decrypt(nonce, rest, _bound(source.vendor, key_id, number))
    except InvalidTag as error:
        found = f"{len(sealed)} bytes that do not open"
        wanted = f"sealed by this enclave on this machine as {key_id!r}, number {number}"
        raise Rejected("sealed data", found, wanted) from error


def _key(source: KeySource, key_id: str, number: int) -> bytes:
    secret = source.secret()
    if len(secret) != KEY_LENGTH or not any(secret):
        raise Malformed(f"{source.vendor} gave a key of {len(secret)} bytes, or an empty one")
    info = _bound(source.vendor, key_id, number)
    return HKDF(hashes.SHA256(), KEY_LENGTH, salt=None, info=info).derive(secret)


def _bound(vendor: str, key_id: str, number: int) -> bytes:
    """What keys are separated by: each part with its length, so that no two lists of parts are equal."""
    parts = [text.encode() for text in (vendor, key_id)]
    if not all(1 <= len(part) <= MAX_KEY_ID for part in parts):
        raise Malformed(f"vendor and key id have 1 to {MAX_KEY_ID} bytes each")
    return _CONTEXT + b"".join(bytes([len(part)]) + part for part in parts) + struct.pack(">Q", number)
