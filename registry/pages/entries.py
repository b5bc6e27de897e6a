"""The pages of entries, releases and measurements, and the search for them."""

from typing import Any

from flask import render_template, request
from markupsafe import Markup

from quotary.canonical import b64
from quotary.errors import Malformed
from registry.describe import Description
from registry.pages.lookup import described, iso, parsed, record_of, release_of, row_view, status_of
from registry.picture import path_picture, path_steps
from registry.public import Snapshot
from registry.search import LONGEST
from registry.search import search as find
from registry.site import Site

PAGE = 50
SERVICES = 50
SENTENCES = {
    "active": "A builder of this service vouches for this measurement, and nobody has withdrawn it.",
    "suspended": "This measurement is suspended for a while: machines that show it take no new prompts.",
    "revoked": "This measurement was withdrawn for good: machines that show it refuse to serve.",
    "unknown": "This log has no entry for this measurement of this service. The bundle proves the absence.",
}


def front(site: Site) -> str:
    snapshot = site.public.snapshot()
    newest = range(snapshot.size - 1, max(-1, snapshot.size - 11), -1)
    return render_template(
        "front.html", services=_services(site, snapshot), entries=described(site, newest, snapshot)
    )


def entries(site: Site) -> str:
    snapshot = site.public.snapshot()
    before = min(request.args.get("before", snapshot.size, type=int), snapshot.size)
    if before < 1:
        raise Malformed("before is an index above 0")
    first = max(0, before - PAGE)
    return render_template(
        "entries.html",
        entries=described(site, range(before - 1, first - 1, -1), snapshot),
        first=first,
        last=before - 1,
        older=first or None,
    )


def entry(site: Site, index: int) -> str:
    snapshot = site.public.snapshot()
    found, outcome = described(site, [index], snapshot)[0], site.store.read.outcome(index)
    steps = path_steps(index, snapshot.size, site.public.tree(snapshot).inclusion_path(index))
    drawn = Markup(path_picture(index, snapshot.size, steps))  # noqa: S704  numbers and hex only
    view = {
        **_members(found),
        "rows": [row_view(site, found.service, row, snapshot) for row in found.rows],
        "effect": outcome.effect if outcome else None,
        "code": outcome.code if outcome else None,
    }
    return render_template("entry.html", entry=view, path=steps, picture=drawn)


def entry_json(site: Site, index: int) -> dict[str, object]:
    snapshot = site.public.snapshot()
    found, outcome = described(site, [index], snapshot)[0], site.store.read.outcome(index)
    return {
        "index": index,
        "kind": found.kind,
        "summary": found.summary,
        "leaf_hash": found.leaf_hash,
        "statement_id": found.statement_id,
        "signers": list(found.signers),
        "outcome": {"effect": outcome.effect, "code": outcome.code} if outcome else None,
        "entry": b64(site.public.entry(index, snapshot.size)),
        "proof": f"/api/v1/proofs/{index}",
        "size": snapshot.size,
    }


def measurement(site: Site, service: str, digest: str) -> str:
    snapshot = site.public.snapshot()
    record = record_of(site, service, digest, snapshot)
    release = release_of(site, record, snapshot)
    rows = [row for row in release.rows if row.measurement.hex() == digest] if release else []
    state = status_of(record)
    return render_template(
        "measurement.html",
        id=digest,
        service=service,
        state=state,
        record=record,
        release=release,
        sentence=SENTENCES[state],
        row=row_view(site, service, rows[0], snapshot) if rows else None,
    )


def measurement_json(site: Site, service: str, digest: str) -> dict[str, object]:
    snapshot = site.public.snapshot()
    record = record_of(site, service, digest, snapshot)
    return {
        "service": service,
        "id": digest,
        "state": status_of(record),
        "record": record,
        "size": snapshot.size,
        "bundle": f"/api/v1/bundles/{service}/{digest}",
    }


def search(site: Site) -> str:
    query = request.args.get("q", "").strip()[:LONGEST]
    snapshot = site.public.snapshot()
    found = find(site.store.read, query, snapshot.size, PAGE)
    entries = described(site, found.indices, snapshot)
    return render_template("search.html", query=query, entries=entries, found=found)


def _services(site: Site, snapshot: Snapshot) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for data in site.store.read.records(snapshot.size):
        record = parsed(data)
        name = str(record.get("service", "log"))
        if name != "log":
            service = found.setdefault(name, {"name": name, "release": None, "measurements": []})
            if record["kind"] == "measurement":
                service["measurements"].append({"id": record["id"], "state": status_of(record)})
    shown = [found[name] for name in sorted(found)[:SERVICES]]
    for service in shown:
        rows = site.store.read.by_service(service["name"], snapshot.size, "release")
        effective = [row.index for row in rows if row.effect]
        for newest in described(site, effective[-1:], snapshot):
            issued = newest.release.header.issued if newest.release else None
            service["release"] = {"index": newest.index, "issued": iso(issued) if issued else ""}
    return shown


def _members(value: Description) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
