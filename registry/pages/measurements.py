"""One measurement of one service: its status in a plain sentence, and where it comes from."""

from registry.pages.lookup import record_of, release_of, row_view, status_of
from registry.site import Site

SENTENCES = {
    "active": "A builder of this service vouches for this measurement, and nobody has withdrawn it.",
    "suspended": "This measurement is suspended for a while: machines that show it take no new prompts.",
    "revoked": "This measurement was withdrawn for good: machines that show it refuse to serve.",
    "unknown": "This log has no entry for this measurement of this service. The bundle proves the absence.",
}


def measurement(site: Site, service: str, digest: str) -> dict[str, object]:
    """Say what the status map has for a measurement id, and which release lists it."""
    snapshot = site.public.snapshot()
    record = record_of(site, service, digest, snapshot)
    release = release_of(site, record, snapshot)
    rows = [row for row in release.rows if row.measurement.hex() == digest] if release else []
    state = status_of(record)
    return {
        "service": service,
        "id": digest,
        "state": state,
        "sentence": SENTENCES[state],
        "record": record,
        "release": release.index if release else None,
        "row": row_view(site, service, rows[0], snapshot) if rows else None,
        "size": snapshot.size,
        "bundle": f"/api/v1/bundles/{service}/{digest}",
    }
