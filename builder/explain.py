"""Why two measurements differ: the first input, in the order in which hardware takes them in."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quotary.attestation.measure.material import recompute
from quotary.attestation.measure.shape import Shape, parse_shape
from quotary.attestation.measure.trace import Measured, Step
from quotary.canonical import Fields, hexbytes
from quotary.errors import CannotTell, Malformed, Unsupported
from quotary.statements.measurement import base_platform
from quotary.statements.release import Release

SCHEMA = "quotary/measure-steps/v1"
MAX_STEPS_FILE = 64 << 20
_MAX_STEPS = 1 << 18


def steps_document(platform: str, profile: str, found: Measured) -> dict[str, object]:
    """Return every step of a computation, for somebody else to compare with theirs."""
    steps = [
        {"register": one.register, "name": one.name, "digest": one.digest.hex(), "after": one.after.hex()}
        for one in found.steps
    ]
    return {"schema": SCHEMA, "platform": platform, "profile": profile, "steps": steps}


def load_steps(path: Path, platform: str, profile: str) -> Measured:
    """Read what ``quotary measure explain --json`` wrote, of the same platform and profile."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STEPS_FILE + 1)
        fields = Fields(json.loads(data), "steps file")
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{path} is no image folder and not JSON") from error
    fields.choice("schema", SCHEMA)
    found = fields.text("platform"), fields.text("profile")
    if found != (platform, profile):
        raise Malformed(f"{path} is of {found[0]}, profile {found[1]}; wanted {platform}, {profile}")
    steps = tuple(_step(item) for item in fields.items("steps", _MAX_STEPS))
    fields.done()
    return Measured({step.register: step.after for step in steps}, steps)


def difference(mine: Measured, theirs: Measured) -> str:
    """Say in one line which input is the first that differs, and which registers it reaches."""
    first = mine.first_difference(theirs)
    if not first:
        return ""
    names = {step.register for step in (*mine.steps, *theirs.steps)}
    reached = sorted(name for name in names if mine.registers.get(name) != theirs.registers.get(name))
    return f"{first}; registers that differ: {', '.join(reached) or 'none'}"


def against_release(
    material: Callable[[Sequence[Shape]], Mapping[str, object]], release: Release, platform: str, profile: str
) -> str:
    """Say which input of an image is the first that differs from a release's, as far as its material says.

    material: gives the image's own material for the machines of the release's row
    """
    rows = [row for row in release.rows if (row.platform, row.profile) == (platform, profile)]
    if not rows:
        raise Unsupported(f"the release has no row for {platform} with profile {profile}")
    base = base_platform(platform)
    machine = parse_shape(base, rows[0].shape)[0]
    mine = material([machine])
    said = difference(
        recompute(base, profile, machine, mine), recompute(base, profile, machine, release.material)
    )
    lines = [str(one.get("command_line", "")) for one in (mine, release.material)]
    return words_difference(said, *lines)


def words_difference(said: str, mine: str, theirs: str) -> str:
    """Add to what differs the words of the command line that only one side has."""
    words, others = mine.split(), theirs.split()
    only = [f"+{word}" for word in words if word not in others]
    only += [f"-{word}" for word in others if word not in words]
    return f"{said}; command line: {' '.join(only)}" if said and only else said


def _step(item: object) -> Step:
    fields = Fields(item, "step")
    after = fields.text("after", 128)
    found = Step(
        fields.text("register", 64),
        fields.text("name"),
        fields.hexbytes("digest", 48),
        hexbytes(after, len(after) // 2),
    )
    fields.done()
    return found
