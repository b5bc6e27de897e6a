"""An image folder: what a machine boots from, and ``boot.json`` (docs/formats/image.md)."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed, Rejected

BOOT = "boot.json"
COMMAND_LINE = "cmdline"
POLICY_DISK = "policy.img"
BLOCK = 4096
MAX_BOOT = 1 << 20
SHA256_LENGTH = 32


@dataclass(frozen=True, slots=True)
class File:
    """A file of the image: SHA-256 in hex, size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that the guest opens by serial number under a hash tree's root, block count and salt (hex)."""

    serial: str
    file: str
    root: str
    blocks: int
    salt: str
    label: str


@dataclass(frozen=True, slots=True)
class Image:
    """What ``boot.json`` says; ``policy_sha256`` and ``weights_sha256`` are hex or ``none``."""

    profile: str
    command_line: str
    files: Mapping[str, File]
    disks: tuple[Disk, ...]
    policy_sha256: str
    weights_sha256: str

    @classmethod
    def load(cls, folder: Path) -> "Image":
        """Read ``boot.json`` of an image folder; the files themselves are checked by ``verify``."""
        try:
            data = (folder / BOOT).read_bytes()
        except OSError as error:
            raise CannotTell(
                f"{folder} is no image folder: {error.strerror}", next_command="quotary build run"
            ) from error
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> "Image":
        """Read the bytes of a ``boot.json``."""
        if len(data) > MAX_BOOT:
            raise Malformed(f"boot.json has {len(data)} bytes, at most {MAX_BOOT} are allowed")
        try:
            fields = Fields(json.loads(data), BOOT)
        except (ValueError, RecursionError) as error:
            raise Malformed("boot.json is not JSON") from error
        fields.integer("v", 1, 1)
        line = fields.fields("cmdline")
        text = line.text("text")
        if hashlib.sha256(text.encode()).digest() != line.hexbytes("sha256", SHA256_LENGTH):
            raise Malformed("boot.json: the command line does not have its digest")
        line.done()
        found = cls(
            profile=fields.name("profile"),
            command_line=text,
            files={name: _file(name, value) for name, value in fields.mapping("files", 32).items()},
            disks=tuple(_disk(value) for value in fields.items("disks", 8)),
            policy_sha256=fields.name("policy_sha256"),
            weights_sha256=fields.name("weights_sha256"),
        )
        fields.done()
        return found

    def verify(self, folder: Path) -> None:
        """Hash every file of the folder and raise ``Rejected`` where one differs from ``boot.json``."""
        if (folder / COMMAND_LINE).read_bytes() != self.command_line.encode():
            raise Rejected("image", "another command line", "the one in boot.json")
        for name, wanted in self.files.items():
            found = file_of(folder / name)
            if found != wanted:
                raise Rejected(f"image file {name}", found.sha256, wanted.sha256)


def file_of(path: Path) -> File:
    """Return a file's SHA-256 and size."""
    try:
        with path.open("rb") as file:
            return File(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error


def write_policy_disk(policy: bytes, path: Path) -> None:
    """Write the policy's bytes, padded with zero bytes to whole blocks; the guest hashes them unpadded."""
    if policy.endswith(b"\0"):
        raise Malformed("the policy ends in a zero byte, which the disk's padding would hide")
    path.write_bytes(policy + bytes(-len(policy) % BLOCK))


def publish(parts: Mapping[str, Path], extra: Mapping[str, bytes], policy: bytes | None, out: Path) -> Image:
    """Copy an image's parts, check them against ``boot.json``, and show ``out`` only when it is whole.

    extra: files by name that ``boot.json`` does not cover
    """
    fresh = out.with_name(f".{out.name}.new")
    try:
        image = _fill(fresh, parts, extra, policy)
        if out.exists():
            shutil.rmtree(out)
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return image


def _fill(folder: Path, parts: Mapping[str, Path], extra: Mapping[str, bytes], policy: bytes | None) -> Image:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, path in parts.items():
        shutil.copyfile(path, folder / name)
    for name, data in extra.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    if policy is not None:
        write_policy_disk(policy, folder / POLICY_DISK)
    image = Image.load(folder)
    image.verify(folder)
    return image


def _file(name: str, value: object) -> File:
    fields = Fields(value, f"file {name}")
    if "/" in name or name.startswith("."):
        raise Malformed(f"boot.json names the file {name!r}")
    found = File(fields.hexbytes("sha256", SHA256_LENGTH).hex(), fields.integer("size"))
    fields.done()
    return found


def _disk(value: object) -> Disk:
    fields = Fields(value, "disk")
    found = Disk(
        serial=fields.name("serial", 20),
        file=fields.name("file", 64),
        root=fields.hexbytes("root", SHA256_LENGTH).hex(),
        blocks=fields.integer("blocks", 1),
        salt=fields.hexbytes("salt", SHA256_LENGTH).hex(),
        label=fields.name("label"),
    )
    fields.done()
    return found
