"""The JSON API under ``/api/v1`` (docs/formats/api.md): submit, read, prove, search."""

import re
from collections.abc import Iterator, Sequence

from flask import Blueprint, Response, json, request

from quotary.canonical import b64, hexbytes, parse_canonical
from quotary.codec import CODEC
from quotary.errors import Malformed, QuotaryError
from quotary.statements.cose import MEDIA_TYPE
from quotary.statements.envelope import MAX_ENTRY
from quotary.statements.keys import key_measurement, key_service
from quotary.tlog.merkle import leaf_hash
from registry import problems
from registry.admission import Accepted, Answer, Logged
from registry.body import read_body
from registry.bundles import Bundles
from registry.c2sp import BYTES, IMMUTABLE, SHORT, TEXT, cached
from registry.collateral import Collateral
from registry.cose import CoseProofs
from registry.errors import NotFound, TooLarge
from registry.facts import COST, MAX_BODY, Bench
from registry.quota import sender
from registry.search import search as find
from registry.site import Site
from registry.store import OutcomeRow
from registry.waiting import Waiters

MAX_BATCH = 8 << 20
MAX_BATCH_LINES = 10_000
MAX_RECORD = 1 << 20
MAX_RESULTS = 100
MAX_PAGE = 1000
WAIT_SECONDS = 10.0
JSON = "application/json"
NDJSON = "application/x-ndjson"
# Vendors make new ones every few days; the registry asks every hour.
COLLATERAL = "public, max-age=300"
BUNDLE = "application/vnd.quotary.bundle+json"

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")
_NAME = re.compile(r"[a-z0-9._:/-]{1,256}")


def blueprint(site: Site) -> Blueprint:
    """Make the routes."""
    routes = Blueprint("api", __name__, url_prefix="/api/v1")
    _writing(routes, site)
    _evidence(routes, site)
    _reading(routes, site)
    _status(routes, site)
    return routes


def _writing(routes: Blueprint, site: Site) -> None:
    waiters = Waiters(site.store.read, site.config.threads - max(1, site.config.threads // 8))

    @routes.post("/entries")
    def submit() -> Response:
        who = _sender()
        site.addresses.take([who])
        found = site.desk.submit(read_body(MAX_ENTRY))
        waits = request.args.get("wait", "accepted")
        if waits not in ("accepted", "published"):
            raise Malformed("wait is accepted or published")
        if isinstance(found, Accepted) and waits == "published":
            index = waiters.wait(found.leaf_hash, WAIT_SECONDS, who)
            found = found if index is None else Logged(found.leaf_hash, found.statement_id, index)
        if isinstance(found, Logged):
            return _json(_logged(found))
        return _json({**_accepted(found), "promise": site.desk.promise(found).decode("utf-8")}, 202)

    @routes.post("/batches")
    def batch() -> Response:
        lines = read_body(MAX_BATCH).removesuffix(b"\n").split(b"\n")
        if len(lines) > MAX_BATCH_LINES:
            raise TooLarge(f"a batch has {len(lines)} lines, at most {MAX_BATCH_LINES}", MAX_BATCH_LINES)
        site.addresses.take([_sender()], len(lines))
        found = site.desk.submit_all(lines)
        body = b"".join(CODEC.write(answer) + b"\n" for answer in _answers(site, found))
        return Response(body, 200, {"Cache-Control": "no-store"}, content_type=NDJSON)


def _evidence(routes: Blueprint, site: Site) -> None:
    bench = Bench(Collateral(site.config.collateral_folder), site.now)

    @routes.post("/evidence/facts")
    def facts() -> Response:
        site.addresses.take([_sender()], COST)
        return _json(bench.facts(read_body(MAX_BODY)))


def _reading(routes: Blueprint, site: Site) -> None:
    public = site.public

    @routes.get("/log")
    def log() -> Response:
        return _json(_log(site), caching=SHORT)

    @routes.get("/entries/<index>")
    def entry(index: str) -> Response:
        return _entry(site, _index(index))

    @routes.get("/entries/by-hash/<digest>")
    def entry_by_hash(digest: str) -> Response:
        size = site.store.read.published_size()
        return _entry(site, public.index_of(hexbytes(digest, 32), size))

    @routes.get("/proofs/<name>")
    def proof(name: str) -> Response:
        snapshot = public.snapshot()
        by_hash = len(name) == 64
        index = public.index_of(hexbytes(name, 32), snapshot.size) if by_hash else _index(name)
        return cached(bytes(public.proof(index, snapshot)), TEXT, SHORT)

    @routes.get("/consistency")
    def consistency() -> Response:
        size = public.snapshot().size
        old, new = _index(request.args.get("old", "")), _index(request.args.get("new", str(size)))
        path = [b64(digest) for digest in public.consistency(old, new, size)]
        return _json({"old": old, "new": new, "path": path}, caching=IMMUTABLE)

    cose = CoseProofs(public, site.signer)

    @routes.get("/cose/inclusion/<name>")
    def cose_inclusion(name: str) -> Response:
        snapshot = public.snapshot()
        by_hash = len(name) == 64
        index = public.index_of(hexbytes(name, 32), snapshot.size) if by_hash else _index(name)
        return cached(cose.inclusion(index, snapshot), MEDIA_TYPE, SHORT)

    @routes.get("/cose/consistency/<size>")
    def cose_consistency(size: str) -> Response:
        return cached(cose.consistency(_index(size), public.snapshot()), MEDIA_TYPE, SHORT)

    @routes.get("/search")
    def search() -> Response:
        return _json(_search(site, request.args.get("q", "")), caching=SHORT)


def _status(routes: Blueprint, site: Site) -> None:
    @routes.get("/measurements/<path:service>/<measurement>")
    def measurement(service: str, measurement: str) -> Response:
        return _json(_measurement(site, _name(service), hexbytes(measurement, 32)), caching=SHORT)

    @routes.get("/bundles/<path:service>/<measurement>")
    def bundle(service: str, measurement: str) -> Response:
        bundles = Bundles(site.public, site.public.snapshot())
        return cached(bundles.of(_name(service), hexbytes(measurement, 32)), BUNDLE, SHORT)

    @routes.get("/tcb/<platform>")
    def tcb(platform: str) -> Response:
        snapshot = site.public.snapshot()
        records = Bundles(site.public, snapshot).floors(_name(platform))
        floors = [parse_canonical(record, MAX_RECORD) for record in records]
        return _json({"size": snapshot.size, "platform": platform, "floors": floors}, caching=SHORT)

    @routes.get("/collateral/<platform>/<product>")
    def collateral(platform: str, product: str) -> Response:
        data, fetched_at = Collateral(site.config.collateral_folder).find(platform, product)
        response = cached(data, JSON, COLLATERAL)
        response.headers["Age"] = str(max(0, int((site.now() - fetched_at).total_seconds())))
        return response

    @routes.get("/services")
    def services() -> Response:
        size = site.public.snapshot().size
        rows, older = _page(site.store.read.allocations(_before(size), MAX_PAGE + 1))
        names = sorted(row.service for row in rows)
        return _json({"size": size, "services": names, **older}, caching=SHORT)

    @routes.get("/services/<path:service>")
    def service(service: str) -> Response:
        return _json(_service(site, _name(service)), caching=SHORT)


def _sender() -> str:
    return sender(request.remote_addr, request.headers.get("X-Real-IP"))


def _answers(site: Site, found: Sequence[Answer]) -> Iterator[dict[str, object]]:
    """Say what became of each entry, and promise all that wait with one word behind them."""
    accepted: list[Accepted] = []
    for item in found:
        if isinstance(item, QuotaryError):
            yield problems.members(problems.of(item))
        elif isinstance(item, Logged):
            yield {"status": 200, **_logged(item)}
        else:
            yield {"status": 202, **_accepted(item), "promised": len(accepted)}
            accepted.append(item)
    if accepted:
        yield {"promise": site.desk.promise_all(accepted).decode("utf-8")}


def _logged(found: Logged) -> dict[str, object]:
    answer: dict[str, object] = {"leaf_hash": found.leaf_hash.hex(), "statement_id": found.statement_id}
    return {**answer, "index": found.index, "published": True, "proof": f"/api/v1/proofs/{found.index}"}


def _accepted(found: Accepted) -> dict[str, object]:
    digest = found.leaf_hash.hex()
    location = f"/api/v1/entries/by-hash/{digest}"
    return {"leaf_hash": digest, "statement_id": found.statement_id, "location": location}


def _entry(site: Site, index: int) -> Response:
    entry = site.public.entry(index, site.store.read.published_size())
    response = cached(entry, BYTES, IMMUTABLE)
    response.headers["Content-Disposition"] = f'attachment; filename="entry-{index}.json"'
    response.headers["Quotary-Index"] = str(index)
    response.headers["Quotary-Leaf-Hash"] = leaf_hash(entry).hex()
    return response


def _log(site: Site) -> dict[str, object]:
    head, signed, keys = site.store.read.head(), site.store.read.signed(), site.keys
    size = site.store.read.published_size()
    genesis = {"genesis": leaf_hash(site.public.entry(0, size)).hex()} if size else {}
    end = site.public.snapshot().state.end if size else None
    return {
        "origin": site.config.origin,
        "vkeys": [key.vkey() for key in keys.log],
        "promise_vkey": keys.promise.vkey(),
        **genesis,
        **({"ended": end} if end else {}),
        "integrated": head.size if head else 0,
        "signed": signed.size if signed else 0,
        "published": size,
        "publish_interval_seconds": site.config.publish_interval_seconds,
        "refresh_seconds": site.config.refresh_seconds,
        "promise_seconds": site.config.promise_seconds,
        "tlog_policy": site.policy_text(),
    }


def _measurement(site: Site, service: str, measurement: bytes) -> dict[str, object]:
    size = site.public.snapshot().size
    record = site.store.read.record(key_measurement(service, measurement), size)
    if record is None:
        raise NotFound(
            f"the log knows no measurement {measurement.hex()} of {service}; its bundle proves the absence"
        )
    indices = site.store.read.by_term(measurement.hex(), size, MAX_RESULTS)
    rows = [
        row
        for index in indices
        if (row := site.store.read.outcome(index)) and row.service in (service, "log")
    ]
    return {
        "size": size,
        "service": service,
        "id": measurement.hex(),
        "record": parse_canonical(record, MAX_RECORD),
        "bundle": f"/api/v1/bundles/{service}/{measurement.hex()}",
        "entries": [_row(row) for row in rows],
    }


def _service(site: Site, service: str) -> dict[str, object]:
    size = site.public.snapshot().size
    read = site.store.read
    rows, older = _page(read.newest_of(service, _before(size), MAX_PAGE + 1))
    if not rows and not read.newest_of(service, size, 1):
        raise NotFound(f"the log has no statement of the service {service}")
    effective = [row for row in rows if row.effect]
    record = site.store.read.record(key_service(service), size)
    following = dict.fromkeys(("delegation", "release", "rebuild", "revocation", "tcb-floor"), 1)
    for kind, last in read.last_sequences(service, size).items():
        following[kind] = last + 1
    return {
        "size": size,
        "service": service,
        **({"record": parse_canonical(record, MAX_RECORD)} if record else {}),
        "next_sequence": following,
        "delegations": [_row(row) for row in effective if row.kind == "delegation"],
        "releases": [_release(site, row) for row in effective if row.kind == "release"],
        "others": [_row(row) for row in rows if row.kind not in ("delegation", "release") or not row.effect],
        **older,
    }


def _before(size: int) -> int:
    """Read ``?before=``: a page ends below this index, by default at the published size."""
    return min(_index(request.args.get("before", str(size))), size)


def _page(rows: list[OutcomeRow]) -> tuple[list[OutcomeRow], dict[str, object]]:
    """Give the newest rows of at most one page, and where the page before it ends if there is one."""
    page = rows[-MAX_PAGE:]
    return page, {"before": page[0].index} if len(rows) > MAX_PAGE else {}


def _release(site: Site, row: OutcomeRow) -> dict[str, object]:
    return {**_row(row), "measurements": site.public.measurements_of(row.index)}


def _row(row: OutcomeRow) -> dict[str, object]:
    return {
        "index": row.index,
        "kind": row.kind,
        "service": row.service,
        "sequence": row.sequence,
        "statement_id": row.statement_id,
        "effect": row.effect,
        "code": row.code,
    }


def _search(site: Site, query: str) -> dict[str, object]:
    size = site.public.snapshot().size
    found = find(site.store.read, query, size, MAX_RESULTS)
    results = [_found(site, index) for index in found.indices]
    return {
        "query": query,
        "size": size,
        "indexed": found.indexed,
        "results": results,
        "complete": found.complete,
    }


def _found(site: Site, index: int) -> dict[str, object]:
    """Give an entry's outcome; a reserved record, found by its index or leaf hash, has none."""
    row = site.store.read.outcome(index)
    return _row(row) if row else {"index": index, "kind": "reserved"}


def _index(text: str) -> int:
    if _INDEX.fullmatch(text) is None:
        raise Malformed("an index or size is a decimal number without leading zeros")
    return int(text)


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise Malformed("a name has 1 to 256 of the characters a-z 0-9 . _ : / -")
    return text


def _json(value: dict[str, object], status: int = 200, caching: str = "no-store") -> Response:
    response = Response(json.dumps(value) + "\n", status, content_type="application/json")
    response.headers["Cache-Control"] = caching
    if caching != "no-store":
        response.add_etag()
        response.make_conditional(request)
    return response
