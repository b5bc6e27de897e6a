"""Row I18: nothing that a server or a client wrote moves a cursor, hides a line or makes one up."""

import http.server
import json
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quotary.cli.output import emit, table, visible, word
from quotary.client.verdict import Check
from tests.cli.conftest import Run, run
from tests.fakes.processes import Log
from tests.hostile.wire import exchange

__all__ = ["run"]

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u2028\x00\x08\x7f\r\nerror: OK, all checks passed\n"


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers everything with the server's one body."""

    body = b""
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status, "No\x1b[2J")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def serving(body: bytes, status: int) -> Iterator[str]:
    handler = type("Answer", (Hostile,), {"body": body, "status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def unprintable(text: str) -> list[str]:
    return [
        letter
        for letter in text
        if letter != "\n" and unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")
    ]


ROW = {"index": EVIL, "kind": EVIL, "service": EVIL, "statement_id": EVIL, "effect": False, "code": EVIL}
BODIES = {
    "rows": json.dumps({"query": EVIL, "size": 3, "results": [ROW], "complete": True}).encode(),
    "a problem": json.dumps(
        {"type": EVIL, "title": EVIL, "status": 404, "detail": EVIL, "code": EVIL}
    ).encode(),
    "text": EVIL.encode(),
    "bytes": bytes(range(256)),
    "a reserved record": json.dumps({"type": "x", "v": EVIL}, separators=(",", ":")).encode(),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [200, 404, 500])
@pytest.mark.parametrize(
    "words", [("search", "x"), ("search", "x", "--json"), ("get", "1"), ("get", "1", "--json")]
)
def test_i18_no_command_prints_what_a_hostile_log_would_have_a_terminal_do(
    run: Run, body: str, status: int, words: tuple[str, ...]
) -> None:
    with serving(BODIES[body], status) as url:
        ran = run(*words, "--url", url)
    assert ran.code in (0, 30, 40), ran.err
    assert unprintable(ran.out + ran.err) == []
    assert "our bug" not in ran.err
    assert not any(line.startswith("error: OK") for line in (ran.out + ran.err).splitlines())


def test_i18_text_tables_and_documents_spell_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": EVIL}, EVIL, as_json=True)
    emit({"a": EVIL}, EVIL, as_json=False)
    printed = capsys.readouterr().out + table([Check("name", "ok", EVIL, EVIL, EVIL, "us")])
    assert unprintable(printed) == []
    assert "\\x1b[2J" in printed
    assert "\n" not in word(EVIL)
    assert visible("plain é 漢字 😀\n") == "plain é 漢字 😀\n"


def test_i18_every_line_of_the_registrys_log_is_one_json_document(doors: dict[str, Log]) -> None:
    log = doors["gunicorn"]
    for path in (
        "/api/v1/entries/%1b[2J%0d%0a{}",
        "/%9b31m",
        "/problems/%0aERROR",
        "/api/v1/search?q=%1b%5d0;x%07%0a",
    ):
        sent = f"GET {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b[2J\r\nConnection: close\r\n\r\n"
        exchange(log.address, sent.encode("latin-1"))
    text = (Path(log.registry.errors)).read_text("utf-8")
    assert unprintable(text) == []
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict), line
