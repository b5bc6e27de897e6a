"""The entries of an interval, opened for F1 and for the search index."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from quotary.statements.opened import Opened, open_entry
from quotary.statements.state_entry import is_reserved
from quotary.statements.terms import terms_in
from registry.seal import Held, Seal
from registry.store import Waiting


@dataclass(slots=True)
class Opening:
    """Entries that are no reserved records.

    opened: by their index; terms: rows of the search index, (term, index)
    held:   the signatures that need no verification any more
    """

    opened: dict[int, Opened] = field(default_factory=dict)
    terms: set[tuple[str, int]] = field(default_factory=set)
    held: Held = field(default_factory=Held)

    @classmethod
    def of(cls, entries: Sequence[bytes], first: int) -> "Opening":
        """Read entries from index ``first`` on, of which nobody says anything."""
        found = cls()
        for index, entry in enumerate(entries, first):
            found._read(index, entry)
        return found

    def take(self, rows: Sequence[Waiting], first: int, seal: Seal | None) -> None:
        """Add what waited, from index ``first`` on, as far as possible by what its seals say.

        The leaf hash of each row has been compared with its bytes.
        """
        for index, row in enumerate(rows, first):
            found = seal.open(row.leaf_hash, row.data, row.seal) if seal and row.seal else None
            if found is None:
                self._read(index, row.data)
            else:
                self._put(index, found.opened, found.terms)
                self.held.add(found)

    def _read(self, index: int, entry: bytes) -> None:
        if not is_reserved(entry):
            found = open_entry(entry)
            self._put(index, found, terms_in(found))

    def _put(self, index: int, opened: Opened, terms: frozenset[str]) -> None:
        self.opened[index] = opened
        self.terms.update([(term, index) for term in terms])
