"""Fetch the source of a release by the commit that it names; git holds every byte against that name.

The address comes from the log's entry, or from whoever rebuilds: since the commit is a hash over the whole
tree, it does not matter who hands it over. A commit id is SHA-1 in most repositories: git refuses the known
collisions, and what was built from the files is compared by SHA-256 afterwards.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from builder.errors import SourceMissing
from builder.nix import Progress
from quotary.errors import CannotTell, Unsupported
from quotary.statements.release import Release

TIMEOUT_SECONDS = 900
GIVEN = "https:ssh:file"

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch_source(release: Release, given: str | None, into: Path, progress: Progress) -> Path:
    """Check the release's commit out into a new folder and return it.

    given: another address of the same repository; the entry's own must be https, since anybody can log one
    """
    revision, entered = release.source_revision, release.source_uri.removeprefix("git+")
    if _COMMIT.fullmatch(revision) is None:
        raise Unsupported(
            f"the release's source revision {revision[:80]!r} is no commit, so nothing can be fetched by it",
            next_command="give --source FOLDER",
        )
    if given is None and not entered.startswith("https://"):
        raise Unsupported(
            f"the release's source is {entered!r}, only https is fetched on an entry's word",
            next_command="give --source-url URL",
        )
    progress(f"fetching {revision} from {given or entered}")
    _fetch(given or entered, revision, into, GIVEN if given else "https")
    return into


def _fetch(url: str, revision: str, into: Path, protocols: str) -> None:
    if shutil.which("git") is None:
        raise CannotTell("git is not installed", next_command="apt-get install git")
    kind = "sha256" if len(revision) == 64 else "sha1"
    _git(["init", "-q", "--template=", f"--object-format={kind}", str(into)], protocols)
    git = ["-C", str(into), "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"]
    try:
        _git([*git, "fetch", "-q", "--no-tags", "--depth=1", "--", url, revision], protocols)
    except SourceMissing:
        # Some servers give no commit by its id; it may still be part of a branch or tag.
        everything = ["+refs/heads/*:refs/remotes/from/*", "+refs/tags/*:refs/tags/*"]
        _git([*git, "fetch", "-q", "--no-tags", "--", url, *everything], protocols)
    _git([*git, "checkout", "-q", "--detach", revision], protocols)


def _git(words: list[str], protocols: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "LC_ALL": "C.UTF-8",
    }
    try:
        done = subprocess.run(
            ["git", *words],
            env=kept | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceMissing(f"git did not end within {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise SourceMissing(
            f"the source cannot be fetched: {said[:300]}", next_command="give --source-url URL"
        )
