"""Where a machine is, by a logged statement that names it (docs/formats/location.md).

No evidence says it. Somebody whom the policy names says in which place some machines stand, and how he
knows. The enclave shows the statement with its proof; whoever judges the machine looks whether it is one of
those. Nothing here is measured, so a verdict names the class: an operator's word stays one.
"""

from collections.abc import Sequence
from datetime import datetime

from quotary.attestation.document import LoggedStatement
from quotary.attestation.facts import Facts
from quotary.client.location_rules import LocationRules
from quotary.client.log import LogClient
from quotary.client.notices import Wanted, read_notice
from quotary.client.policy import Policy
from quotary.client.standing import Times
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, Malformed, Refused, Rejected
from quotary.statements.location import KIND, Location, parse_location

MAX_FOUND = 256
CHECK = "location"


def read_location(shown: LoggedStatement, policy: Policy, rules: LocationRules) -> Location:
    """Read what a logged statement says, or raise what speaks against it.

    1. The entry is in the log, under a checkpoint that the policy accepts.
    2. It is a location of the attester's service in this log.
    3. As many of the policy's signers as it demands signed it.
    """
    wanted = Wanted(CHECK, KIND, rules.service, rules.signers)
    return parse_location(read_notice(shown.entry, shown.proof, policy, wanted).notice)


def require_location(
    shown: LoggedStatement | None, facts: Facts, policy: Policy, times: Times, trail: Trail
) -> Location | None:
    """15. Where the policy demands places, a statement that it admits puts this machine into one of them."""
    rules = policy.location
    if rules is None:
        return None
    wanted = f"in {' or '.join(rules.places)}, by {' or '.join(rules.classes)}"
    with trail.step(CHECK, wanted, f"location statement of {rules.service}"):
        if shown is None:
            raise Refused(CHECK, "no statement", wanted)
        found = read_location(shown, policy, rules)
        _require(found, facts.chips, rules, times.earliest, times.latest)
        said = f"{found.place}, by {found.evidence}, until {found.not_after:%Y-%m-%d}"
        trail.held(CHECK, said, wanted, f"location statement of {rules.service}")
    return found


def find_location(
    log: LogClient, policy: Policy, chips: Sequence[str], now: datetime
) -> LoggedStatement | None:
    """Fetch the newest statement that this machine may show; None where the policy demands none.

    The log's word of which entries there are is a hint: one that it hides is a machine that is refused.
    """
    rules = policy.location
    if rules is None:
        return None
    results = log.search(rules.service).get("results")
    rows = [row for row in results if isinstance(row, dict)] if isinstance(results, list) else []
    indices = [row.get("index") for row in rows if row.get("kind") == KIND][:MAX_FOUND]
    for index in sorted((item for item in indices if isinstance(item, int)), reverse=True):
        shown = LoggedStatement(log.entry(index), log.proof(index))
        try:
            _require(read_location(shown, policy, rules), chips, rules, now, now)
        except (Refused, Rejected, Malformed):
            continue
        return shown
    raise CannotTell(f"the log shows no location of this machine by {rules.service} that the policy admits")


def _require(
    found: Location, chips: Sequence[str], rules: LocationRules, earliest: datetime, latest: datetime
) -> None:
    if not set(chips) & set(found.machines):
        said = ", ".join(chips) or "evidence that names no machine"
        raise Refused(CHECK, said, f"one of the statement's {len(found.machines)} machines")
    if found.place not in rules.places:
        raise Refused(CHECK, found.place, f"in {' or '.join(rules.places)}")
    if found.evidence not in rules.classes:
        raise Refused(CHECK, f"known by {found.evidence}", f"by {' or '.join(rules.classes)}")
    if earliest < found.not_before or latest >= found.not_after:
        said = f"valid from {found.not_before:%Y-%m-%dT%H:%MZ} to {found.not_after:%Y-%m-%dT%H:%MZ}"
        raise Refused(CHECK, said, "a statement in force")
