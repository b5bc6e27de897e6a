"""What was withdrawn, newest first."""

from quotary.errors import Malformed
from quotary.statements.release import Release
from quotary.statements.revocation import Revocation
from quotary.statements.sentence import sentence
from registry.pages.lookup import index_of, iso, listing, log_time, statement_at
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

PAGE = 20


def timeline(site: Site) -> dict[str, object]:
    """Say which revocations had effect, what each touched, and what to use instead."""
    found = listing(site, "revocation", PAGE)
    said = [_said(site, row, found.snapshot) for row in found.rows]
    return {"size": found.snapshot.size, "revocations": said, **found.ends}


def _said(site: Site, row: OutcomeRow, snapshot: Snapshot) -> dict[str, object]:
    statement = statement_at(site, row.index, snapshot)
    found = statement.predicate
    if not isinstance(found, Revocation):
        raise Malformed(f"entry {row.index} is not a revocation")
    release = index_of(site, found.release, snapshot)
    return {
        "index": row.index,
        "service": statement.service,
        "action": "suspend" if found.suspend_until else "revoke",
        "until": iso(found.suspend_until) if found.suspend_until else None,
        "summary": sentence(statement),
        "reason": found.reason,
        "advisory": found.advisory,
        "replacement": _named(site, found.replacement, snapshot),
        "release": _named(site, found.release, snapshot),
        "measurements": [digest.hex() for digest in found.measurements]
        or _measurements(site, release, snapshot),
        "issued": iso(found.header.issued),
        "logged_at": log_time(site, row.closed_by, snapshot),
    }


def _named(site: Site, statement_id: str | None, snapshot: Snapshot) -> dict[str, object] | None:
    if statement_id is None:
        return None
    return {"statement": statement_id, "index": index_of(site, statement_id, snapshot)}


def _measurements(site: Site, release: int | None, snapshot: Snapshot) -> list[str]:
    found = statement_at(site, release, snapshot).predicate if release is not None else None
    return [row.measurement.hex() for row in found.rows] if isinstance(found, Release) else []
