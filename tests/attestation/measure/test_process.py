"""Registers of process/v1: the documented formula, and every input that counts."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation.measure.process import MeasuredFile, ProcessImage, manifest, measure
from quotary.canonical import canonical
from quotary.errors import Malformed
from tests.conftest import ROOT

CODE = (MeasuredFile("quotary/b.py", 0o644, b"\2" * 32), MeasuredFile("quotary/a.py", 0o644, b"\1" * 32))
IMAGE = ProcessImage(
    code=CODE,
    interpreter=(MeasuredFile("python", 0o755, b"\3" * 32),),
    dependencies=(MeasuredFile("lib/one.py", 0o644, b"\4" * 32),),
    argv=("python", "-m", "quotary"),
    environment={"TZ": "UTC", "HOME": "/nonexistent"},
    policy=b"\5" * 32,
    weights=b"\6" * 32,
)


def test_the_page_and_the_code_give_the_same_registers():
    page = (ROOT / "docs/formats/measure-process.md").read_text()
    example = json.loads(re.search(r"```json image\n(.*?)```", page, re.S)[1])
    expected = json.loads(re.search(r"```json registers\n(.*?)```", page, re.S)[1])
    image = ProcessImage(
        **{
            part: tuple(
                MeasuredFile(f["path"], int(f["mode"], 8), bytes.fromhex(f["sha256"])) for f in example[part]
            )
            for part in ("code", "interpreter", "dependencies")
        },
        argv=tuple(example["argv"]),
        environment=example["environment"],
        policy=bytes.fromhex(example["policy"]),
        weights=bytes.fromhex(example["weights"]),
    )
    assert {name: value.hex() for name, value in measure(image).registers.items()} == expected
    lines = re.search(r"```manifest\n(.*?)```", page, re.S)[1]
    assert manifest(image.code).decode() == lines


def test_the_registers_are_the_written_formula():
    code = b"000644 " + b"01" * 32 + b" quotary/a.py\n" + b"000644 " + b"02" * 32 + b" quotary/b.py\n"
    runtime = b"000755 " + b"03" * 32 + b" python\n" + b"\n" + b"000644 " + b"04" * 32 + b" lib/one.py\n"
    command = canonical(
        {
            "argv": ["python", "-m", "quotary"],
            "environment": ["HOME=/nonexistent", "TZ=UTC"],
            "policy": "05" * 32,
            "weights": "06" * 32,
        }
    )
    assert measure(IMAGE).registers == {
        "mrtd": hashlib.sha384(b"quotary-process-code/v1\n" + code).digest(),
        "rtmr0": bytes(48),
        "rtmr1": hashlib.sha384(b"quotary-process-runtime/v1\n" + runtime).digest(),
        "rtmr2": hashlib.sha384(b"quotary-process-command/v1\n" + command).digest(),
        "rtmr3": bytes(48),
    }


CHANGES = [
    ({"code": (replace(CODE[0], mode=0o755), CODE[1])}, "mrtd", "code quotary/b.py"),
    ({"code": (CODE[1],)}, "mrtd", "step code quotary/b.py here"),
    ({"code": (replace(CODE[0], sha256=b"\7" * 32), CODE[1])}, "mrtd", "code quotary/b.py"),
    ({"interpreter": ()}, "rtmr1", "step interpreter python here"),
    ({"dependencies": (MeasuredFile("lib/one.py", 0o644, b"\7" * 32),)}, "rtmr1", "dependencies lib/one.py"),
    ({"argv": ("python", "-m", "other")}, "rtmr2", "argv 2"),
    ({"environment": {"TZ": "CET", "HOME": "/nonexistent"}}, "rtmr2", "environment TZ"),
    ({"policy": b"\7" * 32}, "rtmr2", "policy"),
    ({"weights": b"\7" * 32}, "rtmr2", "weights"),
]


@pytest.mark.parametrize(("change", "register", "step"), CHANGES)
def test_every_input_changes_its_register_alone_and_the_steps_name_it(change, register, step):
    before, after = measure(IMAGE), measure(replace(IMAGE, **change))
    assert [name for name in before.registers if before.registers[name] != after.registers[name]] == [
        register
    ]
    assert before.first_difference(after).startswith(f"{register}: {step}")


def test_a_file_cannot_move_between_interpreter_and_dependencies():
    moved = replace(IMAGE, interpreter=(), dependencies=(*IMAGE.interpreter, *IMAGE.dependencies))
    assert measure(moved).registers["rtmr1"] != measure(IMAGE).registers["rtmr1"]


def test_the_order_of_files_and_variables_does_not_matter():
    turned = replace(IMAGE, code=CODE[::-1], environment=dict(reversed(IMAGE.environment.items())))
    assert measure(turned) == measure(IMAGE)


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "a//b", "a/../b", "./a", "a/.", "a\nb", "a\x00", " a", "a ", "a  b", "\ud800"]
)
def test_a_path_that_could_mean_two_things_is_malformed(path):
    with pytest.raises(Malformed):
        manifest([MeasuredFile(path, 0o644, bytes(32))])


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ()},
        {"policy": b""},
        {"weights": b""},
        {"environment": {"A=B": ""}},
        {"environment": {"": ""}},
        {"argv": ("a\nb",)},
        {"code": (CODE[0], CODE[0])},
        {"code": (replace(CODE[0], mode=0o1000),)},
        {"code": (replace(CODE[0], sha256=b""),)},
    ],
)
def test_an_image_without_a_canonical_form_is_malformed(change):
    with pytest.raises(Malformed):
        measure(replace(IMAGE, **change))


def test_a_manifest_has_a_limit():
    with pytest.raises(Malformed):
        manifest(MeasuredFile(f"f{number}", 0, bytes(32)) for number in range(100_001))


names = st.from_regex(r"[a-zäöü.-]{1,8}(/[a-z]{1,3}){0,2}", fullmatch=True).filter(
    lambda p: not {".", "..", ""} & set(p.split("/"))
)


@given(
    st.dictionaries(names, st.tuples(st.integers(0, 0o777), st.binary(min_size=32, max_size=32)), max_size=6),
    st.dictionaries(names, st.tuples(st.integers(0, 0o777), st.binary(min_size=32, max_size=32)), max_size=6),
)
def test_two_sets_of_files_have_one_manifest_only_if_they_are_one(one, other):
    first, second = (
        manifest(MeasuredFile(path, *rest) for path, rest in files.items()) for files in (one, other)
    )
    assert (first == second) == (one == other)
