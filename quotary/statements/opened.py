"""An entry taken apart before anything is asked about it (docs/formats/f1.md, step 1)."""

from dataclasses import dataclass

from quotary.errors import Malformed, Unsupported
from quotary.statements.envelope import Envelope
from quotary.statements.schema import Statement, parse_statement


@dataclass(frozen=True, slots=True)
class Opened:
    """Envelope and statement of an entry, as far as it could be read.

    code, detail: why there is no statement; empty where there is one
    """

    envelope: Envelope | None
    statement: Statement | None
    code: str = ""
    detail: str = ""

    @property
    def statement_id(self) -> str:
        """The statement's name; empty where the entry is malformed."""
        return "" if self.envelope is None else self.envelope.statement_id


def open_entry(entry: bytes) -> Opened:
    """Read an entry; a reserved record is ``malformed`` here, as nobody may submit one."""
    try:
        envelope = Envelope.parse(entry)
        statement = parse_statement(envelope.payload)
    except Malformed as error:
        return Opened(None, None, "malformed", str(error))
    except Unsupported as error:
        return Opened(envelope, None, "unknown-kind", str(error))
    return Opened(envelope, statement)
