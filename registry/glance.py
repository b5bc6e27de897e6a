"""Whose release an entry is, without reading it: for entries that were let in, so somebody has read them.

Members are sorted, a string shows no bare quotation mark, and no member of ``material`` may be called
``predicateType``. So this text stands only where a release says its service.
"""

import binascii
import re

_END = re.compile(
    rb'"service":"([a-z0-9._:/-]+)","source":\{"revision":"[^"]*","uri":"[^"]*"\},"weights_sha256":"[0-9a-f]{64}"\},'
    rb'"predicateType":"https://quotary\.dev/release/v1","subject":\['
)
_HEAD = b'{"payload":"'


def released_service(entry: bytes) -> str | None:
    """Name the service of an entry that is plainly a release; None for any other, and where in doubt."""
    if not entry.startswith(_HEAD):
        return None
    try:
        payload = binascii.a2b_base64(entry[len(_HEAD) : entry.index(b'"', len(_HEAD))])
    except ValueError:
        return None
    end = _END.search(payload)
    return end[1].decode("ascii") if end else None
