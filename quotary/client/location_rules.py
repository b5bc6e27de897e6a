"""What a policy says of a machine's place (member ``require_location``, ``docs/formats/policy.md``)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quotary.canonical import Fields
from quotary.errors import Malformed
from quotary.statements.location import CLASSES
from quotary.statements.predicates import parse_service, strings

if TYPE_CHECKING:
    from quotary.client.policy import KeySet


@dataclass(frozen=True, slots=True)
class LocationRules:
    """Where a machine must be, and on whose word (docs/formats/location.md).

    service: of the attester, in the log; signers: whose signatures its statements need
    places:  admitted codes; classes: admitted classes of evidence
    """

    service: str
    signers: "KeySet"
    places: tuple[str, ...]
    classes: tuple[str, ...]


def parse_location_rules(fields: Fields, signers: "KeySet") -> LocationRules:
    """Read the object but for its member ``signers``, which is given."""
    rules = LocationRules(
        parse_service(fields.text("service", 100)),
        signers,
        strings(fields, "places", 64, low=1, length=64),
        strings(fields, "classes", len(CLASSES), low=1, length=64),
    )
    unknown = set(rules.classes) - set(CLASSES)
    if unknown:
        raise Malformed(f"policy.require_location.classes has {min(unknown)}, there are {', '.join(CLASSES)}")
    fields.done()
    return rules
