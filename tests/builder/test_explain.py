"""A mismatch names its first input."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.explain import load_steps
from builder.measure_cli import measure_group
from quotary.errors import CannotTell, Malformed
from tests.builder.test_image import FILES
from tests.builder.test_statements import image

NITRO = ("nitro", "nitro/eif-v4/v1")


def explain(*words: object) -> str:
    done = CliRunner().invoke(measure_group, ["explain", *map(str, words), "--platform", "nitro"])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_first_file_that_differs_is_named_with_the_registers_it_reaches(tmp_path: Path) -> None:
    mine = image(tmp_path / "mine")
    other = image(tmp_path / "other", FILES | {"rootfs.img": b"another"})
    said = explain(mine, other)
    assert said.startswith("pcr0: ramdisk 1 is ")
    assert said.endswith("registers that differ: pcr0, pcr2\n")
    assert explain(mine, mine) == "every step is the same\n"
    document = json.loads(explain(mine, other, "--json"))
    assert not document["same"]


def test_the_steps_of_somebody_else_are_compared_from_their_file(tmp_path: Path) -> None:
    mine, steps = image(tmp_path / "mine"), tmp_path / "steps.json"
    other = image(tmp_path / "other", FILES | {"vmlinuz": b"another"})
    steps.write_text(explain(other, "--json"))
    assert explain(mine, steps).startswith("pcr0: kernel is ")
    steps.write_text(explain(mine, "--json"))
    assert explain(mine, steps) == "every step is the same\n"
    with pytest.raises(Malformed, match="wanted tdx"):
        load_steps(steps, "tdx", "process/v1")
    assert "ramdisk 1" in explain(mine)


@pytest.mark.parametrize("change", [{"schema": "x"}, {"steps": [1]}, {"more": 1}, {"steps": [{}]}])
def test_a_file_of_steps_with_one_thing_wrong_is_malformed(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "steps.json"
    good = json.loads(explain(image(tmp_path / "mine"), "--json"))
    path.write_text(json.dumps(good | change))
    with pytest.raises(Malformed):
        load_steps(path, *NITRO)
    path.write_text("no json")
    with pytest.raises(Malformed):
        load_steps(path, *NITRO)
    with pytest.raises(CannotTell):
        load_steps(tmp_path / "absent", *NITRO)
