"""Why two measurements differ: the first input, in the order in which hardware takes them in."""

import json
from pathlib import Path

from quotary.attestation.measure.trace import Measured, Step
from quotary.canonical import Fields, hexbytes
from quotary.errors import CannotTell, Malformed

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
