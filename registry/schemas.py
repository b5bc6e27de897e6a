"""The shapes of the API's JSON answers, as ``/openapi.json`` gives them (JSON Schema 2020-12)."""

from typing import TypeAlias

Schema: TypeAlias = dict[str, object]

MAX_INDEX = 10**18 - 1


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    members = {**required, **(optional or {})}
    return {"type": "object", "properties": members, "required": list(required)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def ref(name: str) -> Schema:
    """Point to one of ``SCHEMAS``."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
YES_OR_NO: Schema = {"type": "boolean"}
INDEX: Schema = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"}
HEX32: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9._:/-]{1,256}$"}
TILE: Schema = {
    "type": "string",
    "pattern": r"^([0-9]{1,2}|entries)(/x[0-9]{3}){0,6}/[0-9]{3}(\.p/[1-9][0-9]{0,2})?$",
}
STATEMENT: Schema = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
OBJECT: Schema = {"type": "object"}
SECONDS: Schema = {"type": "number", "minimum": 0}

_KINDS = ("delegation", "release", "rebuild", "revocation", "tcb-floor")

SCHEMAS: dict[str, Schema] = {
    "Problem": _object(
        {"type": TEXT, "title": TEXT, "status": NUMBER, "detail": TEXT, "instance": TEXT},
        {
            "check": TEXT,
            "code": TEXT,
            "found": TEXT,
            "limit": NUMBER,
            "request_id": TEXT,
            "size": NUMBER,
            "wanted": TEXT,
        },
    ),
    "Published": _object(
        {
            "leaf_hash": HEX32,
            "statement_id": STATEMENT,
            "index": NUMBER,
            "published": YES_OR_NO,
            "proof": TEXT,
        }
    ),
    "Accepted": _object({"leaf_hash": HEX32, "statement_id": STATEMENT, "promise": TEXT, "location": TEXT}),
    "Log": _object(
        {
            "origin": TEXT,
            "vkeys": _list(TEXT),
            "promise_vkey": TEXT,
            "integrated": NUMBER,
            "signed": NUMBER,
            "published": NUMBER,
            "publish_interval_seconds": SECONDS,
            "refresh_seconds": SECONDS,
            "promise_seconds": SECONDS,
            "tlog_policy": TEXT,
        },
        {"genesis": HEX32, "ended": TEXT},
    ),
    "Consistency": _object({"old": NUMBER, "new": NUMBER, "path": _list(BASE64)}),
    "Row": _object(
        {
            "index": NUMBER,
            "kind": TEXT,
            "service": TEXT,
            "sequence": NUMBER,
            "statement_id": TEXT,
            "effect": YES_OR_NO,
            "code": TEXT,
        },
        {"measurements": _list(HEX32)},
    ),
    "Search": _object(
        {
            "query": TEXT,
            "size": NUMBER,
            "indexed": NUMBER,
            "results": _list(_object({"index": NUMBER, "kind": TEXT})),
            "complete": YES_OR_NO,
        },
    ),
    "Measurement": _object(
        {
            "size": NUMBER,
            "service": NAME,
            "id": HEX32,
            "record": OBJECT,
            "bundle": TEXT,
            "entries": _list(ref("Row")),
        }
    ),
    "Bundle": OBJECT,
    "Floors": _object({"size": NUMBER, "platform": NAME, "floors": _list(OBJECT)}),
    "Collateral": _object({"v": NUMBER, "platform": NAME, "product": NAME, "documents": _list(OBJECT)}),
    "Facts": _object(
        {
            "schema": TEXT,
            "kind": TEXT,
            "checks": _list(_object(dict.fromkeys(("name", "outcome", "found", "wanted", "anchor"), TEXT))),
            "evidence_sha256": HEX32,
            "collateral": _list(_object({"name": TEXT, "sha256": HEX32, "source": TEXT})),
        },
        {
            "platform": TEXT,
            "simulated": YES_OR_NO,
            "product": TEXT,
            "measurement": HEX32,
            "registers": OBJECT,
            "report_data": TEXT,
            "tcb_status": TEXT,
            "advisories": _list(TEXT),
            "evaluation_number": NUMBER,
            "judged_at": TEXT,
            "devices": _list(OBJECT),
        },
    ),
    "Services": _object({"size": NUMBER, "services": _list(TEXT)}, {"before": NUMBER}),
    "Service": _object(
        {
            "size": NUMBER,
            "service": NAME,
            "next_sequence": _object(dict.fromkeys(_KINDS, NUMBER)),
            "delegations": _list(ref("Row")),
            "releases": _list(ref("Row")),
            "others": _list(ref("Row")),
        },
        {"record": OBJECT, "before": NUMBER},
    ),
    "Page": OBJECT,
    "Document": OBJECT,
}
"""Named shapes; ``Page`` is what a page's ``.json`` twin says, ``Document`` the OpenAPI document."""
