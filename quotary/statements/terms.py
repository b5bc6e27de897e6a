"""The words under which a statement is found: every digest, register, id and key that it names, exactly.

Who signed an effective release or rebuild stands in a table of its own, which F1 needs too; of the rarer
kinds the signers are words here.
"""

from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.notice import Notice
from quotary.statements.opened import Opened
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.row import Row
from quotary.statements.schema import Statement


def terms_in(opened: Opened) -> frozenset[str]:
    """Give the search terms of an entry; none of one that is no statement."""
    if opened.statement is None:
        return frozenset()
    return terms_of(opened.statement) | _signers(opened.envelope, opened.statement)


def terms_of(statement: Statement) -> frozenset[str]:
    """Give the search terms of a statement: hex digests and registers, ids, revisions, names of products."""
    found = {statement.statement_id}
    match statement.predicate:
        case Release() as predicate:
            found |= {output.sha256.hex() for output in predicate.outputs}
            found |= {predicate.lock_sha256.hex(), predicate.weights_sha256.hex()}
            found |= {predicate.policy_sha256.hex(), predicate.source_revision}
            found |= {term for row in predicate.rows for term in _row(row)}
        case Revocation() as predicate:
            found |= {measurement.hex() for measurement in predicate.measurements}
            found |= {predicate.release or "", predicate.replacement or ""}
        case Rebuild() as predicate:
            found.add(predicate.release)
        case Delegation() as predicate:
            found |= {*predicate.keys, *(item.key for item in predicate.compromised)}
            found.add(predicate.previous or "")
        case TCBFloor() as predicate:
            found.add(predicate.product)
        case Notice() as predicate:
            found |= {item.sha256.hex() for item in predicate.items}
    return frozenset(term for term in found if term)


def _row(row: Row) -> set[str]:
    # A register of zeros says that nothing was measured, and is in every other row.
    registers = {value.hex() for value in row.registers.values() if any(value)}
    return {row.measurement.hex(), row.profile_sha256.hex()} | registers


def _signers(envelope: Envelope | None, statement: Statement) -> set[str]:
    if envelope is None or isinstance(statement.predicate, Release | Rebuild):
        return set()
    return {signature.keyid for signature in envelope.signatures}
