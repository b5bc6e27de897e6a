"""Hold a whole machine to a list of addresses: ``python -m enclave.egress [--answer PORT] ADDRESS:PORT …``.

Rules of routing (rtnetlink(7), linux/fib_rules.h), set once by a guest's first process before anything of
ours connects: TCP to the listed addresses and ports, answers from the port that is served, and nothing else,
by any protocol. The kernel asks them for every packet that leaves and tells whoever sent it ``EACCES``;
without ``CAP_NET_ADMIN`` nobody lifts them. Standard library only.
"""

import argparse
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

_NEW_RULE, _ERROR = 32, 2
_FLAGS = 0x1 | 0x4 | 0x200 | 0x400  # request, acknowledge, must be new
_DESTINATION, _PRIORITY, _PROTOCOL, _FROM_PORT, _TO_PORT = 1, 6, 22, 23, 24
_LOOK_UP, _PROHIBIT = 1, 8
_MAIN = 254
# After the table of this machine's own addresses (0), before the one that knows the way out (32766).
_ADMITTED, _ANSWERS, _REST = 100, 200, 300
# TEST-NET-1 (RFC 5737): nobody is there, and asking for the way sends nothing.
_NOWHERE = ("192.0.2.1", 9)

Place = tuple[IPv4Address, int]


class NotHeld(Exception):
    """The kernel does not hold this machine to its list."""


def rules(admitted: list[Place], answer: int | None, families: tuple[int, ...]) -> Iterator[bytes]:
    """Write the requests to the kernel, one a rule.

    answer: the port whose answers may go to anybody; families: those that this machine speaks
    """
    yield from (
        _rule(socket.AF_INET, _LOOK_UP, _ADMITTED + number, to=place) for number, place in enumerate(admitted)
    )
    if answer is not None:
        yield _rule(socket.AF_INET, _LOOK_UP, _ANSWERS, from_port=answer)
    for family in families:
        yield _rule(family, _PROHIBIT, _REST)


def hold(admitted: list[Place], answer: int | None) -> None:
    """Set the rules and look whether they hold; ``NotHeld`` where the kernel does not take them all."""
    if len(admitted) > _ANSWERS - _ADMITTED:
        raise NotHeld(f"{len(admitted)} addresses, at most {_ANSWERS - _ADMITTED} are possible")
    families = (socket.AF_INET, *((socket.AF_INET6,) if Path("/proc/net/if_inet6").exists() else ()))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        for number, request in enumerate(rules(admitted, answer, families)):
            kernel.send(request)
            _, kind, _, _, _, code = struct.unpack_from("=IHHIIi", kernel.recv(4096))
            if kind != _ERROR or code:
                raise NotHeld(f"rule {number} is not taken: {os.strerror(-code)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found = probe.connect_ex(_NOWHERE)
    if found != errno.EACCES:
        raise NotHeld(f"the way to {_NOWHERE[0]} is not shut: {os.strerror(found)}")


def _rule(
    family: int, action: int, priority: int, *, to: Place | None = None, from_port: int | None = None
) -> bytes:
    members, table = _member(_PRIORITY, struct.pack("=I", priority)), _MAIN if action == _LOOK_UP else 0
    if to is not None or from_port is not None:
        members += _member(_PROTOCOL, bytes([socket.IPPROTO_TCP]))
    if to is not None:
        members += _member(_DESTINATION, to[0].packed) + _member(_TO_PORT, struct.pack("=HH", to[1], to[1]))
    if from_port is not None:
        members += _member(_FROM_PORT, struct.pack("=HH", from_port, from_port))
    bits = 0 if to is None else 32
    head = struct.pack("=8BI", family, bits, 0, 0, table, 0, 0, action, 0)
    return struct.pack("=IHHII", 16 + len(head) + len(members), _NEW_RULE, _FLAGS, 1, 0) + head + members


def _member(name: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), name) + value + bytes(-len(value) % 4)


def _place(text: str) -> Place:
    address, _, port = text.rpartition(":")
    if not 0 < int(port) < 65_536:
        raise ValueError(f"{port} is no port")
    return IPv4Address(address), int(port)


def main(words: list[str]) -> None:
    """Hold this machine; where it cannot be, the process ends with 1 and the reason on standard error."""
    parser = argparse.ArgumentParser("enclave.egress")
    parser.add_argument("--answer", type=int)
    parser.add_argument("admitted", nargs="*", type=_place)
    found = parser.parse_args(words)
    try:
        hold(found.admitted, found.answer)
    except (NotHeld, OSError) as error:
        raise SystemExit(f"the network is not held to addresses: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
