"""The lock: what it holds, and that nothing else is read as one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.lock import Deb, Lock, Wheel, difference, lock_sha256, store_path
from builder.resolve import Spec
from quotary.errors import CannotTell, Malformed
from tests.conftest import ROOT

DEB = Deb(
    "busybox-static", "1:1.37.0-6+b9", "amd64", "ab" * 32, 955316, "pool/main/b/busybox/x_amd64.deb", "trixie"
)
WHEEL = Wheel("flask", "3.1.3", "flask-3.1.3-py3-none-any.whl", "cd" * 32)
LOCK = Lock(
    seed_package=DEB.key,
    seed_member="usr/bin/busybox",
    seed_nar_sha256="ef" * 32,
    deb_groups={"tools": (DEB.key,)},
    debs={DEB.key: DEB},
    wheel_groups={"ci": (WHEEL.key,)},
    wheels={WHEEL.key: WHEEL},
)


def test_a_lock_comes_back_from_its_files(tmp_path: Path) -> None:
    LOCK.save(tmp_path)
    assert Lock.load(tmp_path) == LOCK
    assert len(lock_sha256(tmp_path)) == 64


def test_the_committed_lock_and_spec_belong_together() -> None:
    folder = ROOT / "nix" / "lock"
    lock, spec = Lock.load(folder), Spec.load(folder)
    assert set(lock.deb_groups) == set(spec.debs)
    assert set(lock.wheel_groups) == set(spec.wheels)
    assert all(len(lock.deb_groups[name]) == len(spec.debs[name]) for name in spec.debs)
    assert {deb.suite for deb in lock.debs.values()} <= {suite.name for suite in spec.suites}


def test_no_host_stands_in_the_committed_lock() -> None:
    for name in ("debian.json", "pypi.json"):
        text = (ROOT / "nix" / "lock" / name).read_text()
        assert "://" not in text
        assert "file:" not in text


def test_a_group_gives_its_inputs_once_and_the_seed_first() -> None:
    assert LOCK.of_groups(("tools", "tools"), ("ci",)) == [DEB, WHEEL]


def test_the_store_path_follows_from_name_and_hash() -> None:
    assert store_path(DEB).endswith("-busybox-static_1-1.37.0-6+b9_amd64.deb")
    assert store_path(DEB) != store_path(replace(DEB, sha256="ac" * 32))
    assert store_path(DEB) == store_path(replace(DEB, path="pool/elsewhere.deb", suite="sid"))


def change(document: dict, path: str, value: object) -> None:
    *parents, last = path.split("|")
    for parent in parents:
        document = document[parent]
    if value is None:
        del document[last]
    else:
        document[last] = value


KEY = f"debs|{DEB.key}"


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("debian.json", "version", 2),
        ("debian.json", "system", "aarch64-linux"),
        ("debian.json", "seed", None),
        ("debian.json", "seed|package", "busybox-static=2"),
        ("debian.json", "seed|narSha256", "AB" * 32),
        ("debian.json", "seed|member", "usr/../../bin/sh"),
        ("debian.json", "seed|member", "usr/bin/.."),
        ("debian.json", "seed|member", "/usr/bin/busybox"),
        ("debian.json", "seed|member", "usr/bin/$(id)"),
        ("debian.json", f"{KEY}|path", "pool/../x.deb"),
        ("debian.json", "mirror", "http://example.org"),
        ("debian.json", "groups|tools", ["libc6=1"]),
        ("debian.json", "groups|tools", "libc6=1"),
        ("debian.json", f"{KEY}|sha256", "ab" * 31),
        ("debian.json", f"{KEY}|sha256", None),
        ("debian.json", f"{KEY}|size", "955316"),
        ("debian.json", f"{KEY}|arch", "i386"),
        ("debian.json", f"{KEY}|path", "http://example.org/x.deb"),
        ("debian.json", f"{KEY}|path", "pool/../../etc/passwd"),
        ("debian.json", f"{KEY}|version", "2"),
        ("debian.json", f"{KEY}|url", "http://example.org"),
        ("debian.json", f"{KEY}|name", "../x"),
        ("pypi.json", f"wheels|{WHEEL.key}|filename", "../x.whl"),
        ("pypi.json", f"wheels|{WHEEL.key}|filename", "flask-3.1.3.tar.gz"),
        ("pypi.json", f"wheels|{WHEEL.key}|name", "django"),
        ("pypi.json", "wheels", []),
    ],
)
def test_a_lock_with_one_thing_wrong_is_malformed(
    tmp_path: Path, file: str, path: str, value: object
) -> None:
    LOCK.save(tmp_path)
    document = json.loads((tmp_path / file).read_text())
    change(document, path, value)
    (tmp_path / file).write_text(json.dumps(document))
    with pytest.raises(Malformed):
        Lock.load(tmp_path)


def test_a_member_that_is_there_twice_is_malformed(tmp_path: Path) -> None:
    LOCK.save(tmp_path)
    text = (tmp_path / "pypi.json").read_text()
    (tmp_path / "pypi.json").write_text(text.replace('"version": 1,', '"version": 1, "version": 1,', 1))
    with pytest.raises(Malformed, match="twice"):
        Lock.load(tmp_path)


def test_a_lock_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CannotTell) as caught:
        Lock.load(tmp_path)
    assert caught.value.next_command == "quotary build lock"


@given(st.binary(max_size=200))
def test_whatever_the_bytes_a_lock_is_malformed_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("lock")
    LOCK.save(folder)
    (folder / "debian.json").write_bytes(data)
    with pytest.raises(Malformed):
        Lock.load(folder)


def test_the_difference_names_what_came_went_and_changed() -> None:
    newer = replace(DEB, version="1:1.38.0-1")
    other = replace(WHEEL, sha256="ce" * 32)
    added = replace(WHEEL, name="click")
    fresh = replace(LOCK, debs={newer.key: newer}, wheels={other.key: other, added.key: added})
    assert difference(LOCK, fresh) == [
        "~ busybox-static 1:1.37.0-6+b9 -> 1:1.38.0-1",
        "+ click 3.1.3",
        f"~ flask 3.1.3: other bytes, {'cd' * 32} -> {'ce' * 32}",
    ]
    assert difference(LOCK, LOCK) == []
