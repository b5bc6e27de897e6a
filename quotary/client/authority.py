"""Who may have signed a release: step 8 of the verification order (design section 5).

The chain starts at owner keys that the policy pins, so a log that invents a delegation, or a root that would
appoint a builder, convinces nobody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from quotary.canonical import time_text
from quotary.client.policy import KeySet, Policy
from quotary.client.standing import Released, included
from quotary.client.verdict import Trail
from quotary.errors import Rejected
from quotary.statements.bundle import Bundle, Included
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, verify
from quotary.statements.f1 import MAX_AHEAD_SECONDS
from quotary.statements.predicates import Header
from quotary.statements.schema import parse_statement
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import VerifiedCheckpoint

MAX_AHEAD = timedelta(seconds=MAX_AHEAD_SECONDS)


def check_authority(
    bundle: Bundle, released: Released, found: VerifiedCheckpoint, policy: Policy, trail: Trail
) -> str:
    """8. Builders signed it that the owners pinned in the policy appointed; give the newest delegation's id.

    The chain: the genesis that the policy names, then the service's delegations, each naming the one before
    it and, from the one on whose owners are the pinned ones, each signed by the owners of the one before
    it. Builders count only from a delegation that the owners signed.
    """
    service = released.statement.service
    pinned = policy.services[service]
    wanted = f"builders appointed by {pinned.threshold} of {len(pinned.keys)} pinned owner keys"
    anchor = f"owner keys of {service} in the policy"
    with trail.step("release authority", wanted, anchor):
        _genesis(bundle.authority[0], found, policy)
        chain = [_delegation(item, found, policy, service) for item in bundle.authority[1:]]
        builders = _builders(chain, pinned, released.index)
        if builders is not None:
            _require_unexpired(builders, released.predicate.header, "release")
        keys = {name: builders.keys[name] for name in builders.roles["builder"].keys} if builders else {}
        signed = _signers(released.envelope, _known(keys, chain, released.index))
        needed = builders.roles["builder"].threshold if builders else 1
        if len(signed & keys.keys()) < needed:
            said = f"{len(signed & keys.keys())} signatures by builders"
            raise Rejected("release authority", said, f"{needed}, {wanted}")
        trail.held("release authority", f"signed by {', '.join(sorted(signed))}", wanted, anchor)
    return chain[-1].statement_id


def _genesis(item: Included, found: VerifiedCheckpoint, policy: Policy) -> None:
    included(item, found)
    digest = leaf_hash(item.entry)
    if item.index != 0 or digest != policy.genesis:
        said = f"entry {item.index} with leaf hash {digest.hex()}"
        raise Rejected("release authority", said, f"the genesis {policy.genesis.hex()} at index 0")


@dataclass(frozen=True, slots=True)
class _Link:
    index: int
    statement_id: str
    predicate: Delegation
    envelope: Envelope


def _delegation(item: Included, found: VerifiedCheckpoint, policy: Policy, service: str) -> _Link:
    included(item, found)
    envelope = Envelope.parse(item.entry)
    statement = parse_statement(envelope.payload)
    predicate = statement.predicate
    if not isinstance(predicate, Delegation) or (statement.log, statement.service) != (
        policy.origin,
        service,
    ):
        said = f"a {statement.kind} of {statement.service} for {statement.log}"
        raise Rejected("release authority", said, f"a delegation of {service} for {policy.origin}")
    return _Link(item.index, statement.statement_id, predicate, envelope)


def _builders(chain: Iterable[_Link], pinned: KeySet, release_index: int) -> Delegation | None:
    """Walk the chain; give the delegation whose builders could sign at the release's index, or None."""
    owners: KeySet | None = None
    before: _Link | None = None
    builders: Delegation | None = None
    for link in chain:
        _follows(link, before)
        by_owners = owners is not None
        if owners is not None:
            assert before is not None, "owners come from the delegation before"
            _require_owners(link, owners)
            _require_unexpired(before.predicate, link.predicate.header, "delegation")
        named = _owners(link.predicate)
        if owners is not None or named == pinned:
            owners = named
        if link.index < release_index:
            builders = link.predicate if by_owners and "builder" in link.predicate.roles else None
        before = link
    if owners is None:
        raise Rejected(
            "release authority", "no delegation to the pinned owners", "one that names exactly them"
        )
    return builders


def _follows(link: _Link, before: _Link | None) -> None:
    wanted = (1, None) if before is None else (before.predicate.header.sequence + 1, before.statement_id)
    found = (link.predicate.header.sequence, link.predicate.previous)
    if found != wanted or (before is not None and link.index <= before.index):
        raise Rejected(
            "release authority",
            f"delegation {found[0]} after {found[1]} at index {link.index}",
            f"delegation {wanted[0]} after {wanted[1]}, in log order",
        )


def _owners(delegation: Delegation) -> KeySet:
    role = delegation.roles["owner"]
    return KeySet({name: delegation.keys[name] for name in role.keys}, role.threshold)


def _require_owners(link: _Link, owners: KeySet) -> None:
    signed = _signers(link.envelope, owners.keys)
    if len(signed) < owners.threshold:
        raise Rejected(
            "release authority",
            f"{len(signed)} owners signed delegation {link.predicate.header.sequence}",
            f"{owners.threshold} of {len(owners.keys)}",
        )


def _require_unexpired(delegation: Delegation, header: Header, what: str) -> None:
    """Whoever acts under a delegation after its end says so: F1 allows clocks that are 300 seconds ahead."""
    if header.issued >= delegation.expires + MAX_AHEAD:
        said = f"a {what} issued at {time_text(header.issued)}"
        wanted = f"one under a delegation in force, which ended at {time_text(delegation.expires)}"
        raise Rejected("release authority", said, wanted)


def _known(keys: Mapping[str, bytes], chain: Iterable[_Link], release_index: int) -> dict[str, bytes]:
    """Leave out the keys that a later delegation declares compromised from the release's index or before."""
    lost = {
        item.key for link in chain for item in link.predicate.compromised if item.from_index <= release_index
    }
    return {name: key for name, key in keys.items() if name not in lost}


def _signers(envelope: Envelope, keys: Mapping[str, bytes]) -> frozenset[str]:
    """Give those of ``keys`` that signed; a bad signature of one of them is ``InvalidSignature``."""
    signed = set()
    for signature in envelope.signatures:
        if signature.keyid in keys:
            verify(keys[signature.keyid], signature, envelope.payload)
            signed.add(signature.keyid)
    return frozenset(signed)
