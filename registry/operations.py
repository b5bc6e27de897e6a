"""What each route takes and answers; ``/openapi.json`` is made of this table and of the routes themselves.

A route that does not stand here has no description, and a test fails for it; so does an answer with a status
or a problem type that its row does not name.
"""

from dataclasses import dataclass

from registry.schemas import HEX32, INDEX, MAX_INDEX, NAME, TEXT, TILE, Schema

JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
HTML = "text/html; charset=utf-8"
ATOM = "application/atom+xml; charset=utf-8"
NDJSON = "application/x-ndjson"
BUNDLE = "application/vnd.quotary.bundle+json"
COSE = 'application/cose; cose-type="cose-sign1"'

EVERYWHERE = ("http", "internal", "method-not-allowed", "unavailable")
"""Problem types with which any route may answer."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One route.

    media:    of the answer with status 200
    problems: problem types beside those of ``EVERYWHERE``
    query:    names in ``PARAMETERS``
    schema:   of a JSON answer, a name in ``SCHEMAS``
    cached:   the answer has an ETag, and 304 says that it has not changed
    takes:    media type of the body
    accepted: schema of the answer with status 202
    """

    summary: str
    media: str
    problems: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    schema: str = ""
    cached: bool = False
    takes: str = ""
    accepted: str = ""


_ABSENT = ("malformed", "not-found", "not-yet-published")
_LATER = ("malformed", "not-yet-published")
_WRITING = ("malformed", "too-large", "busy", "full")
_REFUSING = ("log-ended", "not-admitted", "not-authorised", "reserved", "unsupported")

_API: dict[str, Operation] = {
    "api.submit": Operation(
        "Submit one entry, its exact bytes",
        JSON,
        (*_WRITING, *_REFUSING),
        ("wait",),
        "Published",
        takes=JSON,
        accepted="Accepted",
    ),
    "api.batch": Operation(
        "Submit entries, one a line; answers one line each", NDJSON, _WRITING, takes=NDJSON
    ),
    "api.log": Operation("The log: origin, verifier keys, sizes, tlog-policy", JSON, (), (), "Log", True),
    "api.entry": Operation("An entry's bytes by index", BYTES, _LATER, cached=True),
    "api.entry_by_hash": Operation("An entry's bytes by leaf hash", BYTES, _ABSENT, cached=True),
    "api.proof": Operation("A tlog-proof by index or leaf hash", PLAIN, _ABSENT, cached=True),
    "api.consistency": Operation(
        "A consistency path between two published sizes",
        JSON,
        _LATER,
        ("old", "new"),
        "Consistency",
        True,
    ),
    "api.cose_inclusion": Operation(
        "A COSE receipt (RFC 9942) of an entry's inclusion, by index or leaf hash", COSE, _ABSENT, cached=True
    ),
    "api.cose_consistency": Operation(
        "A COSE receipt (RFC 9942) that the published log continues an older size", COSE, _LATER, cached=True
    ),
    "api.search": Operation(
        "Exact search, newest first",
        JSON,
        ("not-yet-published",),
        ("q",),
        "Search",
        True,
    ),
    "api.measurement": Operation(
        "The status record of a measurement id, and the entries that name it",
        JSON,
        _ABSENT,
        (),
        "Measurement",
        True,
    ),
    "api.bundle": Operation(
        "The bundle of a measurement id, or the proof that the log does not have it",
        BUNDLE,
        _LATER,
        (),
        "Bundle",
        True,
    ),
    "api.tcb": Operation("The TCB floors of a platform", JSON, _LATER, (), "Floors", True),
    "api.collateral": Operation(
        "Vendor-signed documents of a product, as the registry fetched them",
        JSON,
        (),
        (),
        "Collateral",
        True,
    ),
    "api.facts": Operation(
        "What a vendor signed and which checks held, of posted evidence; no verdict",
        JSON,
        ("malformed", "too-large", "busy", "unsupported", "evidence-refused", "collateral-missing"),
        (),
        "Facts",
        takes=JSON,
    ),
    "api.services": Operation("The names of all services", JSON, _LATER, ("before",), "Services", True),
    "api.service": Operation(
        "A service: delegations, releases, next sequence numbers",
        JSON,
        _ABSENT,
        ("before",),
        "Service",
        True,
    ),
}

_OTHERS: dict[str, Operation] = {
    "c2sp.checkpoint": Operation(
        "The published checkpoint (c2sp.org/tlog-checkpoint)",
        PLAIN,
        ("not-yet-published",),
        cached=True,
    ),
    "c2sp.tile": Operation("A tile or an entry bundle (c2sp.org/tlog-tiles)", BYTES, _LATER, cached=True),
    "c2sp.signed_tile": Operation(
        "A tile or entry bundle that is signed and not yet published, for map auditors", BYTES, _LATER
    ),
    "health.healthz": Operation("This process runs", PLAIN),
    "health.readyz": Operation("This process can answer and accept, and the log goes on", PLAIN, ("full",)),
    "problem": Operation("What a problem type means", PLAIN, ("not-found",)),
    "openapi": Operation("This document", JSON, schema="Document"),
}

_PAGES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "/": ("The front page", _LATER, ()),
    "/search": (
        "Search for people: how the words were read, and what names them",
        ("not-yet-published",),
        ("q",),
    ),
    "/entries": ("The newest entries", _LATER, ("page", "kind")),
    "/entries/<int:index>": (
        "One entry, what it says and what it did",
        ("not-found", "not-yet-published"),
        (),
    ),
    "/digests/<digest>": ("Every role of a digest", _LATER, ("at",)),
    "/measurements/<path:service>/<string(length=64):digest>": (
        "A measurement id and its status",
        _ABSENT,
        (),
    ),
    "/services": ("The newest services", _LATER, ("page",)),
    "/services/<path:service>/": ("One service: releases, events, keys", _ABSENT, ("page",)),
    "/releases": ("The newest releases", _LATER, ("page",)),
    "/releases/<int:index>": ("One release: registers, inputs, rebuilds", _ABSENT, ()),
    "/compare": ("Two releases side by side", _ABSENT, ("older", "newer")),
    "/builders": ("Who may speak for which service", _LATER, ("page",)),
    "/rebuilds": ("Who built which release again", _LATER, ("page",)),
    "/revocations": ("What was withdrawn, newest first", _LATER, ("page",)),
    "/tcb": ("The TCB floors", ("not-yet-published",), ()),
    "/log": ("The newest checkpoint and who signed it", ("not-yet-published",), ()),
    "/log/growth": ("How the log grew, and its tree", ("not-yet-published",), ()),
    "/log/checkpoints": ("The checkpoints that the log signed", _LATER, ("page",)),
    "/log/checkpoints/<int:size>": ("One checkpoint", _ABSENT, ()),
    "/log/consistency": ("That one size continues another", _LATER, ("older", "newer")),
    "/witnesses": ("The witnesses and how far they are", ("not-yet-published",), ()),
    "/verify": ("Check a checkpoint or proof in this browser", (), ()),
    "/audit": ("Replay the log in this browser", (), ()),
    "/policies": ("Try a policy on a bundle in this browser", (), ()),
    "/trust": ("What to pin", ("not-yet-published",), ()),
    "/status": ("What works and what is late", ("not-yet-published",), ()),
    "/api": ("This interface for people", (), ()),
}

_FEEDS: dict[str, tuple[str, ...]] = {
    "/entries.atom": _LATER,
    "/releases.atom": _LATER,
    "/rebuilds.atom": _LATER,
    "/revocations.atom": _LATER,
    "/builders.atom": _LATER,
    "/log/checkpoints.atom": _LATER,
    "/services/<path:service>/feed.atom": _ABSENT,
}


def _endpoint(rule: str) -> str:
    return "pages." + rule.replace(".", "_")


OPERATIONS: dict[str, Operation] = {
    **_API,
    **_OTHERS,
    "pages./verify/standalone_html": Operation("The verifier as one page to save", HTML, cached=True),
    "pages./static/<name>": Operation("The stylesheet and the verifier", "text/*", ("not-found",)),
    **{
        _endpoint(rule): Operation(said, HTML, problems, query)
        for rule, (said, problems, query) in _PAGES.items()
    },
    **{
        _endpoint(f"{rule}index.json" if rule.endswith("/") else f"{rule}.json"): Operation(
            "The same for programs", JSON, problems, query, "Page"
        )
        for rule, (_, problems, query) in _PAGES.items()
    },
    **{
        _endpoint(rule): Operation("The newest as an Atom feed", ATOM, problems)
        for rule, problems in _FEEDS.items()
    },
}
"""By the name of the endpoint."""

PATH_PARAMETERS: dict[str, Schema] = {
    "rest": {
        "description": "level and number of a tile, as c2sp.org/tlog-tiles writes them",
        "schema": TILE,
        "example": "0/000.p/1",
    },
    "size": {"description": "a published size", "schema": INDEX, "example": "1"},
    "index": {"description": "index of an entry", "schema": INDEX, "example": "0"},
    "digest": {"description": "leaf hash, or measurement id", "schema": HEX32},
    "name": {
        "description": "an index or a leaf hash; the name of a problem type or file",
        "schema": TEXT,
        "example": "0",
    },
    "service": {
        "description": "name of a service; it may hold slashes",
        "schema": NAME,
        "example": "log",
    },
    "measurement": {"description": "measurement id", "schema": HEX32},
    "platform": {"description": "name of a platform", "schema": NAME, "example": "tdx"},
    "product": {"description": "FMSPC, or AMD's name of the family", "schema": NAME, "example": "genoa"},
}

PARAMETERS: dict[str, tuple[str, bool, str, Schema]] = {
    "wait": ("wait", False, "published waits up to 10 s", {"enum": ["accepted", "published"]}),
    "old": ("old", True, "a published size, 1 or more", INDEX),
    "new": ("new", False, "a published size, by default the newest", INDEX),
    "before": ("before", False, "the page ends below this index", INDEX),
    "q": ("q", False, "an index, digest, id, register, image, key, service or name, exactly", TEXT),
    "page": (
        "before",
        False,
        "the page ends below this index",
        {"type": "integer", "minimum": 1, "maximum": MAX_INDEX},
    ),
    "kind": (
        "kind",
        False,
        "only effective statements of this kind",
        {"enum": ["delegation", "release", "rebuild", "revocation", "tcb-floor"]},
    ),
    "at": ("at", False, "a size: the status as of then", INDEX),
    "older": ("old", False, "the older of the two", INDEX),
    "newer": ("new", False, "the newer of the two", INDEX),
}
"""Query parameters: name, whether it must be there, meaning, schema."""
