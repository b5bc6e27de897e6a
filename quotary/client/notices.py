"""Notices that a decision rests on: in the log, of the right service, signed by whom the policy names."""

from dataclasses import dataclass

from quotary.client.policy import KeySet, Policy
from quotary.errors import InvalidSignature, Rejected
from quotary.statements.envelope import Envelope, verify
from quotary.statements.notice import Notice
from quotary.statements.schema import parse_statement
from quotary.tlog.proof import TlogProof


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which notice. check: its name in refusals; signers: whose signatures it needs, and how many."""

    check: str
    kind: str
    service: str
    signers: KeySet


@dataclass(frozen=True, slots=True)
class Logged:
    """A notice that is in the log. index: of its entry; signers: key ids of all whose signatures hold."""

    notice: Notice
    statement_id: str
    index: int
    signers: frozenset[str]


def read_notice(entry: bytes, proof: bytes, policy: Policy, wanted: Wanted) -> Logged:
    """Read one entry as the notice that is wanted, or raise what speaks against it.

    1. The entry is in the log, under a checkpoint that the policy accepts.
    2. It is a notice of the wanted kind and service.
    3. As many of the signers as are demanded signed it.
    """
    found = TlogProof.parse(proof)
    found.verify(entry, policy.tlog)
    envelope = Envelope.parse(entry)
    statement = parse_statement(envelope.payload)
    notice = statement.predicate
    if statement.kind != wanted.kind or not isinstance(notice, Notice):
        raise Rejected(wanted.check, f"a {statement.kind}", wanted.kind)
    if (notice.header.log, notice.header.service) != (policy.origin, wanted.service):
        raise Rejected(wanted.check, f"one of {notice.header.service}", f"one of {wanted.service}")
    return Logged(notice, statement.statement_id, found.index, _require_signers(envelope, wanted))


def _require_signers(envelope: Envelope, wanted: Wanted) -> frozenset[str]:
    signed = set()
    for signature in envelope.signatures:
        public = wanted.signers.keys.get(signature.keyid)
        if public is None:
            continue
        try:
            verify(public, signature, envelope.payload)
        except InvalidSignature:
            raise Rejected(wanted.check, "a signature that does not hold", "valid ones") from None
        signed.add(signature.keyid)
    if len(signed) < wanted.signers.threshold:
        raise Rejected(
            wanted.check, f"{len(signed)} signatures by its signers", str(wanted.signers.threshold)
        )
    return frozenset(signed)
