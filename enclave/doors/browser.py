"""The quote and the receipt of the browser's demonstration, in the layouts that its Web Worker uses too.

Both are signed with P-256 and SHA-256, as WebCrypto does it; times are u64 big endian, seconds since 1970:

    quote    measurement (32) | public key (65, uncompressed) | time (8)
    receipt  SHA-256 of the request (32) | SHA-256 of the response (32) | time (8)

They differ in length, so one is never the other. A quote like this is the machine's own word. What makes it
more is that the key stands in the keyset, which the hardware's evidence binds (docs/formats/doors.md).
"""

import struct

from enclave.doors.book import Exchange
from enclave.doors.keys import DoorKeys
from quotary.canonical import b64

_TIME = struct.Struct(">Q")


def quote(keys: DoorKeys, measurement: bytes, now: int) -> dict[str, object]:
    """Sign which code this is and which key speaks for it."""
    public = keys.of("p-256")
    signature = keys.sign_bytes(measurement + public + _TIME.pack(now))
    return {
        "v": 1,
        "measurement": measurement.hex(),
        "key": b64(public),
        "time": now,
        "signature": b64(signature),
    }


def receipt(keys: DoorKeys, exchange: Exchange) -> dict[str, object]:
    """Sign what was asked and answered."""
    signed = exchange.request + exchange.response + _TIME.pack(exchange.at)
    return {
        "v": 1,
        "request": exchange.request.hex(),
        "response": exchange.response.hex(),
        "time": exchange.at,
        "signature": b64(keys.sign_bytes(signed)),
    }
