"""Sessions of the sealed channel: requests in order, each under a key that is gone afterwards."""

import os
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.client.frames import StreamTruncated
from quotary.client.ratchet import (
    Offer,
    Opening,
    SessionClient,
    SessionEnded,
    SessionServer,
    Step,
    is_session,
    session_name,
)
from quotary.client.sealed import Head, ResponseHead
from quotary.errors import Malformed, QuotaryError, Rejected

OPENING = Opening(b"1" * 32, b"2" * 32, b"3" * 32)
NAME = b"a session's name"


def head(**changes: object) -> Head:
    values: dict[str, object] = {"at": 1_795_000_000, "min_log_size": 7}
    return Head.new("POST", "/v1/chat/completions", **(values | changes))  # type: ignore[arg-type]


def pair() -> tuple[SessionClient, SessionServer]:
    server = SessionServer(OPENING, NAME, 600)
    return SessionClient(Offer.parse(server.offer.encode()), OPENING), server


def test_requests_of_a_session_arrive_and_are_answered() -> None:
    client, server = pair()
    for number in range(3):
        asked, body = head(), b"question %d" % number
        wire, opener = client.seal(asked, body)
        assert is_session(wire)
        assert session_name(wire) == NAME
        found = server.open(wire)
        assert (found.head, found.body) == (asked, body)
        sealer = found.respond()
        answer = sealer.start(ResponseHead(200, {})) + sealer.data(b"answer") + sealer.end()
        assert opener.feed(answer) == b"answer"
        opener.close()


def test_a_thief_of_all_memory_reads_nothing_that_was_asked_before() -> None:
    """He has the channel key, so all that opened the session, and the session as it is now; and the wire."""
    client, server = pair()
    before = copy(server)
    recorded = [client.seal(head(), b"a secret")[0] for _ in range(3)]
    for wire in recorded:
        server.open(wire)
    # With the session as it was before its first request he reads it all: what is forgotten is what keeps it.
    assert before.open(recorded[0]).body == b"a secret"
    state = {name: getattr(server, name) for name in server.__slots__}
    assert state["_key"] is None
    assert state["_opening"] is None
    step = state["_step"]
    assert isinstance(step, Step)
    for number, wire in enumerate(recorded):
        fixed, sealed = wire[:23], wire[23 : 23 + int.from_bytes(wire[21:23], "big")]
        for chain in (step.chain, OPENING.secret, OPENING.first(server.offer, bytes(32)).chain):
            with pytest.raises(Rejected):
                Step(number, chain).open(fixed, sealed if number else sealed[1168:])
        # Nor with a session that he makes anew: the second secret was sealed to a key that is gone.
        with pytest.raises(QuotaryError):
            SessionServer(OPENING, NAME, 600).open(wire)


def test_a_request_opens_once_and_in_order() -> None:
    client, server = pair()
    first, second, third = (client.seal(head(), b"x")[0] for _ in range(3))
    for early in (second, third):
        with pytest.raises(SessionEnded):
            server.open(early)
    server.open(first)
    for wrong in (first, third):
        with pytest.raises(SessionEnded):
            server.open(wrong)
    server.open(second)


def test_what_does_not_open_changes_nothing() -> None:
    client, server = pair()
    wire, _ = client.seal(head(), b"x")
    for at in (*range(1, 17), 21, 23, 1000, 1180, 1200, 1300):
        broken = wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :]
        with pytest.raises(QuotaryError):
            server.open(broken)
    assert server.open(wire).body == b"x"
    wire, _ = client.seal(head(), b"y")
    for at in range(23, 300, 11):
        with pytest.raises(Rejected):
            server.open(wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :])
    assert server.open(wire).body == b"y"


def test_a_request_of_a_session_cut_at_any_byte_is_truncated() -> None:
    client, server = pair()
    server.open(client.seal(head(), b"x")[0])
    wire, _ = client.seal(head(), b"x")
    for length in range(1, len(wire)):
        with pytest.raises(StreamTruncated):
            copy(server).open(wire[:length])


def test_a_request_of_another_session_does_not_open() -> None:
    (mine, server), (other, _) = pair(), pair()
    with pytest.raises(Rejected):
        server.open(other.seal(head(), b"x")[0])
    for wrong in (Opening(b"9" * 32, b"2" * 32, b"3" * 32), Opening(b"1" * 32, b"2" * 32, b"9" * 32)):
        with pytest.raises(Rejected):
            server.open(SessionClient(server.offer, wrong).seal(head(), b"x")[0])
    assert server.open(mine.seal(head(), b"x")[0]).body == b"x"


def test_a_session_has_a_last_number() -> None:
    with pytest.raises(SessionEnded, match="its last number"):
        Step(2**32 - 1, bytes(32)).next()


def test_two_steps_share_no_key() -> None:
    step = OPENING.first(SessionServer(OPENING, NAME, 600).offer, os.urandom(32))
    sealed = step.seal(b"fixed", b"head")
    assert step.open(b"fixed", sealed) == b"head"
    for wrong in (step.next(), Step(0, step.next().next().chain)):
        with pytest.raises(Rejected):
            wrong.open(b"fixed", sealed)
    with pytest.raises(Rejected):
        step.open(b"other", sealed)


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_named_error(data: bytes) -> None:
    server = SessionServer(OPENING, NAME, 600)
    for wire in (data, b"\x02" + NAME + data, b"\x02" + NAME + bytes(4) + data):
        with pytest.raises(QuotaryError):
            server.open(wire)
    with pytest.raises(QuotaryError):
        Offer.parse(data)


def test_a_first_request_without_its_second_secret_is_malformed() -> None:
    client, server = pair()
    wire, _ = client.seal(head(), b"x")
    with pytest.raises(Malformed, match="no second secret"):
        server.open(wire[:21] + (200).to_bytes(2, "big") + wire[23:])
