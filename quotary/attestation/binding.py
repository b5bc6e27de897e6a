"""What the hardware signs for us: 64 bytes that tie keys, log and devices to one piece of evidence.

Design section 6: ``report_data = SHA-256("quotary-binding/v1\\n" || binding) || nonce_root``. The binding is
a canonical document, so that the same facts have one digest. The second half is the RFC 6962 root over the
client nonces of a batch (one nonce is one leaf), zeros when nobody asked. Format page:
``docs/formats/attestation.md``.
"""

import hashlib
import hmac
from dataclasses import dataclass

from quotary.canonical import MAX_INTEGER, Fields, canonical, hexbytes, parse_canonical
from quotary.errors import Malformed, Rejected

PURPOSE = "quotary/binding/v1"
UNCHALLENGED = bytes(32)

_BINDING_CONTEXT = b"quotary-binding/v1\n"
_GPU_CONTEXT = b"quotary-gpu-nonce/v1\n"
_MAX_BINDING = 2048


@dataclass(frozen=True, slots=True)
class Binding:
    """The statement behind the first half of ``report_data``.

    keyset:  32 bytes, ``keyset_digest`` of the keys that the enclave serves with
    origin:  the log that the enclave checked itself against
    size:    entries of the newest checkpoint it accepted
    root:    32 bytes, root at that size
    devices: 32 bytes, SHA-256 over the exact device-evidence bytes, or None for a machine without
    """

    keyset: bytes
    origin: str
    size: int
    root: bytes
    devices: bytes | None

    @classmethod
    def parse(cls, data: bytes) -> "Binding":
        """Read a binding; raises ``Malformed`` for anything that ``encode`` would not write."""
        document = Fields(parse_canonical(data, _MAX_BINDING), "binding")
        document.integer("v", 1, 1)
        document.choice("purpose", PURPOSE)
        keyset = _digest(document.text("keyset", 71))
        devices = document.text("devices", 71)
        log = document.fields("log")
        found = cls(
            keyset,
            log.text("origin", 256),
            log.integer("size"),
            log.hexbytes("root", 32),
            None if devices == "none" else _digest(devices),
        )
        log.done()
        document.done()
        return found

    def encode(self) -> bytes:
        """Write the canonical bytes that ``report_data`` hashes."""
        if len(self.keyset) != 32 or len(self.root) != 32 or not 0 <= self.size <= MAX_INTEGER:
            raise Malformed("a binding needs a keyset digest and a root of 32 bytes and a size from 0")
        if self.devices is not None and len(self.devices) != 32:
            raise Malformed("a binding's devices digest has 32 bytes")
        return canonical(
            {
                "v": 1,
                "purpose": PURPOSE,
                "keyset": f"sha256:{self.keyset.hex()}",
                "log": {"origin": self.origin, "size": self.size, "root": self.root.hex()},
                "devices": "none" if self.devices is None else f"sha256:{self.devices.hex()}",
            }
        )


def keyset_digest(keyset: bytes) -> bytes:
    """Hash a keyset document's canonical bytes (32 bytes)."""
    return hashlib.sha256(keyset).digest()


def devices_digest(evidence: bytes) -> bytes:
    """Hash device evidence as received; never a re-encoding of it (32 bytes)."""
    return hashlib.sha256(evidence).digest()


def gpu_nonce(digest: bytes, index: int) -> bytes:
    """Derive the 32-byte nonce of device ``index``: device evidence is as fresh as the keyset."""
    if len(digest) != 32 or not 0 <= index < 2**32:
        raise Malformed("a device nonce needs a 32-byte keyset digest and an index below 2^32")
    return hashlib.sha256(_GPU_CONTEXT + digest + index.to_bytes(4, "big")).digest()


def report_data(binding: bytes, nonce_root: bytes) -> bytes:
    """Compute the 64 bytes for the hardware from the binding's exact bytes and the 32-byte nonce root."""
    if len(nonce_root) != 32:
        raise Malformed(f"nonce root has {len(nonce_root)} bytes, 32 are needed")
    return hashlib.sha256(_BINDING_CONTEXT + binding).digest() + nonce_root


def verify_report_data(found: bytes, binding: bytes, nonce_root: bytes) -> None:
    """Require that the hardware signed exactly this binding and this nonce root, or raise ``Rejected``."""
    wanted = report_data(binding, nonce_root)
    if not hmac.compare_digest(found[:32], wanted[:32]):
        raise Rejected("binding", found[:32].hex(), wanted[:32].hex())
    if not hmac.compare_digest(found[32:], nonce_root):
        raise Rejected("nonce", found[32:].hex(), nonce_root.hex())


def _digest(text: str) -> bytes:
    algorithm, _, digits = text.partition(":")
    if algorithm != "sha256":
        raise Malformed("a digest is written sha256: and 64 lower-case hex digits")
    return hexbytes(digits, 32)
