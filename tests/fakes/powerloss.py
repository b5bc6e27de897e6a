"""What a disk may hold after a power cut, from the recorded calls of a process (after ALICE, OSDI 2014).

The model is that of a journaling file system without promises beyond POSIX: what was written and not synced may be
there, or not, or in part (sectors of 512 bytes), in any order; syncing a file makes its bytes durable and the name it
was created under; names that were made, moved or removed since their folder was synced are lost from the last one on.
"""

import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink")
RECORD = ("-y", "-xx", "-s", "1000000", "-e", "trace=" + ",".join(CALLS))

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes for a place of a file; with ``cut``, the file ends there instead."""

    inode: int
    offset: int
    data: bytes
    cut: bool = False

    def apply(self, content: bytearray) -> None:
        if self.cut:
            content[:] = content[: self.offset].ljust(self.offset, b"\0")
            return
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(frozen=True, slots=True)
class Rename:
    """A name that gets another inode, or none; ``also`` is the name that loses it in the same step."""

    path: str
    inode: int | None
    also: str = ""

    def apply(self, names: dict[str, int]) -> None:
        names.pop(self.also, None)
        if self.inode is None:
            names.pop(self.path, None)
        else:
            names[self.path] = self.inode


@dataclass(slots=True)
class Disk:
    """Durable bytes and names, and what was done since and is not durable yet, in order."""

    durable: dict[int, bytes]
    names: dict[str, int]
    writes: list[Write] = field(default_factory=list)
    renames: list[Rename] = field(default_factory=list)
    live: dict[str, int] = field(default_factory=dict)

    @classmethod
    def holding(cls, files: Files) -> "Disk":
        names = {path: number for number, path in enumerate(files)}
        return cls({names[path]: data for path, data in files.items()}, names, live=dict(names))

    def create(self, path: str) -> None:
        inode = len(self.durable)
        self.durable[inode] = b""
        self.live[path] = inode
        self.renames.append(Rename(path, inode))

    def move(self, old: str, new: str) -> None:
        self.live[new] = self.live.pop(old)
        self.renames.append(Rename(new, self.live[new], old))

    def remove(self, path: str) -> None:
        del self.live[path]
        self.renames.append(Rename(path, None))

    def sync(self, path: str) -> None:
        """Make a file's bytes durable, and its name if it is new; or what happened to the names of a folder."""
        inode = self.live.get(path)
        if inode is None:
            ripe = [step for step in self.renames if str(Path(step.path).parent) == path]
        else:
            content = bytearray(self.durable[inode])
            for write in self.writes:
                if write.inode == inode:
                    write.apply(content)
            self.durable[inode] = bytes(content)
            self.writes = [write for write in self.writes if write.inode != inode]
            made = Rename(path, inode)
            # An older file of that name must not be removed by a later sync of the folder.
            of_name = [step for step in self.renames if step.path == path]
            ripe = of_name[: of_name.index(made) + 1] if made in of_name else []
        for step in ripe:
            step.apply(self.names)
            self.renames.remove(step)

    def states(self) -> Iterator[Files]:
        """Give what the disk may hold if the power is cut now."""
        for kept in range(len(self.renames) + 1):
            names = dict(self.names)
            for step in self.renames[:kept]:
                step.apply(names)
            for writes in _subsets(self.writes):
                yield self._files(names, writes)

    def _files(self, names: dict[str, int], writes: Sequence[Write]) -> Files:
        contents = {inode: bytearray(self.durable[inode]) for inode in names.values()}
        for write in writes:
            if write.inode in contents:
                write.apply(contents[write.inode])
        return {path: bytes(contents[inode]) for path, inode in names.items()}


def _subsets(writes: Sequence[Write]) -> Iterator[list[Write]]:
    """Each beginning, each beginning with a torn end, and everything but one; the empty and the whole included."""
    for count in range(len(writes) + 1):
        yield list(writes[:count])
        if count < len(writes):
            for torn in _torn(writes[count]):
                yield [*writes[:count], torn]
            yield [*writes[:count], *writes[count + 1 :]]


def _torn(write: Write) -> Iterator[Write]:
    middle = (write.offset + len(write.data) // 2) // SECTOR * SECTOR - write.offset
    if 0 < middle < len(write.data):
        yield Write(write.inode, write.offset, write.data[:middle])
        yield Write(write.inode, write.offset + middle, write.data[middle:])


@dataclass(frozen=True, slots=True)
class Moment:
    """What one call led to: new states that a power cut may leave now; ``told`` where the call told something."""

    states: tuple[Files, ...] = ()
    told: tuple[str, object] | None = None


def replay(trace: Path, folder: Path, files: Files) -> Iterator[Moment]:
    """Follow a recorded process over a disk that held ``files``; no state is given twice between two tellings."""
    recorder, known = _Recorder(Disk.holding(files), str(folder)), set[int]()
    for line in trace.read_text("ascii").splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if call is None:
            continue
        if (told := recorder.told(*call.groups())) is not None:
            known.clear()
        if told is not None or recorder.step(*call.groups()):
            fresh = {hash(frozenset(state.items())): state for state in recorder.disk.states()}
            yield Moment(tuple(state for digest, state in fresh.items() if digest not in known), told)
            known.update(fresh)


class _Recorder:
    """Reads strace's lines; files that the kernel or nobody needs after a restart are left out."""

    IGNORED = ("-shm", ".lock", ".sock")

    def __init__(self, disk: Disk, folder: str) -> None:
        self.disk = disk
        self._folder = folder
        self._places: dict[str, int] = {}

    def told(self, name: str, rest: str) -> tuple[str, object] | None:
        """Read what was sent through a connection: four bytes of length, then a pickle."""
        descriptor, _, arguments = rest.partition(", ")
        if name != "write" or "socket:" not in _bytes(descriptor).decode():
            return None
        found = pickle.loads(_bytes(arguments)[4:])
        return found if isinstance(found, tuple) else None

    def step(self, name: str, rest: str) -> bool:
        """Take one call; says whether it was about a file that counts."""
        paths = [path for text in re.findall(r'["<]((?:\\x..)+)[">]', rest) if (path := self._inside(text))]
        if not paths or "= -1 " in rest:
            return False
        getattr(self, f"_{name}")(rest, *paths)
        return True

    def _inside(self, text: str) -> str:
        path = _bytes(text).decode("utf-8", "replace")
        if path == self._folder:
            return "."
        kept = path.startswith(self._folder + "/") and not path.endswith(self.IGNORED)
        inside = path.removeprefix(self._folder + "/")
        return inside if kept and not inside.startswith("public") else ""

    def _openat(self, rest: str, path: str, *_: str) -> None:
        self._places[_result(rest)] = 0
        if "O_CREAT" in rest and path not in self.disk.live:
            self.disk.create(path)
        elif "O_TRUNC" in rest:
            self.disk.writes.append(Write(self.disk.live[path], 0, b"", cut=True))

    def _write(self, rest: str, path: str, *_: str) -> None:
        descriptor = rest.partition("<")[0]
        self._pwrite(path, rest, self._places[descriptor])
        self._places[descriptor] += int(_result(rest))

    def _pwrite64(self, rest: str, path: str, *_: str) -> None:
        self._pwrite(path, rest, int(re.search(r", (\d+)\) +=", rest)[1]))  # type: ignore[index]

    def _pwrite(self, path: str, rest: str, offset: int) -> None:
        data = _bytes(rest.partition(', "')[2].partition('"')[0])
        self.disk.writes.append(Write(self.disk.live[path], offset, data[: int(_result(rest))]))

    def _ftruncate(self, rest: str, path: str, *_: str) -> None:
        length = int(re.search(r", (\d+)\) +=", rest)[1])  # type: ignore[index]
        self.disk.writes.append(Write(self.disk.live[path], length, b"", cut=True))

    def _fsync(self, _: str, path: str, *__: str) -> None:
        self.disk.sync(path)

    _fdatasync = _fsync

    def _rename(self, _: str, old: str, new: str) -> None:
        self.disk.move(old, new)

    def _unlink(self, _: str, path: str) -> None:
        self.disk.remove(path)


def _bytes(text: str) -> bytes:
    return bytes.fromhex("".join(re.findall(r"\\x(..)", text)))


def _result(rest: str) -> str:
    return re.search(r"= (\d+)", rest.rpartition(")")[2])[1]  # type: ignore[index]
