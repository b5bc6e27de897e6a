"""The TCB floors: the oldest firmware that each product may run, what is coming, and until when it stands."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from quotary.canonical import time_text
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_tcb
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.records import SetFloor, TCBRecord, parse_record
from registry.pages.lookup import index_of, statement_at
from registry.public import Snapshot
from registry.site import Site

STATEMENTS = 500
"""The newest floor statements that one answer reads; a product that none of them names is not shown."""


def floors(site: Site) -> dict[str, object]:
    """Say which floor each platform's product has now, and which one will replace it."""
    snapshot, now = site.public.snapshot(), datetime.now(UTC)
    rows = site.store.read.newest_of_kind("tcb-floor", 0, snapshot.size, STATEMENTS, LOG_SERVICE)
    products: set[tuple[str, str]] = set()
    for row in rows:
        found = statement_at(site, row.index, snapshot).predicate
        if isinstance(found, TCBFloor):
            products.add((found.platform, found.product))
    said = [_floor(site, *product, snapshot, now) for product in sorted(products)]
    return {
        "size": snapshot.size,
        "floors": said,
        "matrices": _matrices(said),
        "complete": len(rows) < STATEMENTS,
    }


def _matrices(found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Put the minima in force side by side: a table for each platform, a column for each component."""
    held = [line for line in found if line["floor"]]
    return [
        _matrix(platform, [line for line in held if line["platform"] == platform])
        for platform in sorted({line["platform"] for line in held})
    ]


def _matrix(platform: str, held: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    components = sorted({name for line in held for name in line["floor"]["minimum"]})
    lines = [
        {
            "product": line["product"],
            "state": "expired" if line["floor"]["expired"] else "in force",
            "least": [line["floor"]["minimum"].get(name) for name in components],
            "lower_from": line["next"]["from"] if line["next"] else None,
            "lower": [line["next"]["minimum"].get(name) if line["next"] else None for name in components],
        }
        for line in held
    ]
    return {"platform": platform, "components": components, "lines": lines}


def _floor(site: Site, platform: str, product: str, snapshot: Snapshot, now: datetime) -> dict[str, object]:
    said: dict[str, object] = {"platform": platform, "product": product, "floor": None, "next": None}
    data = site.store.read.record(key_tcb(platform, product), snapshot.size)
    record = parse_record(data) if data else None
    if not isinstance(record, TCBRecord):
        return said
    said["floor"] = _set_floor(site, record.at(now), snapshot, now)
    if record.coming is not None and record.coming_from is not None and now < record.coming_from:
        coming = _set_floor(site, record.coming, snapshot, now)
        weaker = record.coming.floor.weaknesses(record.current.floor)
        said["next"] = {**coming, "from": time_text(record.coming_from), "weaker_in": list(weaker)}
    return said


def _set_floor(site: Site, found: SetFloor, snapshot: Snapshot, now: datetime) -> dict[str, object]:
    return {
        **found.floor.document(),
        "expires": time_text(found.expires),
        "expired": now >= found.expires,
        "statement": found.statement,
        "index": index_of(site, found.statement, snapshot),
    }
