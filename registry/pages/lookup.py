"""What the pages look up in one published snapshot, ready for a template or for JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import request

from quotary.canonical import hexbytes, parse_canonical
from quotary.errors import Malformed
from quotary.statements.envelope import Envelope
from quotary.statements.keys import key_measurement
from quotary.statements.release import Release
from quotary.statements.row import Row
from quotary.statements.schema import Statement, parse_statement
from quotary.statements.state_entry import StateEntry
from registry.describe import Description, describe
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

MAX_RECORD = 1 << 20
ROWS = 20
"""So many measurements of a release stand in a list; its own page has all."""


def before_of(snapshot: Snapshot) -> int:
    """Read ``?before=``: a list ends below this index, by default at the published size."""
    before = min(request.args.get("before", snapshot.size, type=int), snapshot.size)
    if before < 1:
        raise Malformed("before is an index above 0")
    return before


WINDOW = 100_000
"""One answer looks at so many entries at most; the next page goes on where it stopped."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of effective entries of a kind, newest first; ``ends`` says which pages stand beside it."""

    snapshot: Snapshot
    rows: Sequence[OutcomeRow]
    ends: Mapping[str, object]


def listing(site: Site, kind: str, count: int) -> Listing:
    """Give the newest ``count`` effective entries of a kind below ``?before=``."""
    snapshot = site.public.snapshot()
    before = before_of(snapshot)
    first = max(0, before - WINDOW)
    rows = site.store.read.newest_of_kind(kind, first, before, count)
    older = (rows[-1].index if len(rows) == count else first) or None
    return Listing(snapshot, rows, {"newest": before == snapshot.size, "older": older})


def described(site: Site, indices: Iterable[int], snapshot: Snapshot) -> list[Description]:
    return [describe(index, site.public.entry(index, snapshot.size)) for index in indices]


def listed(found: Iterable[Description]) -> list[dict[str, object]]:
    """Give what a table of entries shows."""
    return [{"index": one.index, "kind": one.kind, "summary": one.summary} for one in found]


def outcome_of(site: Site, index: int) -> dict[str, object] | None:
    """Say whether an entry had effect; None for what only the log makes."""
    found = site.store.read.outcome(index)
    return {"effect": found.effect, "code": found.code} if found else None


def newest_release(site: Site, service: str, snapshot: Snapshot) -> dict[str, object]:
    """Say a service's newest effective release with the status of its measurements."""
    rows = site.store.read.newest_of_kind("release", 0, snapshot.size, 1, service)
    found = statement_at(site, rows[0].index, snapshot).predicate if rows else None
    if not isinstance(found, Release):
        return {"service": service, "release": None, "issued": None, "measurements": []}
    shown = [row_view(site, service, row, snapshot) for row in found.rows[:ROWS]]
    return {
        "service": service,
        "release": rows[0].index,
        "issued": iso(found.header.issued),
        "measurements": [
            {"id": row["id"], "platform": row["platform"], "state": row["state"]} for row in shown
        ],
        "more": max(0, len(found.rows) - ROWS),
    }


def record_of(site: Site, service: str, digest: str, snapshot: Snapshot) -> dict[str, Any] | None:
    found = site.store.read.record(key_measurement(service, hexbytes(digest, 32)), snapshot.size)
    return parsed(found) if found else None


def parsed(data: bytes) -> dict[str, Any]:
    found = parse_canonical(data, MAX_RECORD)
    if not isinstance(found, dict):
        raise Malformed("a record is not an object")
    return found


def status_of(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "unknown"
    if record["status"] == "revoked":
        return "revoked"
    until = record.get("suspended_until")
    suspended = until is not None and datetime.fromisoformat(until) > datetime.now(UTC)
    return "suspended" if suspended else "active"


def release_of(site: Site, record: Mapping[str, Any] | None, snapshot: Snapshot) -> Description | None:
    if record is None or "release" not in record:
        return None
    rows = site.store.read.by_statement(str(record["release"]), snapshot.size)
    found = described(site, [row.index for row in rows if row.effect], snapshot)
    return found[0] if found else None


def row_view(site: Site, service: str | None, row: Row, snapshot: Snapshot) -> dict[str, Any]:
    digest = row.measurement.hex()
    return {
        "platform": row.platform,
        "profile": row.profile,
        "id": digest,
        "registers": {name: value.hex() for name, value in row.registers.items()},
        "state": status_of(record_of(site, service, digest, snapshot)) if service else "unknown",
    }


def iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def statement_at(site: Site, index: int, snapshot: Snapshot) -> Statement:
    """Give the statement at an index that F1 took for one."""
    return parse_statement(Envelope.parse(site.public.entry(index, snapshot.size)).payload)


def index_of(site: Site, statement_id: str | None, snapshot: Snapshot) -> int | None:
    """Give where the copy of a statement stands that had effect; None where none is published."""
    rows = site.store.read.by_statement(statement_id, snapshot.size) if statement_id else []
    return next((row.index for row in rows if row.effect), None)


def log_time(site: Site, closed_by: int, snapshot: Snapshot) -> str:
    """Give the log's own time of an interval: that of the state entry which closed it."""
    state = StateEntry.parse(site.public.entry(closed_by, snapshot.size))
    return iso(datetime.fromtimestamp(state.ts, UTC))
