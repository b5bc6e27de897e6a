"""A release as it stands in a log: by index, leaf hash or statement id, with the proof of that."""

from dataclasses import dataclass

from builder.statement import statement_of
from quotary.canonical import hexbytes
from quotary.client.clock import Clock
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.trust import Memory
from quotary.client.verify import verify_proof
from quotary.errors import CannotTell, Malformed, Refused, Rejected, Usage
from quotary.statements.release import Release
from quotary.statements.schema import Statement

ID = "sha256:"


@dataclass(frozen=True, slots=True)
class Logged:
    """A release statement; ``index`` is its proven place, None where nobody proved any."""

    statement: Statement
    release: Release
    index: int | None


def release_of(data: bytes, index: int | None = None) -> Logged:
    """Read a release from the bytes of an entry or payload; anything else is ``Usage``."""
    found, _ = statement_of(data)
    if not isinstance(found.predicate, Release):
        raise Usage(f"it is a {found.kind}, not a release")
    return Logged(found, found.predicate, index)


def logged_release(name: str, log: LogClient, policy: Policy, memory: Memory, clock: Clock) -> Logged:
    """Fetch a release by index, leaf hash (64 hex digits) or ``sha256:`` statement id, and prove its place.

    Its log and service are the policy's; what it says is the builder's word, which the rebuild is to check.
    """
    place = _place(name, log)
    entry = log.entry(place) if isinstance(place, int) else log.entry_by_hash(place)
    found = verify_proof(log.proof(place), entry, policy, memory, clock)
    if place not in (found.index, found.leaf_hash):
        raise Rejected("proof", f"entry {found.index}, leaf hash {found.leaf_hash.hex()}", name)
    logged = release_of(entry, found.index)
    if name.startswith(ID) and logged.statement.statement_id != name:
        raise Rejected("statement", logged.statement.statement_id, name)
    require_ours(logged, policy)
    return logged


def require_ours(logged: Logged, policy: Policy) -> None:
    """Refuse the release of another log or of a service that the policy does not name."""
    if logged.statement.log != policy.origin:
        raise Refused("log", logged.statement.log, policy.origin)
    if logged.statement.service not in policy.services:
        raise Refused("service", logged.statement.service, f"one of {', '.join(sorted(policy.services))}")


def _place(name: str, log: LogClient) -> int | bytes:
    if name.startswith(ID):
        return _searched(name, log)
    if len(name) == 64:
        return hexbytes(name, 32)
    if name.isascii() and name.isdigit() and len(name) < 20:
        return int(name)
    raise Usage(f"{name!r} is no file, index, leaf hash or statement id")


def _searched(name: str, log: LogClient) -> int:
    results = log.search(name).get("results")
    if not isinstance(results, list):
        raise Malformed(f"{log.url} did not answer with results")
    for item in results:
        if isinstance(item, dict) and item.get("statement_id") == name and isinstance(item.get("index"), int):
            return int(item["index"])
    raise CannotTell(f"{log.url} finds no entry {name}")
