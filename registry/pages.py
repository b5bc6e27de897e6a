"""The auditors' pages: rendered here, complete without JavaScript, with one ``.json`` twin each.

Everything shown is bounded by the published size. What a page claims is this server's word; ``verify.js``
recomputes it in the browser, and each page shows the command that repeats it offline.
"""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request
from jinja2 import ChoiceLoader, FileSystemLoader
from markupsafe import Markup

from quotary.canonical import hexbytes, parse_canonical
from quotary.statements.keys import key_measurement
from quotary.statements.row import Row
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import inclusion_path
from registry.describe import Description, describe
from registry.errors import NotFound, NotPublished
from registry.picture import path_picture, path_steps
from registry.store import Published, Reader
from registry.tree import StoredTiles

PAGE = 50
FRESH_SECONDS = 600
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {"style.css": "text/css", "verify.js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class Site:
    """What the pages read: the store, the tiles, and the log's policy text."""

    read: Reader
    tiles: StoredTiles
    origin: str
    policy: str

    def published(self) -> Published:
        found = self.read.published()
        if found is None:
            raise NotPublished("nothing is published yet", 0)
        return found

    def entry(self, index: int) -> Description:
        size = self.published().size
        if index >= size:
            raise NotPublished(f"the published log has {size} entries, you asked for index {index}", size)
        return describe(index, self.read.entries(index, index + 1)[0])

    def record(self, service: str, measurement: str, size: int) -> dict[str, Any] | None:
        """Give the status record of a measurement as of ``size``; None where the log never heard of it."""
        found = self.read.record(key_measurement(service, hexbytes(measurement, 32)), size)
        return parse_canonical(found, 1 << 16) if found else None  # type: ignore[return-value]  # an object by F1


def pages(site: Site) -> Blueprint:
    """Make the blueprint; ``site`` is asked anew at each request."""
    blueprint = Blueprint("pages", __name__)
    blueprint.record_once(lambda state: _templates(state.app.jinja_env))
    blueprint.after_request(_headers)
    blueprint.context_processor(
        lambda: {"log": _log(site), "policy": site.policy, "base": request.host_url.rstrip("/")}
    )
    routes = {
        "/": lambda: _front(site),
        "/entries": lambda: _entries(site),
        "/entries/<int:index>": lambda index: _entry(site, index),
        "/entries/<int:index>.json": lambda index: jsonify(_entry_json(site, index)),
        "/measurements/<service>/<measurement>": lambda service, measurement: _measurement(
            site, service, measurement
        ),
        "/measurements/<service>/<measurement>.json": lambda service, measurement: jsonify(
            _measurement_json(site, service, measurement)
        ),
        "/search": lambda: _search(site),
        "/static/<name>": _static_file,
    }
    for rule, view in routes.items():
        blueprint.add_url_rule(rule, rule, view, methods=["GET"])
    return blueprint


def _front(site: Site) -> str:
    size = site.published().size
    entries = _described(site, range(size - 1, max(-1, size - 11), -1))
    return render_template("front.html", services=_services(site, size), entries=entries)


def _entries(site: Site) -> str:
    size = site.published().size
    before = min(request.args.get("before", size, type=int), size)
    first = max(0, before - PAGE)
    entries = _described(site, range(before - 1, first - 1, -1))
    return render_template(
        "entries.html", entries=entries, first=first, last=max(before - 1, 0), older=first or None
    )


def _entry(site: Site, index: int) -> str:
    found, size = site.entry(index), site.published().size
    steps = path_steps(index, size, inclusion_path(index, size, site.tiles))
    outcome = site.read.outcome(index)
    view = {
        **_members(found),
        "rows": _rows(site, found.service, found.rows, size),
        "effect": outcome.effect if outcome else None,
        "code": outcome.code if outcome else None,
    }
    drawn = Markup(path_picture(index, size, steps))  # noqa: S704  numbers and hex only
    return render_template("entry.html", entry=view, path=steps, picture=drawn)


def _entry_json(site: Site, index: int) -> dict[str, Any]:
    found, outcome = site.entry(index), site.read.outcome(index)
    entry = site.read.entries(index, index + 1)[0]
    return {
        "index": index,
        "kind": found.kind,
        "summary": found.summary,
        "leaf_hash": found.leaf_hash,
        "statement_id": found.statement_id,
        "signers": list(found.signers),
        "outcome": {"effect": outcome.effect, "code": outcome.code} if outcome else None,
        "entry": base64.b64encode(entry).decode(),
        "proof": f"/api/v1/proofs/{index}",
        "size": site.published().size,
    }


def _measurement(site: Site, service: str, measurement: str) -> str:
    size = site.published().size
    record = site.record(service, measurement, size)
    release = _release_of(site, record, size)
    rows = [row for row in release.rows if row.measurement.hex() == measurement] if release else []
    row = rows[0] if rows else None
    state = _state(record)
    return render_template(
        "measurement.html",
        id=measurement,
        service=service,
        state=state,
        record=record,
        release=release,
        sentence=_SENTENCES[state],
        row={**_members(row), "registers": {k: v.hex() for k, v in row.registers.items()}} if row else None,
    )


def _measurement_json(site: Site, service: str, measurement: str) -> dict[str, Any]:
    size = site.published().size
    record = site.record(service, measurement, size)
    bundle = f"/api/v1/bundles/{service}/{measurement}"
    return {
        "service": service,
        "id": measurement,
        "state": _state(record),
        "record": record,
        "size": size,
        "bundle": bundle,
    }


def _search(site: Site) -> str:
    query = request.args.get("q", "").strip()[:200]
    size = site.published().size
    indices = site.read.by_term(query.lower(), size, PAGE) if query else []
    if query.isdigit() and int(query) < size:
        indices = [int(query), *indices]
    return render_template("search.html", query=query, entries=_described(site, indices))


def _static_file(name: str) -> Response:
    if name not in TYPES:
        raise NotFound(f"no file is called {name[:100]}")
    response = Response(_asset(name), content_type=f"{TYPES[name]}; charset=utf-8")
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


_SENTENCES = {
    "active": "A builder of this service vouches for this measurement, and nobody has withdrawn it.",
    "suspended": "This measurement is suspended for a while: machines that show it take no new prompts.",
    "revoked": "This measurement was withdrawn for good: machines that show it refuse to serve.",
    "unknown": "This log has no entry for this measurement of this service. The bundle proves the absence.",
}


def _log(site: Site) -> dict[str, Any]:
    published = site.read.published()
    at = datetime.fromtimestamp(published.at, UTC) if published else None
    age = max(0, int((datetime.now(UTC) - at).total_seconds())) if at else 0
    policy = TlogPolicy.parse(site.policy)
    return {
        "origin": site.origin,
        "size": published.size if published else 0,
        "witnessed_at": at if policy.witnesses else None,
        "age_seconds": age,
        "freshness": "fresh" if age <= FRESH_SECONDS else "stale",
        "simulated": site.origin.endswith("/simulation"),
        "quorum": f"{len(policy.witnesses)} witness(es) hold it to one history"
        if policy.witnesses
        else "no witness is demanded",
    }


def _services(site: Site, size: int) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for data in site.read.records(size):
        record: Any = parse_canonical(data, 1 << 16)
        if record["kind"] in ("service", "measurement"):
            service = found.setdefault(
                record["service"], {"name": record["service"], "release": None, "measurements": []}
            )
            if record["kind"] == "measurement":
                service["measurements"].append({"id": record["id"], "state": _state(record)})
    for name, service in found.items():
        releases = [row for row in site.read.by_service(name, size, "release") if row.effect]
        if releases:
            newest = site.entry(releases[-1].index)
            issued = newest.release.header.issued if newest.release else None
            service["release"] = {
                "index": newest.index,
                "issued": f"{issued:%Y-%m-%dT%H:%M:%SZ}" if issued else "",
            }
    return sorted(
        (service for name, service in found.items() if name != "log"),
        key=lambda service: str(service["name"]),
    )


def _state(record: dict[str, Any] | None) -> str:
    if record is None:
        return "unknown"
    if record["status"] == "revoked":
        return "revoked"
    until = record.get("suspended_until")
    suspended = until is not None and datetime.fromisoformat(until) > datetime.now(UTC)
    return "suspended" if suspended else "active"


def _release_of(site: Site, record: dict[str, Any] | None, size: int) -> Description | None:
    if record is None or "release" not in record:
        return None
    rows = [row for row in site.read.by_statement(record["release"], size) if row.effect]
    return site.entry(rows[0].index) if rows else None


def _rows(site: Site, service: str | None, rows: Iterable[Row], size: int) -> list[dict[str, str]]:
    if service is None:
        return []
    return [
        {
            "platform": row.platform,
            "profile": row.profile,
            "id": row.measurement.hex(),
            "state": _state(site.record(service, row.measurement.hex(), size)),
        }
        for row in rows
    ]


def _described(site: Site, indices: Iterable[int]) -> list[Description]:
    return [site.entry(index) for index in indices]


def _members(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def _templates(environment: Any) -> None:
    folder = FileSystemLoader(str(resources.files("web").joinpath("templates")))
    environment.loader = ChoiceLoader([folder, environment.loader]) if environment.loader else folder
    environment.filters["iso"] = lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}"
    environment.filters["utc"] = lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC"
    environment.globals["static"] = lambda name: (
        f"/static/{name}?{hashlib.sha256(_asset(name)).hexdigest()[:16]}"
    )
    environment.globals["integrity"] = lambda name: (
        "sha384-" + base64.b64encode(hashlib.sha384(_asset(name)).digest()).decode()
    )


@cache
def _asset(name: str) -> bytes:
    return resources.files("web").joinpath("static", name).read_bytes()


def _headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response
