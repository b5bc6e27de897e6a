"""Key generation and new shares: any t nodes have the key, t - 1 have nothing, and liars are named."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest

from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed, Refused, Rejected
from quotary.threshold.box import Box, seal
from quotary.threshold.ceremony import Before, answer, check_deals, deal, draw, outcome
from quotary.threshold.group import Ceremony, Group
from quotary.threshold.messages import Answer, Body, CheckedDeals, Deal, open_message, sign_message
from quotary.threshold.ristretto import base_multiply, scalar
from quotary.threshold.sharing import sum_shares, weights
from tests.fakes.ceremony import (
    Member,
    Stream,
    deals_of,
    group_of,
    hold,
    honest,
    members,
    proposal,
    said,
    with_share,
)

NODES, NEEDED = 5, 3


@pytest.fixture
def nodes() -> list[Member]:
    return members(NODES)


@pytest.fixture
def ceremony(nodes) -> Ceremony:
    return proposal(group_of(nodes, NEEDED))


def secret_of(chosen: tuple[Member, ...]) -> bytes:
    """What nodes that put their shares together would compute; nothing in the project does so."""
    return bytes(sum_shares({n.number: n.share for n in chosen}, weights(n.number for n in chosen)))


def before_of(found, needed: int = NEEDED) -> Before:
    return Before(needed, found.public_shares)


def test_any_three_of_five_have_the_key_and_no_two_do(nodes, ceremony):
    found = hold(ceremony, nodes)
    assert found.dealers == (1, 2, 3, 4, 5)
    assert found.faults == ()
    assert {secret_of(chosen) for chosen in combinations(nodes, NEEDED)} == {secret_of(tuple(nodes))}
    assert base_multiply(secret_of(tuple(nodes))) == found.public_key
    assert found.public_shares == {node.number: base_multiply(node.share) for node in nodes}
    for chosen in combinations(nodes, NEEDED - 1):
        assert base_multiply(secret_of(chosen)) != found.public_key


def test_two_nodes_shares_fit_every_key_there_is(nodes, ceremony):
    hold(ceremony, nodes)
    # For any key whatever there is a third share with which these two give it: they exclude none.
    two = (nodes[0], nodes[1])
    for key in (scalar(1), scalar(2**200), secret_of(tuple(nodes))):
        factors = weights([1, 2, 3])
        parts = sum_shares({n.number: n.share for n in two}, factors)
        third = scalar(
            (int.from_bytes(key, "little") - int.from_bytes(parts, "little"))
            * pow(int.from_bytes(factors[3], "little"), -1, 2**252 + 27742317777372353535851937790883648493)
        )
        assert bytes(sum_shares({1: two[0].share, 2: two[1].share, 3: third}, factors)) == key


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (7, 4), (16, 9)])
def test_groups_of_every_size_make_a_key(count, needed):
    nodes = members(count)
    found = hold(proposal(group_of(nodes, needed)), nodes)
    assert base_multiply(secret_of(tuple(nodes[-needed:]))) == found.public_key


def test_new_shares_are_of_the_same_key_and_do_not_mix_with_the_old(nodes, ceremony):
    first = hold(ceremony, nodes)
    key, old = secret_of(tuple(nodes[:3])), [replace(node) for node in nodes]
    second = hold(proposal(ceremony.group, 1, 1, "sha256:" + "0" * 64), nodes, before_of(first))
    assert second.public_key == first.public_key
    assert {secret_of(chosen) for chosen in combinations(nodes, NEEDED)} == {key}
    assert all(new.share != before.share for new, before in zip(nodes, old, strict=True))
    assert secret_of((old[0], old[1], nodes[2])) != key


def test_three_old_nodes_are_enough_to_deal_new_shares(nodes, ceremony):
    first = hold(ceremony, nodes)
    again = proposal(ceremony.group, 1, 1, "sha256:" + "0" * 64)
    second = hold(again, nodes, before_of(first), dealers=nodes[2:])
    assert second.dealers == (3, 4, 5)
    assert second.public_key == first.public_key == base_multiply(secret_of(tuple(nodes[:3])))


def test_another_group_takes_the_key_over(nodes, ceremony):
    first = hold(ceremony, nodes)
    others = members(4, "new")
    for old, new in zip(nodes, others, strict=False):
        new.share = old.share
    dealing = others[:3]
    again = proposal(group_of(others, 2), 1, 1, "sha256:" + "0" * 64)
    second = hold(again, others, before_of(first), dealers=dealing)
    assert second.public_key == first.public_key
    assert {base_multiply(secret_of(chosen)) for chosen in combinations(others, 2)} == {first.public_key}


def lying(dealer: int, receiver: int, *, answers: bool) -> Callable[[int, Body], Body]:
    """A dealer that gives one node a share that does not open, and shows it a wrong one or none."""

    def spoil(number: int, body: Body) -> Body:
        if number == dealer and isinstance(body, Deal):
            return with_share(body, receiver, body.shares[receiver % NODES + 1])
        if number == dealer and isinstance(body, Answer):
            return Answer(dealer, {receiver: scalar(7)} if answers else {})
        return body

    return spoil


@pytest.mark.parametrize("answers", [True, False])
def test_a_dealer_of_wrong_shares_is_named_and_does_not_count(nodes, ceremony, answers):
    found = hold(ceremony, nodes, spoil=lying(4, 2, answers=answers))
    assert found.dealers == (1, 2, 3, 5)
    assert found.faults == ("node 4 gave node 2 a wrong share",)
    assert {base_multiply(secret_of(chosen)) for chosen in combinations(nodes, NEEDED)} == {found.public_key}


@pytest.mark.parametrize(
    "share",
    [scalar(7), bytes(31), bytes(32), b"\xff" * 32, b""],
    ids=["another", "short", "zero", "wide", "none"],
)
def test_a_share_that_opens_and_is_not_the_owed_one_is_complained_about(nodes, ceremony, share):
    def spoil(number: int, body: Body) -> Body:
        if number == 4 and isinstance(body, Deal):
            info = b"quotary-kms-share/v1\n" + ceremony.digest + bytes([4, 2])
            return with_share(body, 2, seal(nodes[1].box.public, share, info))
        return Answer(4, {}) if isinstance(body, Answer) else body

    found = hold(ceremony, nodes, spoil=spoil)
    assert found.faults == ("node 4 gave node 2 a wrong share",)
    assert base_multiply(secret_of(tuple(nodes[:3]))) == found.public_key


@pytest.mark.parametrize("share", [bytes(32), b"\xff" * 32])
def test_a_share_that_is_shown_to_all_is_a_scalar(nodes, ceremony, share):
    def spoil(number: int, body: Body) -> Body:
        if number == 4 and isinstance(body, Deal):
            return with_share(body, 2, body.shares[3])
        return Answer(4, {2: share}) if isinstance(body, Answer) else body

    assert hold(ceremony, nodes, spoil=spoil).faults == ("node 4 gave node 2 a wrong share",)


def test_a_dealer_that_shows_the_share_it_owed_counts(nodes, ceremony):
    def spoil(number: int, body: Body) -> Body:
        if number == 4 and isinstance(body, Deal):
            return with_share(body, 2, body.shares[3])
        return body

    found = hold(ceremony, nodes, spoil=spoil)
    assert found.dealers == (1, 2, 3, 4, 5)
    assert found.faults == ("node 2 complained about node 4 without reason",)
    assert {base_multiply(secret_of(chosen)) for chosen in combinations(nodes, NEEDED)} == {found.public_key}


def test_a_node_that_complains_about_everybody_stops_nothing(nodes, ceremony):
    def spoil(number: int, body: Body) -> Body:
        if number == 5 and isinstance(body, CheckedDeals):
            return CheckedDeals(5, body.seen, (1, 2, 3, 4))
        return body

    found = hold(ceremony, nodes, spoil=spoil)
    assert found.dealers == (1, 2, 3, 4, 5)
    assert found.faults[0] == "node 5 complained about node 1 without reason"
    assert base_multiply(secret_of(tuple(nodes[:3]))) == found.public_key


def test_too_few_honest_dealers_make_no_key(nodes, ceremony):
    liars = [lying(n, 1, answers=False) for n in (3, 4, 5)]

    def spoil(number: int, body: Body) -> Body:
        for liar in liars:
            body = liar(number, body)
        return body

    with pytest.raises(Refused, match="2 dealings that count; node 3 gave node 1 a wrong share"):
        hold(ceremony, nodes, spoil=spoil)


def test_a_dealer_that_tells_two_nodes_different_things_is_named(nodes, ceremony):
    deals = deals_of(ceremony, nodes, honest, anew=False)
    other = said(ceremony, nodes[3], deal(ceremony, 4, draw(ceremony, Stream("x")), Stream("y")))
    shown = {node.number: deals if node.number != 2 else [*deals[:3], other, deals[4]] for node in nodes}
    checks = [
        said(ceremony, node, check_deals(ceremony, node.number, node.box, shown[node.number], None)[0])
        for node in nodes
    ]
    with pytest.raises(Rejected, match="node 4 dealt node 2 something else"):
        outcome(ceremony, deals, checks, [], None)
    with pytest.raises(Rejected, match="two by node 4"):
        outcome(ceremony, [*deals, other], checks, [], None)


def test_new_shares_of_another_secret_are_refused_by_name(nodes, ceremony):
    first = hold(ceremony, nodes)
    again = proposal(ceremony.group, 1, 1, "sha256:" + "0" * 64)
    nodes[1].share = bytearray(scalar(99))
    with pytest.raises(Rejected, match="another secret than the old share of node 2"):
        hold(again, nodes, before_of(first))


def test_a_dealer_must_know_what_it_commits_to(nodes, ceremony):
    deals = deals_of(ceremony, nodes, honest, anew=False)
    stolen = deals[0].body
    copied = Deal(2, stolen.commitments, stolen.knowledge, stolen.shares)
    shown = [*deals[2:], said(ceremony, nodes[1], copied)]
    with pytest.raises(Rejected, match="node 2 without the secret"):
        check_deals(ceremony, 1, nodes[0].box, shown, None)


@pytest.mark.parametrize("cut", ["commitments", "shares"])
def test_a_dealing_of_another_degree_or_for_fewer_nodes_is_refused(nodes, ceremony, cut):
    deals = deals_of(ceremony, nodes, honest, anew=False)
    found = deals[0].body
    commitments = found.commitments[:-1] if cut == "commitments" else found.commitments
    shares = {n: s for n, s in found.shares.items() if n != 5} if cut == "shares" else found.shares
    short = said(ceremony, nodes[0], Deal(1, commitments, found.knowledge, shares))
    with pytest.raises(Rejected, match="by node 1"):
        check_deals(ceremony, 1, nodes[0].box, [short, *deals[1:]], None)


def test_a_ceremony_without_every_nodes_check_makes_nothing(nodes, ceremony):
    deals = deals_of(ceremony, nodes, honest, anew=False)
    checks = [said(ceremony, n, check_deals(ceremony, n.number, n.box, deals, None)[0]) for n in nodes]
    for some in (checks[:-1], [checks[1], checks[0], *checks[2:]]):
        with pytest.raises(Refused, match="one by each of 5 nodes"):
            outcome(ceremony, deals, some, [], None)
    with pytest.raises(Rejected, match="other dealers before node 1"):
        outcome(ceremony, deals[:-1], checks, [], None)
    with pytest.raises(Refused, match="2 dealings that count"):
        check_deals(ceremony, 1, nodes[0].box, deals[:2], None)
    with pytest.raises(Malformed, match="another kind"):
        outcome(ceremony, [*deals, checks[0]], checks, [], None)


def test_a_message_is_one_nodes_in_one_ceremony(nodes, ceremony):
    message = sign_message(ceremony, 1, CheckedDeals(1, {2: bytes(32)}, ()), nodes[0].key)
    assert open_message(ceremony, message.data) == message
    other = replace(ceremony, nonce=b"\1" * 32)
    with pytest.raises(Rejected, match="another ceremony"):
        open_message(other, message.data)
    forged = sign_message(ceremony, 2, CheckedDeals(2, {2: bytes(32)}, ()), nodes[0].key)
    with pytest.raises(Rejected, match="a check that node 2 did not sign"):
        open_message(ceremony, forged.data)
    fields = parse_canonical(message.data, 1 << 16)
    for change in (
        {"node": 6},
        {"node": 0},
        {"kind": "deals"},
        {"v": 2},
        {"seen": {"02": "00" * 32}},
        {"seen": {"2": 1}},
        {"more": 1},
    ):
        with pytest.raises(Malformed):
            open_message(ceremony, canonical({**fields, **change}))
    with pytest.raises(Rejected):
        open_message(ceremony, canonical({**fields, "seen": {"2": "11" * 32}}))


def test_complaints_are_about_dealings_that_were_seen(nodes, ceremony):
    for wrong in ((3,), (2, 2), (2, 1)):
        message = sign_message(
            ceremony, 1, CheckedDeals(1, {1: bytes(32), 2: bytes(32)}, wrong), nodes[0].key
        )
        with pytest.raises(Malformed, match="complaints"):
            open_message(ceremony, message.data)


def test_a_dealer_answers_only_complaints_about_itself(nodes, ceremony):
    nodes[0].coefficients = draw(ceremony, nodes[0].random)
    checks = [said(ceremony, nodes[1], CheckedDeals(2, {1: bytes(32), 3: bytes(32)}, (3,)))]
    assert answer(1, nodes[0].coefficients, checks).shares == {}


def test_documents_that_operators_compare_read_back_and_nothing_else_does(nodes, ceremony):
    assert Group.parse(ceremony.group.encode()) == ceremony.group
    assert Ceremony.parse(ceremony.encode()) == ceremony
    group = ceremony.group.document()
    swapped = {**group, "nodes": [group["nodes"][1], group["nodes"][0], *group["nodes"][2:]]}
    twice = {**group, "nodes": [*group["nodes"][:4], {**group["nodes"][0], "number": 5}]}
    first, last = group["nodes"][0], group["nodes"][4]
    for name in ("key", "box"):
        with pytest.raises(Malformed, match="the same key"):
            Group.read({**group, "nodes": [*group["nodes"][:4], {**last, name: first[name]}]})
    for more in ({**group, "x": 1}, {**group, "nodes": [{**first, "x": 1}, *group["nodes"][1:]]}):
        with pytest.raises(Malformed, match="unknown member"):
            Group.read(more)
    degenerate = {**group, "nodes": [{**group["nodes"][0], "key": "00" * 32}, *group["nodes"][1:]]}
    for wrong in (swapped, twice, degenerate, {**group, "threshold": 6}, {**group, "threshold": 0}):
        with pytest.raises(Malformed):
            Group.read(wrong)
    whole = parse_canonical(ceremony.encode(), 1 << 16)
    for change in ({"generation": 1}, {"kind": "reshare"}, {"previous": "sha256:00"}, {"epoch": 0}, {"x": 1}):
        with pytest.raises(Malformed):
            Ceremony.parse(canonical({**whole, **change}))
    for number in (0, 6):
        with pytest.raises(Malformed, match=f"no node {number}"):
            ceremony.group.node(number)
    with pytest.raises(Malformed, match="this key"):
        ceremony.group.number_of(bytes(32))
    assert ceremony.group.number_of(nodes[2].public.key) == 3


def test_a_sealed_share_opens_for_one_node_and_one_use():
    box = Box(Stream("box")(96))
    sealed = seal(box.public, b"secret", b"use")
    assert box.open(sealed, b"use") == b"secret"
    for wrong in ((sealed, b"another"), (sealed[:-1], b"use"), (b"", b"use")):
        with pytest.raises(Rejected, match="sealed"):
            box.open(*wrong)
    with pytest.raises(Rejected):
        Box(Stream("other")(96)).open(sealed, b"use")
    with pytest.raises(Malformed):
        Box(bytes(95))
    for key in (bytes(1215), b"\xff" * 1216):
        with pytest.raises(Malformed):
            seal(key, b"secret", b"use")
