"""The words under which a statement is found: every digest and id that it names, exactly."""

from quotary.statements.notice import Notice
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import Statement


def terms_of(statement: Statement) -> frozenset[str]:
    """Give the search terms of a statement: hex digests, ids, and the source revision."""
    found = {statement.statement_id}
    predicate = statement.predicate
    if isinstance(predicate, Release):
        found |= {output.sha256.hex() for output in predicate.outputs}
        found |= {row.measurement.hex() for row in predicate.rows}
        found |= {predicate.lock_sha256.hex(), predicate.weights_sha256.hex(), predicate.policy_sha256.hex()}
        found.add(predicate.source_revision)
    elif isinstance(predicate, Revocation):
        found |= {measurement.hex() for measurement in predicate.measurements}
        found |= {predicate.release} if predicate.release else set()
    elif isinstance(predicate, Rebuild):
        found.add(predicate.release)
    elif isinstance(predicate, Notice):
        found |= {item.sha256.hex() for item in predicate.items}
    return frozenset(term for term in found if term)
