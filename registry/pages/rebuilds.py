"""Who built which release again, and what came out: a matrix of the newest releases and their rebuilders."""

from typing import Any

from quotary.statements.revocation import Rebuild
from registry.pages.lookup import listing, log_time, statement_at
from registry.pages.releases import NAMING, rebuild_view, release_line
from registry.public import Snapshot
from registry.site import Site

PAGE = 20
UNCHECKED, BY_DESIGN = "unchecked", "not reproducible by design"


def rebuilds(site: Site) -> dict[str, object]:
    """Say of each of the newest releases below ``before`` what each rebuilder found.

    ``unchecked`` only says that the log has no rebuild of that organisation, ``not reproducible by design``
    that it has none either, and that the builder names an output which nobody can make again.
    """
    shown = listing(site, "release", PAGE)
    snapshot, lines = shown.snapshot, list[dict[str, Any]]()
    for row in shown.rows:
        found = rebuilds_of(site, row.statement_id, snapshot)
        lines.append({**release_line(site, row, snapshot), "rebuilds": found})
    organisations = sorted({one["organisation"] for line in lines for one in line["rebuilds"]})
    for line in lines:
        newest = {one["organisation"]: one for one in line["rebuilds"]}
        line["cells"] = [
            newest.get(name, {"organisation": name, "state": _unbuilt(line), "index": None})
            for name in organisations
        ]
        line["matched"] = sum(cell["state"] == "matched" for cell in line["cells"])
    return {
        "size": snapshot.size,
        "organisations": organisations,
        "releases": lines,
        **shown.ends,
    }


def _unbuilt(line: dict[str, Any]) -> str:
    return BY_DESIGN if line["not_reproducible"] else UNCHECKED


def rebuilds_of(site: Site, statement_id: str, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Give the effective rebuilds of a release, oldest first, of the newest entries that name it."""
    found = []
    for index in reversed(site.store.read.by_term(statement_id, snapshot.size, NAMING)):
        row = site.store.read.outcome(index)
        if row is None or not row.effect or row.kind != "rebuild":
            continue
        predicate = statement_at(site, index, snapshot).predicate
        if isinstance(predicate, Rebuild):
            at = log_time(site, row.closed_by, snapshot)
            found.append({"index": index, "at": at, **rebuild_view(predicate)})
    return found
