"""Unified kernel images: what firmware, stub and Linux measure of one, and which images are refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.attestation.measure.material import Files, describe, recompute
from quotary.attestation.measure.pe import authenticode, named_sections
from quotary.attestation.measure.profiles import tdx_profile
from quotary.attestation.measure.shape import Shape
from quotary.attestation.measure.tdx import TDXLaunch, fixed_digest, measure
from quotary.attestation.measure.uki import MEASURED, parts
from quotary.errors import Malformed, QuotaryError, Unsupported
from tests.fakes import firmware

UKI, DIRECT = tdx_profile("tdx/simulated-uki/v1"), tdx_profile("tdx/simulated-direct-boot/v1")
LINE = 'quiet ro dm-mod.create="rootfs,,0,ro,0 8 verity 1" quotary.listen=8080'
SBAT, UNAME = b"sbat,1,SBAT Version\n", b"6.12.118"
SECTIONS = {".cmdline": LINE.encode(), ".uname": UNAME, ".linux": firmware.kernel(), ".sbat": SBAT}
RAMDISK = {**SECTIONS, ".initrd": b"ramdisk" * 99}
FIRMWARE = firmware.firmware()
MEMORY = 1 << 29


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


def extended(*digests: bytes) -> bytes:
    value = bytes(48)
    for digest in digests:
        value = sha384(value + digest)
    return value


def registers(sections: dict[str, bytes], **changes: bytes) -> dict[str, bytes]:
    launch = TDXLaunch.unified(FIRMWARE, firmware.unified(sections, **changes), MEMORY, {})
    return dict(measure(launch, UKI).registers)


@pytest.mark.parametrize("sections", [SECTIONS, RAMDISK])
def test_the_registers_are_those_of_the_events_one_by_one(sections: dict[str, bytes]) -> None:
    """Written down again from the log of a real boot: OVMF 2025.02, the stub of systemd 257, Linux 6.12."""
    found = registers(sections)
    texts = [b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"]
    assert found["rtmr1"] == extended(
        sha384(b"Calling EFI Application from Boot Option"),
        sha384(bytes(4)),
        authenticode(firmware.unified(sections)),
        authenticode(sections[".linux"]),
        *map(sha384, texts),
    )
    order = [".linux", ".cmdline", *([".initrd"] if ".initrd" in sections else []), ".uname", ".sbat"]
    of_stub = [digest for one in order for digest in (sha384(one.encode() + b"\0"), sha384(sections[one]))]
    of_linux = [sha384((LINE + "\0").encode("utf-16-le"))]
    of_linux += [sha384(sections[".initrd"])] if ".initrd" in sections else []
    assert found["rtmr2"] == extended(*of_stub, *of_linux)
    assert found["rtmr3"] == bytes(48)


def test_the_events_of_a_real_boot_are_those_of_the_profile() -> None:
    """PCR 2 to 6 of a TPM are RTMR1 of a TD, 8 to 15 RTMR2 (UEFI 2.10, table 38.3); a TD has one separator."""
    log = json.loads((Path(__file__).parent / "uki_events.json").read_text())
    line = (log["command_line"] + "\0").encode("utf-16-le")
    known = {f"data{name}": digest for name, digest in log["sections"].items()}
    known |= {"uki": log["uki"], "kernel": log["kernel"], "initrd": log["sections"][".initrd"]}
    known |= {"load-options": sha384(line).hex()}

    def digests(names: tuple[str, ...]) -> list[str]:
        fixed = {name: fixed_digest(name, UKI) for name in names}
        return [digest.hex() if (digest := fixed[name]) else known[name] for name in names]

    def events(*registers: int) -> list[str]:
        return [digest for register, _, digest in log["events"] if register in registers]

    separator = sha384(bytes(4)).hex()
    assert events(5).pop(0) == separator
    assert digests(UKI.rtmr1) == events(4) + events(5)[1:]
    assert digests(UKI.rtmr2) == events(11) + events(9)


def test_each_part_changes_its_registers_and_the_place_of_a_section_only_the_file() -> None:
    before = registers(RAMDISK)

    def changed(sections: dict[str, bytes], **changes: bytes) -> set[str]:
        after = registers(sections, **changes)
        return {name for name in before if before[name] != after[name]}

    assert changed(RAMDISK) == set()
    assert changed(RAMDISK, stub=b"bust") == {"rtmr1"}
    assert changed({**RAMDISK, ".linux": firmware.kernel(seed=1)}) == {"rtmr1", "rtmr2"}
    for name in (".cmdline", ".initrd", ".uname", ".sbat"):
        assert changed({**RAMDISK, name: RAMDISK[name] + b"x"}) == {"rtmr1", "rtmr2"}
    assert changed(dict(reversed(RAMDISK.items()))) == {"rtmr1"}
    assert changed(SECTIONS) == {"rtmr1", "rtmr2"}


def test_the_parts_are_those_that_were_put_in() -> None:
    assert parts(firmware.unified(RAMDISK)) == RAMDISK
    assert list(parts(firmware.unified(RAMDISK))) == list(MEASURED)


@pytest.mark.parametrize("name", [".osrel", ".splash", ".dtb", ".ucode", ".pcrsig", ".profile", ".other"])
def test_a_section_that_the_stub_would_act_on_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        parts(firmware.unified({**SECTIONS, name: b"x"}))


@pytest.mark.parametrize("name", [".linux", ".cmdline", ".uname", ".sbat"])
def test_an_image_without_a_part_is_malformed(name: str) -> None:
    with pytest.raises(Malformed, match=name):
        parts(firmware.unified({one: data for one, data in SECTIONS.items() if one != name}))
    with pytest.raises(Malformed, match=name):
        parts(firmware.unified({**SECTIONS, name: b""}))


def test_a_command_line_of_other_characters_is_malformed() -> None:
    for line in (b"quiet \xff", b"quiet\n", b"quiet\0init=/bin/sh"):
        with pytest.raises(Malformed):
            registers({**SECTIONS, ".cmdline": line})


def test_every_end_of_an_image_is_malformed_and_nothing_else() -> None:
    image = firmware.unified(SECTIONS)
    for length in range(0, len(image), 7):
        with pytest.raises(Malformed):
            parts(image[:length])


def test_a_section_that_is_there_twice_or_leads_out_of_the_file_is_malformed() -> None:
    image = firmware.unified(SECTIONS)
    with pytest.raises(Malformed, match="twice"):
        named_sections(image.replace(b".uname\0\0", b".linux\0\0"))
    row = image.index(b".uname\0\0")
    longer = image[: row + 8] + (1 << 20).to_bytes(4, "little") + image[row + 12 :]
    with pytest.raises(Malformed, match="does not fit"):
        named_sections(longer)


def test_each_changed_byte_of_the_headers_is_another_image_or_malformed() -> None:
    image, before = firmware.unified(SECTIONS), registers(SECTIONS)
    headers = image.index(b"stub")
    for at in range(headers):
        bad = image[:at] + bytes([image[at] ^ 0x41]) + image[at + 1 :]
        try:
            launch = TDXLaunch.unified(FIRMWARE, bad, MEMORY, {})
            same = measure(launch, UKI).registers == before
        except (Malformed, Unsupported):
            continue
        # The checksum and the signature's place are what Authenticode leaves out.
        assert not same or at in (*range(0x98, 0x9C), *range(0xE8, 0xF0)), hex(at)


@pytest.mark.parametrize("sections", [SECTIONS, RAMDISK])
@pytest.mark.parametrize("memory", [1 << 29, 4 << 30])
def test_its_rows_follow_from_the_material_of_the_log_entry(sections: dict[str, bytes], memory: int) -> None:
    image = firmware.unified(sections)
    files = Files(FIRMWARE, sections[".linux"], sections.get(".initrd"), LINE, image)
    material = json.loads(json.dumps(describe(files, [Shape(memory=memory)])))
    for profile, launch in (
        (UKI, TDXLaunch.unified(FIRMWARE, image, memory, {})),
        (DIRECT, TDXLaunch(FIRMWARE, sections[".linux"], sections.get(".initrd"), LINE, memory, {})),
    ):
        found = recompute("tdx", profile.name, Shape(memory=memory), material)
        assert found.registers == measure(launch, profile).registers
    for name in material["tdx-uki"]:
        other = {**material, "tdx-uki": {**material["tdx-uki"], name: "00" * 48}}
        assert (
            recompute("tdx", UKI.name, Shape(memory=memory), other).registers
            != measure(TDXLaunch.unified(FIRMWARE, image, memory, {}), UKI).registers
        )


@pytest.mark.parametrize(
    "changes",
    [{"kernel": firmware.kernel(seed=1)}, {"initrd": b"x"}, {"command_line": "quiet"}, {"uki": None}],
)
def test_an_image_of_other_parts_than_the_folder_has_no_material(changes: dict[str, object]) -> None:
    files = Files(FIRMWARE, SECTIONS[".linux"], None, LINE, firmware.unified(SECTIONS))
    assert "tdx-uki" in describe(files)
    other = describe(replace(files, **changes))  # type: ignore[arg-type]  # one of each type
    assert "tdx-uki" not in other
    with pytest.raises(Unsupported, match="tdx-uki"):
        recompute("tdx", UKI.name, Shape(), other)


def test_a_directly_started_kernel_is_not_measured_as_an_image() -> None:
    launch = TDXLaunch(FIRMWARE, SECTIONS[".linux"], None, LINE, MEMORY, {})
    with pytest.raises(Malformed, match="unified"):
        measure(launch, UKI)


def test_bytes_of_any_kind_are_refused_by_name() -> None:
    for data in (b"", b"MZ", bytes(4096), b"MZ" + bytes(4096), firmware.kernel()):
        with pytest.raises(QuotaryError):
            parts(data)
