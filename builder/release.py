"""The release statement of an image folder, and how two releases differ."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from builder.build import BUILD
from builder.image import BOOT, Image, file_of
from builder.statement import Head
from quotary.canonical import time_text
from quotary.errors import CannotTell, Malformed, Usage
from quotary.statements.release import Release

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
) -> dict[str, object]:
    """Return the predicate of the image's release; its files are hashed again, ``build.json`` says from what.

    rows, material: as ``quotary measure run`` writes them
    """
    image = Image.load(folder)
    image.verify(folder)
    if image.policy_sha256 == "none":
        raise Usage(
            "the image has no policy on its command line", next_command="quotary build run --policy FILE ..."
        )
    record = build_record(folder)
    names = sorted([*image.files, "cmdline", BOOT])
    found = {name: file_of(folder / name) for name in names}
    return head.members() | {
        "not_after": time_text(head.issued + timedelta(days=days)),
        "source": {"uri": source_uri, "revision": record["revision"]},
        "lock_sha256": record["lock_sha256"],
        "outputs": [{"name": name, "sha256": one.sha256, "size": one.size} for name, one in found.items()],
        "weights_sha256": NO_WEIGHTS if image.weights_sha256 == "none" else image.weights_sha256,
        "policy_sha256": image.policy_sha256,
        "rows": list(rows),
        "material": {
            **material,
            "command_line": image.command_line,
            "profile": image.profile,
            "inputs_sha256": record["inputs_sha256"],
        },
    }


def build_record(folder: Path) -> dict[str, str]:
    """Return revision, lock digest and inputs digest out of an image folder's ``build.json``."""
    try:
        document = json.loads((folder / BUILD).read_bytes())
        found = {
            "revision": document["source"]["revision"],
            "lock_sha256": document["lock_sha256"],
            "inputs_sha256": document["inputs"]["sha256"],
        }
    except OSError as error:
        raise CannotTell(
            f"{folder} has no {BUILD}: {error.strerror}", next_command="quotary build run"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"{BUILD} is not of the known form") from error
    if not all(isinstance(value, str) for value in found.values()):
        raise Malformed(f"{BUILD} is not of the known form")
    return found


def release_difference(old: Release, new: Release) -> list[str]:
    """Return one line for everything that two releases say differently, beside their numbers and dates."""
    pairs = [
        ("source", f"{old.source_uri} {old.source_revision}", f"{new.source_uri} {new.source_revision}"),
        ("lock", old.lock_sha256.hex(), new.lock_sha256.hex()),
        ("weights", old.weights_sha256.hex(), new.weights_sha256.hex()),
        ("policy", old.policy_sha256.hex(), new.policy_sha256.hex()),
    ]
    lines = [f"~ {name} {one} -> {two}" for name, one, two in pairs if one != two]
    before = {output.name: output.sha256.hex() for output in old.outputs}
    after = {output.name: output.sha256.hex() for output in new.outputs}
    lines += _changes("output", before, after)
    rows_before = {row.measurement.hex(): f"{row.platform} {row.profile}" for row in old.rows}
    rows_after = {row.measurement.hex(): f"{row.platform} {row.profile}" for row in new.rows}
    return lines + _changes("measurement", rows_before, rows_after)


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    lines = [f"- {what} {name} {before[name]}" for name in sorted(before.keys() - after.keys())]
    lines += [f"+ {what} {name} {after[name]}" for name in sorted(after.keys() - before.keys())]
    both = sorted(before.keys() & after.keys())
    return lines + [
        f"~ {what} {name} {before[name]} -> {after[name]}" for name in both if before[name] != after[name]
    ]
