"""The auditors' pages: rendered here, complete without JavaScript, with one ``.json`` twin each.

Everything shown is bounded by the published size. What a page claims is this server's word; ``verify.js``
recomputes it in the browser, and each page shows the command that repeats it offline.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request
from jinja2 import FileSystemLoader
from markupsafe import Markup

import web
from quotary.canonical import b64, hexbytes, parse_canonical
from quotary.errors import Malformed
from quotary.statements.keys import key_measurement
from quotary.statements.row import Row
from quotary.tlog.policy import TlogPolicy
from registry.describe import Description, describe
from registry.errors import NotFound
from registry.picture import path_picture, path_steps
from registry.public import Snapshot
from registry.site import Site

PAGE = 50
SERVICES = 50
MAX_RECORD = 1 << 20
FRESH_SECONDS = 600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
TYPES = {"style.css": "text/css", "verify.js": "text/javascript"}
SENTENCES = {
    "active": "A builder of this service vouches for this measurement, and nobody has withdrawn it.",
    "suspended": "This measurement is suspended for a while: machines that show it take no new prompts.",
    "revoked": "This measurement was withdrawn for good: machines that show it refuse to serve.",
    "unknown": "This log has no entry for this measurement of this service. The bundle proves the absence.",
}

View = Callable[..., str | Response]


def blueprint(site: Site) -> Blueprint:
    """Make the routes; every request reads one published snapshot."""
    pages = Blueprint("pages", __name__)
    pages.jinja_loader = FileSystemLoader(web.FOLDER / "templates")
    pages.record_once(lambda state: _add_to(state.app.jinja_env))
    pages.after_request(_headers)
    pages.context_processor(lambda: _common(site))
    measurement = "/measurements/<path:service>/<string(length=64):digest>"
    routes: Mapping[str, View] = {
        "/": lambda: _front(site),
        "/entries": lambda: _entries(site),
        "/entries/<int:index>": lambda index: _entry(site, index),
        "/entries/<int:index>.json": lambda index: jsonify(_entry_json(site, index)),
        measurement: lambda service, digest: _measurement(site, service, digest),
        f"{measurement}.json": lambda service, digest: jsonify(_measurement_json(site, service, digest)),
        "/search": lambda: _search(site),
        "/static/<name>": _static_file,
    }
    for rule, view in routes.items():
        pages.add_url_rule(rule, rule.replace(".", "_"), view, methods=["GET"])
    return pages


def _front(site: Site) -> str:
    snapshot = site.public.snapshot()
    newest = range(snapshot.size - 1, max(-1, snapshot.size - 11), -1)
    return render_template(
        "front.html", services=_services(site, snapshot), entries=_described(site, newest, snapshot)
    )


def _entries(site: Site) -> str:
    snapshot = site.public.snapshot()
    before = min(request.args.get("before", snapshot.size, type=int), snapshot.size)
    if before < 1:
        raise Malformed("before is an index above 0")
    first = max(0, before - PAGE)
    return render_template(
        "entries.html",
        entries=_described(site, range(before - 1, first - 1, -1), snapshot),
        first=first,
        last=before - 1,
        older=first or None,
    )


def _entry(site: Site, index: int) -> str:
    snapshot = site.public.snapshot()
    found, outcome = _described(site, [index], snapshot)[0], site.store.read.outcome(index)
    steps = path_steps(index, snapshot.size, site.public.tree(snapshot).inclusion_path(index))
    drawn = Markup(path_picture(index, snapshot.size, steps))  # noqa: S704  numbers and hex only
    view = {
        **_members(found),
        "rows": [_row_view(site, found.service, row, snapshot) for row in found.rows],
        "effect": outcome.effect if outcome else None,
        "code": outcome.code if outcome else None,
    }
    return render_template("entry.html", entry=view, path=steps, picture=drawn)


def _entry_json(site: Site, index: int) -> dict[str, object]:
    snapshot = site.public.snapshot()
    found, outcome = _described(site, [index], snapshot)[0], site.store.read.outcome(index)
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


def _measurement(site: Site, service: str, digest: str) -> str:
    snapshot = site.public.snapshot()
    record = _record(site, service, digest, snapshot)
    release = _release_of(site, record, snapshot)
    rows = [row for row in release.rows if row.measurement.hex() == digest] if release else []
    state = _state(record)
    return render_template(
        "measurement.html",
        id=digest,
        service=service,
        state=state,
        record=record,
        release=release,
        sentence=SENTENCES[state],
        row=_row_view(site, service, rows[0], snapshot) if rows else None,
    )


def _measurement_json(site: Site, service: str, digest: str) -> dict[str, object]:
    snapshot = site.public.snapshot()
    record = _record(site, service, digest, snapshot)
    return {
        "service": service,
        "id": digest,
        "state": _state(record),
        "record": record,
        "size": snapshot.size,
        "bundle": f"/api/v1/bundles/{service}/{digest}",
    }


def _search(site: Site) -> str:
    query = request.args.get("q", "").strip()[:200]
    snapshot = site.public.snapshot()
    indices = site.store.read.by_term(query, snapshot.size, PAGE) if query else []
    if query.isascii() and query.isdigit() and int(query) < snapshot.size:
        indices = [int(query), *indices]
    return render_template("search.html", query=query, entries=_described(site, indices, snapshot))


def _static_file(name: str) -> Response:
    if name not in TYPES:
        raise NotFound(f"no file is called {name[:100]}")
    response = Response(_asset(name), content_type=f"{TYPES[name]}; charset=utf-8")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _common(site: Site) -> dict[str, Any]:
    policy = site.policy_text()
    published, parsed = site.store.read.published(), TlogPolicy.parse(policy)
    at = datetime.fromtimestamp(published.at, UTC) if published else None
    age = max(0, int((datetime.now(UTC) - at).total_seconds())) if at else 0
    count = len(parsed.witnesses)
    log = {
        "origin": site.config.origin,
        "size": published.size if published else 0,
        "witnessed_at": at if count else None,
        "age_seconds": age,
        "freshness": "fresh" if age <= FRESH_SECONDS else "stale",
        "simulated": site.config.origin.endswith("/simulation"),
        "quorum": f"{count} witness(es) hold it to one history" if count else "no witness is demanded",
    }
    return {"log": log, "policy": policy, "base": request.host_url.rstrip("/")}


def _services(site: Site, snapshot: Snapshot) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for data in site.store.read.records(snapshot.size):
        record = _object(data)
        name = str(record.get("service", "log"))
        if name != "log":
            service = found.setdefault(name, {"name": name, "release": None, "measurements": []})
            if record["kind"] == "measurement":
                service["measurements"].append({"id": record["id"], "state": _state(record)})
    shown = [found[name] for name in sorted(found)[:SERVICES]]
    for service in shown:
        rows = site.store.read.by_service(service["name"], snapshot.size, "release")
        effective = [row.index for row in rows if row.effect]
        for newest in _described(site, effective[-1:], snapshot):
            issued = newest.release.header.issued if newest.release else None
            service["release"] = {"index": newest.index, "issued": _iso(issued) if issued else ""}
    return shown


def _record(site: Site, service: str, digest: str, snapshot: Snapshot) -> dict[str, Any] | None:
    found = site.store.read.record(key_measurement(service, hexbytes(digest, 32)), snapshot.size)
    return _object(found) if found else None


def _object(data: bytes) -> dict[str, Any]:
    found = parse_canonical(data, MAX_RECORD)
    if not isinstance(found, dict):
        raise Malformed("a record is not an object")
    return found


def _state(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "unknown"
    if record["status"] == "revoked":
        return "revoked"
    until = record.get("suspended_until")
    suspended = until is not None and datetime.fromisoformat(until) > datetime.now(UTC)
    return "suspended" if suspended else "active"


def _release_of(site: Site, record: Mapping[str, Any] | None, snapshot: Snapshot) -> Description | None:
    if record is None or "release" not in record:
        return None
    rows = site.store.read.by_statement(str(record["release"]), snapshot.size)
    found = _described(site, [row.index for row in rows if row.effect], snapshot)
    return found[0] if found else None


def _row_view(site: Site, service: str | None, row: Row, snapshot: Snapshot) -> dict[str, Any]:
    digest = row.measurement.hex()
    return {
        "platform": row.platform,
        "profile": row.profile,
        "id": digest,
        "registers": {name: value.hex() for name, value in row.registers.items()},
        "state": _state(_record(site, service, digest, snapshot)) if service else "unknown",
    }


def _described(site: Site, indices: Iterable[int], snapshot: Snapshot) -> list[Description]:
    return [describe(index, site.public.entry(index, snapshot.size)) for index in indices]


def _members(value: Description) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _add_to(environment: Any) -> None:
    """Add the filters and functions that the templates use."""
    environment.filters["iso"] = _iso
    environment.filters["utc"] = lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC"
    environment.globals["static"] = lambda name: f"/static/{name}?{_digest('sha256', name).hex()[:16]}"
    environment.globals["integrity"] = lambda name: (
        "sha384-" + base64.b64encode(_digest("sha384", name)).decode()
    )


def _iso(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _digest(algorithm: str, name: str) -> bytes:
    return hashlib.new(algorithm, _asset(name)).digest()


@cache
def _asset(name: str) -> bytes:
    return (web.FOLDER / "static" / name).read_bytes()


def _headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
