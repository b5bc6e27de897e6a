"""Make a read-only file system image (erofs) that depends on nothing but its files.

The files are written to a sorted tar first, and ``mkfs.erofs`` reads that: a folder would let hard links, the
builder's user id and the store's deduplication into the image. Times are zero, the identifier derives from
the label. This module runs inside the build sandbox, hence nothing of ours is imported.
"""

import hashlib
import io
import subprocess
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = uuid.UUID("5d0c7c0e-5f0e-5b0a-9d53-3f2f8f1f7a11")
EROFS_OPTIONS = ("-T0", "-x-1", "--all-root", "--quiet")
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """A file, link or folder of the image; a folder has none of ``source``, ``data`` and ``target``.

    source: a file to copy from
    data:   contents given as bytes
    target: where a symbolic link points
    """

    source: Path | None = None
    data: bytes | None = None
    target: str | None = None
    executable: bool = False

    @property
    def is_folder(self) -> bool:
        return self.source is None and self.data is None and self.target is None


def with_parents(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Return the nodes in path order, the folders above them added."""
    found = dict(nodes)
    for path in nodes:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            found.setdefault("/".join(parts[:count]), Node())
    return dict(sorted(found.items(), key=lambda item: item[0].encode()))


def write_tar(nodes: Mapping[str, Node], path: Path) -> None:
    """Write nodes to a tar: owner 0, time 0, folders 0755, files 0644 or 0755."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, node in with_parents(nodes).items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if node.executable or node.is_folder else 0o644
            if node.is_folder:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif node.target is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, node.target, 0o777
                archive.addfile(info)
            elif node.source is not None:
                info.size = node.source.stat().st_size
                with node.source.open("rb") as file:
                    archive.addfile(info, file)
            else:
                info.size = len(node.data or b"")
                archive.addfile(info, io.BytesIO(node.data or b""))


def make_image(mkfs: Sequence[str], tar: Path, image: Path, label: str, *, compress: bool) -> None:
    """Run ``mkfs.erofs`` (given as command words) over a tar."""
    identity = str(uuid.uuid5(NAMESPACE, f"erofs/{label}"))
    options = [*EROFS_OPTIONS, "-U", identity, *(["-zlz4hc"] if compress else [])]
    subprocess.run([*mkfs, *options, "--tar=f", str(image), str(tar)], check=True, stdin=subprocess.DEVNULL)


def listing(nodes: Mapping[str, Node]) -> str:
    """Return one line a file, ``path mode size sha256`` separated by tabs, to compare builds by."""
    lines = []
    for name, node in with_parents(nodes).items():
        if node.is_folder:
            continue
        if node.target is not None:
            lines.append(f"{name}\tlink\t{len(node.target)}\t{node.target}")
            continue
        size, digest = _digest(node)
        lines.append(f"{name}\t{'755' if node.executable else '644'}\t{size}\t{digest}")
    return "\n".join(lines) + "\n"


def _digest(node: Node) -> tuple[int, str]:
    if node.source is None:
        return len(node.data or b""), hashlib.sha256(node.data or b"").hexdigest()
    with node.source.open("rb") as file:
        return node.source.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
