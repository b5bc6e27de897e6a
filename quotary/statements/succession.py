"""What a successor takes over from a closed log, as statements of its own roots (docs/formats/orders.md).

F1 is a function of one log's entries, and stays so: what a closed log said is said again, in the successor's
first interval, in statements that follow from the old status map alone. Whoever has both logs makes the same
list and finds it there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from quotary.canonical import b64, canonical, parse_canonical, time_text
from quotary.errors import Rejected
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import MAX_ENTRY, spki
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import MeasurementRecord, Record, TCBRecord
from quotary.statements.revocation import MAX_MEASUREMENTS
from quotary.statements.schema import parse_statement, statement_payload

NO_REASON = "revoked in the predecessor"

_HEADER = ("log", "service", "sequence", "issued")


@dataclass(frozen=True, slots=True)
class Heritage:
    """A closed log's status map, and the delegation of each of its services.

    ts: log time at which the successor begins, seconds since 1970: what has ended by then is not taken over
    """

    records: tuple[Record, ...]
    delegations: Mapping[str, Delegation]
    ts: int


@dataclass(frozen=True, slots=True)
class Carried:
    """One statement to make: its kind and its members, but for ``log``, ``sequence`` and ``issued``."""

    kind: str
    service: str
    members: Mapping[str, object] = field(default_factory=dict)


def carried(found: Heritage) -> tuple[Carried, ...]:
    """Give what the successor's roots say in its first interval, in this order.

    1. Each service is allocated to the owners it had. 2. What was revoked is revoked, service by service and
    reason by reason. 3. Floors in force are set. A delegation or floor whose time is over is left out.
    """
    services = {name: made for name, made in found.delegations.items() if _lives(made.expires, found)}
    services.pop(LOG_SERVICE, None)
    return (
        *(_allocation(name, services[name]) for name in sorted(services)),
        *_revocations(found, {LOG_SERVICE, *services}),
        *_floors(found),
    )


def payloads(found: Heritage, log: str, issued: datetime) -> tuple[bytes, ...]:
    """Write the statements for the successor ``log``, for its roots to sign, in their order."""
    sequences: dict[tuple[str, str], int] = {}
    made = []
    for item in carried(found):
        number = sequences[item.service, item.kind] = sequences.get((item.service, item.kind), 0) + 1
        header = {"log": log, "service": item.service, "sequence": number, "issued": time_text(issued)}
        made.append(statement_payload(item.kind, {**header, **item.members}))
    return tuple(made)


def check_carried(found: Heritage, effective: Iterable[bytes]) -> None:
    """Return if a successor's first interval says all that it takes over, else ``Rejected``.

    effective: payloads of those statements of the interval that had effect
    """
    said = {_content(payload) for payload in effective}
    for wanted in carried(found):
        if (wanted.kind, wanted.service, canonical(dict(wanted.members))) not in said:
            about = f"the {wanted.kind} of {wanted.service} that its predecessor demands"
            raise Rejected("succession", "a first interval without it", about)


def _content(payload: bytes) -> tuple[str, str, bytes]:
    statement = parse_statement(payload)
    document = parse_canonical(payload, MAX_ENTRY)
    assert isinstance(document, dict), "a statement was parsed from it"
    members = {name: value for name, value in document["predicate"].items() if name not in _HEADER}
    return statement.kind, statement.service, canonical(members)


def _allocation(service: str, made: Delegation) -> Carried:
    owner = made.roles["owner"]
    members = {
        "expires": time_text(made.expires),
        "keys": {name: b64(spki(made.keys[name])) for name in owner.keys},
        "roles": {"owner": {"keys": sorted(owner.keys), "threshold": owner.threshold}},
    }
    return Carried("delegation", service, members)


def _revocations(found: Heritage, services: set[str]) -> Iterable[Carried]:
    reasons: dict[tuple[str, str], str] = {}
    for record in found.records:
        if isinstance(record, MeasurementRecord) and record.status == "revoked":
            # A name that nobody holds any more can be allocated to anybody: then the log itself says it.
            service = record.service if record.service in services else LOG_SERVICE
            named, reason = (service, record.measurement.hex()), record.reason or NO_REASON
            reasons[named] = min(reason, reasons.get(named, reason))
    groups: dict[tuple[str, str], list[str]] = {}
    for (service, measurement), reason in reasons.items():
        groups.setdefault((service, reason), []).append(measurement)
    for service, reason in sorted(groups):
        ids = sorted(groups[service, reason])
        for start in range(0, len(ids), MAX_MEASUREMENTS):
            members = {"action": "revoke", "measurements": ids[start : start + MAX_MEASUREMENTS]}
            yield Carried("revocation", service, {**members, "reason": reason})


def _floors(found: Heritage) -> Iterable[Carried]:
    floors = [record for record in found.records if isinstance(record, TCBRecord)]
    for record in sorted(floors, key=lambda item: (item.platform, item.product)):
        now = record.current
        if record.coming and record.coming_from and record.coming_from.timestamp() <= found.ts:
            now = record.coming
        if _lives(now.expires, found):
            members = {"platform": record.platform, "product": record.product}
            yield Carried(
                "tcb-floor",
                LOG_SERVICE,
                {**members, "floor": now.floor.document(), "expires": time_text(now.expires)},
            )


def _lives(expires: datetime, found: Heritage) -> bool:
    return expires.timestamp() > found.ts
