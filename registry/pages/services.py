"""The services of the log, and one of them: who may speak for it, its releases, and how they fared."""

from flask import request
from markupsafe import Markup

from quotary.statements.predicates import LOG_SERVICE
from registry.errors import NotFound
from registry.pages.builders import service_view
from registry.pages.lookup import WINDOW, before_of, described, listed, log_time, newest_release, statement_at
from registry.pages.releases import release_line
from registry.picture import Mark, timeline_picture
from registry.public import Snapshot
from registry.site import Site
from registry.store.rows import OutcomeRow

PAGE = 20
KINDS = ("release", "rebuild", "revocation", "delegation")


def services(site: Site) -> dict[str, object]:
    """Say the services that were allocated last below ``before``, newest first."""
    snapshot = site.public.snapshot()
    before = before_of(snapshot)
    rows = shown_services(site, snapshot, before)
    return {
        "size": snapshot.size,
        "services": [newest_release(site, row.service, snapshot) for row in rows],
        "newest": before == snapshot.size,
        "older": rows[-1].index if len(rows) == PAGE else None,
    }


def shown_services(site: Site, snapshot: Snapshot, before: int) -> list[OutcomeRow]:
    """Give the allocations of a page of services, newest first; the log's own is none."""
    rows = site.store.read.allocations(min(before, snapshot.size), PAGE + 1)
    return [row for row in reversed(rows) if row.service != LOG_SERVICE][:PAGE]


def service(site: Site, service: str) -> dict[str, object]:
    """Say who speaks for a service, its newest releases, and everything that happened to it lately."""
    snapshot = site.public.snapshot()
    before = before_of(snapshot)
    rows = site.store.read.newest_of(service, before, PAGE)[::-1]
    if not rows and not site.store.read.newest_of(service, snapshot.size, 1):
        raise NotFound(f"the log has no statement of the service {service[:100]}")
    released = site.store.read.newest_of_kind("release", max(0, before - WINDOW), before, PAGE, service)
    events = [_event(site, row, snapshot) for row in rows if row.effect]
    marks = [Mark(str(event["at"]), str(event["kind"]), int(str(event["index"]))) for event in events[::-1]]
    return {
        "size": snapshot.size,
        "service": service,
        "authority": service_view(site, service, snapshot, site.now()),
        "releases": [release_line(site, row, snapshot) for row in released],
        "events": events,
        "picture": Markup(timeline_picture(service, marks)),  # noqa: S704  escaped where it is made
        "without_effect": listed(described(site, [row.index for row in rows if not row.effect], snapshot)),
        "newest": before == snapshot.size and not request.args.get("before"),
        "older": rows[-1].index if len(rows) == PAGE else None,
    }


def _event(site: Site, row: OutcomeRow, snapshot: Snapshot) -> dict[str, object]:
    (found,) = listed(described(site, [row.index], snapshot))
    issued = statement_at(site, row.index, snapshot).issued
    return {**found, "issued": f"{issued:%Y-%m-%dT%H:%M:%SZ}", "at": log_time(site, row.closed_by, snapshot)}
