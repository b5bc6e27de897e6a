"""Which licences an input says it is under: a Debian copyright file, or the metadata of a wheel.

What is read is the input's own word, in its own spelling (Debian's short names are not SPDX's). Where it says
none, or the bytes are not at hand, the answer says which of the two.
"""

import email.parser
import io
import re
import zipfile
from pathlib import Path

from builder.archive import deb_file
from builder.lock import Deb, Input
from builder.prefetch import Cache
from quotary.errors import Malformed, Unsupported

MACHINE_READABLE = "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0"
MAX_METADATA = 1 << 20
CLASSIFIER = "License :: "

_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")


def licences_of(item: Input, cache: Cache) -> tuple[str, ...] | None:
    """Return the licences that an input names, sorted, or None where its bytes are not in the cache.

    Empty: the input names none that a program can read.
    """
    path = cache.find(item.sha256)
    if path is None:
        return None
    return of_deb(path.read_bytes(), item.name) if isinstance(item, Deb) else of_wheel(path)


def of_deb(data: bytes, name: str) -> tuple[str, ...]:
    """Read a package's machine-readable copyright file (DEP-5); another form names nothing."""
    try:
        text = deb_file(data, f"usr/share/doc/{name}/copyright").decode("utf-8", "replace")
    except (Malformed, Unsupported):
        return ()  # the documentation may be another package's
    if MACHINE_READABLE not in text[:1000].replace("http://", "https://"):
        return ()
    return tuple(sorted({" ".join(found.split()) for found in _LICENCE.findall(text)}))


def of_wheel(path: Path) -> tuple[str, ...]:
    """Read a wheel's metadata: its licence expression, else its classifiers, else its one-line licence."""
    try:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as wheel:
            names = [name for name in wheel.namelist() if _METADATA.fullmatch(name)]
            text = wheel.open(names[0]).read(MAX_METADATA).decode("utf-8", "replace") if names else ""
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError) as error:
        raise Malformed(f"{path.name} is no wheel") from error
    said = email.parser.HeaderParser().parsestr(text)
    if expression := said.get("License-Expression"):
        return (expression,)
    named = [
        one.rpartition(" :: ")[2] for one in said.get_all("Classifier", []) if one.startswith(CLASSIFIER)
    ]
    line = said.get("License", "")
    return tuple(sorted(set(named))) or ((line,) if line and "\n" not in line and len(line) < 200 else ())
