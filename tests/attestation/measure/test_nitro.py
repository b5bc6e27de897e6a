"""Nitro images: the bytes that AWS's own builder writes, and the PCRs that hardware shows for them."""

import hashlib
import json
import zlib
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation.measure import eif, nitro
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.profiles import nitro_profile
from quotary.errors import Malformed, Unsupported

PROFILE = nitro_profile("nitro/eif-v4/v1")
IMAGE = EIF(b"kernel" * 9, "console=ttyS0", (b"boot" * 7, b"root" * 5), b'{"ImageName":"x"}', b"\x80")


def load(vectors: Path, name: str) -> dict:
    return json.loads((vectors / "measure" / "nitro" / name).read_text())


def generated(label: str, length: int) -> bytes:
    """The builder's generated inputs, as the vectors describe them."""
    found = b""
    for number in count():
        if len(found) >= length:
            return found[:length]
        found += hashlib.sha256(f"{label}:{number}".encode()).digest()
    raise AssertionError


def built(vector: dict) -> EIF:
    ramdisks = [
        generated(f"{vector['name']}/ramdisk{number}", length)
        for number, length in enumerate(vector["ramdisk_bytes"])
    ]
    kernel = generated(f"{vector['name']}/kernel", vector["kernel_bytes"])
    return EIF(kernel, vector["cmdline"], tuple(ramdisks), vector["metadata"].encode())


def sealed(data: bytes) -> bytes:
    """The file with the CRC-32 of its bytes, so that only the change under test is wrong."""
    return data[:544] + zlib.crc32(data[548:], zlib.crc32(data[:544])).to_bytes(4, "big") + data[548:]


def test_images_are_byte_for_byte_those_of_the_vendors_builder(vectors):
    found = load(vectors, "eif-aws-builder.json")["vectors"]
    for vector in found:
        data = built(vector).encode()
        assert len(data) == vector["eif_size"]
        assert data[544:548].hex() == vector["eif_crc32"]
        assert hashlib.sha256(data).hexdigest() == vector["eif_sha256"], vector["name"]
        assert EIF.parse(data) == built(vector)
        registers = nitro.measure(EIF.parse(data), PROFILE).registers
        for number in range(3):
            assert registers[f"pcr{number}"].hex() == vector[f"PCR{number}"], vector["name"]
    assert len(found) == 3


def test_an_image_of_another_builder_gives_its_pcrs(vectors):
    expected = load(vectors, "pcrs.json")
    ours = expected["self_made"]
    image = EIF(b"KERNEL" * 50, ours["cmdline"], (b"BOOTSTRAP" * 10, b"APP" * 33))
    registers = nitro.measure(image, PROFILE).registers
    assert {name: value.hex() for name, value in registers.items()} == {
        f"pcr{number}": ours[f"pcr{number}"] for number in range(3)
    }
    alone = nitro.measure(replace(image, ramdisks=(b"only",)), PROFILE)
    assert alone.registers["pcr2"].hex() == expected["pcr2_without_app_ramdisk"]["expected"]
    read = EIF.parse((vectors / "measure" / "nitro" / "self-made.eif").read_bytes())
    assert nitro.measure(read, PROFILE).registers == registers
    assert read == replace(image, metadata=read.metadata)


def test_the_pcrs_of_role_instance_and_signer(vectors):
    expected = load(vectors, "pcrs.json")["pcr3"]
    assert nitro.role_pcr(expected["role_arn"]).hex() == expected["expected"]
    assert nitro.instance_pcr("i-1") == hashlib.sha384(bytes(48) + b"i-1").digest()
    inner = hashlib.sha384(b"\x30").digest()
    assert nitro.signer_pcr(b"\x30") == hashlib.sha384(bytes(48) + inner).digest()
    for wrong in ("", "role", "arn:" + "a" * 2048, "arn:\n", "arn:ü"):
        with pytest.raises(Malformed):
            nitro.role_pcr(wrong)
    with pytest.raises(Malformed):
        nitro.instance_pcr("j-1")
    with pytest.raises(Malformed):
        nitro.signer_pcr(b"")


@settings(max_examples=60)
@given(
    st.binary(min_size=1, max_size=64),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.lists(st.binary(max_size=40), min_size=1, max_size=5),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    st.booleans(),
)
def test_every_image_reads_back_as_it_was_written(kernel, line, ramdisks, metadata, signature, arm64):
    image = EIF(kernel, line, tuple(ramdisks), metadata, signature, arm64=arm64)
    assert EIF.parse(image.encode()) == image


@settings(max_examples=80)
@given(st.data())
def test_a_measured_byte_changes_pcr0_and_the_trace_names_its_part(data):
    name = data.draw(st.sampled_from(["kernel", "command-line", "ramdisk 0", "ramdisk 1"]))
    parts = [IMAGE.kernel, IMAGE.command_line.encode(), *IMAGE.ramdisks]
    index = ["kernel", "command-line", "ramdisk 0", "ramdisk 1"].index(name)
    at = data.draw(st.integers(0, len(parts[index]) - 1))
    parts[index] = parts[index][:at] + bytes([parts[index][at] ^ 1]) + parts[index][at + 1 :]
    other = replace(IMAGE, kernel=parts[0], command_line=parts[1].decode(), ramdisks=tuple(parts[2:]))
    mine, theirs = nitro.measure(IMAGE, PROFILE), nitro.measure(other, PROFILE)
    assert mine.registers["pcr0"] != theirs.registers["pcr0"]
    assert (mine.registers["pcr1"] != theirs.registers["pcr1"]) == (name != "ramdisk 1")
    assert (mine.registers["pcr2"] != theirs.registers["pcr2"]) == (name == "ramdisk 1")
    assert mine.first_difference(theirs).startswith(f"pcr0: {name} is ")


def test_what_is_not_measured_changes_no_pcr():
    same = replace(IMAGE, metadata=b"{}", signature=None, memory=1, cpus=9, arm64=True)
    assert nitro.measure(same, PROFILE) == nitro.measure(IMAGE, PROFILE)


def test_a_boundary_that_moves_keeps_pcr0_and_changes_another():
    moved = replace(IMAGE, ramdisks=(IMAGE.ramdisks[0] + IMAGE.ramdisks[1][:1], IMAGE.ramdisks[1][1:]))
    mine, theirs = nitro.measure(IMAGE, PROFILE).registers, nitro.measure(moved, PROFILE).registers
    assert mine["pcr0"] == theirs["pcr0"]
    assert mine["pcr1"] != theirs["pcr1"]
    assert mine["pcr2"] != theirs["pcr2"]


def test_every_truncation_and_every_changed_byte_is_malformed():
    data = IMAGE.encode()
    for length in range(len(data)):
        with pytest.raises(Malformed):
            EIF.parse(data[:length])
    for at in range(len(data)):
        with pytest.raises(Malformed):
            EIF.parse(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"xeif"),  # magic
        (5, b"\3"),  # version
        (7, b"\2"),  # flags
        (24, b"\1"),  # reserved
        (27, b"\0"),  # no sections
        (27, b"\4"),  # one too few
        (27, b"\x21"),  # too many
        (35, b"\xff"),  # first offset
        (291, b"\xff"),  # first size
        (540, b"\1"),  # reserved
        (549, b"\2"),  # kernel's type: two command lines
        (549, b"\7"),  # an unknown type
        (551, b"\1"),  # section flags
        (552, b"\xff"),  # section size
    ],
)
def test_a_header_with_one_thing_wrong_and_its_checksum_right_is_malformed(at, value):
    data = IMAGE.encode()
    with pytest.raises(Malformed):
        EIF.parse(sealed(data[:at] + value + data[at + len(value) :]))
    assert EIF.parse(sealed(data)) == IMAGE


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": b""},
        {"ramdisks": ()},
        {"ramdisks": (b"",) * 31},
        {"command_line": "two\nlines"},
        {"command_line": "ü"},
        {"command_line": "a" * 4097},
        {"metadata": bytes(eif.MAX_METADATA + 1)},
        {"signature": bytes(eif.MAX_SIGNATURE + 1)},
        {"memory": 1 << 64},
        {"ramdisks": (b"",) * 29},
    ],
)
def test_images_that_cannot_be_are_malformed(change):
    with pytest.raises(Malformed):
        replace(IMAGE, **change).encode()


def test_other_profiles_and_unknown_parts_are_refused(monkeypatch):
    with pytest.raises(Unsupported):
        nitro_profile("process/v1")
    with pytest.raises(Malformed):
        nitro.measure(IMAGE, replace(PROFILE, pcr1=("no such part",)))
    monkeypatch.setattr(eif, "MAX_EIF", 600)
    with pytest.raises(Malformed):
        IMAGE.encode()
    with pytest.raises(Malformed):
        EIF.parse(bytes(601))


def test_a_command_line_that_is_not_ascii_is_malformed():
    data = IMAGE.encode()
    at = data.index(b"console")
    with pytest.raises(Malformed, match="ASCII"):
        EIF.parse(sealed(data[:at] + b"\xff" + data[at + 1 :]))


def test_a_section_of_an_unknown_type_is_malformed():
    data = IMAGE.encode()
    at = data.index(b"boot") - 11
    with pytest.raises(Malformed, match="unknown type 9"):
        EIF.parse(sealed(data[:at] + b"\x09" + data[at + 1 :]))


def test_the_layouts_have_no_gap():
    assert eif._HEADER.gaps_and_overlaps() == ()
    assert eif._SECTION.gaps_and_overlaps() == ()
