"""Changes that each spoil one thing about a release: that it is logged, who signed it, and what became of it.

``CASES`` names for each check of the verification order the changes that it alone refuses, and how.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from quotary.canonical import time_text
from quotary.errors import Judged, Refused, Rejected
from quotary.statements.bundle import Bundle, Included
from quotary.statements.envelope import Envelope
from tests.fakes import authority
from tests.fakes.attempt import Attempt
from tests.fakes.authority import SERVICE
from tests.fakes.machine import SEED

Change = Callable[[Attempt], object]


# 7. release inclusion


def shown(attempt: Attempt) -> Included:
    assert isinstance(attempt.bundle, Bundle)
    assert attempt.bundle.release is not None
    return attempt.bundle.release


def break_the_releases_path(attempt: Attempt) -> None:
    release = shown(attempt)
    attempt.change_bundle(release=replace(release, path=(bytes(32), *release.path[1:])))


def show_a_release_that_is_not_logged(attempt: Attempt) -> None:
    other = attempt.world.log.maker.release(rows=[authority.row(SEED)])
    attempt.change_bundle(release=replace(shown(attempt), entry=other))


def show_something_else_as_release(attempt: Attempt) -> None:
    attempt.change_bundle(release=attempt.world.log.included(3))


def show_a_service_that_the_policy_does_not_name(attempt: Attempt) -> None:
    attempt.policy["services"] = {"search": attempt.policy["services"]["chat"]}


def show_a_release_for_another_log(attempt: Attempt) -> None:
    maker = authority.Authority("other.example.org/simulation")
    logged(attempt, maker.release(rows=[authority.row(SEED)]), start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


# 8. release authority


def pin(attempt: Attempt, *names: str, threshold: int = 1) -> None:
    attempt.policy["services"]["chat"]["owner"] = {"keys": authority.keys(*names), "threshold": threshold}


def pin_other_owners(attempt: Attempt) -> None:
    pin(attempt, "stranger1")


def pin_another_threshold(attempt: Attempt) -> None:
    pin(attempt, "owner1", "owner2", "owner3", threshold=3)


def begin_at_another_genesis(attempt: Attempt) -> None:
    attempt.policy["genesis"] = "ab" * 32


def chain(attempt: Attempt, *indices: int) -> None:
    attempt.change_bundle(authority=tuple(map(attempt.world.log.included, indices)))


def break_the_genesis_path(attempt: Attempt) -> None:
    # A log that does not begin with the genesis can still show it.
    assert isinstance(attempt.bundle, Bundle)
    first, *rest = attempt.bundle.authority
    attempt.change_bundle(authority=(replace(first, path=(bytes(32), *first.path[1:])), *rest))


def leave_out_the_delegation(attempt: Attempt) -> None:
    chain(attempt, 0, 1)


def leave_out_the_allocation(attempt: Attempt) -> None:
    chain(attempt, 0, 2)


def turn_the_chain_around(attempt: Attempt) -> None:
    chain(attempt, 0, 2, 1)


def begin_somewhere_else(attempt: Attempt) -> None:
    log = attempt.world.log
    log.entries[3] = log.entries[0]
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)
    chain(attempt, 3, 1, 2)


def leave_out_a_compromise(attempt: Attempt) -> None:
    # The delegation behind it is signed by the same owners; only its number shows that one is missing.
    maker = attempt.world.log.maker
    lost = [{"key": authority.keyid("builder1"), "from_index": 4}]
    attempt.world.log.append(maker.delegation(builders=("builder2",), compromised=lost))
    attempt.world.log.append(maker.delegation(builders=("builder2",)))
    attempt.renew()
    *rest, _, last = attempt.bundle.authority  # type: ignore[union-attr]  # a bundle of a release
    attempt.change_bundle(authority=(*rest, last))


def leave_out_the_genesis(attempt: Attempt) -> None:
    chain(attempt, 1, 2)


def slip_in_something_else(attempt: Attempt) -> None:
    chain(attempt, 0, 1, 2, 3)


def slip_in_the_release(attempt: Attempt) -> None:
    chain(attempt, 0, 1, 2, 4)


def break_a_delegations_path(attempt: Attempt) -> None:
    assert isinstance(attempt.bundle, Bundle)
    *rest, last = attempt.bundle.authority
    attempt.change_bundle(authority=(*rest, replace(last, path=(bytes(32), *last.path[1:]))))


def logged(attempt: Attempt, *entries: bytes, start: int) -> None:
    """Put entries into the log without asking F1, as a dishonest log would."""
    log = attempt.world.log
    log.entries[start : start + len(entries)] = list(entries)
    attempt.bundle = log.bundle(attempt.world.measurement, ts=attempt.world.ts)


def appoint_builders_without_the_owners(attempt: Attempt) -> None:
    maker = authority.Authority(attempt.world.log.origin)
    maker.genesis()
    allocation = maker.allocation()
    logged(attempt, allocation, maker.delegation(signers=["owner1"]), start=1)


def appoint_builders_elsewhere(attempt: Attempt, origin: str, service: str) -> None:
    """Put a whole chain of the same owners into the log, and a release by the builder whom it names."""
    elsewhere = authority.Authority(origin)
    allocation = elsewhere.allocation(service)
    logged(attempt, allocation, elsewhere.delegation(service, builders=("builder2",)), start=1)
    maker = authority.Authority(attempt.world.log.origin)
    logged(attempt, maker.release(rows=[authority.row(SEED)], signers=["builder2"]), start=4)
    chain(attempt, 0, 1, 2)
    attempt.change_bundle(release=attempt.world.log.included(4))


def appoint_builders_in_another_log(attempt: Attempt) -> None:
    appoint_builders_elsewhere(attempt, "other.example.org/simulation", SERVICE)


def appoint_builders_of_another_service(attempt: Attempt) -> None:
    appoint_builders_elsewhere(attempt, attempt.world.log.origin, "search")


def log_the_chain_backwards(attempt: Attempt) -> None:
    log = attempt.world.log
    logged(attempt, log.entries[2], log.entries[1], start=1)
    chain(attempt, 0, 2, 1)


def sign_as_somebody_else(attempt: Attempt) -> None:
    maker = authority.Authority(attempt.world.log.origin)
    release = maker.release(rows=[authority.row(SEED)], signers=["owner1"])
    logged(attempt, release, start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


def sign_badly(attempt: Attempt) -> None:
    entry = attempt.world.release
    envelope = Envelope.parse(entry)
    bad = replace(envelope.signatures[0], sig=envelope.signatures[0].sig[:-1] + b"\x00")
    logged(attempt, replace(envelope, signatures=(bad,)).encode(), start=4)
    attempt.change_bundle(release=attempt.world.log.included(4))


def lose_the_builders_key(attempt: Attempt) -> None:
    world = attempt.world
    lost = [{"key": authority.keyid("builder1"), "from_index": 4}]
    world.log.append(world.log.maker.delegation(builders=("builder2",), compromised=lost))
    attempt.renew()


# 10. status


def revoke(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.revocation(attempt.world.release))
    attempt.renew()


def suspend(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.revocation([SEED], suspend=timedelta(hours=1)))
    attempt.renew()


def end(attempt: Attempt) -> None:
    world = attempt.world
    ends = time_text(world.now + timedelta(seconds=60))
    release = world.log.maker.release(rows=[authority.row(SEED)], not_after=ends)
    world.log.append(release, world.log.maker.rebuild(release, {SEED: True}))
    attempt.renew()
    attempt.now += timedelta(seconds=60)


def show_an_older_release(attempt: Attempt) -> None:
    old = shown(attempt)
    release = attempt.world.log.maker.release(rows=[authority.row(SEED)])
    attempt.world.log.append(release, attempt.world.log.maker.rebuild(release, {SEED: True}))
    attempt.renew()
    attempt.change_bundle(release=attempt.world.log.included(old.index))


# 13. rebuilders


def demand_two_rebuilders(attempt: Attempt) -> None:
    attempt.policy["rebuilders"]["k"] = 2


def demand_other_rebuilders(attempt: Attempt) -> None:
    attempt.policy["rebuilders"] = {"keys": authority.keys("stranger1"), "k": 1}


def count_an_organisation_once(attempt: Attempt) -> None:
    """Two of its keys agree, and the policy demands two organisations."""
    world = attempt.world
    world.log.append(world.log.maker.rebuild(world.release, {SEED: True}, signers=["rebuilder2"]))
    attempt.renew()
    keys = authority.keys("rebuilder1", "rebuilder2", "stranger1")
    ours = sorted(authority.keys("rebuilder1", "rebuilder2"))
    organisations = {"Us": ours, "Them": sorted(authority.keys("stranger1"))}
    attempt.policy["rebuilders"] = {"keys": keys, "organisations": organisations, "k": 2}


def build_something_else(attempt: Attempt) -> None:
    world = attempt.world
    world.log.append(world.log.maker.rebuild(world.release, {SEED: False}, signers=["rebuilder2"]))
    attempt.renew()


CASES: dict[str, list[tuple[Change, type[Judged]]]] = {
    "release inclusion": [
        (break_the_releases_path, Rejected),
        (show_a_release_that_is_not_logged, Rejected),
        (show_something_else_as_release, Rejected),
        (show_a_service_that_the_policy_does_not_name, Refused),
        (show_a_release_for_another_log, Refused),
    ],
    "release authority": [
        (pin_other_owners, Rejected),
        (pin_another_threshold, Rejected),
        (begin_at_another_genesis, Rejected),
        (break_the_genesis_path, Rejected),
        (begin_somewhere_else, Rejected),
        (leave_out_the_delegation, Rejected),
        (leave_out_the_allocation, Rejected),
        (leave_out_a_compromise, Rejected),
        (turn_the_chain_around, Rejected),
        (leave_out_the_genesis, Rejected),
        (slip_in_something_else, Rejected),
        (slip_in_the_release, Rejected),
        (break_a_delegations_path, Rejected),
        (appoint_builders_without_the_owners, Rejected),
        (appoint_builders_in_another_log, Rejected),
        (appoint_builders_of_another_service, Rejected),
        (log_the_chain_backwards, Rejected),
        (sign_as_somebody_else, Rejected),
        (sign_badly, Rejected),
        (lose_the_builders_key, Rejected),
    ],
    "status": [(revoke, Refused), (suspend, Refused), (end, Refused), (show_an_older_release, Rejected)],
    "rebuilders": [
        (demand_two_rebuilders, Refused),
        (demand_other_rebuilders, Refused),
        (count_an_organisation_once, Refused),
        (build_something_else, Refused),
    ],
}
