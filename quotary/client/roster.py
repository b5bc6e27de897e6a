"""Which instances of a service there are, by what its log says, and one of them by the client's own choice
(docs/formats/roster.md).

A client reads every entry of the last hour, each proven under a witnessed checkpoint, and not what an index
of the log's offers it. So everybody chooses among the same instances, and neither the service's operator nor
the log's can have one client meet another machine than the others might.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from quotary.canonical import Fields, parse_canonical
from quotary.client.clock import Clock
from quotary.client.policy import Policy
from quotary.client.replay import prove_batch
from quotary.client.source import Files
from quotary.client.standing import bound_age, check_checkpoint, refuse_rollback
from quotary.client.trust import Memory
from quotary.client.verdict import Trail, Verdict
from quotary.errors import CannotTell, InvalidSignature, Malformed, Refused, Rejected
from quotary.statements.bundle import Bundle, parse_bundle
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import MAX_ENTRY, Envelope, verify
from quotary.statements.notice import Notice
from quotary.statements.opened import open_entry
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry, is_reserved
from quotary.tlog.policy import VerifiedCheckpoint
from quotary.tlog.tiles import TILE_WIDTH, HashTree

KIND = "keyset"
WINDOW = timedelta(hours=1)
LEAST = 2
MOST_BUNDLES = 64
_STATE = "state"

Choose = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Roster:
    """The instances that a service's log names, at one verified size.

    keysets: by name of the instance, the digests (32 bytes) of its keysets that have not ended
    entries: what named them, by index; size: of the checkpoint
    """

    service: str
    keysets: Mapping[str, frozenset[bytes]]
    entries: Mapping[int, bytes]
    origin: str
    size: int

    def pick(self, least: int = LEAST, choose: Choose = secrets.choice) -> "Picked":
        """Choose one, each as likely as any other; fewer than ``least`` are no choice and refused."""
        if len(self.keysets) < least:
            raise Refused("roster", f"{len(self.keysets)} instances of {self.service}", f"{least} or more")
        name = choose(sorted(self.keysets))
        return Picked(self, name)


@dataclass(frozen=True, slots=True)
class Picked:
    """The instance that a client chose, and what holds whoever answers for it to that."""

    roster: Roster
    name: str

    def check(self, verdict: Verdict, bundle: bytes) -> None:
        """Require that a judged machine is the instance, and that the service itself made the roster.

        bundle: the one that the machine was judged by; its newest delegation names the role's keys
        """
        keysets, found = self.roster.keysets[self.name], verdict.keyset.digest
        if found not in keysets:
            wanted = f"one of the {len(keysets)} that the log has for {self.name}"
            raise Refused("roster", f"keyset {found.hex()}", wanted)
        delegation = _newest_delegation(bundle)
        for index, entry in self.roster.entries.items():
            _require_role(index, entry, delegation)


def read_roster(
    files: Files, policy: Policy, service: str, memory: Memory, clock: Clock, trail: Trail
) -> Roster:
    """Read the instances of a service from the newest hour of its log.

    1. The checkpoint is this log's, under the policy's keys and quorum, new enough and not rolled back.
    2. Each entry behind the last state that is an hour old is proven under it, by its index.
    3. What names instances is taken together: a roster that came later takes none of another away.
    """
    note = files.checkpoint()
    found = check_checkpoint(note, policy, clock, trail)
    refuse_rollback(found, policy, memory, clock, trail)
    latest = bound_age(found, policy, memory, clock, trail).latest
    keysets: dict[str, set[bytes]] = {}
    entries: dict[int, bytes] = {}
    for index, entry in _newest_hour(files, found, note, latest):
        named = _named(entry, policy, service, latest)
        if named:
            entries[index] = entry
        for name, digest in named:
            keysets.setdefault(name, set()).add(digest)
    _require_distinct(keysets)
    frozen = {name: frozenset(digests) for name, digests in keysets.items()}
    return Roster(service, frozen, entries, policy.origin, found.checkpoint.size)


def _newest_hour(
    files: Files, found: VerifiedCheckpoint, note: bytes, latest: datetime
) -> Iterator[tuple[int, bytes]]:
    """Give entries from the newest on, each proven, until a state is older than the window."""
    checkpoint, since = found.checkpoint, (latest - WINDOW).timestamp()
    tree, last = HashTree(checkpoint.size, files), (checkpoint.size - 1) // TILE_WIDTH
    for n in range(last, max(-1, last - MOST_BUNDLES), -1):
        batch = prove_batch(files, tree, checkpoint, n * TILE_WIDTH, note)
        for offset, entry in reversed(list(enumerate(batch.entries))):
            if is_reserved(entry):
                if _is_before(entry, since):
                    return
                continue
            yield batch.start + offset, entry
    if last >= MOST_BUNDLES:
        raise CannotTell(f"the log took more than {MOST_BUNDLES * TILE_WIDTH} entries in an hour")


def _is_before(entry: bytes, since: float) -> bool:
    kind = Fields(parse_canonical(entry, MAX_ENTRY), "record").value("type")
    return kind == _STATE and StateEntry.parse(entry).ts < since


def _named(entry: bytes, policy: Policy, service: str, latest: datetime) -> list[tuple[str, bytes]]:
    """Give instances and keysets of an entry that is a roster of the service and has not ended."""
    statement = open_entry(entry).statement
    if statement is None or statement.kind != KIND or not isinstance(statement.predicate, Notice):
        return []
    header, data = statement.predicate.header, statement.predicate.data
    if (header.log, header.service) != (policy.origin, service):
        return []
    ends = Fields(dict(data or {}), "roster")
    try:
        return [
            (item.name, item.sha256) for item in statement.predicate.items if ends.time(item.name) > latest
        ]
    except Malformed:
        return []  # a notice of the kind that says nothing about instances


def _require_distinct(keysets: Mapping[str, set[bytes]]) -> None:
    """One machine under two names would be met twice as often."""
    seen: dict[bytes, str] = {}
    for name, digests in keysets.items():
        for digest in digests:
            other = seen.setdefault(digest, name)
            if other != name:
                raise Refused(
                    "roster", f"keyset {digest.hex()} of {other} and of {name}", "each of one instance"
                )


def _newest_delegation(bundle: bytes) -> Delegation:
    parsed = parse_bundle(bundle)
    assert isinstance(parsed, Bundle)  # a machine was judged by it
    delegation = parse_statement(Envelope.parse(parsed.authority[-1].entry).payload).predicate
    assert isinstance(delegation, Delegation)  # the chain of owners ends with it
    return delegation


def _require_role(index: int, entry: bytes, delegation: Delegation) -> None:
    role, envelope = delegation.roles.get(KIND), Envelope.parse(entry)
    if role is None:
        raise Refused("roster", f"entry {index}, and no role {KIND} of the service", "its keys' signatures")
    signed = set()
    for signature in envelope.signatures:
        if signature.keyid in role.keys:
            try:
                verify(delegation.keys[signature.keyid], signature, envelope.payload)
            except InvalidSignature as error:
                raise Rejected("roster", f"entry {index}: {error}", "valid signatures") from error
            signed.add(signature.keyid)
    if len(signed) < role.threshold:
        raise Refused(
            "roster", f"entry {index} with {len(signed)} signatures of the role", f"{role.threshold}"
        )
