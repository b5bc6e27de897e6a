"""Who may speak for which service: keys, roles and thresholds, by the newest delegation in force."""

from datetime import UTC, datetime

from quotary.canonical import time_text
from quotary.errors import Malformed
from quotary.statements.delegation import Delegation
from quotary.statements.keys import key_service
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import ServiceRecord, parse_record
from registry.pages.lookup import before_of, statement_at
from registry.public import Snapshot
from registry.site import Site

PAGE = 20


def builders(site: Site) -> dict[str, object]:
    """Say who holds the log's own roles, and each service's owners and builders; newest service first."""
    snapshot, now = site.public.snapshot(), datetime.now(UTC)
    before = before_of(snapshot)
    rows = site.store.read.allocations(before, PAGE + 2)
    # The genesis allocates the log to itself, and is shown apart from the services.
    first = [row for row in reversed(rows) if row.service != LOG_SERVICE]
    shown = first[:PAGE]
    return {
        "size": snapshot.size,
        "own": service_view(site, LOG_SERVICE, snapshot, now),
        "services": [service_view(site, row.service, snapshot, now) for row in shown],
        "newest": before == snapshot.size,
        "older": shown[-1].index if len(first) > PAGE else None,
    }


def service_view(site: Site, name: str, snapshot: Snapshot, now: datetime) -> dict[str, object]:
    """Say the keys and roles of a service by its delegation in force, and which keys are compromised."""
    data = site.store.read.record(key_service(name), snapshot.size)
    record = parse_record(data) if data else None
    if not isinstance(record, ServiceRecord):
        return {"service": name, "delegation": None, "roles": [], "compromised": []}
    found = statement_at(site, record.index, snapshot).predicate
    if not isinstance(found, Delegation):
        raise Malformed(f"entry {record.index} is not a delegation")
    return {
        "service": name,
        "delegation": record.delegation,
        "index": record.index,
        "sequence": found.header.sequence,
        "expires": time_text(record.expires),
        "expired": now >= record.expires,
        "roles": [
            {"role": role, "threshold": held.threshold, "keys": sorted(held.keys)}
            for role, held in sorted(found.roles.items())
        ],
        "compromised": [{"key": item.key, "from_index": item.from_index} for item in record.compromised],
    }
