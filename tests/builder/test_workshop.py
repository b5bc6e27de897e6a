"""What a rebuild starts from (a source by its commit) and what it says where artefacts differ."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import SourceMissing
from builder.image import Image
from builder.prefetch import Cache
from builder.rebuild import compare
from builder.source import fetch_source
from builder.workshop import Workshop, explained
from quotary.errors import Malformed, Refused, Unsupported
from tests.builder.test_image import FILES
from tests.builder.test_statements import image, release
from tests.fakes.recipe import commit


def silent(line: str) -> None:
    pass


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """A repository whose first commit is in no shallow clone."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "file").write_text("first")
    first = commit(folder)
    (folder / "file").write_text("second")
    commit(folder)
    return folder, first


def test_a_source_is_checked_out_by_the_commit_that_the_release_names(
    tmp_path: Path, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    logged = replace(release(image(tmp_path / "image")), source_revision=first)
    found = fetch_source(logged, f"file://{folder}", tmp_path / "source", silent)
    assert (found / "file").read_text() == "first"


def test_a_server_that_gives_no_commit_by_its_id_is_asked_for_its_branches(
    tmp_path: Path, repository: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = repository
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    real = subprocess.run(
        ["which", "git"], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    git.write_text(
        f'#!/bin/sh\ncase "$*" in *--depth*) echo "not our ref" >&2; exit 128;; esac\nexec {real} "$@"\n'
    )
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(git.parent), prepend=":")
    logged = replace(release(image(tmp_path / "image")), source_revision=first)
    found = fetch_source(logged, f"file://{folder}", tmp_path / "source", silent)
    assert (found / "file").read_text() == "first"
    unknown = replace(logged, source_revision="12" * 20)
    with pytest.raises(SourceMissing):
        fetch_source(unknown, f"file://{folder}", tmp_path / "other", silent)


@pytest.mark.parametrize(
    "revision", ["unknown", "ab" * 20 + "+changes", "main", "--upload-pack=x", "AB" * 20]
)
def test_a_revision_that_is_no_commit_is_not_fetched(tmp_path: Path, revision: str) -> None:
    logged = replace(release(image(tmp_path / "image")), source_revision=revision)
    with pytest.raises(Unsupported, match="no commit"):
        fetch_source(logged, None, tmp_path / "source", silent)


def test_another_revision_than_the_releases_is_refused_before_anything_is_built(
    tmp_path: Path, repository: tuple[Path, str]
) -> None:
    folder, first = repository
    logged = replace(release(image(tmp_path / "image")), source_revision=first)
    place = Workshop(Cache(tmp_path / "cache"), source=folder)
    with pytest.raises(Refused, match="source revision"):
        place.rebuild(logged, silent)
    with pytest.raises(Malformed, match="no profile"):
        place.rebuild(replace(logged, material={}), silent)


def test_an_original_that_is_not_the_releases_explains_nothing(tmp_path: Path) -> None:
    logged = release(image(tmp_path / "image"))
    other = image(tmp_path / "other", FILES | {"rootfs.img": b"other"})
    with pytest.raises(Refused, match=r"original boot\.json"):
        Workshop(Cache(tmp_path / "cache")).rebuild(logged, silent, other, tmp_path / "r.txt")


DIFFOSCOPE = '#!/bin/sh\nfor word; do last="$word"; done\necho "--- looked into $last"\nexit 1\n'


@pytest.mark.parametrize("installed", [True, False])
def test_a_difference_is_reported_by_file_and_by_diffoscope_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    program = tmp_path / "bin" / "diffoscope"
    program.parent.mkdir()
    program.write_text(DIFFOSCOPE)
    program.chmod(0o755 if installed else 0o644)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    folder = image(tmp_path / "image")
    other = image(tmp_path / "other", FILES | {"rootfs.img": b"newer"})
    found = compare(release(folder), Image.load(other), other, lambda _, row: row.registers)
    found = explained(found, folder, other, tmp_path / "r.txt")
    assert (found.detail or "").startswith("first differing artefact: rootfs.img; ~ file /bin/rootfs.img ")
    report = (tmp_path / "r.txt").read_text()
    assert "~ file /bin/rootfs.img" in report
    said = f"--- looked into {other / 'rootfs.img'}" if installed else "diffoscope is not installed"
    assert said in report
