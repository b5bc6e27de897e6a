"""Where releases are built again: one at a time, each in a store that is made for it and removed after."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from builder.build import Recipe, revision
from builder.diff import image_layers
from builder.image import file_of
from builder.measure import registers_of
from builder.nix import Nix, Progress
from builder.prefetch import Cache
from builder.rebuild import Rebuilt, repeat
from builder.source import fetch_source
from quotary.errors import Malformed, Refused
from quotary.statements.release import Release
from quotary.statements.row import Row

REPORT = "difference.txt"
DIFFOSCOPE = "diffoscope"
DIFFOSCOPE_SECONDS = 900
MAX_REPORT = 1 << 20


@dataclass(frozen=True, slots=True)
class Workshop:
    """What this machine builds releases from and with.

    source:     checkout of the release's revision; None: fetched by the commit
    source_url: where to fetch it, if not at the address that the release names
    lock:       folder of the release's lock; None: the one in its source
    model:      folder of the release's weights, where it names any
    elsewhere:  registers that no image folder gives, by platform and profile
    work:       parent of the folders that are made and removed; None: the system's
    """

    cache: Cache
    source: Path | None = None
    source_url: str | None = None
    lock: Path | None = None
    model: Path | None = None
    elsewhere: Mapping[tuple[str, str], Mapping[str, bytes]] | None = None
    work: Path | None = None

    def rebuild(
        self, release: Release, progress: Progress, original: Path | None = None, report: Path | None = None
    ) -> tuple[Rebuilt, str]:
        """Build the release again and compare; return what came out, and the tool that did it.

        original: the release's own image folder, if it is at hand, to say which file in an artefact differs
        report:   new file for that difference
        """
        with tempfile.TemporaryDirectory(dir=self.work, prefix="quotary-rebuild-") as folder:
            place = Path(folder)
            if original is not None:
                _require_original(release, original)
            recipe = self._recipe(release, place / "source", progress)
            nix = Nix.open(place / "store")
            try:
                found = repeat(release, recipe, nix, self.cache, place, self._measure, progress)
                tool = f"quotary with Nix {nix.version()}"
                if found.different and original is not None and report is not None:
                    found = explained(found, original, place / "image", report)
            finally:
                nix.remove()
        return found, tool

    def _recipe(self, release: Release, fresh: Path, progress: Progress) -> Recipe:
        profile = release.material.get("profile")
        if not isinstance(profile, str):
            raise Malformed("the release's material has no profile")
        source = self.source or fetch_source(release, self.source_url, fresh, progress)
        found = revision(source)["revision"]
        if found != release.source_revision:
            raise Refused(
                "source revision",
                found,
                release.source_revision,
                next_command="git checkout it, or leave --source away",
            )
        lock = (self.lock or source / "nix" / "lock").resolve()
        return Recipe(source.resolve(), profile, lock, model=self.model)

    def _measure(self, image: Path, row: Row) -> Mapping[str, bytes]:
        return (self.elsewhere or {}).get((row.platform, row.profile)) or registers_of(image, row)


def _require_original(release: Release, folder: Path) -> None:
    """Refuse an image folder whose files are not those that the release names."""
    for output in release.outputs:
        found = file_of(folder / output.name).sha256
        if found != output.sha256.hex():
            raise Refused(f"original {output.name}", found, output.sha256.hex())


def explained(found: Rebuilt, original: Path, image: Path, report: Path) -> Rebuilt:
    """Write how the rebuilt image differs from the release's own, and name the first file in the detail."""
    lines = [line for layer in image_layers(original, image) for line in layer.lines]
    name = found.different[0]
    text = "".join(f"{line}\n" for line in lines) + _diffoscope(original / name, image / name)
    report.write_text(text)
    return replace(found, detail="; ".join([found.detail or "", *lines[:1]])[:1000])


def _diffoscope(one: Path, two: Path) -> str:
    if shutil.which(DIFFOSCOPE) is None:
        return f"{DIFFOSCOPE} is not installed: no look inside {one.name}\n"
    words = [DIFFOSCOPE, "--no-progress", "--max-text-report-size", str(MAX_REPORT), "--text", "-"]
    try:
        done = subprocess.run(
            [*words, str(one), str(two)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DIFFOSCOPE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"{DIFFOSCOPE} did not end within {DIFFOSCOPE_SECONDS} s\n"
    return done.stdout[:MAX_REPORT] or f"{DIFFOSCOPE} ended with {done.returncode}: {done.stderr[:300]}\n"
