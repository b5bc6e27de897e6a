"""Two releases side by side: which inputs, outputs and registers changed, in a plain sentence first."""

from collections.abc import Mapping

from flask import request

from quotary.errors import Malformed
from quotary.statements.release import Release
from quotary.statements.sentence import counted
from registry.errors import NotFound
from registry.pages.lookup import statement_at
from registry.public import Snapshot
from registry.site import Site

Values = Mapping[str, str]


def compare(site: Site) -> dict[str, object]:
    """Say what differs between the releases at the indices ``old`` and ``new``."""
    old, new = _index("old"), _index("new")
    if old is None or new is None:
        return {"old": old, "new": new, "sentence": None, "parts": {}}
    snapshot = site.public.snapshot()
    before, after = _release(site, old, snapshot), _release(site, new, snapshot)
    parts = {
        "inputs": _part(_inputs(before), _inputs(after)),
        "outputs": _part(_outputs(before), _outputs(after)),
        "registers": _part(_registers(before), _registers(after)),
    }
    return {
        "old": old,
        "new": new,
        "services": [before.header.service, after.header.service],
        "sentence": _sentence(before, after, [len(part["changed"]) for part in parts.values()]),
        "parts": parts,
    }


def _sentence(before: Release, after: Release, changed: list[int]) -> str:
    inputs, outputs, registers = changed
    if before.header.service != after.header.service:
        return "These are releases of two different services."
    if not any(changed):
        return "Both releases name the same inputs, outputs and registers."
    what = [counted(inputs, "input"), counted(outputs, "output"), counted(registers, "register")]
    said = f"{what[0]}, {what[1]} and {what[2]} differ"
    if registers and not inputs:
        return f"{said}: registers changed although no input did. Ask the builder why."
    if not registers:
        return f"{said}: a machine cannot show which of the two it runs."
    return f"{said}: the releases have different inputs, and different registers may follow from that."


def _part(old: Values, new: Values) -> dict[str, list[dict[str, str | None]]]:
    changed: list[dict[str, str | None]] = [
        {"name": key, "old": old.get(key), "new": new.get(key)}
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    return {"changed": changed, "same": [{"name": key} for key in sorted(old) if old[key] == new.get(key)]}


def _inputs(release: Release) -> Values:
    return {
        "source": release.source_uri,
        "source revision": release.source_revision,
        "lock": release.lock_sha256.hex(),
        "weights": release.weights_sha256.hex(),
        "policy": release.policy_sha256.hex(),
    }


def _outputs(release: Release) -> Values:
    return {output.name: f"{output.sha256.hex()}, {output.size} bytes" for output in release.outputs}


def _registers(release: Release) -> Values:
    found: dict[str, str] = {}
    taken: set[str] = set()
    for row in release.rows:
        # A release may have several rows of one profile, for machines of different shape: they are numbered.
        number = 1
        while (place := f"{row.platform}, {row.profile}{f', row {number}' if number > 1 else ''}") in taken:
            number += 1
        taken.add(place)
        found |= {f"{place}: {name}": value.hex() for name, value in row.registers.items()}
    return found


def _release(site: Site, index: int, snapshot: Snapshot) -> Release:
    try:
        found = statement_at(site, index, snapshot).predicate
    except Malformed:
        found = None
    if not isinstance(found, Release):
        raise NotFound(f"entry {index} is not a release")
    return found


def _index(name: str) -> int | None:
    text = request.args.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Malformed(f"{name} is the index of an entry")
    return int(text)
