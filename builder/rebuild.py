"""Build somebody else's release again, in a store that has never seen it, and say what came out.

The verdict is about measurement ids: each row of the release is computed again from the files just built. The
statement names the first artefact that differs, so that whoever reads it knows where to look.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from builder.build import Recipe, build
from builder.errors import BuildFailed, InputDiffers
from builder.image import BOOT, Image, file_of
from builder.lock import lock_sha256
from builder.nix import Nix, Progress
from builder.prefetch import Cache
from builder.release import NO_WEIGHTS
from builder.statement import Head
from quotary.errors import Malformed, QuotaryError, Refused
from quotary.statements.release import Release
from quotary.statements.row import Row

SETTING = "quotary."
PINNED = ("rootfs", "runtime", "model", "weights", "policy")
# From the inputs to what a machine measures: the first difference in this order causes the later ones.
ORDER = (
    *("firmware", "vmlinuz", "initrd.img", "rootfs.img", "runtime.img", "model.img"),
    *("cmdline", "enclave.efi", BOOT),
)

Measure = Callable[[Path, Row], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a second build gave; ``different`` names artefacts, causes first; ``rows`` are stated."""

    verdict: str
    rows: tuple[Mapping[str, object], ...]
    different: tuple[str, ...]
    detail: str | None


def recipe_of(release: Release, recipe: Recipe) -> Recipe:
    """Return the recipe with the release's command line and policy digest; refuse another lock or source."""
    found = lock_sha256(recipe.lock)
    if found != release.lock_sha256.hex():
        raise Refused(
            "lock",
            found,
            release.lock_sha256.hex(),
            next_command="git checkout the release's revision, or give --lock FOLDER",
        )
    weights = _weights(recipe)
    if weights != release.weights_sha256.hex():
        raise Refused("weights", weights, release.weights_sha256.hex(), next_command="give --model FOLDER")
    line = release.material.get("command_line")
    if not isinstance(line, str):
        raise Malformed("the release's material has no command_line")
    return replace(recipe, policy=None, policy_sha256=release.policy_sha256.hex(), settings=settings_of(line))


def settings_of(line: str) -> dict[str, str]:
    """Return the words of a command line that a recipe chooses; the rest follows from what is built."""
    words = (word.removeprefix(SETTING).partition("=") for word in line.split() if word.startswith(SETTING))
    return {name: value for name, _, value in words if name not in PINNED}


def repeat(
    release: Release,
    recipe: Recipe,
    nix: Nix,
    cache: Cache,
    work: Path,
    measure: Measure,
    progress: Progress,
) -> Rebuilt:
    """Build the release's recipe into ``work/image`` and compare; a build that fails is a verdict, too."""
    out = work / "image"
    try:
        built = build(recipe_of(release, recipe), nix, cache, work, out, progress)
    except BuildFailed as error:
        return failed("build", error)
    except InputDiffers as error:
        return failed("input", error)
    return compare(release, built.image, out, measure)


def failed(reason: str, error: QuotaryError) -> Rebuilt:
    """Say that the release cannot be built; ``reason`` is the class of failure, first in the detail."""
    return Rebuilt("failed", (), (), f"{reason}: {error}"[:1000])


def compare(release: Release, image: Image, folder: Path, measure: Measure) -> Rebuilt:
    """Compare a freshly built image folder with a release."""
    rows = sorted(
        (_row(folder, row, measure) for row in release.rows), key=lambda row: str(row["measurement"])
    )
    different = differing(release, image, folder)
    verdict = "match" if all(row["match"] for row in rows) else "mismatch"
    detail = f"first differing artefact: {different[0]}" if different else None
    return Rebuilt(verdict, tuple(rows), different, detail)


def differing(release: Release, image: Image, folder: Path) -> tuple[str, ...]:
    """Return the artefacts whose bytes are not the release's, causes first."""
    wanted = {output.name: output.sha256.hex() for output in release.outputs}
    names = {*wanted, *image.files, "cmdline", BOOT}
    places = {name: place for place, name in enumerate(ORDER)}
    ordered = sorted(names, key=lambda name: (places.get(name, len(ORDER)), name))
    return tuple(name for name in ordered if _sha256(folder / name) != wanted.get(name))


def rebuild_predicate(
    head: Head, release_id: str, organisation: str, tool: str, found: Rebuilt
) -> dict[str, object]:
    """Return the predicate of the rebuild statement."""
    predicate = head.members() | {
        "release": release_id,
        "organisation": organisation,
        "tool": tool,
        "verdict": found.verdict,
        "rows": list(found.rows),
    }
    return predicate | ({"detail": found.detail} if found.detail else {})


def _weights(recipe: Recipe) -> str:
    return file_of(recipe.model / "MANIFEST").sha256 if recipe.model else NO_WEIGHTS


def _sha256(path: Path) -> str | None:
    return file_of(path).sha256 if path.is_file() else None


def _row(folder: Path, row: Row, measure: Measure) -> dict[str, object]:
    found: dict[str, object] = {"measurement": row.measurement.hex(), "match": False}
    try:
        registers = measure(folder, row)
    except QuotaryError:
        return found
    different = {
        name: value.hex() for name, value in sorted(registers.items()) if value != row.registers.get(name)
    }
    return found | ({"found": different} if different else {"match": True})
