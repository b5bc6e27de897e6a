"""SLSA provenance: complete, the same each time, and refused where the record and the lock disagree."""

import json
from pathlib import Path

import pytest

from builder.lock import Lock
from builder.provenance import provenance
from builder.record import Record
from builder.store import base32, unbase32
from quotary.errors import CannotTell, Malformed, Rejected
from tests.builder.test_image import FILES
from tests.builder.test_statements import LOCK, RECIPE, image

SOURCE, BUILDER = "https://example.org/src", "https://example.org/ci"


def changed(folder: Path, **change: object) -> None:
    record = json.loads((folder / "build.json").read_bytes())
    for name, value in change.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    (folder / "build.json").write_text(json.dumps(record))


def test_every_file_and_every_input_is_named_by_its_digest(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    found = json.loads(provenance(folder, SOURCE, BUILDER))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {one["name"] for one in found["subject"]} == {*FILES, "boot.json", "cmdline"}
    definition, run = (found["predicate"][name] for name in ("buildDefinition", "runDetails"))
    source, lock, *inputs = definition["resolvedDependencies"]
    assert source == {"name": "source", "uri": SOURCE, "digest": {"gitCommit": "0" * 40}}
    assert lock["digest"]["sha256"] == Record.load(folder).lock_sha256
    wanted = Lock.load(LOCK).of_groups(*RECIPE.groups())
    assert {one["digest"]["sha256"] for one in inputs} == {item.sha256 for item in wanted}
    assert all(one["uri"].startswith(("pkg:deb/debian/", "pkg:pypi/")) for one in inputs)
    assert run["builder"] == {"id": BUILDER}
    assert run["byproducts"][0]["uri"] == "/nix/store/b-kernel.drv"
    assert provenance(folder, SOURCE, BUILDER) == provenance(folder, SOURCE, BUILDER)


def test_a_source_with_changes_has_no_commit(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    changed(folder, source={"revision": "0" * 40 + "+changes"})
    found = json.loads(provenance(folder, SOURCE, BUILDER))
    assert found["predicate"]["buildDefinition"]["resolvedDependencies"][0] == {
        "name": "source",
        "uri": SOURCE,
    }


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"lock_sha256": "00" * 32}, Rejected, "lock beside the image"),
        ({"inputs": {"sha256": "00" * 32}}, Rejected, "inputs of the build"),
        ({"inputs": {"debs": ["tools", "more"]}}, Malformed, "group more"),
        ({"inputs": {"wheels": [1]}}, Malformed, "not names"),
        (
            {"outputs": {"kernel": {"path": "p", "derivation": "d", "nar_sha256": "md5:0"}}},
            Malformed,
            "begin",
        ),
        (
            {"outputs": {"kernel": {"path": "p", "derivation": "d", "nar_sha256": "sha256:e"}}},
            Malformed,
            "digit",
        ),
    ],
)
def test_a_record_that_is_not_of_this_build_is_refused(
    tmp_path: Path, change: dict[str, object], error: type[Exception], said: str
) -> None:
    folder = image(tmp_path / "image")
    changed(folder, **change)
    with pytest.raises(error, match=said):
        provenance(folder, SOURCE, BUILDER)


def test_a_folder_without_a_record_says_so(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    (folder / "build.json").unlink()
    with pytest.raises(CannotTell, match=r"no build\.json"):
        provenance(folder, SOURCE, BUILDER)


def test_nixs_base_32_reads_back_and_nothing_else_does() -> None:
    for data in (bytes(32), bytes(range(32)), b"\xff" * 32):
        assert unbase32(base32(data), 32) == data
    good = base32(b"\xff" * 32)
    for bad in ("", good[1:], "0" + good, "z" + good[1:], good.upper(), good[:-1] + "e"):
        with pytest.raises(Malformed):
            unbase32(bad, 32)
