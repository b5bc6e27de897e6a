"""Rows computed from material alone are those computed from the files, for every machine."""

import copy
import json
from dataclasses import replace

import pytest

from quotary.attestation.measure import nitro, snp, tdx
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.material import Files, describe, recompute
from quotary.attestation.measure.profiles import names, nitro_profile, snp_profile, tdx_profile
from quotary.attestation.measure.sev import KernelHashes
from quotary.attestation.measure.shape import CPUS, Shape, cpuid_signature, parse_shape, shape_document
from quotary.attestation.measure.snp import SNPLaunch
from quotary.attestation.measure.tdx import ACPI_BLOBS, TDXLaunch
from quotary.errors import Malformed, Unsupported
from tests.conftest import ROOT
from tests.fakes import firmware

FILES = Files(firmware.firmware(), firmware.kernel(), b"ramdisk" * 99, "console=ttyS0 quotary.listen=8080")
IMAGE = EIF(FILES.kernel, FILES.command_line, (FILES.initrd, b"disks" * 77))
SIMULATED, HARDWARE = "tdx/simulated-direct-boot/v1", "tdx/qemu-direct-boot/edk2-202502/v1"
NITRO = nitro_profile("nitro/eif-v4/v1")
ACPI = {name: bytes([number]) * 48 for number, name in enumerate(ACPI_BLOBS)}
SMALL = Shape(memory=1 << 29)


def material(*shapes: Shape) -> dict:
    # As a log entry carries it: through JSON.
    return json.loads(json.dumps(describe(FILES, shapes, nitro.streams(IMAGE, NITRO))))


def launched(shape: Shape, profile: str) -> dict[str, bytes]:
    given = (FILES.firmware, FILES.kernel, FILES.initrd, FILES.command_line, shape.memory, shape.acpi)
    return dict(tdx.measure(TDXLaunch(*given), tdx_profile(profile)).registers)


@pytest.mark.parametrize("memory", [1 << 29, 1 << 30, 2 << 30, 4 << 30, 512 << 30])
@pytest.mark.parametrize(
    ("profile", "acpi"),
    [
        (SIMULATED, {}),
        (HARDWARE, ACPI),
        ("tdx/qemu-direct-boot/edk2-202608/v1", ACPI),
        ("tdx/qemu-direct-boot/edk2-202502-two-pass/v1", ACPI),
    ],
)
def test_a_trust_domain_of_any_size_follows_from_material(memory, profile, acpi):
    machine = Shape(memory=memory, acpi=acpi)
    found = recompute("tdx", profile, machine, material(machine))
    assert found.registers == launched(machine, profile)


def test_large_machines_need_no_row_in_the_release_to_be_computed():
    machine = Shape(memory=64 << 30)
    assert recompute("tdx", SIMULATED, machine, material()).registers == launched(machine, SIMULATED)
    with pytest.raises(Unsupported, match="memory up to 0000000020000000"):
        recompute("tdx", SIMULATED, SMALL, material())
    # Firmware that measures the kernel as it is does not care.
    assert recompute("tdx", "tdx/qemu-direct-boot/edk2-202608/v1", SMALL, material())


def test_without_acpi_tables_rtmr0_is_left_out_and_never_guessed():
    found = recompute("tdx", HARDWARE, SMALL, material(SMALL))
    assert set(found.registers) == {"mrtd", "rtmr1", "rtmr2", "rtmr3"}
    # A machine that brings tables where the profile knows none changes nothing.
    odd = replace(SMALL, acpi=ACPI)
    assert recompute("tdx", SIMULATED, odd, material(odd)).registers == launched(SMALL, SIMULATED)


@pytest.mark.parametrize("vcpus", [1, 3, 64])
@pytest.mark.parametrize("signature", list(CPUS.values()))
@pytest.mark.parametrize("profile", ["snp/qemu-kvm-init2/v1", "snp/ec2-2026/v1", "snp/gce-genoa/v1"])
def test_an_snp_guest_of_any_shape_follows_from_material(vcpus, signature, profile):
    machine = Shape(vcpus=vcpus, signature=signature, features=0x21)
    hashes = KernelHashes.of(FILES.kernel, FILES.initrd, FILES.command_line)
    launch = SNPLaunch(FILES.firmware, hashes, vcpus, signature, 0x21)
    expected = snp.measure(launch, snp_profile(profile)).registers
    assert recompute("snp", profile, machine, material()).registers == expected


def test_an_enclave_follows_from_material_and_from_its_image():
    assert (
        recompute("nitro", NITRO.name, Shape(), material()).registers == nitro.measure(IMAGE, NITRO).registers
    )


def test_firmware_of_one_kind_has_material_of_that_kind_alone():
    without = describe(replace(FILES, firmware=bytes(4096)))
    assert set(without) == {"launch", "command_line"}
    for platform, profile in (("tdx", SIMULATED), ("snp", "snp/qemu-kvm-init2/v1"), ("nitro", NITRO.name)):
        with pytest.raises(Unsupported, match="has no"):
            recompute(platform, profile, Shape(), without)
    no_linux = describe(replace(FILES, kernel=b"kernel"))
    assert "tdx-launch" not in no_linux
    assert "snp-launch" in no_linux


def paths(value, at=()):
    """Every place of a document that holds a value, a list or an object."""
    yield at
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from paths(value[key], (*at, key))


def test_material_with_anything_else_in_any_place_gives_other_registers_or_an_error():
    """Each value is read or does not matter; none leads to another exception than the named two."""
    good = material(SMALL)
    kinds = (
        ("tdx", SIMULATED, SMALL),
        ("snp", "snp/qemu-kvm-init2/v1", Shape(vcpus=2)),
        ("nitro", NITRO.name, SMALL),
    )
    before = [recompute(*kind, good).registers for kind in kinds]
    unread = set()
    for path in paths(good):
        if not path:
            continue
        for other in (None, 7, "zz", [], {}, "0" * 96, "1" * 16, "2" * 64):
            bad = copy.deepcopy(good)
            place = bad
            for key in path[:-1]:
                place = place[key]
            if place[path[-1]] == other:
                continue
            place[path[-1]] = other
            same = True
            for kind, registers in zip(kinds, before, strict=True):
                try:
                    same = same and recompute(*kind, bad).registers == registers
                except (Malformed, Unsupported):
                    same = False
            if same:
                unread.add(path)
    # Of the first two sections, which are no memory of their own, the TD HOB says nothing.
    unread -= {("tdx", "sections", row, column) for row in (0, 1) for column in (0, 1, 2)}
    # Firmware's SHA-256, the other page order, the raw kernel and the large machine's are for other rows, and
    # the initrd's size only explains what differs.
    assert unread == {
        ("tdx-launch", "initrd_size"),
        ("launch", "firmware"),
        ("tdx-launch", "kernel"),
        ("tdx-launch", "mrtd", "two-pass"),
        ("tdx-launch", "kernel-patched", "0000000080000000"),
    }


def test_the_page_shows_what_is_written_and_names_every_profile():
    page = (ROOT / "docs" / "formats" / "measure.md").read_text()
    shown = page.split("```json material\n")[1].split("```")[0]
    small = Files(firmware.firmware(), firmware.kernel(), b"ramdisk", "quiet")
    assert json.loads(shown) == describe(small)
    for name in names():
        # A name with a plus sign is another name of the one with a slash, which a row can carry.
        written = name.replace("+", "/")
        assert written in page or written.replace("-two-pass/v1", "/v1") in page, name


def test_shapes_read_back_as_they_were_written():
    one = Shape(memory=1 << 30, vcpus=4, signature=7, features=0x21, acpi=ACPI)
    for base, kept in (
        ("tdx", Shape(memory=1 << 30, acpi=ACPI)),
        ("snp", Shape(vcpus=4, signature=7, features=0x21)),
        ("nitro", Shape()),
    ):
        assert parse_shape(base, one.document(base)) == (kept,)
    assert parse_shape("nitro", None) == (Shape(),)
    assert parse_shape("snp", {"vcpus": 4, "cpuid_signature": "00000007"}) == (Shape(vcpus=4, signature=7),)
    several = shape_document("tdx", [Shape(memory=1 << 30), Shape(memory=2 << 30), Shape(memory=1 << 30)])
    assert [machine.memory for machine in parse_shape("tdx", several)] == [1 << 30, 2 << 30]


@pytest.mark.parametrize(
    ("base", "shape"),
    [
        ("tdx", None),
        ("tdx", {"memory_bytes": 0}),
        ("tdx", {"memory_bytes": 1, "vcpus": 1}),
        ("tdx", {"memory_bytes": 1, "acpi": {}}),
        ("tdx", {"memory_bytes": 1, "acpi": dict.fromkeys((*ACPI_BLOBS, "more"), "00" * 48)}),
        ("snp", {"vcpus": 1, "sev_features": "0" * 16}),
        ("snp", {"vcpus": 513, "cpuid_signature": "00a00f11", "sev_features": "0" * 16}),
        ("nitro", {"vcpus": 1}),
        ("tdx", {"machines": []}),
        ("tdx", {"machines": [{"memory_bytes": 1}]}),
        ("tdx", {"machines": [{"memory_bytes": 1}, {}]}),
        ("tdx", {"machines": [{"memory_bytes": 1}, {"memory_bytes": 2}], "memory_bytes": 3}),
    ],
)
def test_a_shape_with_one_thing_wrong_is_malformed(base, shape):
    with pytest.raises(Malformed):
        parse_shape(base, shape)


def test_machines_of_other_platforms_are_not_described():
    with pytest.raises(Unsupported):
        parse_shape("sgx", {})


def test_signatures_of_processors_are_those_of_a_second_implementation():
    types = pytest.importorskip("sevsnpmeasure.vcpu_types")
    assert {name: types.CPU_SIGS[name] for name in CPUS} == CPUS
    for family, model, stepping in ((6, 1, 2), (15, 0x7F, 15), (26, 0x50, 0)):
        assert cpuid_signature(family, model, stepping) == types.cpu_sig(family, model, stepping)
