"""The WSGI application: every route is a blueprint over one ``Site``."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, Response

from quotary.garbage import collect_rarely
from registry import api, c2sp, health, logs, metrics, openapi, pages, problems
from registry.config import Config, load_config
from registry.desk import Judge
from registry.judging import JudgeClient
from registry.site import open_site

# Entry bytes are shown to nobody's browser as a page, and no page of ours runs foreign code.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
DEFAULT_POLICY = "default-src 'none'; frame-ancestors 'none'"


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(config: Config, now: Callable[[], datetime] = utc_now, judge: Judge | None = None) -> Flask:
    """Make the application of one registry; without a judge it admits entries by itself."""
    site = open_site(config, now, judge)
    app = Flask("registry", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    app.config["MAX_CONTENT_LENGTH"] = api.MAX_BATCH
    # A service may be called "a//b"; and what a route does not do is refused, also OPTIONS.
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.extensions["registry"] = site
    app.extensions["meters"] = meters = metrics.Meters()
    metrics.register(app, meters)
    problems.register(app)
    for module in (c2sp, api, health, pages):
        app.register_blueprint(module.blueprint(site))
    openapi.register(app)
    app.after_request(_add_headers)
    return app


def wsgi(folder: str) -> Flask:
    """What gunicorn calls in each worker."""
    logs.set_up()
    config = load_config(Path(folder))
    app = create_app(config, judge=JudgeClient(config.judge_socket))
    collect_rarely()
    return app


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", DEFAULT_POLICY)
    return response
