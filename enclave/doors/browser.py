"""The quote and the receipt of the browser's demonstration (``quotary.client.browser`` has the layouts).

A quote like this is the machine's own word. What makes it more is that the key stands in the keyset, which
the hardware's evidence binds (docs/formats/doors.md).
"""

from enclave.doors.book import Exchange
from enclave.doors.keys import DoorKeys
from quotary.canonical import b64
from quotary.client.browser import quote_bytes, receipt_bytes


def quote(keys: DoorKeys, measurement: bytes, now: int) -> dict[str, object]:
    """Sign which code this is and which key speaks for it."""
    public = keys.of("p-256")
    signature = keys.sign_bytes(quote_bytes(measurement, public, now))
    return {
        "v": 1,
        "measurement": measurement.hex(),
        "key": b64(public),
        "time": now,
        "signature": b64(signature),
    }


def receipt(keys: DoorKeys, exchange: Exchange) -> dict[str, object]:
    """Sign what was asked and answered."""
    signed = receipt_bytes(exchange.request, exchange.response, exchange.at)
    return {
        "v": 1,
        "request": exchange.request.hex(),
        "response": exchange.response.hex(),
        "time": exchange.at,
        "signature": b64(keys.sign_bytes(signed)),
    }
