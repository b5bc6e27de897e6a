"""Reading a request's body: bounded, to its end, and never a part of it taken for the whole."""

from flask import request
from gunicorn.http.errors import ParseException

from quotary.errors import Malformed
from registry.errors import TooLarge

MOST_READ = 8 << 20
PIECE = 65_536


def read_body(limit: int) -> bytes:
    """Read the body, or raise ``TooLarge`` for more than ``limit`` bytes and ``Malformed`` for false framing.

    Of a body that is too long, up to 8 MiB are read away first: closing on unread bytes loses the answer.
    """
    length = request.content_length or 0
    if length <= MOST_READ:
        # One more than may be read, because a stream that ends at its limit looks like a body that does.
        request.max_content_length = MOST_READ + 1
        body, total = _read(limit)
        if total <= limit:
            return body
    raise TooLarge(f"the body has {length or f'over {limit}'} bytes, at most {limit} are allowed", limit)


def _read(limit: int) -> tuple[bytes, int]:
    """Give the first ``limit`` bytes and how many there are, at most 8 MiB and one."""
    body, total = bytearray(), 0
    try:
        while total <= MOST_READ and (piece := request.stream.read(PIECE)):
            total += len(piece)
            body += piece[: max(0, limit - len(body))]
    except ParseException as error:
        raise Malformed("the body is not framed as the request says") from error
    return bytes(body), total
