"""``/healthz``: this process runs. ``/readyz``: it can answer and accept, and the log goes on."""

from flask import Blueprint, Response

from quotary.errors import CannotTell
from registry.errors import NotPublished, StoreUnavailable
from registry.machine import READY_BYTES, check_room
from registry.scrub import recall
from registry.site import Site

TEXT = "text/plain; charset=utf-8"


def blueprint(site: Site) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("health", __name__)

    @routes.get("/healthz")
    def healthz() -> Response:
        return _text("ok\n")

    @routes.get("/readyz")
    def readyz() -> Response:
        size, age = _published(site)
        site.signer.head()
        site.desk.check()
        free = check_room(site.config.folder, READY_BYTES)
        if damage := recall(site.config.scrub).damage:
            raise CannotTell(f"not ready: the log was read again, and {damage}")
        return _text(f"published size {size}\ncheckpoint age {age} s\nsigner answers\nfree {free} bytes\n")

    return routes


def stale_seconds(site: Site) -> float:
    """Give the age of a checkpoint from which on what is accepted may miss its promise."""
    return max(site.config.promise_seconds / 2, 3 * site.config.refresh_seconds)


def _published(site: Site) -> tuple[int, int]:
    try:
        snapshot = site.public.snapshot()
    except NotPublished as error:
        raise StoreUnavailable(f"not ready: {error}") from error
    age, most = int(site.now().timestamp()) - snapshot.at, stale_seconds(site)
    if age > most:
        raise CannotTell(
            f"not ready: the newest checkpoint is {age} s old, wanted at most {most:g} s: "
            "the sequencer stands, or its witnesses are silent"
        )
    return snapshot.size, age


def _text(text: str) -> Response:
    return Response(text, content_type=TEXT, headers={"Cache-Control": "no-store"})
