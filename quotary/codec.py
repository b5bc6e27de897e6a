"""How ``quotary.canonical`` turns text into values and back: what is allowed is decided there, not here.

msgspec does it where it is installed, in a quarter of the standard library's time, else that library
(docs/decisions/0005-json-writer.md). A text counts only if writing its value gives the same bytes again, so
the two cannot disagree about what an accepted document says.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Codec:
    """A reader and a writer of JSON.

    read:  takes UTF-8; raises ``ValueError``, or ``RecursionError``, for what is not JSON (RFC 8259)
    write: names sorted, no spaces, nothing escaped but quotation mark, backslash and C0 controls; takes what
           ``canonical`` checked before, raises ``ValueError`` for a surrogate
    """

    read: Callable[[bytes], object]
    write: Callable[[object], bytes]


def standard() -> Codec:
    """Give the standard library's."""
    reader = json.JSONDecoder(parse_constant=_no_constant)
    writer = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)
    return Codec(lambda data: reader.decode(data.decode()), lambda value: writer.encode(value).encode())


def compiled() -> Codec | None:
    """Give msgspec's; None where it is not installed."""
    try:
        from msgspec.json import Decoder, Encoder
    except ModuleNotFoundError:
        return None
    return Codec(Decoder().decode, Encoder(order="sorted").encode)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


CODEC = compiled() or standard()
