"""The initial ramdisk's archive: the same files give the same bytes."""

import random
import stat

import pytest

from builder.cpio import Entry, archive, device, folder, link, regular


def parse(data: bytes) -> list[tuple[str, int, bytes, tuple[int, ...]]]:
    """Read a newc archive; written from the format's description, not from our writer."""
    found = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * place : at + 14 + 8 * place], 16) for place in range(13)]
        inode, mode, uid, gid, _links, mtime, size, _, _, major, minor, name_length, check = numbers
        assert (uid, gid, mtime, check) == (0, 0, 0, 0)
        name = data[at + 110 : at + 110 + name_length - 1].decode()
        at += (110 + name_length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(data)
            return found
        found.append((name, mode, data[at : at + size], (inode, major, minor)))
        at += (size + 3) // 4 * 4


FILES = [
    regular("init", b"#!/bin/sh\n", executable=True),
    regular("etc/deep/file", b"abc"),
    link("bin", "usr/bin"),
    device("dev/console", 5, 1),
    folder("proc"),
]


def test_files_come_back_sorted_with_their_parents() -> None:
    found = parse(archive(FILES))
    assert [name for name, *_ in found] == [
        "bin",
        "dev",
        "dev/console",
        "etc",
        "etc/deep",
        "etc/deep/file",
        "init",
        "proc",
    ]
    by_name = {name: (mode, data, numbers) for name, mode, data, numbers in found}
    assert by_name["init"][:2] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")
    assert by_name["etc/deep/file"][:2] == (stat.S_IFREG | 0o644, b"abc")
    assert by_name["bin"][:2] == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert by_name["dev/console"] == (stat.S_IFCHR | 0o600, b"", (3, 5, 1))
    assert [numbers[0] for *_, numbers in found] == list(range(1, 9))


def test_the_order_in_which_files_arrive_does_not_matter() -> None:
    whole = archive(FILES)
    for seed in range(20):
        shuffled = FILES[:]
        random.Random(seed).shuffle(shuffled)
        assert archive(shuffled) == whole


@pytest.mark.parametrize("path", ["/init", "", "init"])
def test_an_absolute_empty_or_doubled_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="absolute, empty or there twice"):
        archive([*FILES, Entry(path, stat.S_IFREG)])
