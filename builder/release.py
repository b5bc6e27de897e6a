"""The release statement of an image folder."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from builder.image import BOOT, Image, file_of
from builder.record import Record
from builder.statement import Head
from quotary.canonical import time_text
from quotary.errors import Usage
from quotary.statements.release import IRREPRODUCIBLE

MAX_DAYS = 180
NO_WEIGHTS = hashlib.sha256(b"").hexdigest()
"""Digest of a manifest that names no file: an image that serves no model."""


def release_predicate(
    folder: Path,
    rows: Sequence[Mapping[str, object]],
    material: Mapping[str, object],
    head: Head,
    *,
    days: int,
    source_uri: str,
    provenance: str | None = None,
    irreproducible: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return the predicate of the image's release; its files are hashed again, ``build.json`` says from what.

    rows, material: as ``quotary measure run`` writes them
    provenance:     SHA-256 (hex) of its SLSA provenance, if there is one
    irreproducible: outputs that cannot be made again to the same bytes, each with the reason
    """
    image = Image.load(folder)
    image.verify(folder)
    if image.policy_sha256 == "none":
        raise Usage(
            "the image has no policy on its command line", next_command="quotary build run --policy FILE ..."
        )
    record = Record.load(folder)
    names = sorted([*image.files, "cmdline", BOOT])
    found = {name: file_of(folder / name) for name in names}
    if unknown := sorted(set(irreproducible or {}) - found.keys()):
        raise Usage(f"the image has no output {unknown[0]}, it has {', '.join(names)}")
    return head.members() | {
        "not_after": time_text(head.issued + timedelta(days=days)),
        "source": {"uri": source_uri, "revision": record.revision},
        "lock_sha256": record.lock_sha256,
        "outputs": [{"name": name, "sha256": one.sha256, "size": one.size} for name, one in found.items()],
        "weights_sha256": NO_WEIGHTS if image.weights_sha256 == "none" else image.weights_sha256,
        "policy_sha256": image.policy_sha256,
        "rows": list(rows),
        "material": {
            **material,
            "command_line": image.command_line,
            "profile": image.profile,
            "inputs_sha256": record.inputs_sha256,
            "nix": {
                name: {"derivation": one.derivation, "path": one.path, "nar_sha256": one.nar_sha256}
                for name, one in record.derived.items()
            },
            **({"provenance_sha256": provenance} if provenance else {}),
            **({IRREPRODUCIBLE: dict(irreproducible)} if irreproducible else {}),
        },
    }
