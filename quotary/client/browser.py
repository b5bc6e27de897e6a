"""The quote and the receipt of the browser's demonstration, verified outside the browser too.

    quote    measurement (32) | public key (65, uncompressed) | time (8)
    receipt  SHA-256 of the request (32) | SHA-256 of the response (32) | time (8)

P-256 with SHA-256, signatures ``r | s`` (64 bytes), times u64 big endian in seconds since 1970
(docs/formats/doors.md, "Browser"). A quote is signed by the key that it names: it says nothing of hardware.
"""

import hashlib
import json
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature as Wrong
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from quotary.canonical import Fields
from quotary.errors import InvalidSignature, Malformed, Rejected

MAX_KEPT = 1 << 20
TYPE = "quotary/browser/v1"
KEY_LENGTH = 65

_TIME = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Quote:
    """An enclave's own word: which code it is, and which key speaks for it."""

    measurement: bytes
    key: bytes
    time: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What it signed about one answer; request and response are SHA-256."""

    request: bytes
    response: bytes
    time: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What the page gives to keep: quote, receipt, and the bytes that were sent and received."""

    quote: Quote
    receipt: Receipt
    request: bytes
    response: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Kept":
        """Read a kept file of at most ``MAX_KEPT`` bytes, or raise ``Malformed``."""
        if len(data) > MAX_KEPT:
            raise Malformed(f"kept file has {len(data)} bytes, at most {MAX_KEPT} are allowed")
        try:
            fields = Fields(json.loads(data.decode("utf-8")), "kept file")
        except (ValueError, RecursionError) as error:
            raise Malformed("kept file is not JSON") from error
        fields.choice("type", TYPE)
        quote, receipt = fields.fields("quote"), fields.fields("receipt")
        for part in (quote, receipt):
            part.integer("v", 1, 1)
        found = cls(
            Quote(
                quote.hexbytes("measurement", 32),
                quote.base64("key", length=KEY_LENGTH),
                quote.integer("time"),
                quote.base64("signature", length=64),
            ),
            Receipt(
                receipt.hexbytes("request", 32),
                receipt.hexbytes("response", 32),
                receipt.integer("time"),
                receipt.base64("signature", length=64),
            ),
            fields.base64("request", limit=MAX_KEPT),
            fields.base64("response", limit=MAX_KEPT),
        )
        for part in (quote, receipt, fields):
            part.done()
        return found


def quote_bytes(measurement: bytes, key: bytes, time: int) -> bytes:
    """What a quote's signature covers: 105 bytes."""
    return measurement + key + _TIME.pack(time)


def receipt_bytes(request: bytes, response: bytes, time: int) -> bytes:
    """What a receipt's signature covers: 72 bytes, never a quote's."""
    return request + response + _TIME.pack(time)


def verify_kept(kept: Kept, measurement: bytes) -> None:
    """Hold an exchange to a measurement, or raise what does not hold.

    1. The quote names the measurement, and is signed by the key that it names.
    2. The receipt is signed by that key.
    3. The receipt is about this request and this response.
    """
    quote, receipt = kept.quote, kept.receipt
    _same("measurement", quote.measurement, measurement)
    _verify("quote", quote.key, quote.signature, quote_bytes(quote.measurement, quote.key, quote.time))
    signed = receipt_bytes(receipt.request, receipt.response, receipt.time)
    _verify("receipt", quote.key, receipt.signature, signed)
    _same("receipt request", receipt.request, hashlib.sha256(kept.request).digest())
    _same("receipt response", receipt.response, hashlib.sha256(kept.response).digest())


def _same(check: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise Rejected(check, found.hex(), wanted.hex())


def _verify(what: str, key: bytes, signature: bytes, message: bytes) -> None:
    numbers = (int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
        public.verify(encode_dss_signature(*numbers), message, ec.ECDSA(SHA256()))
    except ValueError as error:
        raise Malformed(f"the key of the {what} is no point of P-256") from error
    except Wrong as error:
        raise InvalidSignature(f"the signature of the {what} does not hold") from error
