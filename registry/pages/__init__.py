"""The auditors' pages: rendered here, complete without JavaScript, with one ``.json`` twin each.

Everything shown is bounded by the published size. What a page claims is this server's word; ``verify.js``
recomputes it in the browser, and each page shows the command that repeats it offline.
"""

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from jinja2 import FileSystemLoader

import web
from quotary.statements.sentence import counted
from quotary.tlog.policy import TlogPolicy
from registry.c2sp import IMMUTABLE, cached
from registry.errors import NotFound
from registry.pages import feeds
from registry.pages.lookup import iso
from registry.pages.standalone import MODULES, REPLAY, standalone
from registry.pages.table import FEEDS, PAGES, Page, twin
from registry.site import Site

FRESH_SECONDS = 600
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types {}"
)
POLICY = _POLICY.format("'none'")
TYPES = {"style.css": "text/css"} | dict.fromkeys([*MODULES, *REPLAY, "boot.js"], "text/javascript")

STANDALONE = "/verify/standalone.html"

View = Callable[..., Response]


def blueprint(site: Site) -> Blueprint:
    """Make the routes; every request reads one published snapshot."""
    made = Blueprint("pages", __name__)
    made.jinja_loader = FileSystemLoader(web.FOLDER / "templates")
    made.record_once(lambda state: _add_to(state.app.jinja_env))
    made.after_request(_headers)
    made.context_processor(lambda: _common(site))
    routes: dict[str, View] = {"/static/<name>": _static_file, STANDALONE: _standalone}
    for rule, page in PAGES.items():
        routes[rule] = partial(_page, site, page)
        routes[twin(rule)] = partial(_twin, site, page)
    for rule, feed in FEEDS.items():
        routes[rule] = partial(_feed, site, feed)
    for rule, view in routes.items():
        made.add_url_rule(rule, rule.replace(".", "_"), view, methods=["GET"])
    return made


def _page(site: Site, page: Page, **values: Any) -> Response:
    response = make_response(render_template(page.template, **page.said(site, **values)))
    response.headers["Content-Security-Policy"] = _POLICY.format(page.trusted_types)
    return response


def _twin(site: Site, page: Page, **values: Any) -> Response:
    said = page.said(site, **values)
    return jsonify({name: value for name, value in said.items() if not name.endswith("picture")})


def _feed(site: Site, feed: Callable[..., feeds.Feed], **values: Any) -> Response:
    return feeds.rendered(site, feed(site, **values))


def _static_file(name: str) -> Response:
    if name not in TYPES:
        raise NotFound(f"no file is called {name[:100]}")
    # A module that another one imports has no digest in its address, so its next version has the same.
    caching = IMMUTABLE if request.query_string else "no-cache"
    return cached(_asset(name), f"{TYPES[name]}; charset=utf-8", caching)


def _standalone() -> Response:
    # Its own policy stands in it, and lets in less than ours.
    response = cached(standalone(), "text/html; charset=utf-8", "no-cache")
    response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
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
        "ended": site.public.snapshot().state.end if published else None,
        "witnessed_at": at if count else None,
        "age_seconds": age,
        "freshness": "fresh" if age <= FRESH_SECONDS else "stale",
        "simulated": site.config.origin.endswith("/simulation"),
        "quorum": _quorum(count),
    }
    return {"log": log, "policy": policy, "base": request.host_url.rstrip("/")}


def _quorum(count: int) -> str:
    if not count:
        return "no witness is demanded"
    return f"{counted(count, 'witness', 'es')} {'holds' if count == 1 else 'hold'} it to one history"


def _add_to(environment: Any) -> None:
    """Add the filters and functions that the templates use."""
    environment.filters["iso"] = iso
    environment.filters["utc"] = lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC"
    environment.globals["modules"] = MODULES
    environment.globals["modules_of_bundles"] = MODULES[: MODULES.index("bundle.js") + 1]
    environment.globals["static"] = lambda name: f"/static/{name}?{_digest('sha256', name).hex()[:16]}"
    environment.globals["integrity"] = lambda name: (
        "sha384-" + base64.b64encode(_digest("sha384", name)).decode()
    )


def _digest(algorithm: str, name: str) -> bytes:
    return hashlib.new(algorithm, _asset(name)).digest()


@cache
def _asset(name: str) -> bytes:
    return (web.FOLDER / "static" / name).read_bytes()


def _headers(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response
