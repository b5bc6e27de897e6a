"""The entries: a list, and one of them with its path to the root."""

from flask import request
from markupsafe import Markup

from quotary.canonical import b64
from quotary.errors import Malformed
from registry.pages.lookup import before_of, described, listed, outcome_of, row_view
from registry.picture import path_picture, path_steps
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

PAGE = 50
WINDOW = 100_000
"""A list of one kind or service looks at so many entries at most; the next page goes on where it stopped."""

KINDS = ("delegation", "release", "rebuild", "revocation", "tcb-floor")


def entries(site: Site) -> dict[str, object]:
    """Say what the newest entries below ``before`` are, perhaps only those of one kind that had effect."""
    snapshot = site.public.snapshot()
    before = before_of(snapshot)
    kind = request.args.get("kind", "")
    if kind and kind not in KINDS:
        raise Malformed(f"kind is one of {', '.join(KINDS)}")
    indices, older = _kind(site, kind, before) if kind else _range(before)
    return {
        "size": snapshot.size,
        "kind": kind,
        "entries": listed(described(site, indices, snapshot)),
        "newest": before == snapshot.size,
        "older": older,
    }


def entry(site: Site, index: int) -> dict[str, object]:
    """Say everything about one entry: what it is, what it did, and the path that joins it to the root."""
    snapshot = site.public.snapshot()
    (found,) = described(site, [index], snapshot)
    steps = path_steps(index, snapshot.size, site.public.tree(snapshot).inclusion_path(index))
    return {
        "index": index,
        "kind": found.kind,
        "summary": found.summary,
        "leaf_hash": found.leaf_hash,
        "length": found.length,
        "statement_id": found.statement_id,
        "service": found.service,
        "signers": list(found.signers),
        "outcome": outcome_of(site, index),
        "rows": [row_view(site, found.service, row, snapshot) for row in found.rows],
        "related": _related(site, found.statement_id, index, snapshot),
        "path": [{"side": step.side, "hash": step.hash} for step in steps],
        "picture": Markup(path_picture(index, snapshot.size, steps)),  # noqa: S704  numbers and hex only
        "pretty": found.pretty,
        "entry": b64(site.public.entry(index, snapshot.size)),
        "proof": f"/api/v1/proofs/{index}",
        "size": snapshot.size,
    }


def _range(before: int) -> tuple[list[int], int | None]:
    first = max(0, before - PAGE)
    return list(range(before - 1, first - 1, -1)), first or None


def _kind(site: Site, kind: str, before: int) -> tuple[list[int], int | None]:
    first = max(0, before - WINDOW)
    rows: list[OutcomeRow] = site.store.read.newest_of_kind(kind, first, before, PAGE)
    return [row.index for row in rows], (rows[-1].index if len(rows) == PAGE else first) or None


def _related(site: Site, statement_id: str | None, index: int, snapshot: Snapshot) -> list[dict[str, object]]:
    """Other entries that name this statement: rebuilds, revocations, what replaces it."""
    if statement_id is None:
        return []
    indices = site.store.read.by_term(statement_id, snapshot.size, PAGE)
    return listed(described(site, [other for other in indices if other != index], snapshot))
