"""Reading a Debian package without Debian."""

import io
import lzma
import tarfile

import pytest

from builder.archive import ar_members, deb_file
from quotary.errors import Malformed, Unsupported


def ar(members: list[tuple[str, bytes]]) -> bytes:
    parts = [b"!<arch>\n"]
    for name, data in members:
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        parts.append(data + b"\n" * (len(data) % 2))
    return b"".join(parts)


def deb(files: dict[str, bytes], data_name: str = "data.tar.xz") -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    packed = lzma.compress(plain.getvalue()) if data_name.endswith("xz") else plain.getvalue()
    return ar([("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (data_name, packed)])


def test_members_come_back_with_odd_lengths_padded() -> None:
    assert ar_members(ar([("one", b"abc"), ("two/", b""), ("three", b"xy")])) == {
        "one": b"abc",
        "two": b"",
        "three": b"xy",
    }


def test_one_file_is_taken_out_of_a_package() -> None:
    package = deb({"./usr/bin/busybox": b"program", "./usr/share/doc": b"text"})
    assert deb_file(package, "usr/bin/busybox") == b"program"
    assert deb_file(deb({"./a": b"1"}, "data.tar"), "a") == b"1"


def test_a_file_that_is_not_there_is_malformed() -> None:
    with pytest.raises(Malformed, match="no file usr/bin/busybox"):
        deb_file(deb({"./usr/bin/other": b""}), "usr/bin/busybox")


def test_each_truncation_of_an_archive_is_malformed_or_shorter() -> None:
    whole = ar([("one", b"abcd"), ("two", b"efgh")])
    for length in range(len(whole)):
        if length in (8, 8 + 60 + 4):
            continue  # an archive of nothing, and of the first member alone
        with pytest.raises(Malformed):
            ar_members(whole[:length])


def test_a_truncated_package_is_malformed() -> None:
    package = deb({"./usr/bin/busybox": b"program" * 99})
    for length in range(0, len(package), 7):
        with pytest.raises((Malformed, Unsupported)):
            deb_file(package[:length], "usr/bin/busybox")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"!<arch>\nshort",
        ar([("a", b"1"), ("a", b"2")]),
        ar([("a", b"1")]).replace(b"`\n", b"``"),
        ar([("a", b"1")]).replace(b"1         `", b"x         `"),
        b"!<arch>\n" + b"\xff" * 16 + ar([("a", b"1")])[24:],
    ],
)
def test_what_is_no_archive_is_malformed(broken: bytes) -> None:
    with pytest.raises(Malformed):
        ar_members(broken)


def test_another_format_or_compression_is_named() -> None:
    with pytest.raises(Malformed, match=r"format 2\.0"):
        deb_file(ar([("debian-binary", b"3.0\n"), ("data.tar.xz", b"")]), "a")
    with pytest.raises(Unsupported, match="xz"):
        deb_file(ar([("debian-binary", b"2.0\n"), ("data.tar.zst", b"")]), "a")
    with pytest.raises(Malformed, match="decompress"):
        deb_file(ar([("debian-binary", b"2.0\n"), ("data.tar.xz", b"not xz")]), "a")
