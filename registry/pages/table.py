"""Every page of the site: its address, its template, and the function that gives what it and its twin say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.pages import (
    builders,
    checkpoints,
    compare,
    digests,
    entries,
    feeds,
    floors,
    front,
    history,
    measurements,
    rebuilds,
    releases,
    revocations,
    routes,
    services,
    standing,
)
from registry.pages.standalone import item
from registry.site import Site

Said = Callable[..., dict[str, object]]
Feed = Callable[..., feeds.Feed]


@dataclass(frozen=True, slots=True)
class Page:
    """One page; ``said`` is called with the site and the values in the address.

    trusted_types: the one policy by which its script may name a Worker; none may elsewhere
    """

    template: str
    said: Said
    trusted_types: str = "'none'"


def _checks(site: Site) -> dict[str, object]:
    digest = str(item()["sha256"])
    size = site.store.read.published_size()
    return {
        "origin": site.config.origin,
        "policy": site.policy_text(),
        "standalone": {"path": "/verify/standalone.html", "sha256": digest},
        "logged": site.store.read.by_term(digest, size, 1),
    }


PAGES: Mapping[str, Page] = {
    "/": Page("front.html", front.front),
    "/search": Page("search.html", digests.search),
    "/entries": Page("entries.html", entries.entries),
    "/entries/<int:index>": Page("entry.html", entries.entry),
    "/digests/<digest>": Page("digest.html", digests.digest),
    "/measurements/<path:service>/<string(length=64):digest>": Page(
        "measurement.html", measurements.measurement
    ),
    "/services": Page("services.html", services.services),
    "/services/<path:service>/": Page("service.html", services.service),
    "/releases": Page("releases.html", releases.releases),
    "/releases/<int:index>": Page("release.html", releases.release),
    "/compare": Page("compare.html", compare.compare),
    "/builders": Page("builders.html", builders.builders),
    "/rebuilds": Page("rebuilds.html", rebuilds.rebuilds),
    "/revocations": Page("revocations.html", revocations.timeline),
    "/tcb": Page("floors.html", floors.floors),
    "/log": Page("log.html", history.newest),
    "/log/growth": Page("growth.html", checkpoints.growth),
    "/log/checkpoints": Page("checkpoints.html", checkpoints.checkpoints),
    "/log/checkpoints/<int:size>": Page("checkpoint.html", checkpoints.checkpoint),
    "/log/consistency": Page("consistency.html", history.consistency),
    "/witnesses": Page("witnesses.html", standing.witnesses),
    "/verify": Page("verify.html", _checks),
    "/audit": Page("audit.html", _checks, "quotary-audit"),
    "/policies": Page("policies.html", _checks),
    "/trust": Page("trust.html", standing.trust),
    "/status": Page("status.html", standing.status),
    "/api": Page("api.html", routes.routes),
}

FEEDS: Mapping[str, Feed] = {
    "/entries.atom": feeds.entries,
    "/releases.atom": feeds.releases,
    "/rebuilds.atom": feeds.rebuilds,
    "/revocations.atom": feeds.revocations,
    "/builders.atom": feeds.delegations,
    "/log/checkpoints.atom": feeds.checkpoints,
    "/services/<path:service>/feed.atom": feeds.service,
}


def twin(rule: str) -> str:
    """Give the address of a page's JSON; a service may be called anything, so its page ends in a slash."""
    return f"{rule}index.json" if rule.endswith("/") else f"{rule}.json"
