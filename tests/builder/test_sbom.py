"""Bills of materials: every input of a profile, by hash, with the licences that it names itself."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from builder.build import Recipe
from builder.licences import of_deb, of_wheel
from builder.lock import Deb, Lock, Wheel, difference, purl
from builder.prefetch import Cache, file_sha256
from builder.sbom import bill, licence_lines
from quotary.errors import Malformed
from tests.builder.test_archive import deb
from tests.cli.conftest import Run, run

__all__ = ["run"]

DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: {}\n text\n"
COPYRIGHT = DEP5.format("GPL-2+  or   MIT") + "\nFiles: debian/*\nLicense: Apache-2.0\n"


def wheel(path: Path, metadata: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "small-1.dist-info/METADATA", f"Metadata-Version: 2.4\nName: small\n{metadata}\n\nLicense: no\n"
        )
    return path


def checkout(folder: Path, contents: dict[str, bytes]) -> tuple[Recipe, Cache]:
    """A source with a lock of four packages and a wheel, whose inputs lie in a cache."""
    cache, lock = Cache(folder / "cache"), folder / "nix" / "lock"
    cache.folder.mkdir(parents=True)

    def kept(name: str) -> str:
        (cache.folder / "new").write_bytes(contents[name])
        digest = file_sha256(cache.folder / "new")
        (cache.folder / "new").rename(cache.folder / digest)
        return digest

    debs = [
        Deb(name, "1:2.0+b1", "amd64", kept(name), 7, f"pool/main/{name[0]}/{name}.deb", "trixie")
        for name in ("busybox", "libc6", "zstd")
    ]
    small = Wheel("small", "1", "small-1-py3-none-any.whl", kept("small"))
    keys = [one.key for one in debs]
    groups = {
        "tools": (keys[1], keys[2]),
        "kernel": (),
        "firmware": (),
        "initrd": (),
        "uki": (),
        "rootfs": (keys[1],),
    }
    by_key, wheels = {one.key: one for one in debs}, {small.key: small}
    Lock(keys[0], "usr/bin/busybox", "00" * 32, groups, by_key, {"ci": (small.key,)}, wheels).save(lock)
    profiles = {"ci": {"kernel": "debian", "ramdisk": True, "debs": ["rootfs"], "wheels": ["ci"]}}
    (folder / "nix" / "image.json").write_text(
        json.dumps({"profiles": profiles, "kernels": {"debian": {"groups": ["kernel"], "words": []}}})
    )
    (folder / "nix" / "default.nix").touch()
    return Recipe(folder, "ci", lock), cache


@pytest.fixture
def recipe(tmp_path: Path) -> tuple[Recipe, Cache]:
    contents = {
        "busybox": deb({"./usr/bin/busybox": b"program"}),
        "libc6": deb({"./usr/share/doc/libc6/copyright": COPYRIGHT.encode()}),
        "zstd": deb({"./usr/share/doc/zstd/copyright": DEP5.format("Zstd").encode()}),
        "small": wheel(tmp_path / "small.whl", "License-Expression: MIT OR Apache-2.0").read_bytes(),
    }
    return checkout(tmp_path / "source", contents)


def test_every_input_stands_in_the_bill_with_hash_place_and_licences(recipe: tuple[Recipe, Cache]) -> None:
    document = bill(*recipe, lambda line: None)
    found = {one["name"]: one for one in document["components"]}  # type: ignore[attr-defined]  # free object
    assert found.keys() == {"busybox", "libc6", "zstd", "small"}
    lock = Lock.load(recipe[0].lock)
    for item in lock.inputs():
        assert found[item.name]["hashes"] == [{"alg": "SHA-256", "content": item.sha256}]
        assert found[item.name]["purl"] == found[item.name]["bom-ref"] == purl(item)
    assert {name: one["scope"] for name, one in found.items()} == {
        "busybox": "excluded",
        "zstd": "excluded",
        "libc6": "required",
        "small": "required",
    }
    assert [one["license"]["name"] for one in found["libc6"]["licenses"]] == ["Apache-2.0", "GPL-2+ or MIT"]
    assert found["small"]["licenses"] == [{"license": {"name": "MIT OR Apache-2.0"}}]
    assert [one["value"] for one in found["libc6"]["properties"]] == ["tools", "rootfs"]
    assert "busybox@1:2.0%2Bb1?arch=amd64  the input names none" in "\n".join(licence_lines(document))
    (root,) = document["dependencies"]  # type: ignore[misc]  # free object
    assert sorted(root["dependsOn"]) == sorted(one["purl"] for one in found.values())


def test_the_same_lock_and_inputs_give_the_same_bill_and_another_lock_another(
    recipe: tuple[Recipe, Cache], tmp_path: Path
) -> None:
    one, two = (bill(*recipe, lambda line: None) for _ in range(2))
    assert one == two
    lock = Lock.load(recipe[0].lock)
    replace(lock, seed_nar_sha256="11" * 32).save(tmp_path / "other")
    other = bill(replace(recipe[0], lock=tmp_path / "other"), recipe[1], lambda line: None)
    assert other["serialNumber"] != one["serialNumber"]


def test_an_input_that_is_not_at_hand_is_not_said_to_have_no_licence(recipe: tuple[Recipe, Cache]) -> None:
    for path in recipe[1].folder.iterdir():
        path.write_bytes(b"rotten")
    lines = licence_lines(bill(*recipe, lambda line: None))
    assert len(lines) == 4
    assert all(line.endswith("not read: the input is not at hand") for line in lines)


@pytest.mark.parametrize(
    ("metadata", "licences"),
    [
        ("License-Expression: MIT", ("MIT",)),
        ("Classifier: License :: OSI Approved :: BSD License", ("BSD License",)),
        ("License: ISC\nClassifier: Topic :: Text", ("ISC",)),
        ("License: " + "long " * 100, ()),
        ("Summary: nothing", ()),
    ],
)
def test_a_wheels_licence_is_its_expression_its_classifiers_or_its_line(
    tmp_path: Path, metadata: str, licences: tuple[str, ...]
) -> None:
    assert of_wheel(wheel(tmp_path / "w.whl", metadata)) == licences


def test_a_copyright_file_without_a_form_names_nothing_and_no_wheel_is_malformed(tmp_path: Path) -> None:
    assert of_deb(deb({"./usr/share/doc/x/copyright": b"License: public domain\n"}), "x") == ()
    (tmp_path / "w.whl").write_bytes(b"no zip")
    with pytest.raises(Malformed):
        of_wheel(tmp_path / "w.whl")
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    assert of_wheel(tmp_path / "empty.whl") == ()


def test_the_command_writes_the_document_and_lists_the_licences(
    recipe: tuple[Recipe, Cache], tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "xdg" / "quotary").mkdir(parents=True)
    (tmp_path / "xdg" / "quotary" / "inputs").symlink_to(recipe[1].folder)
    ran = run("build", "sbom", "--source", recipe[0].source, "--out", tmp_path / "b.json")
    assert ran.code == 0, ran.err
    assert "pkg:pypi/small@1  MIT OR Apache-2.0" in ran.out
    assert json.loads((tmp_path / "b.json").read_bytes())["specVersion"] == "1.6"


def test_a_package_that_moves_into_the_image_is_part_of_the_difference(recipe: tuple[Recipe, Cache]) -> None:
    old = Lock.load(recipe[0].lock)
    zstd = "zstd=1:2.0+b1"
    new = replace(
        old,
        deb_groups={**old.deb_groups, "rootfs": (*old.deb_groups["rootfs"], zstd)},
        wheel_groups={"ci": ()},
        seed_member="bin/sh",
    )
    assert difference(old, old) == []
    assert difference(old, new) == [
        "+ zstd in the group rootfs",
        "- small in the group ci",
        "~ the seed is bin/sh, no longer usr/bin/busybox",
    ]
