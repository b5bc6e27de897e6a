"""The front page: what runs, who vouches for it, and what happened last."""

from registry.pages.lookup import described, listed, newest_release
from registry.pages.revocations import timeline
from registry.pages.services import shown_services
from registry.site import Site

ENTRIES = 10
REVOCATIONS = 5


def front(site: Site) -> dict[str, object]:
    """Say the newest services with their newest release, the newest revocations and the newest entries."""
    snapshot = site.public.snapshot()
    newest = range(snapshot.size - 1, max(-1, snapshot.size - 1 - ENTRIES), -1)
    rows = shown_services(site, snapshot, snapshot.size)
    withdrawn = timeline(site)["revocations"]
    assert isinstance(withdrawn, list)
    return {
        "origin": snapshot.checkpoint.origin,
        "size": snapshot.size,
        "services": [newest_release(site, row.service, snapshot) for row in rows],
        "revocations": withdrawn[:REVOCATIONS],
        "entries": listed(described(site, newest, snapshot)),
    }
