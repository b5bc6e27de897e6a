"""What one network may hold of a registry that no front server shields."""

import json

from registry.worker import HELD_SECONDS, Held, most, refusal


class Seconds:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_network_holds_so_many_threads_and_the_others_do_not_notice() -> None:
    held = Held(2, Seconds())
    assert [held.take(name, "192.0.2.1") for name in "abc"] == [True, True, False]
    assert held.take("d", "192.0.2.2")
    held.give("a")
    assert [held.take(name, "192.0.2.1") for name in "ef"] == [True, False]


def test_an_address_of_ipv6_is_its_whole_network() -> None:
    held = Held(1, Seconds())
    assert held.take("a", "2001:db8::1")
    assert not held.take("b", "2001:db8::2")
    assert held.take("c", "2001:db8:0:1::1")


def test_connections_from_this_machine_are_not_counted() -> None:
    clock = Seconds()
    held = Held(1, clock)
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", ""):
        assert [held.take((peer, number), peer) for number in range(9)] == [True] * 9
        held.give((peer, 0))
    clock.now = 10 * HELD_SECONDS
    assert held.overdue() == []


def test_what_was_given_back_or_never_taken_counts_for_nothing() -> None:
    held = Held(1, Seconds())
    held.take("a", "192.0.2.1")
    held.take("b", "192.0.2.1")
    held.give("b")
    assert not held.take("c", "192.0.2.1")
    held.give("a")
    held.give("a")
    assert [held.take(name, "192.0.2.1") for name in "de"] == [True, False]


def test_whoever_holds_a_thread_for_half_a_minute_is_overdue() -> None:
    clock = Seconds()
    held = Held(3, clock)
    held.take("a", "192.0.2.1")
    clock.now = 1.0
    held.take("b", "192.0.2.2")
    clock.now = HELD_SECONDS + 0.5
    assert held.overdue() == ["a"]
    held.give("a")
    assert held.overdue() == []


def test_a_quarter_of_the_threads_is_one_networks_and_two_at_least() -> None:
    assert [most(threads) for threads in (1, 4, 8, 160)] == [2, 2, 2, 40]


def test_one_connection_too_many_is_told_so_in_a_problem_document() -> None:
    head, _, body = refusal().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 429 Too Many Requests"
    assert {"Retry-After: 5", "Connection: close", f"Content-Length: {len(body)}"} <= set(lines)
    assert "Content-Type: application/problem+json" in lines
    assert json.loads(body)["type"] == "/problems/busy"
