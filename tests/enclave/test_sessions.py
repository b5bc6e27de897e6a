"""Sessions in a serving enclave: what they bring, and when they end."""

import json

import pytest

from enclave.sessions import IDLE_SECONDS, SessionBook
from quotary.client.ratchet import PATH, Offer, Opening, SessionClient, SessionEnded
from quotary.client.sealed import ResponseOpener
from quotary.errors import Refused
from tests.client.test_ratchet import head
from tests.enclave.api_site import Site, body, check_receipt, code

OPENING = Opening(b"1" * 32, b"2" * 32, b"3" * 32)


def opened(site: Site) -> SessionClient:
    keyset = site.enclave.keys.current()
    assert keyset is not None
    wire, opener = site.seal(b"", site.head("POST", PATH))
    data = opener.feed(site.post(wire).data)
    opener.close()
    opening = Opening(opener.request.response_secret, opener.transcript, keyset.digest)
    return SessionClient(Offer.parse(data), opening)


def ask(site: Site, session: SessionClient) -> tuple[ResponseOpener, bytes, bytes]:
    wire, opener = session.seal(site.head(), body())
    reply = site.post(wire)
    assert reply.status_code == 200, reply.data
    answer = opener.feed(reply.data)
    opener.close()
    return opener, answer, wire


def refusal(site: Site, wire: bytes) -> tuple[int, str]:
    reply = site.post(wire)
    return reply.status_code, code(reply.data)


def test_a_session_answers_with_receipts_and_each_request_once(site: Site) -> None:
    session = opened(site)
    for _ in range(2):
        opener, answer, wire = ask(site, session)
        assert json.loads(answer)["object"] == "chat.completion"
        check_receipt(site, opener, body(), answer)
        assert refusal(site, wire) == (422, "session_ended")


def test_a_request_of_a_session_outside_the_window_is_refused(site: Site) -> None:
    wire, _ = opened(site).seal(site.head(at=int(site.clock.now().timestamp()) + 301), body())
    assert refusal(site, wire) == (400, "outside_window")


def test_a_session_ends_when_it_is_idle(site: Site) -> None:
    session = opened(site)
    ask(site, session)
    site.clock.seconds += IDLE_SECONDS
    site.enclave.poll()
    ask(site, session)
    site.clock.seconds += IDLE_SECONDS + 1
    site.enclave.poll()
    assert refusal(site, session.seal(site.head(), body())[0]) == (422, "session_ended")


def test_a_session_ends_with_its_keyset(site: Site) -> None:
    session = opened(site)
    for _ in range(6):
        ask(site, session)
        site.clock.seconds += 540
        site.enclave.poll()
    ask(site, session)
    site.clock.seconds += 100
    assert refusal(site, session.seal(site.head(), body())[0]) == (422, "keyset_changed")


def test_revocation_ends_every_session(site: Site) -> None:
    session = opened(site)
    site.machine.error = Refused("status", "revoked: key lost", "active")
    site.enclave.poll()
    assert refusal(site, session.seal(site.head(), body())[0]) == (422, "session_ended")


def test_the_session_unused_for_longest_makes_room() -> None:
    book = SessionBook(kept=2)
    clients = [SessionClient(book.offer(OPENING, b"keyset", 1), OPENING) for _ in range(2)]
    book.open(clients[0].seal(head(), b"x")[0], 2)
    third = SessionClient(book.offer(OPENING, b"keyset", 3), OPENING)
    with pytest.raises(SessionEnded):
        book.open(clients[1].seal(head(), b"x")[0], 4)
    assert book.open(clients[0].seal(head(), b"x")[0], 4)[1] == b"keyset"
    assert book.open(third.seal(head(), b"x")[0], 4)[0].body == b"x"
