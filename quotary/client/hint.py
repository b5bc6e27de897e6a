"""Why a measurement may be missing: the nearest logged release, and the first register that differs.

Everything here comes from the log's services endpoint and is not proven. It tells a person where to look; no
decision rests on it, and whoever prints it says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.client.log import LogClient
from quotary.errors import QuotaryError
from quotary.statements.envelope import Envelope
from quotary.statements.measurement import REGISTERS, base_platform
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement

MAX_RELEASES = 20


@dataclass(frozen=True, slots=True)
class Hint:
    """The logged row that agrees with a machine in the most registers.

    register: the first one that differs, with what the machine has and what the release says
    """

    service: str
    statement_id: str
    index: int
    equal: int
    register: str
    found: bytes
    wanted: bytes

    def __str__(self) -> str:
        return (
            f"hint (unproven): the nearest logged release of {self.service} is {self.statement_id} "
            f"(entry {self.index}); {self.register} is {self.found.hex()}, there it is {self.wanted.hex()}"
        )


def nearest(
    log: LogClient, services: Sequence[str], platform: str, registers: Mapping[str, bytes]
) -> Hint | None:
    """Look through the newest releases of these services; None where nothing could be found out."""
    best: Hint | None = None
    for service in services:
        for index in _indices(log, service):
            for hint in _hints(log, service, index, platform, registers):
                if best is None or hint.equal > best.equal:
                    best = hint
    return best


def _indices(log: LogClient, service: str) -> list[int]:
    try:
        releases = log.service(service).get("releases")
    except QuotaryError:
        return []
    found = (
        [item.get("index") for item in releases if isinstance(item, dict)]
        if isinstance(releases, list)
        else []
    )
    return [index for index in found if isinstance(index, int)][-MAX_RELEASES:][::-1]


def _hints(
    log: LogClient, service: str, index: int, platform: str, registers: Mapping[str, bytes]
) -> list[Hint]:
    try:
        statement = parse_statement(Envelope.parse(log.entry(index)).payload)
    except QuotaryError:
        return []
    if not isinstance(statement.predicate, Release):
        return []
    hints = []
    for row in statement.predicate.rows:
        if row.platform == platform:
            names = REGISTERS[base_platform(platform)]
            differs = [name for name in names if row.registers[name] != registers.get(name)]
            if differs:
                name = differs[0]
                mine, theirs = registers.get(name, b""), row.registers[name]
                equal = len(names) - len(differs)
                hints.append(Hint(service, statement.statement_id, index, equal, name, mine, theirs))
    return hints
