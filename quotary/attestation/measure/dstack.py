"""dstack's event log: the same events in JSON, and its own kind for RTMR3 (dstack, "Attestation", RTMR3).

Read so that evidence of other systems can be looked at; our attestation documents carry the binary log.
"""

import hashlib
import json

from quotary.attestation.measure.ccel import MAX_EVENTS, MAX_LOG
from quotary.attestation.measure.events import DIGEST_LENGTH, REGISTERS, Event
from quotary.canonical import Fields, hexbytes
from quotary.errors import Malformed

RUNTIME = 0x08000001


def parse(data: bytes) -> tuple[Event, ...]:
    """Read the log; a runtime event's digest must be that of its name and payload."""
    if len(data) > 4 * MAX_LOG:
        raise Malformed(f"event log has {len(data)} bytes, at most {4 * MAX_LOG} are allowed")
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("event log is not JSON") from error
    if not isinstance(items, list) or len(items) > MAX_EVENTS:
        raise Malformed(f"event log is no list of at most {MAX_EVENTS} events")
    return tuple(_event(Fields(item, "event")) for item in items)


def runtime_digest(name: str, payload: bytes) -> bytes:
    """Hash a runtime event: type, name and payload between colons."""
    return hashlib.sha384(
        RUNTIME.to_bytes(4, "little") + b":" + name.encode("utf-8", "surrogatepass") + b":" + payload
    ).digest()


def _event(fields: Fields) -> Event:
    # Both texts may be empty: firmware events have no name, runtime events need no payload.
    name, kind = _text(fields, "event"), fields.integer("event_type", 0, 0xFFFFFFFF)
    text = _text(fields, "event_payload")
    payload = hexbytes(text, (len(text) + 1) // 2) if text else b""
    found = Event(
        REGISTERS[fields.integer("imr", 0, 3)], kind, fields.hexbytes("digest", DIGEST_LENGTH), payload
    )
    fields.done()
    if kind == RUNTIME and found.digest != runtime_digest(name, payload):
        raise Malformed(f"runtime event {name!r} has another digest than its payload gives")
    return found


def _text(fields: Fields, name: str) -> str:
    found = fields.value(name)
    if not isinstance(found, str) or len(found) > MAX_LOG:
        raise Malformed(f"{name} of an event is no text of at most {MAX_LOG} characters")
    return found
