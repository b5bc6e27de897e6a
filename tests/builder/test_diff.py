"""Two releases, layer by layer: each cause stands in the layer where it began."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.diff import image_layers, release_layers
from builder.lock import Lock
from builder.release_cli import release_group
from quotary.errors import CannotTell
from quotary.statements.release import Release
from tests.builder.test_image import FILES
from tests.builder.test_statements import LOCK, image, release


def names(old: Release, new: Release) -> list[str]:
    return [layer.name for layer in release_layers(old, new)]


def test_an_output_that_changes_shows_below_in_registers_and_measurement(tmp_path: Path) -> None:
    old = release(image(tmp_path / "one"))
    new = release(image(tmp_path / "two", FILES | {"rootfs.img": b"newer"}), "b")
    layers = {layer.name: layer.lines for layer in release_layers(old, new)}
    assert list(layers) == ["outputs", "registers", "measurements"]
    assert len(layers["outputs"]) == 1
    assert layers["outputs"][0].startswith("~ output rootfs.img ")
    assert [line.split()[1] for line in layers["registers"]] == ["mrtd", "rtmr1", "rtmr2"]
    assert [line[0] for line in layers["measurements"]] == ["-", "+"]
    assert release_layers(old, old) == ()


def test_every_layer_above_the_measurement_has_its_name(tmp_path: Path) -> None:
    old = release(image(tmp_path / "one"))
    line = str(old.material["command_line"])
    for name, change in {
        "source": {"source_revision": "1" * 40},
        "lock": {"lock_sha256": bytes(32)},
        "weights": {"weights_sha256": bytes(32)},
        "policy": {"policy_sha256": bytes(32)},
        "inputs": {"material": {**old.material, "inputs_sha256": "00" * 32}},
        "derivations": {"material": {**old.material, "nix": {"kernel": {"derivation": "other"}}}},
        "command line": {"material": {**old.material, "command_line": line + " debug"}},
        "rules": {"rows": tuple(replace(row, profile_sha256=bytes(32)) for row in old.rows)},
    }.items():
        assert names(old, replace(old, **change)) == [name]  # type: ignore[arg-type]  # one of its members
    (layer,) = release_layers(old, replace(old, material={**old.material, "command_line": line + " a=1"}))
    assert layer.lines == ("+ word a 1",)


def test_packages_and_files_are_named_where_the_folders_are_at_hand(tmp_path: Path) -> None:
    one, two = image(tmp_path / "one"), image(tmp_path / "two", FILES | {"vmlinuz": b"newer"})
    assert [layer.name for layer in image_layers(one, two)] == ["files"]
    debian = json.loads((two / "lock" / "debian.json").read_bytes())
    name, deb = next(iter(debian["debs"].items()))
    deb["sha256"] = "00" * 32
    (two / "lock" / "debian.json").write_text(json.dumps(debian))
    packages, files = image_layers(one, two)
    assert packages.lines[0].startswith(f"~ {name.split('=')[0]} ")
    assert files.lines == (f"~ file /bin/vmlinuz 100755 6 {b'kernel'.hex()} -> 100755 5 {b'newer'.hex()}",)
    assert len(list(Lock.load(LOCK).inputs())) > 40
    (two / "runtime.tsv").write_text("usr/lib/torch.py\t644\t1\tab\n")
    assert image_layers(one, two)[-1].lines == ("+ file usr/lib/torch.py 644 1 ab",)
    (two / "files.tsv").unlink()
    with pytest.raises(CannotTell):
        image_layers(one, two)


def test_the_command_shows_layers_to_people_and_to_programs(tmp_path: Path) -> None:
    from quotary.statements.schema import statement_payload
    from tests.builder.test_statements import HEAD, release_predicate, row

    folders = [image(tmp_path / "one"), image(tmp_path / "two", FILES | {"vmlinuz": b"newer"})]
    words = ["diff"]
    for folder in folders:
        predicate = release_predicate(folder, [row("a")], {}, HEAD, days=9, source_uri="https://example.org")
        path = folder.with_suffix(".json")
        path.write_bytes(statement_payload("release", predicate))
        words.append(str(path))
    done = CliRunner().invoke(release_group, words, catch_exceptions=False)
    assert done.output.startswith("outputs\n  ~ output vmlinuz ")
    words += ["--images", *map(str, folders), "--json"]
    found = json.loads(CliRunner().invoke(release_group, words, catch_exceptions=False).output)
    assert set(found["layers"]) == {"outputs", "files"}
    assert len(found["difference"]) == 2
