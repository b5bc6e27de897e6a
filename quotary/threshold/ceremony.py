"""The ceremony in which nodes make a key that none of them ever has, or new shares of it.

Round 1: each dealer publishes a polynomial and seals a share of it to every node. Round 2: each node checks
what it got and says which dealings it saw and whose share does not fit. Where a node complained, the dealer
shows the share to all (round 3): one that fits is used and the complaint was unfounded, one that does not, or
none, names the dealer, whose dealing then counts for nothing. From the same messages everybody computes the
same outcome; each node signs it.

For new shares the polynomials hide old shares instead of new secrets, each held against the share that the
epoch before made public, and weights of Lagrange add them up to the same key (Herzberg and others, 1995, in
the form that also changes the group).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quotary.canonical import canonical
from quotary.errors import Malformed, Refused, Rejected
from quotary.threshold.box import Box, seal
from quotary.threshold.group import DKG, Ceremony
from quotary.threshold.messages import Answer, CheckedDeals, Deal, Message
from quotary.threshold.oprf import random_scalar
from quotary.threshold.ristretto import WIDE_LENGTH, Bytes, base_multiply, check_scalar, scalar
from quotary.threshold.sharing import (
    Commitments,
    check_share,
    commit,
    prove_knowledge,
    public_share,
    share_of,
    sum_commitments,
    sum_shares,
    verify_knowledge,
    weights,
)

_SHARE = b"quotary-kms-share/v1\n"

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Before:
    """Shares that are dealt anew, as the log has them: how many are needed, and each one's public side."""

    threshold: int
    public_shares: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What everybody computes of a ceremony.

    commitments:   the polynomial of which each node has a share; the first is the key's public side
    public_shares: of each node, the public side of its share
    dealers:       whose dealings count; faults: what was found out about whom, for people
    transcript:    SHA-256 over every message
    """

    commitments: Commitments
    public_shares: Mapping[int, bytes]
    dealers: tuple[int, ...]
    faults: tuple[str, ...]
    transcript: bytes

    @property
    def public_key(self) -> bytes:
        return self.commitments[0]


def draw(ceremony: Ceremony, random: Random, secret: Bytes | None = None) -> list[Bytes]:
    """Draw a dealer's polynomial; ``secret`` is the old share that is dealt anew, None for a new key."""
    fresh = [random_scalar(random(WIDE_LENGTH)) for _ in range(ceremony.group.threshold)]
    return [fresh[0] if secret is None else secret, *fresh[1:]]


def deal(ceremony: Ceremony, dealer: int, coefficients: Sequence[Bytes], random: Random) -> Deal:
    """Make a dealing of a polynomial. random: gives bytes for the proof of knowledge."""
    knowledge = prove_knowledge(coefficients[0], _knowledge(ceremony, dealer), random(WIDE_LENGTH))
    shares = {
        node.number: seal(node.box, share_of(coefficients, node.number), _info(ceremony, dealer, node.number))
        for node in ceremony.group.nodes
    }
    return Deal(dealer, commit(coefficients), knowledge, shares)


def check_deal(ceremony: Ceremony, found: Deal, before: Before | None) -> None:
    """Require what everybody can see of a dealing, or raise ``Rejected`` that names the dealer."""
    group, dealer = ceremony.group, found.dealer
    if len(found.commitments) != group.threshold or list(found.shares) != [n.number for n in group.nodes]:
        what = f"{len(found.commitments)} coefficients and {len(found.shares)} shares by node {dealer}"
        raise Rejected("dealing", what, f"{group.threshold} coefficients and {len(group.nodes)} shares")
    if before is not None and found.commitments[0] != before.public_shares.get(dealer):
        raise Rejected("dealing", f"another secret than the old share of node {dealer}", "its logged share")
    verify_knowledge(found.knowledge, found.commitments[0], _knowledge(ceremony, dealer), dealer)


def check_deals(
    ceremony: Ceremony, number: int, box: Box, deals: Sequence[Message], before: Before | None
) -> tuple[CheckedDeals, Mapping[int, bytearray]]:
    """Check every dealing and open one's shares; gives what to say of them, and the shares that fit."""
    by_dealer = _deals(ceremony, deals, before)
    shares, complaints = {}, []
    for dealer, message in by_dealer.items():
        assert isinstance(message.body, Deal)
        try:
            share = bytearray(box.open(message.body.shares[number], _info(ceremony, dealer, number)))
            check_scalar(share, "share")
            check_share(share, number, message.body.commitments, dealer)
        except (Malformed, Rejected):
            complaints.append(dealer)
        else:
            shares[dealer] = share
    seen = {dealer: message.digest for dealer, message in by_dealer.items()}
    return CheckedDeals(number, seen, tuple(complaints)), shares


def answer(dealer: int, coefficients: Sequence[Bytes], checks: Sequence[Message]) -> Answer:
    """Show the shares of those who complained about this dealer."""
    against = [check.node for check in _checks(checks) if dealer in check.complaints]
    return Answer(dealer, {number: share_of(coefficients, number) for number in against})


def outcome(
    ceremony: Ceremony,
    deals: Sequence[Message],
    checks: Sequence[Message],
    answers: Sequence[Message],
    before: Before | None,
) -> Outcome:
    """Compute what the messages of a whole ceremony make, or raise what is wrong with whom.

    1. The dealings are enough, each by another dealer, each in order.
    2. Every node of the group saw these very dealings.
    3. A dealer counts unless somebody complained and it showed no share that fits.
    4. Those that count are enough.
    """
    by_dealer, said = _deals(ceremony, deals, before), _checks(checks)
    _require_seen(ceremony, by_dealer, said)
    revealed = {a.dealer: a.shares for m in answers if isinstance(a := m.body, Answer)}
    dealings, faults = {}, []
    for dealer, message in by_dealer.items():
        assert isinstance(message.body, Deal)
        against = [check.node for check in said if dealer in check.complaints]
        wrong = [n for n in against if not _fits(message.body, n, revealed.get(dealer, {}))]
        faults += [f"node {dealer} gave node {n} a wrong share" for n in wrong]
        unfounded = [n for n in against if n not in wrong]
        faults += [f"node {n} complained about node {dealer} without reason" for n in unfounded]
        if not wrong:
            dealings[dealer] = message.body.commitments
    _require_enough(ceremony, len(dealings), before, faults)
    total = sum_commitments(dealings, _weights(ceremony, dealings))
    numbers = [node.number for node in ceremony.group.nodes]
    return Outcome(
        total,
        {number: public_share(total, number) for number in numbers},
        tuple(dealings),
        tuple(faults),
        _transcript(ceremony, deals, checks, answers),
    )


def own_share(
    ceremony: Ceremony, number: int, shares: Mapping[int, Bytes], answers: Sequence[Message], found: Outcome
) -> bytearray:
    """Add up a node's share of the outcome, from what it opened and what dealers showed instead."""
    shown = {a.dealer: a.shares for message in answers if isinstance(a := message.body, Answer)}
    counted = {dealer: shares.get(dealer) or shown[dealer][number] for dealer in found.dealers}
    share = sum_shares(counted, _weights(ceremony, counted))
    assert base_multiply(share) == found.public_shares[number]
    return share


def _deals(ceremony: Ceremony, deals: Sequence[Message], before: Before | None) -> Mapping[int, Message]:
    found: dict[int, Message] = {}
    for message in deals:
        if not isinstance(message.body, Deal):
            raise Malformed("a message of another kind among the dealings")
        if message.body.dealer in found:
            raise Rejected("dealing", f"two by node {message.body.dealer}", "one by each dealer")
        check_deal(ceremony, message.body, before)
        found[message.body.dealer] = message
    _require_enough(ceremony, len(found), before, [])
    return dict(sorted(found.items()))


def _checks(checks: Sequence[Message]) -> Sequence[CheckedDeals]:
    return [message.body for message in checks if isinstance(message.body, CheckedDeals)]


def _require_seen(ceremony: Ceremony, deals: Mapping[int, Message], said: Sequence[CheckedDeals]) -> None:
    if [check.node for check in said] != [node.number for node in ceremony.group.nodes]:
        wanted = f"one by each of {len(ceremony.group.nodes)} nodes, in order"
        raise Refused("ceremony", f"{len(said)} checks", wanted)
    for check in said:
        if set(check.seen) != set(deals):
            raise Rejected("dealing", f"other dealers before node {check.node}", f"nodes {list(deals)}")
        for dealer, message in deals.items():
            if check.seen[dealer] != message.digest:
                found = f"node {dealer} dealt node {check.node} something else"
                raise Rejected("dealing", found, "one dealing for all")


def _require_enough(ceremony: Ceremony, count: int, before: Before | None, faults: Sequence[str]) -> None:
    needed = ceremony.group.threshold if before is None else before.threshold
    if count < needed:
        raise Refused("ceremony", "; ".join([f"{count} dealings that count", *faults]), f"at least {needed}")


def _fits(found: Deal, number: int, shown: Mapping[int, bytes]) -> bool:
    share = shown.get(number, b"")
    try:
        check_scalar(share, "share")
        check_share(share, number, found.commitments, found.dealer)
    except (Malformed, Rejected):
        return False
    return True


def _weights(ceremony: Ceremony, dealers: Mapping[int, object]) -> Mapping[int, bytes]:
    return dict.fromkeys(dealers, scalar(1)) if ceremony.kind == DKG else weights(dealers)


def _transcript(ceremony: Ceremony, *rounds: Sequence[Message]) -> bytes:
    digests = [[message.digest.hex() for message in messages] for messages in rounds]
    return hashlib.sha256(canonical({"ceremony": ceremony.digest.hex(), "messages": digests})).digest()


def _knowledge(ceremony: Ceremony, dealer: int) -> bytes:
    return ceremony.digest + bytes([dealer])


def _info(ceremony: Ceremony, dealer: int, receiver: int) -> bytes:
    return _SHARE + ceremony.digest + bytes([dealer, receiver])
