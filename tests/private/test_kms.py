"""A key service of five nodes: who gets a key, who does not and why, and what each node writes down."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

from enclave.keys import OneTimeEvidence, ServiceKeySource, key_service
from enclave.seal import seal, unseal
from private.kms.ledger import read_ledger
from private.kms.releases import PER_MINUTE, Challenges
from private.kms.steps import Shares, Status
from quotary.attestation.document import AttestationDocument
from quotary.canonical import canonical
from quotary.client.key_question import Answered, ask
from quotary.client.policy import Policy
from quotary.errors import CannotTell, QuotaryError, Refused, Rejected
from quotary.statements.envelope import Envelope
from quotary.threshold.oprf import GENERATOR
from quotary.threshold.ristretto import base_multiply, scalar
from quotary.threshold.sharing import sum_shares, weights
from tests.enclave.test_seal import Number
from tests.fakes.authority import SERVICE
from tests.fakes.key_nodes import NEEDED, NODES, Village, answer_of, asked_of, parse_detail
from tests.fakes.log import policy_bytes


def refusals(village: Village, service=None, label: str = "disk", epoch: int = 0) -> str:
    with pytest.raises(Refused) as caught:
        (service or village.service()).key(label, epoch)
    return str(caught.value)


def test_an_enclave_dies_and_another_of_its_release_gets_the_same_key_on_another_machine(village):
    first = village.service(village.machine()).key("disk")
    second = village.service(village.machine()).key("disk")
    assert first == second
    assert len(first) == 32
    assert village.service().key("acme") != first


def test_any_three_nodes_are_enough_and_give_the_same_key(village):
    key = village.service().key("disk")
    for dead in combinations(range(1, NODES + 1), NODES - NEEDED):
        village.down = set(dead)
        found = village.service().release("disk")
        assert found.key == key
        assert all("does not answer" in line for line in found.complaints)
    village.down = {1, 2, 3}
    with pytest.raises(CannotTell, match="2 nodes with the newest shares, 3 are needed"):
        village.service().key("disk")


def test_one_quote_asks_all_nodes_and_no_more_than_needed_are_asked(village):
    machine = village.machine()
    village.seen.clear()
    village.service(machine).key("disk")
    assert machine.setup.device.quotes == 1
    assert [number for number, request in village.seen if request.url.endswith("/releases")] == [1, 2, 3]


def test_an_image_that_is_not_in_the_log_gets_nothing(village):
    said = refusals(village, village.service(village.machine("other")))
    assert said.count("has no measurement") == NODES
    assert all(village.ledger(number) == b"" for number in range(1, NODES + 1))


def test_a_revoked_image_gets_nothing_any_more(village):
    village.service().key("disk")
    world = village.world
    world.log.append(world.log.maker.revocation(world.release))
    world.log.close(world.ts)
    assert refusals(village).count("status: found revoked") == NODES


def test_a_log_that_goes_back_is_noticed_by_each_node_for_itself(village):
    world = village.world
    old = world.bundle()
    world.log.append(world.log.maker.notice())
    world.log.close(world.ts)
    village.service().key("disk")
    village.log.kept = old
    assert refusals(village).count("rollback") >= NEEDED


def test_a_node_that_cannot_ask_the_log_releases_nothing(village):
    village.log.down = True
    with pytest.raises(CannotTell, match="0 answers, 3 are needed"):
        village.service().key("disk")


def test_a_service_that_the_nodes_policy_does_not_name_gets_nothing(village, tmp_path):
    document = village.world.policy()
    owners = document["services"].pop(SERVICE)
    document["services"]["another"] = owners
    policy = Policy.parse(policy_bytes({**document, "kms": village.rules}))

    @dataclass
    class Strict(Village):
        @property
        def policy(self) -> Policy:
            return policy

    strict = Strict.__new__(Strict)
    strict.__dict__.update(village.__dict__)
    asking = village.service()
    strict.start()
    village.apps = strict.apps
    assert refusals(village, asking).count("service: found chat, wanted one of another") == NODES


@dataclass
class Between:
    """Somebody between an enclave and the nodes, who changes documents or questions."""

    inner: OneTimeEvidence
    change: Callable[[AttestationDocument], AttestationDocument]

    def documents(self, nonces):
        shown = (AttestationDocument.parse(data) for data in self.inner.documents(nonces))
        return [self.change(document).encode() for document in shown]

    def open(self, sealed, info):
        return self.inner.open(sealed, info)


def test_evidence_of_a_serving_enclave_cannot_be_borrowed(village):
    # Anybody may have a serving enclave attest to any nonce; its keyset is not made for one question.
    machine, world = village.machine(), village.world

    class Borrowed:
        def documents(self, nonces):
            return [world.document(nonce=nonce).encode() for nonce in nonces]

        def open(self, sealed, info):
            raise AssertionError

    said = refusals(village, village.service(machine, Borrowed()))
    assert said.count("keyset: found a keyset with the capabilities none") == NODES


def test_evidence_with_another_key_than_the_quoted_one_is_refused(village):
    machine = village.machine()
    other = OneTimeEvidence(machine)._keyset().encode()
    between = Between(OneTimeEvidence(machine), lambda document: replace(document, keyset=other))
    assert "keyset" in refusals(village, village.service(machine, between))
    assert all(village.ledger(number) == b"" for number in range(1, NODES + 1))


def test_a_question_counts_once(village):
    asked, _ = asked_of(village)
    assert answer_of(village, asked)[0] == 200
    status, detail = answer_of(village, asked)
    assert status == 403
    assert detail.startswith("challenge: found one that this node did not give, or that was used")
    assert len(village.ledger(1).splitlines()) == 1


def test_a_question_to_one_node_is_none_to_another(village):
    asked, _ = asked_of(village, 1)
    assert "challenge" in answer_of(village, asked, 2)[1]


def test_no_word_of_a_question_can_be_changed_on_the_way(village):
    for change in ({"label": "acme"}, {"blinded": GENERATOR}, {"witness": GENERATOR}):
        asked, _ = asked_of(village)
        changed = replace(asked, question=replace(asked.question, **change))
        status, detail = answer_of(village, changed)
        assert (status, detail.partition(":")[0]) == (422, "nonce")


def test_a_blinded_input_of_another_label_is_refused(village):
    # The enclave itself asks for one label and blinds another: the node would evaluate what it does not see.
    other = ask(SERVICE, "acme", 1, 0, os.urandom).question
    asked, _ = asked_of(village, blinded=other.blinded, witness=other.witness, knowledge=other.knowledge)
    status, detail = answer_of(village, asked)
    assert (status, detail.partition(":")[0]) == (422, "blinded input")
    foreign = ask("example.org/other", "disk", 1, 0, os.urandom).question
    asked, _ = asked_of(
        village, blinded=foreign.blinded, witness=foreign.witness, knowledge=foreign.knowledge
    )
    assert answer_of(village, asked)[1].startswith("blinded input")


@pytest.mark.parametrize(
    ("change", "said"), [({"epoch": 2}, "about epoch 2"), ({"generation": 1}, "generation 1")]
)
def test_a_question_about_other_shares_is_refused(village, change, said):
    asked, _ = asked_of(village, **change)
    status, detail = answer_of(village, asked)
    assert status == 403
    assert said in detail


def test_a_challenge_ends_after_a_minute_and_the_oldest_goes_when_there_are_too_many():
    now = [0.0]
    challenges = Challenges(lambda: now[0])
    late = challenges.give()
    now[0] = 61.0
    with pytest.raises(Refused, match="61 seconds ago"):
        challenges.take(late)
    first = challenges.give()
    for _ in range(4096):
        challenges.give()
    with pytest.raises(Refused, match="did not give"):
        challenges.take(first)


def test_a_service_is_answered_so_often_a_minute(village):
    for _ in range(PER_MINUTE // 20):
        village.service().key("disk")
    node = village.apps[1].extensions["releases"]
    node.limit = PER_MINUTE // 20
    asked, _ = asked_of(village)
    found = village.apps[1].test_client().post("/kms/v1/releases", data=asked.encode())
    assert (found.status_code, found.headers["Retry-After"]) == (429, "60")
    assert "7 questions of chat in a minute" in parse_detail(found.data)


class Liar:
    """A node that answers every question with something of its own."""

    def __init__(self, village: Village, number: int, share: bytes) -> None:
        self.village, self.number, self.share = village, number, share

    def __enter__(self):
        folder = self.village.node(self.number)
        self.held = folder.held(1)
        folder.hold(replace(self.held, share=bytearray(self.share)))

    def __exit__(self, *_):
        self.village.node(self.number).hold(self.held)


def test_a_node_that_computes_with_another_share_is_named_and_others_are_asked(village):
    key = village.service().key("disk")
    with Liar(village, 2, scalar(5)):
        found = village.service().release("disk")
    assert found.key == key
    assert found.complaints == (
        f"http://node2: answer of node 2: found a proof that does not hold, wanted one under the key "
        f"{village.node(2).held(1) and base_multiply(village.node(2).held(1).share).hex()}",
    )


def test_a_node_in_another_nodes_place_is_named(village):
    key = village.service().key("disk")
    village.apps[2] = village.apps[1]
    found = village.service().release("disk")
    assert found.key == key
    assert len(village.ledger(2).splitlines()) == 1


def test_an_answer_to_another_question_does_not_open(village):
    asked, one_time = asked_of(village)
    found = village.apps[1].test_client().post("/kms/v1/releases", data=asked.encode())
    answered = Answered.parse(found.data)
    with pytest.raises(Rejected, match="sealed"):
        one_time.open(answered.sealed, b"another use")
    with pytest.raises(Rejected, match="sealed"):
        OneTimeEvidence(village.machine()).open(answered.sealed, b"")


def test_new_shares_give_the_same_key_and_old_ones_are_gone(village):
    key = village.service().key("disk")
    before = village.node(1).held(1)
    old = [village.node(number).held(1).share for number in range(1, NODES + 1)]
    entry, proof = before.entry, before.proof
    village.refresh((entry, proof))
    assert village.service().key("disk") == key
    on_disk = everything(village)
    for share in old:
        assert bytes(share).hex() not in on_disk.decode("latin-1")
    assert village.epoch(village.node(1).held(1).entry, village.node(1).held(1).proof).generation == 1


def test_shares_of_two_generations_do_not_mix(village):
    key = village.service().key("disk")
    first = [village.node(number).held(1) for number in range(1, NODES + 1)]
    village.refresh((first[0].entry, first[0].proof))
    for number in (4, 5):
        village.node(number).hold(first[number - 1])
    # Three nodes of the new generation are enough; the enclave asks those alone.
    village.seen.clear()
    assert village.service().key("disk") == key
    assert {n for n, request in village.seen if request.url.endswith("/releases")} == {1, 2, 3}
    village.node(3).hold(first[2])
    # Now the old ones are: three nodes of one generation, whichever it is.
    village.seen.clear()
    assert village.service().key("disk") == key
    assert {n for n, request in village.seen if request.url.endswith("/releases")} == {3, 4, 5}
    village.down = {4, 5}
    with pytest.raises(CannotTell, match="2 nodes with the newest shares, 3 are needed"):
        village.service().key("disk")
    mixed = {1: village.node(1).held(1).share, 2: village.node(2).held(1).share, 3: first[2].share}
    secret = sum_shares({n: h.share for n, h in enumerate(first[:3], 1)}, weights([1, 2, 3]))
    assert sum_shares(mixed, weights(mixed)) != secret


def test_a_new_epoch_has_new_keys_and_the_old_ones_remain_until_they_are_destroyed(village):
    key = village.service().key("disk")
    village.hold(village.proposal(epoch=2))
    assert village.service().key("disk") != key
    assert village.service().key("disk", 1) == key
    for number in range(1, NODES + 1):
        village.node(number).destroy(1)
    assert refusals(village, epoch=1).count("epoch 1, wanted an epoch that this node has") == NODES
    with pytest.raises(Refused, match="no share of epoch 1"):
        village.node(1).destroy(1)


def everything(village: Village) -> bytes:
    """What all nodes have on disk."""
    return b"".join(path.read_bytes() for path in village.folder.rglob("*") if path.is_file())


def test_two_nodes_files_give_no_key_and_three_give_it(village):
    public = village.epoch(village.node(1).held(1).entry, village.node(1).held(1).proof).public_key
    shares = {number: village.node(number).held(1).share for number in range(1, NODES + 1)}
    for chosen in combinations(shares, NEEDED):
        assert base_multiply(sum_shares({n: shares[n] for n in chosen}, weights(chosen))) == public
    for chosen in combinations(shares, NEEDED - 1):
        assert base_multiply(sum_shares({n: shares[n] for n in chosen}, weights(chosen))) != public
    # And nothing else in two nodes' folders is the key, or a key that an enclave got.
    secret = bytes(sum_shares({n: shares[n] for n in (1, 2, 3)}, weights((1, 2, 3))))
    key = village.service().key("disk")
    on_disk = everything(village)
    for needle in (secret, secret.hex().encode(), key, key.hex().encode()):
        assert needle not in on_disk


def test_what_travels_and_what_is_logged_holds_no_share_and_no_key(village, caplog):
    village.seen.clear()
    key = village.service().key("disk")
    shares = [village.node(number).held(1).share for number in range(1, NODES + 1)]
    sent = b"".join(request.body or b"" for _, request in village.seen)
    kept = b"".join(village.ledger(number) for number in range(1, NODES + 1))
    entries = b"".join(village.world.log.entries)
    for secret in (key, *map(bytes, shares)):
        for text in (sent, kept, entries, caplog.text.encode()):
            assert secret not in text
            assert secret.hex().encode() not in text


def test_files_with_secrets_are_the_operators_alone(village):
    for path in village.node(1).path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    (village.node(1).path / "node.json").chmod(0o640)
    with pytest.raises(Refused, match="mode 0640"):
        village.node(1).keys()


def test_sealed_state_moves_to_another_machine(village):
    counter = Number()
    sealed = seal(ServiceKeySource(village.service(village.machine())), "state", b"account key", counter)
    source = ServiceKeySource(village.service(village.machine()))
    assert unseal(source, "state", sealed, counter) == b"account key"
    village.hold(village.proposal(epoch=2))
    with pytest.raises(Rejected, match="sealed data"):
        unseal(ServiceKeySource(village.service()), "state", sealed, counter)
    assert unseal(ServiceKeySource(village.service(), 1), "state", sealed, counter) == b"account key"


def test_an_enclave_whose_policy_names_no_key_service_asks_none(village):
    machine = village.machine()
    policy = Policy.parse(policy_bytes(village.world.policy()))
    machine.setup = replace(machine.setup, policy=policy)
    with pytest.raises(Refused, match="key service: found a policy without one"):
        key_service(machine, village.urls, village).key("disk")


def test_shares_that_fewer_nodes_signed_than_the_policy_demands_do_not_count(village):
    held = village.node(1).held(1)
    envelope = Envelope.parse(held.entry)
    thin = Envelope(envelope.payload, envelope.signatures[: NEEDED - 1]).encode()
    with pytest.raises(Rejected, match="key epoch: found 2 signatures"):
        village.epoch(thin, village.publish(thin))
    with pytest.raises(QuotaryError):
        village.epoch(held.entry, b"no proof")
    other = village.world.log.maker.notice()
    with pytest.raises(Rejected, match="key epoch: found a artefact"):
        village.epoch(other, village.publish(other))


def test_status_says_what_a_node_has_and_nothing_secret(village):
    village.service().key("disk")
    found = Status.parse(village.apps[1].test_client().get("/kms/v1/status").data)
    assert (found.shares, found.released) == ((Shares(1, 0),), 1)
    assert found.ledger == read_ledger(village.node(1).path / "ledger.jsonl").digest


def test_errors_are_problem_documents_with_pages(village):
    client = village.apps[1].test_client()
    for path, data, status in [
        ("/kms/v1/releases", b"{}", 400),
        ("/kms/v1/challenges", b"x" * 300, 413),
        ("/kms/v1/challenges", canonical({"v": 1, "epoch": 9}), 403),
        ("/kms/v1/ceremonies/dance", b"{}", 404),
    ]:
        found = client.post(path, data=data)
        assert (found.status_code, found.content_type) == (status, "application/problem+json")
        page = client.get(json.loads(found.data)["type"])
        assert page.status_code == 200
    assert client.get("/kms/v1/releases").status_code == 405
    assert client.get("/healthz").data == b"ok\n"
