"""What F1 made of an entry: whether it had effect, and under which code if not (docs/formats/f1.md)."""

from dataclasses import dataclass

EFFECTIVE = "effective"
NOTICE = "notice"

CODES = (
    "already-allocated",
    "already-revoked",
    "compromised-key",
    "delegation-expired",
    "expired",
    "floor-lower",
    "foreign-row",
    "invalid-signature",
    "issued-in-future",
    "malformed",
    "no-genesis",
    NOTICE,
    "other-log",
    "previous",
    "release-too-long",
    "replay",
    "sequence",
    "sequence-jump",
    "superseded",
    "suspension-too-long",
    "threshold",
    "unknown-key",
    "unknown-kind",
    "unknown-measurement",
    "unknown-release",
    "unknown-service",
)
"""Every reason for which an entry has no effect."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry.

    kind, statement_id: empty where the entry could not be read that far
    code:               ``effective``, or one of ``CODES``
    detail:             the reason in words; not part of F1
    """

    index: int
    kind: str
    statement_id: str
    effect: bool
    code: str
    detail: str = ""

    @property
    def admissible(self) -> bool:
        """Say whether a log should take the entry: it has effect, or is a notice (see ``F1.would``)."""
        return self.effect or self.code == NOTICE


class Ignored(Exception):
    """An entry has no effect; caught where outcomes are made, never leaves F1."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
