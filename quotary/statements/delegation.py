"""The delegation: which keys may act for a service, or for the log itself (design section 4).

The genesis (index 0) is the delegation of service ``log`` with sequence 1. A service begins with its
allocation: sequence 1, only the role ``owner``, signed by the log's roots. Each later delegation names
the one before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields, unb64
from quotary.errors import Malformed
from quotary.statements.envelope import key_id, parse_spki
from quotary.statements.notice import NOTICE_KINDS
from quotary.statements.predicates import LOG_SERVICE, Header, ascending, header, strings

MAX_KEYS = 64
MAX_COMPROMISED = 64

LOG_ROLES = ("root", "tcb", "security", "rebuilder")
SERVICE_ROLES = ("owner", "builder")


@dataclass(frozen=True, slots=True)
class Role:
    """Which keys hold a role, and how many of them must sign the same entry."""

    keys: frozenset[str]
    threshold: int


@dataclass(frozen=True, slots=True)
class Compromise:
    """A key that somebody else may hold: what it signed from this index on does not count."""

    key: str
    from_index: int


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The log that this one goes on from, as its roots closed it (docs/formats/orders.md, "Succession").

    root:     of its last checkpoint, 32 bytes
    map_root: that its last state entry commits, 32 bytes
    """

    origin: str
    size: int
    root: bytes
    map_root: bytes


@dataclass(frozen=True, slots=True)
class Delegation:
    """The keys and roles of one service.

    previous:    statement id of the delegation before; absent exactly at sequence 1
    expires:     at this log time and later the delegation gives no authority
    keys:        key id to public key (32 bytes); each holds at least one role
    compromised: keys that nobody should believe any more; none of them is in ``keys``
    predecessor: only in a genesis
    """

    header: Header
    previous: str | None
    expires: datetime
    keys: Mapping[str, bytes]
    roles: Mapping[str, Role]
    compromised: tuple[Compromise, ...]
    predecessor: Predecessor | None = None


def parse_delegation(fields: Fields) -> Delegation:
    """Read the predicate of a delegation."""
    found = header(fields)
    keys = _keys(fields)
    delegation = Delegation(
        found,
        fields.optional("previous", fields.identity),
        fields.time("expires"),
        keys,
        _roles(fields, keys, found.service),
        _compromised(fields, keys) if fields.has("compromised") else (),
        fields.optional("predecessor", lambda name: _predecessor(fields.fields(name), found.log)),
    )
    _check_beginning(delegation)
    return delegation


def _keys(fields: Fields) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for name, value in fields.mapping("keys", MAX_KEYS).items():
        if not isinstance(value, str):
            raise Malformed("a key is not a string")
        keys[name] = parse_spki(unb64(value))
        if key_id(keys[name]) != name:
            raise Malformed(f"key {name} has the id {key_id(keys[name])}")
    return keys


def _roles(fields: Fields, keys: Mapping[str, bytes], service: str) -> dict[str, Role]:
    own, first = (LOG_ROLES, "root") if service == LOG_SERVICE else (SERVICE_ROLES, "owner")
    roles: dict[str, Role] = {}
    for name, value in fields.mapping("roles", 16).items():
        if name not in own and name not in NOTICE_KINDS:
            raise Malformed(f"the service {service} cannot have the role {name!r}")
        roles[name] = _role(Fields(value, f"role {name}"), keys)
    if first not in roles:
        raise Malformed(f"the role {first} is missing")
    idle = keys.keys() - frozenset[str]().union(*(role.keys for role in roles.values()))
    if idle:
        raise Malformed(f"the key {min(idle)} has no role")
    return roles


def _role(fields: Fields, keys: Mapping[str, bytes]) -> Role:
    members = strings(fields, "keys", MAX_KEYS, low=1)
    threshold = fields.integer("threshold", 1, len(members))
    fields.done()
    for member in members:
        if member not in keys:
            raise Malformed(f"a role names the key {member}, which is not in keys")
    return Role(frozenset(members), threshold)


def _compromised(fields: Fields, keys: Mapping[str, bytes]) -> tuple[Compromise, ...]:
    found: list[Compromise] = []
    for item in fields.items("compromised", MAX_COMPROMISED, low=1):
        member = Fields(item, "compromised key")
        found.append(Compromise(member.identity("key"), member.integer("from_index")))
        member.done()
        if found[-1].key in keys:
            raise Malformed(f"the key {found[-1].key} is compromised and still in keys")
    return ascending(tuple(found), "compromised keys", lambda item: item.key)


def _predecessor(fields: Fields, log: str) -> Predecessor:
    found = Predecessor(
        fields.name("origin"),
        fields.integer("size", 1),
        fields.hexbytes("root", 32),
        fields.hexbytes("map", 32),
    )
    fields.done()
    if found.origin == log:
        raise Malformed("a log is not its own predecessor")
    return found


def _check_beginning(delegation: Delegation) -> None:
    first = delegation.header.sequence == 1
    if first != (delegation.previous is None):
        raise Malformed("previous is absent at sequence 1 and present at every other")
    if delegation.predecessor is not None and not (first and delegation.header.service == LOG_SERVICE):
        raise Malformed("only a genesis has a predecessor")
    if first and delegation.compromised:
        raise Malformed("a first delegation cannot know compromised keys")
    if first and delegation.header.service != LOG_SERVICE and delegation.roles.keys() != {"owner"}:
        raise Malformed("an allocation has only the role owner")
