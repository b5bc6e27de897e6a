"""The log as C2SP clients read it: ``/checkpoint``, ``/tile/...`` and ``/tile/entries/...`` (c2sp.org/tlog-
tiles).
"""

from flask import Blueprint, Response, request

from quotary.tlog.tiles import parse_tile_path
from registry.site import Site

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
IMMUTABLE = "public, max-age=31536000, immutable"
SHORT = "public, max-age=2"


def blueprint(site: Site) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("c2sp", __name__)

    @routes.get("/checkpoint")
    def checkpoint() -> Response:
        return cached(site.public.snapshot().note, TEXT, SHORT)

    @routes.get("/tile/<path:rest>")
    def tile(rest: str) -> Response:
        path = parse_tile_path(f"tile/{rest}")
        size = site.store.read.published_size()
        return cached(site.public.tile_bytes(path, size), BYTES, IMMUTABLE)

    @routes.get("/signed/tile/<path:rest>")
    def signed_tile(rest: str) -> Response:
        """What a map auditor replays before anybody publishes it; there is no checkpoint beside it."""
        path = parse_tile_path(f"tile/{rest}")
        signed = site.store.read.signed()
        body = site.public.tile_bytes(path, signed.size if signed else 0)
        return Response(body, content_type=BYTES, headers={"Cache-Control": "no-store"})

    return routes


def cached(body: bytes, content_type: str, caching: str) -> Response:
    """Answer with a body that may be cached, and with 304 to those who have it."""
    response = Response(body, content_type=content_type, headers={"Cache-Control": caching})
    response.add_etag()
    response.make_conditional(request)
    return response
