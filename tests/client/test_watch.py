"""The watch file is read strictly, and alerts reach a webhook and a mail server as documents and as mail."""

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from quotary.client.outbox import Alert
from quotary.client.outputs import Mail, Webhook, signature, webhook_key
from quotary.client.watch import MailAccount, Watch
from quotary.errors import CannotTell, Malformed, Usage
from quotary.net.mail import MailServer, send_mail
from quotary.net.transport import HTTP
from tests.conftest import ROOT
from tests.fakes.authority import NOW
from tests.fakes.mail import mail_server

FACTS = {"origin": "log.example.org/m", "event": "release", "at": "2026-11-21T12:00:00Z"}
ALERTS = [
    Alert(1, {**FACTS, "rule": "ours", "index": 7, "text": "A builder says\nsomething ‒ new."}),
    Alert(2, {**FACTS, "text": "Another."}),
]
ACCOUNT = MailAccount("127.0.0.1:25", "none", "monitor@example.org", ("a@example.org", "b@example.org"), None)


def written() -> dict[str, Any]:
    """The example of the format's page."""
    page = (ROOT / "docs" / "formats" / "watch.md").read_text("utf-8")
    found = json.loads(page.split("```json\n")[1].split("```")[0])
    assert isinstance(found, dict)
    return found


def test_the_example_of_the_page_is_a_watch_file() -> None:
    found = Watch.parse(json.dumps(written(), indent=1).encode())
    assert [rule.name for rule in found.rules] == ["our releases", "somebody builds otherwise"]
    assert found.mail is not None
    assert (found.stale_seconds, found.witnesses, len(found.peers), len(found.webhooks)) == (900, True, 1, 1)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("v",), 2),
        (("type",), "quotary/watch/v2"),
        (("more",), 1),
        (("rules", 0, "name"), ""),
        (("rules", 0, "events"), []),
        (("rules", 0, "events"), ["releases"]),
        (("rules", 0, "service"), ["chat"]),
        (("rules", 0, "services"), []),
        (("rules", 0, "services"), [1]),
        (("rules", 0, "services"), ["a\nb"]),
        (("rules", 0, "digests"), "00"),
        (("rules", 1, "name"), "our releases"),
        (("log", "stale_seconds"), 0),
        (("log", "each_witness"), "yes"),
        (("log", "more"), 1),
        (("outputs", "more"), 1),
        (("outputs", "mail", "tls"), "ssl"),
        (("outputs", "mail", "to"), []),
        (("outputs", "mail", "more"), 1),
    ],
)
def test_a_watch_file_that_says_anything_else_is_malformed(
    place: tuple[str | int, ...], value: object
) -> None:
    document = written()
    at: Any = document
    for name in place[:-1]:
        at = at[name]
    at[place[-1]] = value
    with pytest.raises(Malformed):
        Watch.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "place", [("rules",), ("log",), ("outputs",), ("log", "stale_seconds"), ("rules", 0, "events")]
)
def test_what_a_watch_file_must_say_is_not_left_out(place: tuple[str | int, ...]) -> None:
    document = written()
    at: Any = document
    for name in place[:-1]:
        at = at[name]
    del at[place[-1]]
    with pytest.raises(Malformed):
        Watch.parse(json.dumps(document).encode())


@contextmanager
def receiver(status: int, headers: list[dict[str, str]] | None = None) -> Iterator[tuple[str, list[bytes]]]:
    taken: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["Content-Length"])))
            if headers is not None:
                headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/secret", taken
        finally:
            server.shutdown()
            thread.join()


def hook(url: str, key: bytes | None = None) -> Iterator[Webhook]:
    transport = HTTP()
    yield Webhook(transport, url, 1, key, lambda: NOW)
    transport.close()


def test_a_webhook_gets_each_alert_as_a_document() -> None:
    with receiver(204) as (url, taken):
        for output in hook(url):
            output.send(ALERTS)
    assert [json.loads(body) for body in taken] == [
        {**alert.document, "number": alert.number} for alert in ALERTS
    ]


def test_a_webhook_with_a_secret_can_tell_who_sent_what_and_when() -> None:
    key, headers = bytes(range(32)), list[dict[str, str]]()
    with receiver(204, headers) as (url, taken):
        for output in hook(url, key):
            output.send(ALERTS)
    names = [found["webhook-id"] for found in headers]
    assert names == [f"msg_{hashlib.sha256(b'log.example.org/m').hexdigest()[:16]}_{n}" for n in (1, 2)]
    for found, body in zip(headers, taken, strict=True):
        assert found["webhook-timestamp"] == str(int(NOW.timestamp()))
        text = f"{found['webhook-id']}.{found['webhook-timestamp']}.".encode() + body
        said = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        assert found["webhook-signature"] == f"v1,{said}"


def test_a_webhook_without_a_secret_has_no_signature() -> None:
    headers = list[dict[str, str]]()
    with receiver(204, headers) as (url, _):
        for output in hook(url):
            output.send(ALERTS)
    assert not any(name.startswith("webhook-") for found in headers for name in found)


def test_a_signature_is_that_of_the_specifications_example() -> None:
    key = webhook_key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"whsec_",
        b"whsec_AAAA",
        b"whsec_" + b"A" * 30,
        b"A" * 44,
        b"whsec_" + b"A" * 92,
        b"whsec_" + b"\xff" * 44,
    ],
)
def test_a_secret_of_another_form_is_malformed(text: bytes) -> None:
    with pytest.raises(Malformed, match="webhooks' secret"):
        webhook_key(text)


def test_a_webhook_that_refuses_or_is_away_is_named_without_its_address() -> None:
    with receiver(500) as (url, _):
        for output in hook(url):
            with pytest.raises(CannotTell, match=r"^webhook 1 answered 500$"):
                output.send(ALERTS)
    for output in hook(url):
        with pytest.raises(CannotTell, match=r"^webhook 1 did not answer$"):
            output.send(ALERTS)


def test_mail_says_everything_in_one_message_whose_subject_is_one_line() -> None:
    with mail_server() as server:
        host = MailServer("127.0.0.1", server.server_address[1], "none", ("user", "secret"))
        Mail(ACCOUNT, lambda message: send_mail(host, message)).send(ALERTS)
    (message,) = server.messages
    assert message["To"] == "a@example.org, b@example.org"
    assert message["Subject"] == "[quotary] A builder sayssomething ‒ new. (and 1 more)"
    text = message.get_content()  # type: ignore[attr-defined]  # of the default policy
    assert "entry 7, release, rule ours, log.example.org/m, 2026-11-21T12:00:00Z" in text
    assert "Another." in text
    assert len(server.logins) == 1


def test_a_mail_server_that_refuses_or_is_away_is_named() -> None:
    with mail_server() as server:
        server.refusal = "554 no"
        host = MailServer("127.0.0.1", server.server_address[1], "none")
        output = Mail(ACCOUNT, lambda message: send_mail(host, message))
        with pytest.raises(CannotTell, match="did not take the mail"):
            output.send(ALERTS)
    with pytest.raises(CannotTell, match="did not take the mail"):
        output.send(ALERTS)


def test_mail_leaves_this_machine_only_over_tls() -> None:
    output = Mail(ACCOUNT, lambda message: send_mail(MailServer("mail.example.org", 25, "none"), message))
    with pytest.raises(Usage, match="without TLS"):
        output.send(ALERTS)


def test_a_server_without_starttls_gets_no_mail_where_tls_was_asked_for() -> None:
    with mail_server() as server:
        host = MailServer("127.0.0.1", server.server_address[1], "starttls", ("user", "secret"))
        with pytest.raises(CannotTell, match="did not take the mail"):
            Mail(ACCOUNT, lambda message: send_mail(host, message)).send(ALERTS)
    assert (server.messages, server.logins) == ([], [])
