"""Statements of all kinds: in-toto Statement v1 around our predicates, strict both ways (design section 4).

``parse_statement`` reads a payload; ``statement_payload`` writes one and reads it back, so nothing can
be made that would not be accepted. The subject follows from the predicate and is compared, never
believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import Malformed, Unsupported
from quotary.statements.delegation import Delegation, parse_delegation
from quotary.statements.envelope import MAX_ENTRY, statement_id
from quotary.statements.floor import TCBFloor, parse_tcb_floor
from quotary.statements.keys import key_service, key_tcb
from quotary.statements.notice import NOTICE_KINDS, Notice, parse_notice
from quotary.statements.release import Release, ReleaseClaim, parse_release
from quotary.statements.revocation import Rebuild, Revocation, parse_rebuild, parse_revocation

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STATUS_KINDS = ("delegation", "rebuild", "release", "revocation", "tcb-floor")
KINDS = tuple(sorted((*STATUS_KINDS, *NOTICE_KINDS)))

_PREFIX = "https://quotary.dev/"
_SUFFIX = "/v1"

Predicate = Delegation | Release | Rebuild | Revocation | TCBFloor | Notice


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, parsed; who signed it is not known here.

    kind:         one of ``KINDS``
    statement_id: ``sha256:`` and SHA-256 of the payload in hex
    predicate:    whole, as ``parse_statement`` gives it; for F1 what it asks of a release is enough
    """

    kind: str
    statement_id: str
    predicate: Predicate | ReleaseClaim

    @property
    def log(self) -> str:
        """Origin of the log that it was made for."""
        return self.predicate.header.log

    @property
    def service(self) -> str:
        """Whose statement it is."""
        return self.predicate.header.service

    @property
    def sequence(self) -> int:
        """Its number among the service's statements of this kind."""
        return self.predicate.header.sequence

    @property
    def issued(self) -> datetime:
        """The maker's clock."""
        return self.predicate.header.issued


def predicate_type(kind: str) -> str:
    """Give the URI that names a kind's format."""
    return f"{_PREFIX}{kind}{_SUFFIX}"


def parse_statement(payload: bytes) -> Statement:
    """Read a statement's payload.

    Raises ``Malformed``, and ``Unsupported`` for a well-formed statement of a kind that is not ours.
    """
    fields = Fields(parse_canonical(payload, MAX_ENTRY), "statement")
    fields.choice("_type", STATEMENT_TYPE)
    uri = fields.text("predicateType", 256)
    subject = fields.value("subject")
    body = fields.fields("predicate")
    fields.done()
    kind = uri.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    if kind not in KINDS or uri != predicate_type(kind):
        raise Unsupported(f"statements of the type {uri} are not known")
    predicate = _predicate(kind, body)
    body.done()
    if subject != _subject(predicate):
        raise Malformed("the subject is not what the predicate is about")
    return Statement(kind, statement_id(payload), predicate)


def statement_payload(kind: str, predicate: Mapping[str, object]) -> bytes:
    """Write the payload of a statement from its predicate as it is written, or raise ``Malformed``."""
    if kind not in KINDS:
        raise Unsupported(f"statements of the kind {kind} are not known")
    fields = Fields(parse_canonical(canonical(dict(predicate)), MAX_ENTRY), "predicate")
    parsed = _predicate(kind, fields)
    fields.done()
    document = {
        "_type": STATEMENT_TYPE,
        "predicate": dict(predicate),
        "predicateType": predicate_type(kind),
        "subject": _subject(parsed),
    }
    return canonical(document)


def _predicate(kind: str, fields: Fields) -> Predicate:
    if kind in NOTICE_KINDS:
        return parse_notice(fields)
    if kind == "delegation":
        return parse_delegation(fields)
    if kind == "release":
        return parse_release(fields)
    if kind == "rebuild":
        return parse_rebuild(fields)
    if kind == "revocation":
        return parse_revocation(fields)
    return parse_tcb_floor(fields)


def _subject(predicate: Predicate) -> list[object]:
    if isinstance(predicate, Release):
        return [_resource(output.name, output.sha256.hex()) for output in predicate.outputs]
    if isinstance(predicate, Notice):
        return [_resource(item.name, item.sha256.hex()) for item in predicate.items]
    if isinstance(predicate, Delegation):
        return [_resource(predicate.header.service, key_service(predicate.header.service).hex())]
    if isinstance(predicate, TCBFloor):
        name = f"{predicate.platform}/{predicate.product}"
        return [_resource(name, key_tcb(predicate.platform, predicate.product).hex())]
    if predicate.release is not None:
        return [_resource("release", predicate.release.removeprefix("sha256:"))]
    assert isinstance(predicate, Revocation)
    return [_resource("measurement", measurement.hex()) for measurement in predicate.measurements]


def _resource(name: str, sha256: str) -> dict[str, object]:
    return {"digest": {"sha256": sha256}, "name": name}
