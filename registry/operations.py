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

_PAGES: dict[str, Operation] = {
    "pages./": Operation("The front page", HTML, ("not-yet-published",)),
    "pages./entries": Operation("The newest entries", HTML, _LATER, ("page",)),
    "pages./entries/<int:index>": Operation(
        "One entry, what it says and what it did", HTML, ("not-found", "not-yet-published")
    ),
    "pages./entries/<int:index>_json": Operation(
        "The same for programs", JSON, ("not-found", "not-yet-published"), schema="Page"
    ),
    "pages./measurements/<path:service>/<string(length=64):digest>": Operation(
        "A measurement id and its status", HTML, _ABSENT
    ),
    "pages./measurements/<path:service>/<string(length=64):digest>_json": Operation(
        "The same for programs", JSON, _ABSENT, schema="Page"
    ),
    "pages./search": Operation("Search for people", HTML, ("not-yet-published",), ("q",)),
    "pages./static/<name>": Operation("The stylesheet and the verifier", "text/*", ("not-found",)),
    "pages./revocations_atom": Operation("The newest revocations as a feed", ATOM, _LATER, ("page",)),
}

_TWINS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "/revocations": ("What was withdrawn, newest first", _LATER, ("page",)),
    "/tcb": ("The TCB floors", ("not-yet-published",), ()),
    "/builders": ("Who may speak for which service", _LATER, ("page",)),
    "/compare": ("Two releases side by side", _ABSENT, ("older", "newer")),
    "/verify": ("Check a checkpoint or proof in this browser", (), ()),
    "/log": ("The newest checkpoint and who signed it", ("not-yet-published",), ()),
    "/log/consistency": ("That one size continues another", _LATER, ("older", "newer")),
}

OPERATIONS: dict[str, Operation] = {
    **_API,
    **_OTHERS,
    **_PAGES,
    **{
        f"pages.{rule}": Operation(said, HTML, problems, query)
        for rule, (said, problems, query) in _TWINS.items()
    },
    **{
        f"pages.{rule}_json": Operation("The same for programs", JSON, problems, query, "Page")
        for rule, (_, problems, query) in _TWINS.items()
    },
}
"""By the name of the endpoint."""

PATH_PARAMETERS: dict[str, Schema] = {
    "rest": {
        "description": "level and number of a tile, as c2sp.org/tlog-tiles writes them",
        "schema": TILE,
        "example": "0/000.p/1",
    },
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
    "older": ("old", False, "the older of the two", INDEX),
    "newer": ("new", False, "the newer of the two", INDEX),
}
"""Query parameters: name, whether it must be there, meaning, schema."""
