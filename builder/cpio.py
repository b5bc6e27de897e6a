"""Write the "newc" archive that Linux unpacks as its initial ramdisk.

Format: the kernel's driver-api/early-userspace/buffer-format.

Everything that could differ between two machines is fixed: entries sorted by path, inode numbers counted
from 1, owner 0, time 0. Device nodes are made without being root. The sandbox runs this module too, hence
nothing of ours is imported.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

ALIGN = 4
TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the ramdisk.

    path:   without a leading slash
    mode:   type and permission bits as in ``st_mode``
    data:   file contents, or a symbolic link's target
    device: (major, minor) of a device node
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str) -> Entry:
    """Return a directory that everybody may read."""
    return Entry(path, stat.S_IFDIR | 0o755)


def regular(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """Return a file that everybody may read, and run where ``executable`` says so."""
    return Entry(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def link(path: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def device(path: str, major: int, minor: int) -> Entry:
    """Return a character device that only root may use."""
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of ``entries``, parents added, sorted by path; a path may occur once."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in found or entry.path.startswith("/") or not entry.path:
            raise ValueError(f"path {entry.path!r} is absolute, empty or there twice")
        found[entry.path] = entry
    for path in list(found):
        for parent in _parents(path):
            found.setdefault(parent, folder(parent))
    ordered = sorted(found.values(), key=lambda entry: entry.path.encode())
    parts = [part for number, entry in enumerate(ordered, 1) for part in _record(entry, number)]
    return b"".join([*parts, *_record(Entry(TRAILER, 0), 0)])


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _record(entry: Entry, inode: int) -> tuple[bytes, ...]:
    name = entry.path.encode() + b"\0"
    links = 0 if not entry.mode else 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return head, _padding(head), entry.data, _padding(entry.data)


def _padding(data: bytes) -> bytes:
    return bytes(-len(data) % ALIGN)
