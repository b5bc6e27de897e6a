"""Who may say what: signatures, roles and thresholds of one entry (docs/formats/f1.md, steps 5 to 8).

Every signature must be by a key that the log's or the service's delegation in force knows, and must
hold. Then the distinct keys of a role are counted inside this one entry.
"""

from collections.abc import Callable, Iterable, Mapping

from quotary.errors import InvalidSignature
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, Signature
from quotary.statements.notice import NOTICE_KINDS
from quotary.statements.outcome import Ignored
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.schema import Statement
from quotary.statements.state import Known

Power = tuple[Delegation, str]
"""A role of a delegation."""

Verify = Callable[[bytes, Signature, bytes], None]
"""Returns if a public key (32 bytes) signed a payload, else raises ``InvalidSignature``."""


def find_powers(state: Known, statement: Statement, index: int) -> tuple[Power, ...]:
    """Give the roles that may make a statement, in the order in which they are named in the specification."""
    log = state.held(LOG_SERVICE)
    service = statement.service
    if log is None:
        return (_genesis(statement, index),)
    held = state.held(service)
    if held is None:
        if not _allocates(statement):
            raise Ignored("unknown-service", f"the service {service} has not been allocated")
        return ((log.delegation, "root"),)
    if _allocates(statement):
        raise Ignored("already-allocated", f"the service {service} has been allocated before")
    if statement.kind == "delegation" and service == LOG_SERVICE:
        return ((log.delegation, "root"),)
    own = held.delegation
    if statement.kind in NOTICE_KINDS:
        return ((own, statement.kind),)
    if statement.kind == "delegation":
        return ((own, "owner"),)
    if statement.kind == "release":
        return ((own, "builder"),)
    if statement.kind == "rebuild":
        return ((log.delegation, "rebuilder"),)
    if statement.kind == "revocation":
        return ((own, "builder"), (log.delegation, "security"), (log.delegation, "root"))
    return ((log.delegation, "tcb"), (log.delegation, "root"))


def check_signatures(
    powers: tuple[Power, ...], state: Known, service: str, envelope: Envelope, verify: Verify
) -> frozenset[str]:
    """Give the ids of the keys that signed, all of them known and all signatures valid."""
    holders = (state.held(LOG_SERVICE), state.held(service))
    known = [powers[0][0].keys]  # the genesis is not in force yet
    known += [held.delegation.keys for held in holders if held is not None]
    keys = [_known_key(known, signature.keyid) for signature in envelope.signatures]
    for key, signature in zip(keys, envelope.signatures, strict=True):
        try:
            verify(key, signature, envelope.payload)
        except InvalidSignature as error:
            raise Ignored("invalid-signature", f"{signature.keyid}: {error}") from error
    return frozenset(signature.keyid for signature in envelope.signatures)


def met_roles(powers: tuple[Power, ...], signers: frozenset[str], ts: int) -> frozenset[str]:
    """Give the names of the roles whose threshold the signers reach, at least one."""
    met: set[str] = set()
    expired: set[str] = set()
    for delegation, name in powers:
        role = delegation.roles.get(name)
        if role is not None and len(role.keys & signers) >= role.threshold:
            (met if ts < delegation.expires.timestamp() else expired).add(name)
    if met:
        return frozenset(met)
    names = " or ".join(name for _, name in powers)
    if expired:
        raise Ignored("delegation-expired", f"the delegation of {min(expired)} has expired")
    raise Ignored("threshold", f"{len(signers)} signatures do not reach the threshold of {names}")


def _genesis(statement: Statement, index: int) -> Power:
    predicate = statement.predicate
    if index == 0 and isinstance(predicate, Delegation) and predicate.header.service == LOG_SERVICE:
        return (predicate, "root")
    raise Ignored("no-genesis", "the log has no effective genesis at index 0")


def _allocates(statement: Statement) -> bool:
    return statement.kind == "delegation" and statement.sequence == 1


def _known_key(known: Iterable[Mapping[str, bytes]], keyid: str) -> bytes:
    for keys in known:
        if keyid in keys:
            return keys[keyid]
    raise Ignored("unknown-key", f"no delegation in force knows the key {keyid}")
