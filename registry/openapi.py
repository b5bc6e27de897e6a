"""``/openapi.json``: every route, parameter, body, status and problem type (OpenAPI 3.1).

The routes are those that the application has; what they take and answer stands in ``registry/operations.py``.
"""

import re

from flask import Flask, Response, json
from werkzeug.routing import Rule

from registry.operations import (
    EVERYWHERE,
    JSON,
    OPERATIONS,
    PARAMETERS,
    PATH_PARAMETERS,
    Operation,
)
from registry.problems import KINDS, MEDIA_TYPE, Kind
from registry.schemas import SCHEMAS, TEXT, Schema, ref

ABOUT = (
    "Reads need no credentials; writes are authorised by the signatures inside what is written. Every error "
    "is a problem document (RFC 9457) whose type is a page of this server. Nothing said here is proof by "
    "itself: proof is a checkpoint that your policy accepts, and a path to it."
)


def register(app: Flask) -> None:
    """Serve the document of the routes that ``app`` has."""

    def openapi() -> Response:
        return Response(json.dumps(document(app)) + "\n", content_type=JSON)

    app.add_url_rule("/openapi.json", "openapi", openapi, methods=["GET"])


def document(app: Flask) -> Schema:
    """Describe every route."""
    paths: dict[str, dict[str, object]] = {}
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(address(rule), {})[method.lower()] = _operation(rule, OPERATIONS[rule.endpoint])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Quotary registry", "version": "1", "description": ABOUT},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": SCHEMAS},
    }


def address(rule: Rule) -> str:
    """Write a route's address as OpenAPI does."""
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule.rule)


def _operation(rule: Rule, found: Operation) -> Schema:
    described: Schema = {
        "operationId": re.sub(r"\W+", "_", rule.endpoint).strip("_"),
        "summary": found.summary,
        "parameters": [*_path_parameters(rule), *_query_parameters(found), *_conditional(found)],
        "responses": {**_answers(found), **_problems(rule, found)},
    }
    if found.takes:
        # Entries are signed bytes: a schema of their JSON would promise more than it checks.
        described["requestBody"] = {"required": True, "content": {found.takes: {}}}
    return described


def _path_parameters(rule: Rule) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}
        for name in sorted(rule.arguments)
    ]


def _query_parameters(found: Operation) -> list[Schema]:
    return [
        {"name": name, "in": "query", "required": required, "description": meaning, "schema": schema}
        for name, required, meaning, schema in (PARAMETERS[key] for key in found.query)
    ]


def _conditional(found: Operation) -> list[Schema]:
    header = {"name": "If-None-Match", "in": "header", "required": False, "schema": TEXT}
    return [header] if found.cached else []


def _answers(found: Operation) -> Schema:
    content = {found.media: {"schema": ref(found.schema)} if found.schema else {}}
    answers: Schema = {"200": {"description": found.summary, "content": content}}
    if found.cached:
        answers["304"] = {"description": "It has not changed since the answer with this ETag"}
    if found.accepted:
        waiting = {found.media: {"schema": ref(found.accepted)}}
        answers["202"] = {"description": "It waits, and the log has promised it a place", "content": waiting}
    return answers


def _problems(rule: Rule, found: Operation) -> Schema:
    by_status: dict[int, list[Kind]] = {}
    # What does not fit the pattern of an address with a name in it is the address of nothing.
    names = {*found.problems, *EVERYWHERE, *(["not-found"] if rule.arguments else [])}
    for name in sorted(names):
        by_status.setdefault(KINDS[name].status, []).append(KINDS[name])
    return {str(status): _problem(kinds) for status, kinds in sorted(by_status.items())}


def _problem(kinds: list[Kind]) -> Schema:
    types: Schema = {"properties": {"type": {"enum": [f"/problems/{kind.name}" for kind in kinds]}}}
    return {
        "description": "; ".join(kind.title for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": {"allOf": [ref("Problem"), types]}}},
    }
