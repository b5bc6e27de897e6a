"""``/openapi.json``: what the API offers, in the least that tools can use (OpenAPI 3.1)."""

from flask import Flask, Response, json

TITLES = {
    "api.submit": "Submit one entry; ?wait=published waits up to 10 s",
    "api.batch": "Submit entries, one a line (NDJSON); answers one line each",
    "api.log": "The log: origin, verifier keys, sizes, tlog-policy",
    "api.entry": "An entry's bytes by index",
    "api.entry_by_hash": "An entry's bytes by leaf hash",
    "api.proof": "A tlog-proof by index or leaf hash",
    "api.consistency": "A consistency path between two published sizes",
    "api.search": "Exact search: index, leaf hash, statement id, digest, measurement id, service",
    "api.measurement": "The status record of a measurement id, and the entries that name it",
    "api.bundle": "The bundle of a measurement id, or the proof that the log does not have it",
    "api.tcb": "The TCB floors of a platform",
    "api.services": "The names of all services",
    "api.service": "A service: delegations, releases, next sequence numbers",
    "c2sp.checkpoint": "The published checkpoint (c2sp.org/tlog-checkpoint)",
    "c2sp.tile": "A tile or an entry bundle (c2sp.org/tlog-tiles)",
    "c2sp.signed_tile": "A tile or entry bundle that is signed and not yet published, for map auditors",
    "health.healthz": "This process runs",
    "health.readyz": "This process can answer and accept",
    "problem": "What a problem type means",
    "openapi": "This document",
}


def register(app: Flask) -> None:
    """Serve the document of the routes that ``app`` has."""

    def openapi() -> Response:
        return Response(json.dumps(document(app)) + "\n", content_type="application/json")

    app.add_url_rule("/openapi.json", "openapi", openapi, methods=["GET"])


def document(app: Flask) -> dict[str, object]:
    """Describe the routes that stand in ``TITLES``."""
    paths: dict[str, dict[str, object]] = {}
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in TITLES:
            continue
        address = rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}")
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            paths.setdefault(address, {})[method.lower()] = _operation(rule.endpoint, sorted(rule.arguments))
    information = {"title": "Quotary registry", "version": "1"}
    return {"openapi": "3.1.0", "info": information, "paths": dict(sorted(paths.items()))}


def _operation(endpoint: str, arguments: list[str]) -> dict[str, object]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in arguments
    ]
    problem = {"description": "A problem (RFC 9457)", "content": {"application/problem+json": {}}}
    responses = {"200": {"description": TITLES[endpoint]}, "default": problem}
    identifier = endpoint.replace(".", "_")
    return {
        "operationId": identifier,
        "summary": TITLES[endpoint],
        "parameters": parameters,
        "responses": responses,
    }
