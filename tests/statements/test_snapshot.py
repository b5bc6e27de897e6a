"""A snapshot gives back the very state, and nothing that was touched."""

import hashlib
import json

import pytest

from quotary.errors import Malformed
from quotary.statements.f1 import F1
from quotary.statements.snapshot import MAGIC
from tests.fakes.authority import ORIGIN, TS, Authority


def story() -> list[bytes]:
    made = Authority()
    return [
        made.genesis(),
        made.allocation(),
        made.delegation(),
        made.floor(),
        made.release("r1"),
        made.release("r2"),
        made.release("r3"),
        made.revocation(["r1"]),
        made.revocation(["r9"], service="log", signers=("security1",)),
    ]


def after(entries: list[bytes]) -> F1:
    f1 = F1(ORIGIN)
    f1.close(enumerate(entries), TS)
    return f1


def test_a_state_comes_back_equal_and_goes_on_alike() -> None:
    entries, made = story(), Authority()
    for count in range(1, len(entries) + 1):
        f1 = after(entries[:count])
        again = F1.load(ORIGIN, f1.dump(), entries.__getitem__)
        assert again._state.new == f1._state.new
        assert again.dump() == f1.dump()
        rest = list(enumerate([*entries[count:], made.allocation("other")], count))
        assert again.close(rest, TS + 5) == f1.close(rest, TS + 5)


def test_a_snapshot_that_is_not_whole_or_of_another_log_is_refused() -> None:
    entries = story()
    data = after(entries).dump()
    for position in range(0, len(data), 7):
        with pytest.raises(Malformed):
            F1.load(
                ORIGIN,
                data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :],
                entries.__getitem__,
            )
        with pytest.raises(Malformed):
            F1.load(ORIGIN, data[:position], entries.__getitem__)
    with pytest.raises(Malformed, match="of the log"):
        F1.load("other.example.org", data, entries.__getitem__)
    with pytest.raises(Malformed, match="is not the delegation"):
        F1.load(ORIGIN, data, lambda index: entries[4])
    document = json.loads(data.split(b"\n", 2)[2])
    for name in document:
        for value in (None, [1], "text", 7):
            body = json.dumps({**document, name: value}).encode()
            if (name, value) == ("next", 7):
                continue
            with pytest.raises(Malformed):
                F1.load(
                    ORIGIN,
                    MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body,
                    entries.__getitem__,
                )
