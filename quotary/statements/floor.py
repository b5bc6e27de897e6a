"""The TCB floor: the oldest firmware that a platform's product may run (design sections 4 and 5).

Floors are ordered field by field. A floor that is at least the current one replaces it at once; anything
else is a lowering. Integers compare as numbers; hex strings compare byte by byte (each byte is one
component's security version), and only with strings of their own length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields
from quotary.errors import Malformed
from quotary.statements.predicates import LOG_SERVICE, Header, header, strings

MAX_GRACE_SECONDS = 366 * 86_400
MAX_DENIED = 256

# The minimum of a CPU platform names exactly these; the number is the length of hex in bytes, 0 an integer.
_MINIMUM: Mapping[str, Mapping[str, int]] = {
    "sgx": {"pce_svn": 0, "sgx_tcb_svn": 16},
    "snp": {"bootloader": 0, "fmc": 0, "microcode": 0, "snp": 0, "tee": 0},
    "tdx": {"pce_svn": 0, "sgx_tcb_svn": 16, "tee_tcb_svn": 16},
}


@dataclass(frozen=True, slots=True)
class Floor:
    """What the firmware of one product must reach.

    minimum:           component name to integer or bytes (see the module)
    evaluation_number: the vendor's TCB evaluation data number, at least
    accepted_status:   the vendor's own words for its appraisal
    grace_seconds:     how long after a newer vendor level appeared the old one is accepted
    denied_*:          advisories, CPU families and single chips that are out, whatever else holds
    """

    minimum: Mapping[str, int | bytes]
    evaluation_number: int
    accepted_status: tuple[str, ...]
    grace_seconds: int
    denied_advisories: tuple[str, ...]
    denied_families: tuple[str, ...]
    denied_chips: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """Give the floor as it is written."""
        minimum = {
            name: part.hex() if isinstance(part, bytes) else part for name, part in self.minimum.items()
        }
        return {
            "minimum": minimum,
            "evaluation_number": self.evaluation_number,
            "accepted_status": list(self.accepted_status),
            "grace_seconds": self.grace_seconds,
            "denied_advisories": list(self.denied_advisories),
            "denied_families": list(self.denied_families),
            "denied_chips": list(self.denied_chips),
        }

    def weaknesses(self, other: "Floor") -> tuple[str, ...]:
        """Name the fields in which this floor demands less than ``other``; none: it is at least ``other``."""
        weaker = [
            (
                "minimum",
                not all(_reaches(self.minimum.get(name), part) for name, part in other.minimum.items()),
            ),
            ("evaluation_number", self.evaluation_number < other.evaluation_number),
            ("accepted_status", not set(self.accepted_status) <= set(other.accepted_status)),
            ("grace_seconds", self.grace_seconds > other.grace_seconds),
            ("denied_advisories", not set(self.denied_advisories) >= set(other.denied_advisories)),
            ("denied_families", not set(self.denied_families) >= set(other.denied_families)),
            ("denied_chips", not set(self.denied_chips) >= set(other.denied_chips)),
        ]
        return tuple(name for name, found in weaker if found)


@dataclass(frozen=True, slots=True)
class TCBFloor:
    """The statement that sets a floor; for TDX and SGX the product is the FMSPC (12 hex digits)."""

    header: Header
    expires: datetime
    platform: str
    product: str
    floor: Floor


def parse_tcb_floor(fields: Fields) -> TCBFloor:
    """Read the predicate of a TCB floor."""
    found = header(fields)
    if found.service != LOG_SERVICE:
        raise Malformed(f"a tcb-floor is of the service {LOG_SERVICE}")
    platform = fields.name("platform", 64)
    product = fields.name("product", 128)
    if platform.removeprefix("sim-") in ("tdx", "sgx"):
        fields.hexbytes("product", 6)
    floor = parse_floor(fields.fields("floor"), platform)
    return TCBFloor(found, fields.time("expires"), platform, product, floor)


def parse_floor(fields: Fields, platform: str) -> Floor:
    """Read the floor object of a statement, a record or a policy."""
    floor = Floor(
        _minimum(fields.mapping("minimum", 32), platform),
        fields.integer("evaluation_number"),
        strings(fields, "accepted_status", 16, low=1, length=64),
        fields.integer("grace_seconds", 0, MAX_GRACE_SECONDS),
        strings(fields, "denied_advisories", MAX_DENIED, length=64),
        strings(fields, "denied_families", MAX_DENIED, length=64),
        strings(fields, "denied_chips", MAX_DENIED, length=128),
    )
    fields.done()
    return floor


def _minimum(members: dict[str, object], platform: str) -> dict[str, int | bytes]:
    known = _MINIMUM.get(platform.removeprefix("sim-"))
    if known is None:
        return {name: _component(members, name) for name in members}
    if members.keys() != known.keys():
        raise Malformed(f"the minimum of {platform} names exactly {', '.join(sorted(known))}")
    fields = Fields(members, "minimum")
    return {
        name: fields.hexbytes(name, length) if length else fields.integer(name, 0, 65_535)
        for name, length in known.items()
    }


def _component(members: dict[str, object], name: str) -> int | bytes:
    value = members[name]
    fields = Fields(members, "minimum")
    return fields.hexadecimal(name, 128) if isinstance(value, str) else fields.integer(name)


def _reaches(found: int | bytes | None, wanted: int | bytes) -> bool:
    if isinstance(found, bytes) and isinstance(wanted, bytes):
        return len(found) == len(wanted) and all(a >= b for a, b in zip(found, wanted, strict=True))
    return isinstance(found, int) and isinstance(wanted, int) and found >= wanted
