"""What evidence says once it is believed: the one type that ``verify`` gives for every platform.

``parse`` gives a structure that nobody believes, ``verify`` gives ``Facts`` or raises, ``appraise`` judges
``Facts`` (design section 6). Facts come with the checks that made them, so that a verdict can list them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at and held.

    name:   stable, e.g. ``quote signature``
    found:  what the evidence says
    wanted: what it was compared with
    anchor: the root, key or document that the comparison rests on
    """

    name: str
    found: str
    wanted: str
    anchor: str


@dataclass(frozen=True, slots=True)
class TCB:
    """How new the platform's firmware is, in the vendor's words and in numbers.

    status:            the vendor's converged word, e.g. ``UpToDate``; ``none`` where the vendor has none
    advisories:        the vendor's advisory ids that apply, sorted
    level_at:          date of the matched level: everything disclosed until then is fixed; the year 1 where
                       the vendor dates nothing
    superseded_at:     date of the first newer level that is missed, where the status says out of date
    evaluation_number: number of the vendor's TCB recovery event that the judgement rests on
    components:        the numbers that a floor's ``minimum`` names; bytes are compared byte by byte
    """

    status: str
    advisories: tuple[str, ...]
    level_at: datetime
    superseded_at: datetime | None
    evaluation_number: int
    components: Mapping[str, bytes | int]


@dataclass(frozen=True, slots=True)
class Facts:
    """Evidence after verification: signed by a root the caller named, under collateral that was in date.

    platform:      ``tdx`` under the vendor's root, ``sim-tdx`` under a simulator's; never read from the
                   evidence
    product:       what a TCB floor is kept for: the FMSPC in hex (TDX)
    registers:     measured values by name, all of them (a measurement id takes its platform's fixed subset)
    configuration: values that the host set and the hardware attests (``mr_config_id``, ``mr_owner``, …)
    report_data:   64 bytes chosen by the guest
    attributes:    security bits and the identity of the TEE's own software, by name, as reported
    chips:         identities of the machine in hex (PPID, platform instance id), for deny lists
    checks:        what was looked at, in order
    simulated:     true exactly when the root was a simulator's
    judged_at:     the time that certificates, revocation lists and collateral were held against
    """

    platform: str
    product: str
    registers: Mapping[str, bytes]
    configuration: Mapping[str, bytes]
    report_data: bytes
    tcb: TCB
    attributes: Mapping[str, bytes]
    chips: tuple[str, ...]
    checks: tuple[Check, ...]
    simulated: bool
    judged_at: datetime


@dataclass(frozen=True, slots=True)
class Appraised:
    """Facts that a floor and a row's requirements accept, and the checks that say why."""

    facts: Facts
    checks: tuple[Check, ...]
