"""The entries: a list, and one of them with its path to the root."""

from collections.abc import Mapping, Sequence

from flask import request
from markupsafe import Markup

from quotary.canonical import b64
from quotary.errors import Malformed
from registry.pages.lookup import before_of, described, listed, listing, outcome_of, row_view
from registry.picture import path_picture, path_steps
from registry.public import Snapshot
from registry.site import Site

PAGE = 50
KINDS = ("delegation", "release", "rebuild", "revocation", "tcb-floor")


def entries(site: Site) -> dict[str, object]:
    """Say what the newest entries below ``before`` are, perhaps only those of one kind that had effect."""
    kind = request.args.get("kind", "")
    if kind and kind not in KINDS:
        raise Malformed(f"kind is one of {', '.join(KINDS)}")
    snapshot, indices, ends = _kind(site, kind) if kind else _range(site)
    said = listed(described(site, indices, snapshot))
    return {"size": snapshot.size, "kind": kind, "entries": said, **ends}


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


def _range(site: Site) -> tuple[Snapshot, Sequence[int], Mapping[str, object]]:
    snapshot = site.public.snapshot()
    before = before_of(snapshot)
    first = max(0, before - PAGE)
    ends = {"newest": before == snapshot.size, "older": first or None}
    return snapshot, range(before - 1, first - 1, -1), ends


def _kind(site: Site, kind: str) -> tuple[Snapshot, Sequence[int], Mapping[str, object]]:
    found = listing(site, kind, PAGE)
    return found.snapshot, [row.index for row in found.rows], found.ends


def _related(site: Site, statement_id: str | None, index: int, snapshot: Snapshot) -> list[dict[str, object]]:
    """Other entries that name this statement: rebuilds, revocations, what replaces it."""
    if statement_id is None:
        return []
    indices = site.store.read.by_term(statement_id, snapshot.size, PAGE)
    return listed(described(site, [other for other in indices if other != index], snapshot))
