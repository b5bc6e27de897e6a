"""Ceremonies over real nodes: killed at every step and gone on with, and refused where something is not in order."""

import os
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from private.kms.ceremonies import Round
from private.kms.conduct import find_nodes
from private.kms.folder import NodeFolder
from private.kms.steps import Status, Step, said
from quotary.canonical import b64, canonical
from quotary.errors import CannotTell, Malformed, NotAuthorised, QuotaryError, Refused
from quotary.net.transport import Reply, Request
from quotary.statements.envelope import Envelope
from quotary.threshold.messages import Deal, open_message, sign_message
from tests.fakes.ceremony import with_share
from tests.fakes.key_nodes import NEEDED, NODES, Village


@pytest.fixture
def village(strangers: Village) -> Village:
    return strangers


class Dying:
    """Kills a node once, at a step: before it did anything, or after it did all; then it is started again."""

    def __init__(self, village: Village, number: int, step: str, *, after: bool) -> None:
        self.village, self.number, self.step, self.after, self.dead = village, number, step, after, False

    def send(self, request: Request) -> Reply:
        mine = request.url == f"http://node{self.number}/kms/v1/ceremonies/{self.step}" and not self.dead
        if mine and not self.after:
            self._die()
        reply = self.village.send(request)
        if mine:
            self._die()
        return reply

    def _die(self) -> None:
        self.dead = True
        self.village.start(self.number)
        raise CannotTell(f"node {self.number} died")


def go_on(village: Village, ceremony, dying: Dying, before=None) -> tuple[bytes, bytes]:
    """Conduct, meet the death, conduct again."""
    logged = village.epoch(*before).before if before else None
    entry = proof = b""
    for _ in range(2):
        conductor = replace(village.conductor(ceremony), transport=dying)
        try:
            entry = entry or conductor.hold(before, logged)
            proof = proof or village.publish(entry)
            conductor.activate(entry, proof)
        except CannotTell:
            assert dying.dead
        else:
            break
    return entry, proof


STEPS = [(step, after) for step in ("deal", "check", "finish", "activate") for after in (False, True)]


@pytest.mark.parametrize(("step", "after"), STEPS)
def test_a_node_killed_in_the_key_generation_goes_on_where_it_was(village, step, after):
    dying = Dying(village, 4, step, after=after)
    entry, proof = go_on(village, village.approve(village.proposal()), dying)
    assert dying.dead
    village.down = {1, 2}
    assert village.service().key("disk")
    assert village.epoch(entry, proof).epoch == 1
    assert not (village.node(4).path / "ceremony.json").exists()


@pytest.mark.parametrize(("step", "after"), STEPS)
def test_a_node_killed_in_a_refresh_keeps_the_key(village, step, after):
    first = village.hold(village.proposal())
    key = village.service().key("disk")
    found = village.epoch(*first)
    ceremony = village.approve(village.proposal(1, 1, found.statement_id))
    second = go_on(village, ceremony, Dying(village, 4, step, after=after), first)
    assert village.epoch(*second).public_key == found.public_key
    village.down = {1, 2}
    assert village.service().key("disk") == key


def test_keys_are_released_at_every_step_of_a_refresh(village):
    first = village.hold(village.proposal())
    key = village.service().key("disk")
    before = village.epoch(*first)
    conductor = village.conductor(village.approve(village.proposal(1, 1, before.statement_id)))
    entry = conductor.hold(first, before.before)
    assert village.service().key("disk") == key
    proof = village.publish(entry)
    for number in range(1, NODES + 1):
        replace(conductor, urls={number: village.urls[number - 1]}).activate(entry, proof)
        assert village.service().key("disk") == key, f"{number} nodes have new shares"


def test_a_node_that_is_down_is_named_and_the_others_wait_for_it(village):
    ceremony = village.approve(village.proposal())
    conductor = village.conductor(ceremony)
    entry = conductor.hold(None, None)
    proof = village.publish(entry)
    village.down = {2}
    with pytest.raises(CannotTell, match="nodes 2 have not taken their new shares into use"):
        conductor.activate(entry, proof)
    village.down = set()
    conductor.activate(entry, proof)
    village.down = {3}
    with pytest.raises(CannotTell):
        village.conductor(ceremony)


def test_no_node_takes_part_in_what_its_operator_did_not_approve(village):
    with pytest.raises(NotAuthorised, match="none that this node's operator approved"):
        village.conductor(village.proposal()).hold(None, None)
    village.approve(village.proposal())
    with pytest.raises(NotAuthorised, match="which its operator approved"):
        village.conductor(village.proposal()).hold(None, None)


def test_a_share_that_other_nodes_may_use_already_is_not_given_up_by_mistake(village):
    first = village.approve(village.proposal())
    conductor = village.conductor(first)
    entry = conductor.hold(None, None)
    with pytest.raises(Refused, match="a share of the ceremony"):
        village.node(1).approve(village.proposal(2))
    village.node(1).approve(first)
    conductor.activate(entry, village.publish(entry))
    village.node(1).approve(village.proposal(2))
    village.approve(first)
    second = village.approve(village.proposal(2))
    village.conductor(second).hold(None, None)
    village.node(1).approve(village.proposal(3), discard=True)


def test_a_second_key_for_an_epoch_is_refused(village):
    village.hold(village.proposal())
    with pytest.raises(NotAuthorised, match="a new key for epoch 1"):
        village.hold(village.proposal())


def test_shares_are_dealt_anew_only_from_the_ones_that_are_held(village):
    first = village.hold(village.proposal())
    found = village.epoch(*first)
    for ceremony, why in [
        (village.proposal(1, 2, found.statement_id), "shares of epoch 1, generation 0"),
        (village.proposal(1, 1, "sha256:" + "0" * 64), "sha256:0000"),
        (village.proposal(2, 1, found.statement_id), "shares of epoch 1, generation 0"),
    ]:
        with pytest.raises(QuotaryError, match=why):
            village.conductor(village.approve(ceremony)).hold(first, found.before)
    ceremony = village.approve(village.proposal(1, 1, found.statement_id))
    with pytest.raises(NotAuthorised, match="no entry of the shares before these"):
        village.conductor(ceremony).hold(None, found.before)


def test_shares_are_used_only_once_the_log_has_them_signed_by_every_node(village):
    conductor = village.conductor(village.approve(village.proposal()))
    entry = conductor.hold(None, None)
    with pytest.raises(CannotTell):
        conductor.activate(entry, village.world.log.proof(1, ts=village.world.ts))
    envelope = Envelope.parse(entry)
    thin = Envelope(envelope.payload, envelope.signatures[:NEEDED]).encode()
    with pytest.raises(CannotTell):
        conductor.activate(thin, village.publish(thin))
    assert any("2 nodes' signatures missing" in line for line in village.said)
    assert village.node(1).epochs() == []
    with pytest.raises(Refused, match="no share"):
        village.service().key("disk")


def test_a_node_signs_one_outcome_of_a_ceremony_and_checks_one_set_of_dealings(village):
    ceremony = village.approve(village.proposal())
    conductor = village.conductor(ceremony)
    shown = Round(None)
    deals = [conductor._message("deal", number, shown).data for number in conductor.urls]
    conductor._message("check", 1, replace(shown, deals=deals))
    with pytest.raises(NotAuthorised, match="other dealings"):
        conductor._message("check", 1, replace(shown, deals=deals[:4]))
    checks = [conductor._message("check", n, replace(shown, deals=deals)).data for n in conductor.urls]
    with pytest.raises(NotAuthorised, match="checks without this node's own"):
        conductor._said("finish", 1, replace(shown, deals=deals, checks=checks[1:]))


class Lying:
    """Node 4 lies: it gives node 2 a wrong share, and shows it another or none when node 2 complains."""

    def __init__(self, village: Village, ceremony, *, answers: bool) -> None:
        self.village, self.ceremony, self.answers = village, ceremony, answers
        self.key: Ed25519PrivateKey = village.node(4).keys().signing

    def send(self, request: Request) -> Reply:
        if request.url.endswith("node4/kms/v1/ceremonies/answer") and not self.answers:
            return Reply(403, {}, b'{"title":"no"}')
        reply = self.village.send(request)
        if request.url.endswith("node4/kms/v1/ceremonies/deal"):
            honest = open_message(self.ceremony, said(reply.body)).body
            assert isinstance(honest, Deal)
            lie = sign_message(self.ceremony, 4, with_share(honest, 2, honest.shares[3]), self.key)
            return Reply(200, {}, canonical({"v": 1, "said": b64(lie.data)}))
        return reply


def test_a_node_that_lies_in_the_key_generation_is_named_in_the_log_and_stops_nothing(village):
    ceremony = village.approve(village.proposal())
    conductor = replace(village.conductor(ceremony), transport=Lying(village, ceremony, answers=False))
    entry = conductor.hold(None, None)
    assert "node 4 gave node 2 a wrong share" in village.said
    proof = village.publish(entry)
    conductor.activate(entry, proof)
    assert b"node 4 gave node 2 a wrong share" in Envelope.parse(entry).payload
    village.down = {1, 3}
    assert village.service().key("disk")


def test_a_share_that_is_shown_to_all_instead_is_used(village):
    ceremony = village.approve(village.proposal())
    conductor = replace(village.conductor(ceremony), transport=Lying(village, ceremony, answers=True))
    entry = conductor.hold(None, None)
    assert "node 2 complained about node 4 without reason" in village.said
    conductor.activate(entry, village.publish(entry))
    village.down = {1, 3}
    assert village.service().key("disk")


def test_a_node_that_was_replaced_gets_a_share_of_the_old_key(village):
    first = village.hold(village.proposal())
    key, found = village.service().key("disk"), village.epoch(*first)
    # Node 4's machine is gone. Another operator's takes its number, with keys of its own and no share.
    new = NodeFolder(village.folder / "new")
    card = new.create(os.urandom).card(4)
    village.node(4).path.rename(village.folder / "gone")
    new.path.rename(village.node(4).path)
    nodes = tuple(card if node.number == 4 else node for node in village.group.nodes)
    village.group = replace(village.group, nodes=nodes)
    village.pin(village.group)
    village.start()
    ceremony = village.proposal(1, 1, found.statement_id)
    with pytest.raises(NotAuthorised, match=r"no share, wanted one of generation 0"):
        village.hold(ceremony, first)
    village.refresh(first, without=[4])
    village.down = {1, 2}
    assert village.service().key("disk") == key


def test_every_node_of_the_group_must_have_an_address(village):
    ceremony = village.proposal()
    with pytest.raises(Refused, match="no address of nodes 3"):
        find_nodes(ceremony, [url for url in village.urls if url != "http://node3"], village)
    stranger = replace(ceremony, group=replace(ceremony.group, nodes=ceremony.group.nodes[:4], threshold=3))
    with pytest.raises(Malformed, match="no node with this key"):
        find_nodes(stranger, village.urls, village)


def test_what_travels_reads_back_and_nothing_else_is_read(village):
    step = Step(bytes(32), Round((b"e", b"p"), (b"d",), (b"c",), (b"a",)), (b"x", b"y"))
    assert Step.parse(step.encode()) == step
    for wrong in (b"{}", canonical({"v": 1}), step.encode().replace(b'"deals":["', b'"deals":[1,"')):
        with pytest.raises(Malformed):
            Step.parse(wrong)
    with pytest.raises(Malformed, match="logged is missing"):
        Step(bytes(32), Round(None)).take("activate", None)  # type: ignore[arg-type]
    status = Status(bytes(32), (), 0, bytes(32))
    assert Status.parse(status.encode()) == status


def test_a_folder_is_made_once_and_needs_to_be(village, tmp_path):
    with pytest.raises(QuotaryError, match="exists"):
        village.node(1).create(lambda length: bytes([1]) * length)
    with pytest.raises(CannotTell, match=r"node.json"):
        NodeFolder(tmp_path / "nowhere").keys()
    assert village.node(1).held(1) is None
