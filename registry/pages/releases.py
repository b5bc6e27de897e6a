"""Releases: a list, and one with inputs, outputs, registers, rebuilds and what happened to it since."""

from markupsafe import Markup

from quotary.errors import Malformed
from quotary.statements.measurement import base_platform
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import Statement
from registry.errors import NotFound
from registry.inputs import inputs_of
from registry.pages.lookup import iso, listing, log_time, outcome_of, row_view, statement_at
from registry.picture import Mark, dependency_picture, timeline_picture
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

PAGE = 20
NAMING = 100
"""So many entries that name a release are looked at."""


def releases(site: Site) -> dict[str, object]:
    """Say the newest effective releases of all services below ``before``."""
    found = listing(site, "release", PAGE)
    said = [release_line(site, row, found.snapshot) for row in found.rows]
    return {"size": found.snapshot.size, "releases": said, **found.ends}


def release(site: Site, index: int) -> dict[str, object]:
    """Say what a release is made of, what it measures, who rebuilt it, and what became of it."""
    snapshot = site.public.snapshot()
    statement, found = release_at(site, index, snapshot)
    events = [_logged(site, index, found, snapshot)]
    rebuilt = []
    for other in reversed(site.store.read.by_term(statement.statement_id, snapshot.size, NAMING)):
        row = site.store.read.outcome(other)
        if row is None or not row.effect or other == index:
            continue
        predicate, at = statement_at(site, other, snapshot).predicate, log_time(site, row.closed_by, snapshot)
        if isinstance(predicate, Rebuild):
            rebuilt.append({"index": other, "at": at, **rebuild_view(predicate)})
        if said := _became(predicate, statement.statement_id):
            events.append({"index": other, "at": at, "what": said})
    events.append({"index": index, "at": iso(found.not_after), "what": "not to be believed after this time"})
    marks = [Mark(str(event["at"]), str(event["what"]), int(str(event["index"]))) for event in events]
    rows = [row_view(site, statement.service, row, snapshot) for row in found.rows]
    return {
        "index": index,
        "service": statement.service,
        "statement_id": statement.statement_id,
        "sequence": found.header.sequence,
        "outcome": outcome_of(site, index),
        "issued": iso(found.header.issued),
        "not_after": iso(found.not_after),
        "source": {"uri": found.source_uri, "revision": found.source_revision},
        "lock": found.lock_sha256.hex(),
        "weights": found.weights_sha256.hex(),
        "policy_sha256": found.policy_sha256.hex(),
        "outputs": [
            {
                "name": output.name,
                "sha256": output.sha256.hex(),
                "size": output.size,
                "not_reproducible": found.irreproducible.get(output.name),
            }
            for output in found.outputs
        ],
        "rows": [{**row, "inputs": _inputs(row)} for row in rows],
        "picture": Markup(_pictures(rows)),  # noqa: S704  escaped where it is made
        "rebuilds": rebuilt,
        "timeline": events,
        "timeline_picture": Markup(timeline_picture(f"release {index}", marks)),  # noqa: S704  escaped there
        "previous": _previous(site, statement, index),
        "size": snapshot.size,
    }


STATES = {"match": "matched", "mismatch": "differed", "failed": "failed"}


def rebuild_view(found: Rebuild) -> dict[str, object]:
    """Say what a rebuilder found, in the words of the pages."""
    return {
        "organisation": found.organisation,
        "tool": found.tool,
        "state": STATES[found.verdict],
        "rows": [
            {
                "measurement": row.measurement.hex(),
                "state": "matched" if row.match else "differed",
                "found": dict(row.found),
            }
            for row in found.rows
        ],
    }


def release_at(site: Site, index: int, snapshot: Snapshot) -> tuple[Statement, Release]:
    """Give the release at an index, or say that there is none."""
    try:
        statement = statement_at(site, index, snapshot)
    except Malformed as error:
        raise NotFound(f"entry {index} is not a release") from error
    if not isinstance(statement.predicate, Release):
        raise NotFound(f"entry {index} is not a release")
    return statement, statement.predicate


def release_line(site: Site, row: OutcomeRow, snapshot: Snapshot) -> dict[str, object]:
    """Say a release in one line of a list; its state is that of its worst measurement."""
    _, found = release_at(site, row.index, snapshot)
    states = {row_view(site, row.service, each, snapshot)["state"] for each in found.rows[:NAMING]}
    worst = next((state for state in ("revoked", "suspended", "unknown") if state in states), "active")
    return {
        "index": row.index,
        "service": row.service,
        "sequence": row.sequence,
        "statement_id": row.statement_id,
        "issued": iso(found.header.issued),
        "logged_at": log_time(site, row.closed_by, snapshot),
        "not_after": iso(found.not_after),
        "revision": found.source_revision,
        "state": "expired" if worst == "active" and found.not_after <= site.now() else worst,
        "platforms": sorted({each.platform for each in found.rows}),
        "measurements": len(found.rows),
        "not_reproducible": dict(found.irreproducible),
    }


def _became(predicate: object, statement_id: str) -> str:
    """Say what a later statement means for the release that it names; nothing where it is only named."""
    if isinstance(predicate, Rebuild):
        return f"{STATES[predicate.verdict]} by {predicate.organisation}"
    if isinstance(predicate, Revocation) and predicate.release == statement_id:
        return f"{'suspended' if predicate.suspend_until else 'revoked'}: {predicate.reason}"
    return ""


def _logged(site: Site, index: int, found: Release, snapshot: Snapshot) -> dict[str, object]:
    row = site.store.read.outcome(index)
    at = log_time(site, row.closed_by, snapshot) if row else iso(found.header.issued)
    return {"index": index, "at": at, "what": "logged"}


def _inputs(row: dict[str, object]) -> dict[str, tuple[str, ...]]:
    platform, registers = str(row["platform"]), row["registers"]
    assert isinstance(registers, dict)
    known = inputs_of(base_platform(platform), str(row["profile"]))
    return {name: known[name] for name in registers if name in known}


def _pictures(rows: list[dict[str, object]]) -> str:
    """One picture for each kind of machine: rows of one platform and profile depend on the same inputs."""
    shown: dict[str, str] = {}
    for row in rows:
        title = f"{row['platform']}, {row['profile']}"
        if title not in shown and (inputs := _inputs(row)):
            shown[title] = dependency_picture(title, inputs, len(shown))
    return "".join(shown.values())


def _previous(site: Site, statement: Statement, index: int) -> int | None:
    rows = site.store.read.newest_of_kind("release", 0, index, 1, statement.service)
    return rows[0].index if rows else None
