"""The outcome of a judgement as a list of named checks, the same for the command line, JSON and the SDK.

A check says what was found, what was wanted, against which anchor, and who looked. What was not looked at
says so; it is never shown as if it held.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from quotary.attestation.facts import Check as VendorCheck
from quotary.attestation.facts import Facts
from quotary.errors import (
    InvalidProof,
    InvalidSignature,
    Judged,
    Malformed,
    Refused,
    Rejected,
    Unsupported,
)
from quotary.statements.keyset import Keyset
from quotary.statements.release import Release

Outcome = Literal["ok", "failed", "not checked"]

HERE = "this verifier"
NOT_CHECKED: Outcome = "not checked"

NAMES = frozenset(
    {
        "evidence",
        "binding",
        "nonce",
        "checkpoint",
        "rollback",
        "age",
        "state",
        "release inclusion",
        "release authority",
        "records",
        "status",
        "row",
        "tcb floor",
        "rebuilders",
        "devices",
    }
)
"""The checks of the verification order; other names stand behind one of these and a colon."""


@dataclass(frozen=True, slots=True)
class Check:
    """One named check.

    name:   stable, e.g. ``release inclusion``
    found:  what was presented, or why it was not looked at
    wanted: what the policy or the specification demands
    anchor: the key, root, size or document that the comparison rests on
    by:     who looked
    """

    name: str
    outcome: Outcome
    found: str
    wanted: str
    anchor: str
    by: str = HERE


@dataclass(slots=True)
class Trail:
    """The checks of one judgement in their order; a refusal leaves its own check as the last one."""

    checks: list[Check] = field(default_factory=list)

    def held(self, name: str, found: str, wanted: str, anchor: str, by: str = HERE) -> None:
        """Record a check that held."""
        self.checks.append(Check(name, "ok", found, wanted, anchor, by))

    def not_checked(self, name: str, why: str, wanted: str, anchor: str) -> None:
        """Record what was not looked at, because the policy says so or nothing was presented."""
        self.checks.append(Check(name, NOT_CHECKED, why, wanted, anchor))

    def vendor(self, prefix: str, checks: tuple[VendorCheck, ...]) -> None:
        """Record the parts of a check that a vendor's verifier went through."""
        for check in checks:
            # A vendor's verifier says in words what it had nothing to look at with.
            record = self.not_checked if check.found.startswith(NOT_CHECKED) else self.held
            record(f"{prefix}: {check.name}", check.found, check.wanted, check.anchor)

    @contextmanager
    def step(self, name: str, wanted: str, anchor: str) -> Iterator[None]:
        """Name what fails inside, a proof, a signature or a part of the check, as ``name``."""
        try:
            yield
        except (InvalidProof, InvalidSignature) as error:
            self.checks.append(Check(name, "failed", str(error), wanted, anchor))
            raise Rejected(name, str(error), wanted) from error
        except Judged as error:
            if error.check in NAMES:
                self.checks.append(Check(error.check, "failed", error.found, error.wanted, anchor))
                raise
            found = f"{error.check}: {error.found}"
            self.checks.append(Check(name, "failed", found, error.wanted, anchor))
            kind = Refused if isinstance(error, Refused) else Rejected
            raise kind(name, found, error.wanted, next_command=error.next_command) from error
        except (Malformed, Unsupported) as error:
            self.checks.append(Check(name, "failed", str(error), wanted, anchor))
            raise


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was proven of one machine; there is no verdict without proof, only an exception.

    service:        whose release it runs
    release:        statement id of that release
    predicate:      what the release says
    measurement_id: 32 bytes, from the evidence
    origin, size:   the log, and the entries under the checkpoint that all this was checked against
    quorum_at:      the newest time that the witness quorum vouches for
    judged_at:      the latest that it could be when this was judged
    not_after:      when the release ends
    map_auditor:    false where the policy says ``none``: then nobody but the log vouches for statuses
    keyset:         the keys that the evidence binds
    simulated:      true for evidence of a simulator, which proves nothing about hardware
    """

    service: str
    release: str
    release_index: int
    predicate: Release
    measurement_id: bytes
    origin: str
    size: int
    root: bytes
    quorum_at: datetime
    judged_at: datetime
    not_after: datetime
    map_auditor: bool
    simulated: bool
    facts: Facts
    keyset: Keyset
    checks: tuple[Check, ...]

    @property
    def headline(self) -> str:
        """Say the result in one line, with what would be wrong to leave out."""
        words = [f"{self.service} runs release {self.release} (entry {self.release_index})"]
        words.append(f"as of {self.size} entries of {self.origin}")
        if self.simulated:
            words.append("SIMULATED evidence, proves nothing about hardware")
        if not self.map_auditor:
            words.append("statuses vouched for by the log alone (map auditor: none)")
        return "; ".join(words)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the log says of a measurement, proven without a machine: an active release, and no more."""

    service: str
    release: str
    release_index: int
    measurement_id: bytes
    origin: str
    size: int
    quorum_at: datetime
    not_after: datetime
    map_auditor: bool
    simulated: bool
    checks: tuple[Check, ...]

    @property
    def headline(self) -> str:
        """Say the result in one line, with what would be wrong to leave out."""
        words = [f"measurement {self.measurement_id.hex()} of {self.service} is active"]
        words.append(f"release {self.release} (entry {self.release_index})")
        words.append(f"as of {self.size} entries of {self.origin}; no machine was looked at")
        if self.simulated:
            words.append("SIMULATION")
        if not self.map_auditor:
            words.append("statuses vouched for by the log alone (map auditor: none)")
        return "; ".join(words)


def documents(checks: tuple[Check, ...] | list[Check]) -> list[Mapping[str, str]]:
    """Give checks as JSON objects; the member names are stable."""
    return [
        {
            "name": check.name,
            "outcome": check.outcome,
            "found": check.found,
            "wanted": check.wanted,
            "anchor": check.anchor,
            "checked_by": check.by,
        }
        for check in checks
    ]
