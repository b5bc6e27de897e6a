"""Bar A48: traps in delegations, and identities that are no keys, are refused at submit and by a verifier alone.

Each trap would make ``mallory`` a builder of the service. A verifier alone is an auditor, who runs F1 over what
a log took in, and a client, to whom a lying log shows the trap as part of the chain.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary.canonical import b64, canonical, time_text
from quotary.client.authority import check_authority
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.standing import check_checkpoint, check_release
from quotary.client.verdict import Trail
from quotary.errors import InvalidSignature, Malformed, Rejected
from quotary.statements.bundle import Bundle
from quotary.statements.envelope import Envelope, sign
from quotary.statements.f1 import F1
from tests.fakes.authority import DAY, NOW, ORIGIN, TS, Authority, key, keyid, keys, public, role
from tests.fakes.inprocess import Local, local
from tests.fakes.log import FakeLog, policy_bytes, policy_document

MALLORY = "mallory"


@dataclass(slots=True)
class Scene:
    """What stands in the log before the trap, and what the trap adds."""

    by: Authority = field(default_factory=Authority)
    before: list[bytes] = field(default_factory=list)
    chain: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chain = [self.by.allocation(), self.by.delegation()]
        self.before = [self.by.genesis(), *self.chain]

    def naming(self, signers: list[str], **changes: object) -> bytes:
        """The next delegation, with mallory as a builder."""
        return self.by.delegation(signers=signers, builders=("builder1", MALLORY), **changes)  # type: ignore[arg-type]


Trap = Callable[[Scene], list[bytes]]
"""The entries of a trap; the last one is what must be refused."""


def rewritten(entry: bytes, change: Callable[[dict[str, object]], object], signers: list[str]) -> bytes:
    """A statement that our own code would not make, signed all the same."""
    payload = json.loads(Envelope.parse(entry).payload)
    change(payload["predicate"])
    return sign(canonical(payload), [key(name) for name in signers])


def cycle_to_what_comes_later(scene: Scene) -> list[bytes]:
    return [scene.naming(["owner1", "owner2"], previous="sha256:" + "ff" * 32)]


def cycle_back_to_an_earlier_delegation(scene: Scene) -> list[bytes]:
    first = scene.naming(["owner1", "owner2"])
    return [first, scene.by.delegation(), first]


def widened_by_a_builder(scene: Scene) -> list[bytes]:
    return [scene.naming(["builder1"])]


def widened_by_an_owner_below_the_threshold(scene: Scene) -> list[bytes]:
    return [scene.naming(["owner1"])]


def widened_by_halves_in_two_entries(scene: Scene) -> list[bytes]:
    made = scene.naming(["owner1"])
    return [made, sign(Envelope.parse(made).payload, [key("owner2")])]


def widened_by_the_logs_roots(scene: Scene) -> list[bytes]:
    return [scene.naming(["root1", "root2", "root3"])]


def widened_by_the_security_role(scene: Scene) -> list[bytes]:
    return [scene.naming(["security1"])]


def widened_by_another_services_owners(scene: Scene) -> list[bytes]:
    other = scene.by.allocation(
        "other", keys=keys("owner8", "owner9"), roles={"owner": role(["owner8", "owner9"], 2)}
    )
    return [other, scene.naming(["owner8", "owner9"])]


def widened_to_a_role_of_the_log(scene: Scene) -> list[bytes]:
    made = scene.naming(["owner1", "owner2"])
    return [
        rewritten(
            made,
            lambda p: p["roles"].update(security=role([MALLORY], 1)),
            ["owner1", "owner2"],  # type: ignore[attr-defined]
        )
    ]


def widened_in_the_allocation(scene: Scene) -> list[bytes]:
    made = scene.by.allocation("fresh")
    builder = {"builder": role(["owner1"], 1)}
    return [rewritten(made, lambda p: p["roles"].update(builder), ["root1", "root2"])]  # type: ignore[attr-defined]


def expired_when_it_is_made(scene: Scene) -> list[bytes]:
    return [scene.naming(["owner1", "owner2"], expires=time_text(NOW - DAY))]


def made_by_owners_whose_delegation_has_expired(scene: Scene) -> list[bytes]:
    short = scene.by.delegation(expires=time_text(NOW + timedelta(seconds=1)))
    scene.by.now = NOW + DAY
    return [short, scene.naming(["owner1", "owner2"])]


def handed_down_five_times(scene: Scene) -> list[bytes]:
    made, holder = [], "builder1"
    for depth in range(5):
        below = MALLORY if depth == 4 else f"below{depth}"
        made.append(scene.by.delegation(signers=[holder], builders=(holder, below)))
        holder = below
    return made


def one_holder_listed_twice(scene: Scene) -> list[bytes]:
    def twice(predicate: dict[str, object]) -> None:
        roles = predicate["roles"]
        assert isinstance(roles, dict)
        roles["owner"] = {"keys": [keyid("owner1")] * 2, "threshold": 2}

    return [rewritten(scene.naming(["owner1", "owner2"]), twice, ["owner1", "owner2"])]


def one_holder_signing_twice(scene: Scene) -> list[bytes]:
    made = Envelope.parse(scene.naming(["owner1"]))
    return [Envelope(made.payload, made.signatures * 2).encode()]


DELEGATIONS: list[Trap] = [
    cycle_to_what_comes_later, cycle_back_to_an_earlier_delegation, widened_by_a_builder,
    widened_by_an_owner_below_the_threshold, widened_by_halves_in_two_entries, widened_by_the_logs_roots,
    widened_by_the_security_role, widened_by_another_services_owners, widened_to_a_role_of_the_log,
    widened_in_the_allocation, expired_when_it_is_made, made_by_owners_whose_delegation_has_expired,
    handed_down_five_times, one_holder_listed_twice, one_holder_signing_twice,
]  # fmt: skip

# Keyless signing: somebody else says who a key belongs to. Renamed repositories, forks, workflows, audiences and
# rotated token keys are traps only where such a word counts; here no form of it does.


def an_identity_as_a_key(scene: Scene) -> list[bytes]:
    def named(predicate: dict[str, object]) -> None:
        predicate["keys"]["repo:example/chat:ref:refs/heads/main"] = public(MALLORY)  # type: ignore[index]

    return [rewritten(scene.naming(["owner1", "owner2"]), named, ["owner1", "owner2"])]


def an_identity_as_the_holder_of_a_role(scene: Scene) -> list[bytes]:
    def held(predicate: dict[str, object]) -> None:
        predicate["roles"]["builder"]["keys"] = ["https://ci.example.org/chat/.workflow@refs/heads/main"]  # type: ignore[index]

    return [rewritten(scene.naming(["owner1", "owner2"]), held, ["owner1", "owner2"])]


def an_issuer_beside_the_key(scene: Scene) -> list[bytes]:
    def issued(predicate: dict[str, object]) -> None:
        predicate["issuer"] = "https://token.example.org"

    return [rewritten(scene.naming(["owner1", "owner2"]), issued, ["owner1", "owner2"])]


def a_certificates_key_of_another_algorithm(scene: Scene) -> list[bytes]:
    point = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    der = point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def other(predicate: dict[str, object]) -> None:
        predicate["keys"][keyid(MALLORY)] = b64(der)  # type: ignore[index]

    return [rewritten(scene.naming(["owner1", "owner2"]), other, ["owner1", "owner2"])]


def a_release_by_a_short_lived_key(scene: Scene) -> list[bytes]:
    return [scene.by.release("a", signers=[MALLORY])]


def _envelope(scene: Scene, change: Callable[[dict[str, object]], object]) -> list[bytes]:
    document = json.loads(scene.by.release("a"))
    change(document)
    return [canonical(document)]


def a_certificate_beside_the_signature(scene: Scene) -> list[bytes]:
    return _envelope(scene, lambda d: d["signatures"][0].update(cert="MIIB"))  # type: ignore[index]


def an_identity_as_the_keys_id(scene: Scene) -> list[bytes]:
    return _envelope(scene, lambda d: d["signatures"][0].update(keyid="builder@example.org"))  # type: ignore[index]


def a_bundle_of_another_transparency_log(scene: Scene) -> list[bytes]:
    return _envelope(scene, lambda d: d.update(verificationMaterial={"tlogEntries": []}))


KEYLESS: list[Trap] = [
    an_identity_as_a_key, an_identity_as_the_holder_of_a_role, an_issuer_beside_the_key,
    a_certificates_key_of_another_algorithm, a_release_by_a_short_lived_key, a_certificate_beside_the_signature,
    an_identity_as_the_keys_id, a_bundle_of_another_transparency_log,
]  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


def test_there_are_eight_keyless_traps() -> None:
    assert len(KEYLESS) == 8


@pytest.mark.parametrize("trap", [*DELEGATIONS, *KEYLESS], ids=lambda trap: trap.__name__)
def test_a48_a_trap_is_refused_at_submit(log: Local, trap: Trap) -> None:
    scene = Scene()
    log.append(*scene.chain)
    made = trap(scene)
    log.append(*made[:-1])
    log.clock.at = scene.by.now
    answer = log.client().post("/api/v1/entries", data=made[-1])
    if trap is cycle_back_to_an_earlier_delegation:
        # The same bytes again get the same place, and no second effect.
        assert answer.status_code == 200
    else:
        assert answer.status_code in (400, 403), answer.get_data()
    log.loop.round()
    assert log.store.read.waiting_count() == 0
    late = log.client().post("/api/v1/entries", data=scene.by.release("a", signers=[MALLORY]))
    assert late.status_code == 403


@pytest.mark.parametrize("trap", [*DELEGATIONS, *KEYLESS], ids=lambda trap: trap.__name__)
def test_a48_an_auditor_alone_finds_a_trap_without_effect(trap: Trap) -> None:
    scene, f1 = Scene(), F1(ORIGIN)
    f1.close(list(enumerate(scene.before)), TS)
    made, ts = trap(scene), int(scene.by.now.timestamp())
    f1.close(list(enumerate(made[:-1], 3)), TS)
    end = 3 + len(made)
    assert not f1.close([(end - 1, made[-1])], ts).outcomes[0].effect
    (release,) = f1.close([(end, scene.by.release("a", signers=[MALLORY]))], ts).outcomes
    assert not release.effect


def judge_alone(scene: Scene, made: list[bytes]) -> str:
    """What a client makes of a lying log that shows these entries as the rest of the chain."""
    log, release = FakeLog(), scene.by.release("a", signers=[MALLORY])
    log.append(*scene.before)
    log.entries += [*made, release]
    log.close(TS)
    ours = [index for index in range(1, 3 + len(made)) if _is_ours(log.entries[index])]
    authority = tuple(log.included(index) for index in (0, *ours))
    last = len(log.entries) - 1
    bundle = Bundle(log.note(), log.included(last), log.included(last - 1), authority, ())
    policy, trail = Policy.parse(policy_bytes(policy_document(genesis=log.genesis))), Trail()
    found = check_checkpoint(bundle.checkpoint, policy, FixedClock(NOW), trail)
    released = check_release(bundle, found, policy, trail)
    return check_authority(bundle, released, found, policy, trail)


@pytest.mark.parametrize("trap", DELEGATIONS, ids=lambda trap: trap.__name__)
def test_a48_a_client_alone_refuses_a_chain_with_a_trap_in_it(trap: Trap) -> None:
    scene = Scene()
    with pytest.raises((Rejected, Malformed, InvalidSignature)):
        judge_alone(scene, trap(scene))


def test_what_the_owners_really_delegate_is_taken_by_all_three(log: Local) -> None:
    scene, f1 = Scene(), F1(ORIGIN)
    log.append(*scene.chain)
    made = scene.naming(["owner1", "owner2"])
    assert log.client().post("/api/v1/entries", data=made).status_code == 202
    f1.close(list(enumerate([*scene.before, made])), TS)
    assert judge_alone(scene, [made]) == Envelope.parse(made).statement_id
    release = scene.by.release("a", signers=[MALLORY])
    assert f1.would(release, TS).effect
    assert log.client().post("/api/v1/entries", data=release).status_code == 202


def _is_ours(entry: bytes) -> bool:
    """Whether a lying log would show the entry as a delegation of the service."""
    try:
        predicate = json.loads(Envelope.parse(entry).payload)["predicate"]
    except Malformed:
        return True
    return bool(predicate["service"] in ("chat", "fresh"))
