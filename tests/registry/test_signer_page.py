"""docs/formats/signer.md: its conversation, replayed byte for byte over a real socket."""

import re
import socket
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from quotary.tlog.note import SigningKey
from quotary.token.place import TokenPlace
from registry import wire
from registry.identity import PROMISE_SUFFIX, LogKeys
from registry.memory import create_memory
from registry.signer import Signer, serve
from tests.conftest import ROOT
from tests.fakes.authority import ORIGIN
from tests.fakes.signer import served

PAGE = (ROOT / "docs" / "formats" / "signer.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"```\w+ example=(\w+)\n(.*?)```", PAGE, re.DOTALL))
SEED = bytes(range(32))


def keys() -> LogKeys:
    ed25519, mldsa = Ed25519PrivateKey.from_private_bytes(SEED), MLDSA44PrivateKey.from_seed_bytes(SEED)
    signing = (SigningKey.log(ORIGIN, ed25519), SigningKey.cosigner(ORIGIN, mldsa))
    return LogKeys(signing, SigningKey.log(ORIGIN + PROMISE_SUFFIX, ed25519))


def receive(connection: socket.socket) -> tuple[int, str]:
    length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL))
    return length, connection.recv(length, socket.MSG_WAITALL).decode("utf-8")


def test_the_conversation_of_the_page_is_what_the_signer_says(tmp_path: Path) -> None:
    create_memory(tmp_path / "memory")
    signer = Signer(ORIGIN, keys, tmp_path / "memory", lambda: datetime(2026, 11, 21, 12, tzinfo=UTC))
    lines = [line.split(" ", 2) for line in EXAMPLES["conversation"].splitlines()]
    assert [mark for mark, _, _ in lines] == [">", "<"] * (len(lines) // 2)
    with served(signer, tmp_path / "s"), closing(wire.connect(tmp_path / "s", 10.0)) as connection:
        for mark, length, text in lines:
            if mark == ">":
                assert len(text.encode()) == int(length, 16)
                connection.sendall(bytes.fromhex(length) + text.encode())
                continue
            found = receive(connection)
            assert found[0] == int(length, 16)
            whole, cut, _ = text.partition("…")
            assert found[1].startswith(whole) if cut else found[1] == whole


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\0\0", b"\0\1\0\1", b"\0\0\0\2{", b"\0\0\0\3{ }", b"\xff\xff\xff\xff"]
)
def test_what_is_no_message_ends_the_connection_unanswered(tmp_path: Path, body: bytes) -> None:
    left, right = socket.socketpair()
    with closing(left), closing(right):
        left.sendall(body)
        left.shutdown(socket.SHUT_WR)
        create_memory(tmp_path / "memory")
        serve(right, Signer(ORIGIN, keys, tmp_path / "memory", lambda: datetime.now(UTC)))
        right.close()
        assert left.recv(1) == b""


def test_the_pages_token_file_is_one_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(EXAMPLES["token"], "utf-8")
    place = TokenPlace.read(tmp_path / "t")
    (tmp_path / "again").write_text(place.text(), "utf-8")
    assert (tmp_path / "again").read_text("utf-8") == EXAMPLES["token"]
