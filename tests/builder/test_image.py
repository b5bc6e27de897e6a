"""Image folders: whole or absent, and each file the one that boot.json names."""

import hashlib
import json
from pathlib import Path

import pytest

from builder.image import BLOCK, Image, publish, write_policy_disk
from quotary.errors import CannotTell, Malformed, Rejected

LINE = "quiet quotary.listen=8080"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(files: dict[str, bytes], line: str = LINE) -> dict[str, object]:
    return {
        "v": 1,
        "profile": "ci",
        "cmdline": {"text": line, "sha256": sha256(line.encode())},
        "files": {name: {"sha256": sha256(data), "size": len(data)} for name, data in files.items()},
        "disks": [
            {
                "serial": "rootfs",
                "file": "rootfs.img",
                "root": "ab" * 32,
                "blocks": 7,
                "salt": "cd" * 32,
                "label": "rootfs-ci",
            }
        ],
        "policy_sha256": "none",
        "weights_sha256": "none",
    }


FILES = {"vmlinuz": b"kernel", "initrd.img": b"ramdisk", "rootfs.img": b"root", "firmware": b"fw"}


def parts(folder: Path, files: dict[str, bytes] = FILES, line: str = LINE) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    whole = files | {"boot.json": json.dumps(document(FILES)).encode(), "cmdline": line.encode()}
    for name, data in whole.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in whole}


def test_a_folder_is_published_whole_and_verifies(tmp_path: Path) -> None:
    image = publish(parts(tmp_path / "parts"), {}, b'{"v":1}', tmp_path / "image")
    assert image == Image.load(tmp_path / "image")
    image.verify(tmp_path / "image")
    disk = (tmp_path / "image" / "policy.img").read_bytes()
    assert len(disk) == BLOCK
    assert disk.rstrip(b"\0") == b'{"v":1}'


def test_a_part_that_is_not_the_named_one_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="rootfs"):
        publish(parts(tmp_path / "parts", FILES | {"rootfs.img": b"toor"}), {}, None, tmp_path / "image")
    with pytest.raises(Rejected, match="command line"):
        publish(parts(tmp_path / "parts", line=LINE + " init=/bin/sh"), {}, None, tmp_path / "image")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_an_older_image_stays_when_the_new_one_is_broken(tmp_path: Path) -> None:
    publish(parts(tmp_path / "parts"), {}, None, tmp_path / "image")
    with pytest.raises(Rejected):
        publish(parts(tmp_path / "parts", FILES | {"vmlinuz": b"other"}), {}, None, tmp_path / "image")
    Image.load(tmp_path / "image").verify(tmp_path / "image")


def test_each_changed_file_is_found_later(tmp_path: Path) -> None:
    image = publish(parts(tmp_path / "parts"), {}, None, tmp_path / "image")
    for name in (*FILES, "cmdline"):
        path = tmp_path / "image" / name
        kept = path.read_bytes()
        path.write_bytes(kept + b" ")
        with pytest.raises(Rejected):
            image.verify(tmp_path / "image")
        path.write_bytes(kept)
    (tmp_path / "image" / "vmlinuz").unlink()
    with pytest.raises(CannotTell):
        image.verify(tmp_path / "image")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("v", 2),
        ("cmdline", {"text": LINE, "sha256": "00" * 32}),
        ("files", {"../x": {"sha256": "ab" * 32, "size": 1}}),
        ("files", {"x": {"sha256": "AB" * 32, "size": 1}}),
        ("files", {"x": {"sha256": "ab" * 32, "size": -1}}),
        ("disks", [{"serial": "rootfs"}]),
        ("disks", "none"),
        ("profile", "CI"),
        ("extra", 1),
    ],
)
def test_a_boot_json_with_one_thing_wrong_is_malformed(member: str, value: object) -> None:
    with pytest.raises(Malformed):
        Image.parse(json.dumps(document(FILES) | {member: value}).encode())


def test_what_is_no_json_or_too_much_is_malformed() -> None:
    for data in (b"", b"{", b"\xff", b"[" * 100_000, b" " * (1 << 20) + b"{}"):
        with pytest.raises(Malformed):
            Image.parse(data)


def test_a_folder_without_boot_json_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="no image folder"):
        Image.load(tmp_path)


def test_a_policy_that_ends_in_zero_cannot_be_padded(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="zero byte"):
        write_policy_disk(b"x\0", tmp_path / "policy.img")
