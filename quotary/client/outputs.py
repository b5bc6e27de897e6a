"""Where a monitor's alerts go: an address that takes JSON, mail, and an Atom file (RFC 4287)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

from quotary.canonical import b64
from quotary.client.outbox import Alert
from quotary.client.trust import write_private
from quotary.client.watch import MailAccount
from quotary.errors import CannotTell, Malformed
from quotary.net.transport import Limits, Request, Transport

LIMITS = Limits(connect_seconds=5.0, read_seconds=10.0, total_seconds=20.0, length=1 << 16)
SUBJECT_LENGTH = 120
ATOM = "http://www.w3.org/2005/Atom"
SECRET_PREFIX, SECRET_LENGTHS = b"whsec_", range(24, 65)


class Output(Protocol):
    """Takes alerts; ``name`` stays the same from run to run, ``most`` is how many go at once."""

    name: str
    most: int

    def send(self, alerts: Sequence[Alert]) -> None:
        """Return when all of them were taken, else raise ``CannotTell``."""
        ...


class Webhook:
    """POSTs each alert's document; ``text`` in it is the member that chat services show.

    key: signs what is sent, with its time by ``now``; None for a receiver that looks at no signature
    """

    most = 1

    def __init__(
        self, transport: Transport, url: str, number: int, key: bytes | None, now: Callable[[], datetime]
    ) -> None:
        self._transport = transport
        self._url = url
        self._key = key
        self._now = now
        # The address is often a secret: it stands in no message.
        self.name = f"webhook {number}"

    def send(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            body = json.dumps({**alert.document, "number": alert.number}).encode()
            headers = {"Content-Type": "application/json"}
            if self._key is not None:
                headers |= signature(self._key, _message(alert), int(self._now().timestamp()), body)
            try:
                status = self._transport.send(Request(self._url, "POST", body, headers, LIMITS)).status
            except CannotTell as error:
                raise CannotTell(f"{self.name} did not answer") from error
            if not 200 <= status < 300:
                raise CannotTell(f"{self.name} answered {status}")


def webhook_key(text: bytes) -> bytes:
    """Read a secret as Standard Webhooks writes it: ``whsec_`` and 24 to 64 bytes in base64."""
    try:
        key = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except ValueError as error:
        raise Malformed("the webhooks' secret is not base64") from error
    if not text.startswith(SECRET_PREFIX) or len(key) not in SECRET_LENGTHS:
        raise Malformed(f"the webhooks' secret is whsec_ and 24 to 64 bytes, found {len(key)} bytes")
    return key


def signature(key: bytes, name: str, at: int, body: bytes) -> dict[str, str]:
    """Give the headers by which a receiver knows sender, time and repetition (Standard Webhooks 1.0).

    name: of the message, the same when it is sent again; at: POSIX seconds of this attempt
    """
    said = hmac.digest(key, b"%s.%d.%s" % (name.encode(), at, body), "sha256")
    return {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": f"v1,{b64(said)}"}


class Mail:
    """One message for all that is new."""

    name = "mail"
    most = 100

    def __init__(self, account: MailAccount, post: Callable[[EmailMessage], None]) -> None:
        self._account = account
        self._post = post

    def send(self, alerts: Sequence[Alert]) -> None:
        message = EmailMessage()
        message["From"] = self._account.sender
        message["To"] = ", ".join(self._account.to)
        more = f" (and {len(alerts) - 1} more)" if len(alerts) > 1 else ""
        first = "".join(letter for letter in alerts[0].text if letter.isprintable())
        message["Subject"] = f"[quotary] {first[:SUBJECT_LENGTH]}{more}"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n\n".join(_paragraph(alert) for alert in alerts) + "\n")
        self._post(message)


def write_feed(path: Path, origin: str, at: str, alerts: Sequence[Alert]) -> None:
    """Write the newest alerts as Atom; ``at`` is the time of this look, also where nothing is new."""
    ElementTree.register_namespace("", ATOM)
    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    name = f"tag:{origin.partition('/')[0]},2026:monitor/{origin}"
    _put(feed, "id", name)
    _put(feed, "title", f"Alerts about {origin}")
    _put(feed, "updated", at)
    _put(_put(feed, "author", ""), "name", "quotary monitor")
    for alert in alerts:
        entry = _put(feed, "entry", "")
        _put(entry, "id", f"{name}/{alert.number}")
        _put(entry, "title", f"{alert.document['event']}: {alert.text[:SUBJECT_LENGTH]}")
        _put(entry, "updated", str(alert.document["at"]))
        _put(entry, "content", _paragraph(alert))
    write_private(path, ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True) + b"\n")


def _put(parent: ElementTree.Element, name: str, text: str) -> ElementTree.Element:
    found = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}")
    found.text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return found


def _message(alert: Alert) -> str:
    origin = hashlib.sha256(str(alert.document["origin"]).encode()).hexdigest()
    return f"msg_{origin[:16]}_{alert.number}"


def _paragraph(alert: Alert) -> str:
    found = alert.document
    where = f"entry {found['index']}, " if "index" in found else ""
    rule = f", rule {found['rule']}" if "rule" in found else ""
    return f"{alert.text}\n  {where}{found['event']}{rule}, {found['origin']}, {found['at']}"
