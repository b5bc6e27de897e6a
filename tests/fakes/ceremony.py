"""Nodes of a key ceremony in one process, honest unless a test spoils one of their messages."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.threshold.box import Box
from quotary.threshold.ceremony import (
    Before,
    Outcome,
    answer,
    check_deals,
    deal,
    draw,
    outcome,
    own_share,
)
from quotary.threshold.group import Ceremony, Group, Node
from quotary.threshold.messages import Body, Deal, Message, open_message, sign_message

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SERVICE, ORIGIN = "keys.example.org", "log.example.org"

Spoil = Callable[[int, Body], Body]


class Stream:
    """Bytes that look random and are the same in every run."""

    def __init__(self, seed: str) -> None:
        self._seed, self._count = seed, 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed} {self._count}".encode()).digest(length)


@dataclass
class Member:
    """One node: its keys, and what it remembers of a ceremony."""

    number: int
    key: Ed25519PrivateKey
    box: Box
    random: Stream
    coefficients: list[bytes] = field(default_factory=list)
    shares: Mapping[int, bytearray] = field(default_factory=dict)
    share: bytearray = field(default_factory=bytearray)

    @property
    def public(self) -> Node:
        return Node(self.number, self.key.public_key().public_bytes_raw(), self.box.public)


def members(count: int, seed: str = "") -> list[Member]:
    found = []
    for number in range(1, count + 1):
        random = Stream(f"{seed} node {number}")
        key = Ed25519PrivateKey.from_private_bytes(random(32))
        found.append(Member(number, key, Box(random(96)), random))
    return found


def group_of(nodes: Sequence[Member], threshold: int) -> Group:
    return Group(SERVICE, ORIGIN, threshold, tuple(node.public for node in nodes))


def proposal(group: Group, epoch: int = 1, generation: int = 0, previous: str = "none") -> Ceremony:
    return Ceremony(group, epoch, generation, previous, 1, NOW, bytes([epoch, generation]) * 16)


def deals_of(ceremony: Ceremony, dealers: Sequence[Member], spoil: Spoil, *, anew: bool) -> list[Message]:
    """Round 1; ``anew``: dealers deal their shares instead of new secrets."""
    found = []
    for node in dealers:
        node.coefficients = draw(ceremony, node.random, node.share if anew else None)
        body = deal(ceremony, node.number, node.coefficients, node.random)
        found.append(said(ceremony, node, spoil(node.number, body)))
    return found


def said(ceremony: Ceremony, node: Member, body: Body) -> Message:
    """A node's message, as everybody else receives it."""
    return open_message(ceremony, sign_message(ceremony, node.number, body, node.key).data)


def honest(number: int, body: Body) -> Body:
    return body


def hold(
    ceremony: Ceremony,
    nodes: Sequence[Member],
    before: Before | None = None,
    *,
    dealers: Sequence[Member] | None = None,
    spoil: Spoil = honest,
) -> Outcome:
    """Hold a whole ceremony; afterwards each node has its share of the outcome."""
    deals = deals_of(ceremony, dealers or nodes, spoil, anew=before is not None)
    checks = []
    for node in nodes:
        body, node.shares = check_deals(ceremony, node.number, node.box, deals, before)
        checks.append(said(ceremony, node, spoil(node.number, body)))
    accused = {number for check in checks for number in check.body.complaints}
    answers = [
        said(ceremony, node, spoil(node.number, answer(node.number, node.coefficients, checks)))
        for node in dealers or nodes
        if node.number in accused
    ]
    found = outcome(ceremony, deals, checks, answers, before)
    for node in nodes:
        node.share = own_share(ceremony, node.number, node.shares, answers, found)
    return found


def with_share(found: Deal, receiver: int, sealed: bytes) -> Deal:
    """A dealing in which one node's sealed share is another."""
    shares = {**found.shares, receiver: sealed}
    return Deal(found.dealer, found.commitments, found.knowledge, shares)
