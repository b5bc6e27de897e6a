"""Launches into an SVSM: a second implementation agrees, and what no VMM can start is refused."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.attestation.measure import svsm
from quotary.attestation.measure.guids import FOOTER, SEV_METADATA_OFFSET
from quotary.attestation.measure.profiles import svsm_profile
from quotary.attestation.measure.svsm import SVSM_INFO, SVSMLaunch
from quotary.errors import Malformed, Unsupported

PROFILE = svsm_profile("snp/qemu-svsm/v1")
SECTIONS = ((0x800000, 4096, 2), (0x801000, 4096, 3), (0x802000, 8192, 1), (0x804000, 4096, 4))


def image(entry: bytes = b"\x10\x20\0\0", sections: tuple[tuple[int, int, int], ...] = SECTIONS) -> bytes:
    """An SVSM of three pages: metadata at the start, code that nobody runs, the table at the end."""
    rows = b"".join(struct.pack("<III", *section) for section in sections)
    metadata = struct.pack("<4sIII", b"ASEV", 16 + len(rows), 1, len(sections)) + rows
    given = ((SEV_METADATA_OFFSET, struct.pack("<I", 3 * 4096)), (SVSM_INFO, entry))
    table = b"".join(data + struct.pack("<H", len(data) + 18) + name.bytes_le for name, data in given)
    table += struct.pack("<H", len(table) + 18) + FOOTER.bytes_le
    return metadata + b"\x90" * (3 * 4096 - len(metadata) - len(table) - 32) + table + bytes(32)


@pytest.fixture
def launch(vectors: Path) -> SVSMLaunch:
    firmware = (vectors / "measure" / "snp" / "ovmf_OvmfX64_suffix.bin").read_bytes()
    return SVSMLaunch(firmware, image(), 0x84000, 1, 0x800F12)


def second_opinion(launch: SVSMLaunch, folder: Path) -> str:
    guest = pytest.importorskip("sevsnpmeasure.guest")
    from sevsnpmeasure import sev_mode, vmsa

    # Its structure has no field of the name that it gives x87_fcw, which so stays zero, as on machines.
    (folder / "ovmf").write_bytes(launch.firmware)
    (folder / "svsm").write_bytes(launch.svsm)
    assert not bytes(vmsa.VMSA_SVSM(0, 0).save_area)[0x410]
    found = guest.calc_launch_digest(
        sev_mode.SevMode.SEV_SNP_SVSM,
        launch.vcpus,
        launch.signature,
        str(folder / "ovmf"),
        "",
        "",
        "",
        0x1,
        svsm_file=str(folder / "svsm"),
        ovmf_vars_size=launch.variables,
    )
    return bytes(found).hex()


@pytest.mark.parametrize("vcpus", [1, 2, 4, 64])
@pytest.mark.parametrize("variables", [0, 0x20000, 0x84000])
def test_a_second_implementation_agrees(launch, tmp_path, vcpus, variables):
    asked = replace(launch, vcpus=vcpus, variables=variables)
    measured = svsm.measure(asked, PROFILE)
    assert measured.registers["measurement"].hex() == second_opinion(asked, tmp_path)
    assert measured.steps[-1].after == measured.registers["measurement"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vcpus": 2}, "10 steps here, 11 there"),
        ({"signature": 1}, "vmsa 0"),
        ({"variables": 0}, "svsm page"),
        ({"svsm": image(b"\x10\x10\0\0")}, "svsm page"),
        ({"firmware": bytes(4096)}, "firmware page"),
    ],
)
def test_every_input_of_a_launch_counts_and_its_step_says_so(launch, change, said):
    before, after = (svsm.measure(one, PROFILE) for one in (launch, replace(launch, **change)))
    assert before.registers != after.registers
    assert said in before.first_difference(after)


@pytest.mark.parametrize(
    "change",
    [
        {"vcpus": 0},
        {"vcpus": 513},
        {"firmware": bytes(4095)},
        {"svsm": image() + bytes(1)},
        {"svsm": bytes(4096)},
        {"svsm": image(b"\0")},
        {"svsm": image(struct.pack("<I", 3 * 4096))},
        {"svsm": image(sections=((0xFFF00000, 0x100000, 1),))},
        {"svsm": image(sections=((0x800000, 8192, 1), (0x801000, 4096, 2)))},
        {"variables": 1},
        {"variables": -4096},
        {"variables": 1 << 32},
    ],
)
def test_launches_that_no_vmm_can_start_are_malformed(launch, change):
    with pytest.raises(Malformed):
        svsm.measure(replace(launch, **change), PROFILE)


def test_profiles_of_other_launches_are_refused():
    with pytest.raises(Unsupported):
        svsm_profile("snp/qemu-kvm-init2/v1")
