"""What a statement claims, in one plain sentence for people: pages, alerts and feeds say the same words."""

from quotary.statements.delegation import Delegation
from quotary.statements.floor import TCBFloor
from quotary.statements.predicates import LOG_SERVICE
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import Statement


def sentence(statement: Statement) -> str:
    """Say in one sentence what a statement claims."""
    predicate, service = statement.predicate, statement.service
    match predicate:
        case Delegation():
            return _delegation(predicate, service)
        case Release():
            what = counted(len(predicate.rows), "measurement")
            return (
                f"A builder of {service} says that source {predicate.source_revision[:16]} gives "
                f"{what}, to be believed until {predicate.not_after:%Y-%m-%d}."
            )
        case Rebuild():
            said = {"match": "got the same", "mismatch": "got something else", "failed": "could not build it"}
            which = f"release {predicate.release[:19]}…"
            return f"{predicate.organisation} rebuilt {which} and {said[predicate.verdict]}."
        case Revocation():
            until = predicate.suspend_until
            verb = f"Suspended until {until:%Y-%m-%d %H:%M}Z" if until else "Revoked for good"
            what = "one release" if predicate.release else counted(len(predicate.measurements), "measurement")
            return f"{verb}: {what} of {service}. Reason given: {predicate.reason}"
        case TCBFloor():
            machines = f"{predicate.platform} machines of product {predicate.product}"
            return f"From here on {machines} need at least this firmware."
        case _:
            return f"A notice of kind {statement.kind} for {service}; it changes no status."


def counted(number: int, noun: str, plural: str = "s") -> str:
    """Write a number of things as a person would: 1 measurement, 2 measurements."""
    return f"{number} {noun}{'' if number == 1 else plural}"


def _delegation(delegation: Delegation, service: str) -> str:
    if service == LOG_SERVICE:
        return "The log's own roots say which keys may allocate services, set floors, revoke and rebuild."
    owners = delegation.roles["owner"]
    if delegation.header.sequence == 1:
        must = f"{counted(len(owners.keys), 'owner key')}, {owners.threshold} of which must sign"
        return f"The service {service} is allocated to {must}."
    others = ", ".join(
        f"{len(role.keys)} {name}" for name, role in sorted(delegation.roles.items()) if name != "owner"
    )
    return f"The owners of {service} name its keys: {others or 'owners only'}."
