"""A binary layout as a table: one line a field, under a comment that cites the vendor's section.

The same table reads and writes. Offsets and lengths are in bytes. ``gaps_and_overlaps`` is what the test of
every table calls, so that a table cannot leave a byte unnamed or name one twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from quotary.errors import Malformed


@dataclass(frozen=True, slots=True)
class Field:
    """One field; a reserved one must be zero, is not returned by ``read`` and not taken by ``write``."""

    name: str
    offset: int
    length: int
    reserved: bool = False

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure of exactly ``length`` bytes."""

    what: str
    length: int
    fields: tuple[Field, ...]

    def read(self, data: bytes) -> dict[str, bytes]:
        """Cut the fields out of exactly ``length`` bytes; refuse reserved bytes that are not zero."""
        if len(data) != self.length:
            raise Malformed(f"{self.what} has {len(data)} bytes, {self.length} are needed")
        found = {}
        for field in self.fields:
            value = data[field.offset : field.end]
            if not field.reserved:
                found[field.name] = value
            elif any(value):
                raise Malformed(f"{self.what} has non-zero reserved bytes at {field.offset}")
        return found

    def write(self, values: Mapping[str, bytes]) -> bytes:
        """Write every field that is not reserved, each of exactly its length, no more and no fewer."""
        named = [field for field in self.fields if not field.reserved]
        if {field.name for field in named} != set(values):
            raise Malformed(f"{self.what} needs exactly the fields {', '.join(f.name for f in named)}")
        data = bytearray(self.length)
        for field in named:
            if len(values[field.name]) != field.length:
                raise Malformed(f"{self.what}.{field.name} needs {field.length} bytes")
            data[field.offset : field.end] = values[field.name]
        return bytes(data)

    def gaps_and_overlaps(self) -> tuple[str, ...]:
        """Name each place where the table leaves a byte out or takes one twice; empty for a sound table."""
        found, at = [], 0
        for field in (*self.fields, Field("end", self.length, 0)):
            if field.offset != at:
                found.append(f"{self.what}.{field.name} begins at {field.offset}, expected {at}")
            at = field.end
        return tuple(found)


def fields(*rows: tuple[str, int, int]) -> tuple[Field, ...]:
    """Build a table from ``(name, offset, length)`` rows; names that begin with ``reserved`` are reserved."""
    return tuple(Field(name, offset, length, name.startswith("reserved")) for name, offset, length in rows)


def join(*parts: Iterable[Field]) -> tuple[Field, ...]:
    """Put tables one behind the other (a structure that a later version made longer)."""
    return tuple(field for part in parts for field in part)


def little(data: bytes) -> int:
    """Read an unsigned little-endian integer."""
    return int.from_bytes(data, "little")
