"""``/healthz``: this process runs. ``/readyz``: it can answer, and accept."""

from flask import Blueprint, Response

from registry.errors import NotPublished, StoreUnavailable
from registry.site import Site

TEXT = "text/plain; charset=utf-8"


def blueprint(site: Site) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return Response("ok\n", content_type=TEXT, headers={"Cache-Control": "no-store"})

    @routes.get("/readyz")
    def readyz() -> Response:
        site.signer.head()
        try:
            size = site.public.snapshot().size
        except NotPublished as error:
            raise StoreUnavailable(f"not ready: {error}") from error
        return Response(f"published size {size}\n", content_type=TEXT, headers={"Cache-Control": "no-store"})

    return routes
