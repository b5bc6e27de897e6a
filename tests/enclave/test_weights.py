"""Weights: what is hashed is what is used, and nothing else is there."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.model import MadeModel
from enclave.weights import read_manifest, read_weights
from quotary.errors import CannotTell, Malformed, Rejected
from quotary.manifest import NAME, Manifest, ManifestFile


@pytest.fixture
def folder(model: MadeModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model.folder, tmp_path / "model"))


def test_the_made_model_is_read_whole(model: MadeModel) -> None:
    weights = read_weights(model.folder, model.digest)
    assert weights.digest == model.digest == hashlib.sha256((model.folder / NAME).read_bytes()).digest()
    assert {
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "config.json",
    } <= weights.files.keys()


def test_it_is_said_how_much_was_read(model: MadeModel) -> None:
    heard: list[tuple[int, int]] = []
    weights = read_weights(model.folder, model.digest, lambda done, of: heard.append((done, of)))
    total = sum(map(len, weights.files.values()))
    assert heard == sorted(heard)
    assert len(heard) > len(weights.files)
    assert heard[-1] == (total, total)


def test_another_digest_is_rejected(model: MadeModel) -> None:
    with pytest.raises(Rejected, match="weights digest"):
        read_weights(model.folder, bytes(32))


def test_swapping_any_file_is_rejected(folder: Path, model: MadeModel) -> None:
    for path in read_manifest(folder).files:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(Rejected, match=f"weights file {path}"):
            read_weights(folder, model.digest)
        (folder / path).write_bytes(content)


def test_a_swap_that_changes_the_manifest_too_changes_the_digest(folder: Path, model: MadeModel) -> None:
    from builder.model import write_manifest

    (folder / "chat_template.jinja").write_text("{{ 'another template' }}")
    assert write_manifest(folder).digest != model.digest
    with pytest.raises(Rejected, match="weights digest"):
        read_weights(folder, model.digest)


def test_a_file_that_no_manifest_names_is_rejected(folder: Path, model: MadeModel) -> None:
    for name in ("pytorch_model.bin", ".hidden", "sub/model.safetensors"):
        odd = folder / name
        odd.parent.mkdir(exist_ok=True)
        odd.write_bytes(b"x")
        with pytest.raises(Rejected, match="weights files"):
            read_weights(folder, model.digest)
        odd.unlink()


def test_a_missing_file_a_longer_file_and_a_link_are_refused(folder: Path, model: MadeModel) -> None:
    config = folder / "config.json"
    content = config.read_bytes()
    config.unlink()
    with pytest.raises(Rejected, match="weights files"):
        read_weights(folder, model.digest)
    config.write_bytes(content + b" ")
    with pytest.raises(Rejected, match="more than"):
        read_weights(folder, model.digest)
    config.unlink()
    elsewhere = folder.parent / "config.json"
    elsewhere.write_bytes(content)
    config.symlink_to(elsewhere)
    with pytest.raises(CannotTell, match="cannot be opened"):
        read_weights(folder, model.digest)
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(Rejected, match="not a regular file"):
        read_weights(folder, model.digest)


def test_a_linked_folder_is_refused(folder: Path, model: MadeModel) -> None:
    (folder / "more").symlink_to(folder.parent)
    with pytest.raises(Rejected, match="weights files"):
        read_weights(folder, model.digest)


def test_what_changes_on_disk_after_reading_does_not_matter(folder: Path, model: MadeModel) -> None:
    weights = read_weights(folder, model.digest)
    before = dict(weights.files)
    (folder / "config.json").write_bytes(b"{}")
    assert weights.files == before


PATHS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}(/[a-z]{1,4})?", fullmatch=True)
FILES = st.builds(ManifestFile, st.binary(min_size=32, max_size=32), st.integers(0, 2**50 - 1))


@given(st.dictionaries(PATHS, FILES, min_size=1, max_size=5))
def test_manifests_survive_their_text_form(files: dict[str, ManifestFile]) -> None:
    assert Manifest.parse(Manifest(files).encode()).files == files


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Manifest.parse(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t.upper(),
        lambda t: t.replace("  1  a", "  01  a"),
        lambda t: t.replace("  a\n", "  ../a\n"),
        lambda t: t.replace("  a\n", "  /a\n"),
        lambda t: t.replace("  a\n", "  .a\n"),
        lambda t: "".join(reversed(t.splitlines(keepends=True))),
        lambda t: t + t,
        lambda t: t.replace("\n", "\r\n"),
    ],
)
def test_a_second_spelling_of_a_manifest_is_malformed(change) -> None:  # type: ignore[no-untyped-def]
    text = Manifest({"a": ManifestFile(b"\xab" * 32, 1), "b": ManifestFile(b"b" * 32, 2)}).encode().decode()
    with pytest.raises(Malformed):
        Manifest.parse(change(text).encode())
