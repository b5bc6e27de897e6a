"""Notices: statements that the log keeps and indexes and that change no status (design section 4).

keyset, receipt-root, issuer-key, key-release, location and artefact share one shape: the digests of
documents that are kept elsewhere, and optionally where and what. F1 skips them; admission asks for the
role of the kind's own name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields
from quotary.errors import Malformed
from quotary.statements.predicates import Header, free, header

NOTICE_KINDS = ("artefact", "issuer-key", "key-release", "keyset", "location", "receipt-root")
MAX_ITEMS = 256


@dataclass(frozen=True, slots=True)
class Item:
    """A document that is kept elsewhere: its name, SHA-256 (32 bytes) and, if said, its length in bytes."""

    name: str
    sha256: bytes
    size: int | None


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody with the role of the notice's kind wanted to stand in the log.

    items: the documents, at least one; these are the statement's subject
    uri:   where they can be found
    data:  free content
    """

    header: Header
    items: tuple[Item, ...]
    uri: str | None
    data: Mapping[str, object] | None


def parse_notice(fields: Fields) -> Notice:
    """Read the predicate of a notice of any kind."""
    return Notice(
        header(fields),
        _items(fields),
        fields.optional("uri", lambda name: fields.text(name, 1024)),
        fields.optional("data", lambda name: free(fields, name, 256)),
    )


def _items(fields: Fields) -> tuple[Item, ...]:
    found: list[Item] = []
    for value in fields.items("items", MAX_ITEMS, low=1):
        member = Fields(value, "item")
        item = Item(
            member.name("name"), member.hexbytes("sha256", 32), member.optional("size", member.integer)
        )
        member.done()
        found.append(item)
    if len({item.name for item in found}) != len(found):
        raise Malformed("two items have the same name")
    return tuple(found)
