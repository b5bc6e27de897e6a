"""Ask Debian's archive through a private apt: own sources, lists and cache, nothing of the machine changed.

The machine's apt program and proxy settings are used, its keyring decides what is genuine. Where no mirror is
configured (``QUOTARY_DEBIAN_MIRROR``, before ``/debian`` and ``/debian-security``) Debian's own is asked.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.lock import Deb
from quotary.errors import CannotTell, Malformed

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org"
TIMEOUT_SECONDS = 900

_METAPACKAGE = re.compile(r"(linux-image-[0-9][^ ]*) \(= ([^)]+)\)")


@dataclass(frozen=True, slots=True)
class Suite:
    """A part of the archive: ``archive`` is the path below the mirror, e.g. ``debian-security``."""

    name: str
    archive: str


@dataclass(frozen=True, slots=True)
class Apt:
    """A private apt root in ``folder``."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, suites: Sequence[Suite]) -> "Apt":
        """Make the root's folders and its list of sources."""
        if shutil.which("apt-get") is None:
            raise CannotTell("apt-get is not installed, so Debian packages cannot be fetched here")
        root = folder.absolute()
        for name in ("state/lists/partial", "cache/archives/partial", "etc"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "state/status").touch()
        mirror = os.environ.get("QUOTARY_DEBIAN_MIRROR", MIRROR).rstrip("/")
        lines = (f"deb [signed-by={KEYRING}] {mirror}/{one.archive} {one.name} main\n" for one in suites)
        (root / "etc/sources.list").write_text("".join(lines))
        return cls(root)

    def update(self) -> None:
        """Fetch the archive's signed indexes."""
        self._run(["apt-get", "update", "-q"])

    def resolve(self, names: Iterable[str]) -> dict[str, Deb]:
        """Return the package that the archive offers now for each name; a kernel's meta package gives it."""
        wanted = sorted(set(names))
        found = self._newest(wanted)
        kernels = {
            name: text for name, (_, text) in found.items() if _METAPACKAGE.search(text.get("Depends", ""))
        }
        targets = {name: _METAPACKAGE.search(text["Depends"])[1] for name, text in kernels.items()}  # type: ignore[index]  # searched above
        if targets:
            real = self._newest(sorted(targets.values()))
            found |= {name: real[target] for name, target in targets.items() if target in real}
        missing = [name for name in wanted if name not in found]
        if missing:
            raise CannotTell(
                f"the archive has no package {', '.join(missing)}", next_command="quotary build lock"
            )
        suites = self._suites()
        return {name: _deb(text, suites) for name, (_, text) in found.items()}

    def offered(self, debs: Sequence[Deb]) -> frozenset[str]:
        """Return the keys of those packages that the archive still offers with exactly these bytes."""
        if not debs:
            return frozenset()
        output = self._run(["apt-cache", "show", *(deb.name for deb in debs)], tolerate=(100,))
        shown = {
            (text.get("Package"), text.get("Version"), text.get("SHA256")) for text in _paragraphs(output)
        }
        return frozenset(deb.key for deb in debs if (deb.name, deb.version, deb.sha256) in shown)

    def download(self, debs: Sequence[Deb], into: Path) -> None:
        """Download packages into a folder; apt checks each against the signed index."""
        if debs:
            into.mkdir(parents=True, exist_ok=True)
            self._run(["apt-get", "download", "-q", *(deb.key for deb in debs)], folder=into)

    def _newest(self, names: Sequence[str]) -> dict[str, tuple[str, dict[str, str]]]:
        output = self._run(["apt-cache", "show", "--no-all-versions", *names], tolerate=(100,))
        return {text["Package"]: (text["Version"], text) for text in _paragraphs(output) if "SHA256" in text}

    def _suites(self) -> dict[tuple[str, str, str], str]:
        """Return which suite lists a package: ``(name, version, sha256)`` -> suite; the first source wins."""
        found: dict[tuple[str, str, str], str] = {}
        for listing in sorted((self.folder / "state/lists").glob("*_Packages")):
            suite = listing.name.split("_dists_", 1)[1].split("_", 1)[0]
            for text in _paragraphs(listing.read_text(encoding="utf-8")):
                found.setdefault((text["Package"], text["Version"], text["SHA256"]), suite)
        return found

    def _run(self, words: list[str], *, folder: Path | None = None, tolerate: tuple[int, ...] = ()) -> str:
        root = self.folder
        options = {
            "Dir::Etc::sourcelist": root / "etc/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": root / "state",
            "Dir::State::lists": root / "state/lists",
            "Dir::State::status": root / "state/status",
            "Dir::Cache": root / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "1",
            "Acquire::GzipIndexes": "false",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        done = subprocess.run(
            [words[0], *settings, *words[1:]],
            cwd=folder or root,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode != 0 and done.returncode not in tolerate:
            lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no message"]
            raise CannotTell(f"{words[0]} {words[1]}: {lines[0]}", next_command="quotary build prefetch")
        return done.stdout


def _paragraphs(text: str) -> Iterable[dict[str, str]]:
    """Yield the fields of each paragraph of a package index; continuation lines are dropped."""
    for paragraph in text.split("\n\n"):
        fields = {}
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields[name] = value.strip()
        if fields:
            yield fields


def _deb(text: Mapping[str, str], suites: Mapping[tuple[str, str, str], str]) -> Deb:
    try:
        return Deb(
            name=text["Package"],
            version=text["Version"],
            arch=text["Architecture"],
            sha256=text["SHA256"],
            size=int(text["Size"]),
            path=text["Filename"],
            suite=suites.get((text["Package"], text["Version"], text["SHA256"]), "unknown"),
        )
    except (KeyError, ValueError) as error:
        raise Malformed("the archive's index lacks a field") from error
