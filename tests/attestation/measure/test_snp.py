"""SNP launch digests: every public value, a real report, and a second implementation."""

import json
import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation.measure import snp
from quotary.attestation.measure.guids import FOOTER, SEV_HASH_TABLE, SEV_METADATA_OFFSET, SEV_RESET_BLOCK
from quotary.attestation.measure.profiles import names, snp_profile
from quotary.attestation.measure.sev import (
    KernelHashes,
    SEVFirmware,
    SEVSection,
    require_sections,
    sev_firmware,
)
from quotary.attestation.measure.snp import LaunchDigest, SNPLaunch
from quotary.errors import Malformed, Unsupported

PROFILE = "snp/qemu-kvm-init2/v1"


def load(vectors: Path, name: str) -> dict:
    return json.loads((vectors / "measure" / "snp" / name).read_text())


def firmware(vectors: Path, name: str) -> bytes:
    return (vectors / "measure" / "snp" / name).read_bytes()


def kernel(hashes: dict | None) -> KernelHashes | None:
    if hashes is None:
        return None
    return KernelHashes.of(
        bytes.fromhex(hashes["kernel_hex"]), bytes.fromhex(hashes["initrd_hex"]), hashes["cmdline"]
    )


def launch(vectors: Path, vector: dict) -> SNPLaunch:
    return SNPLaunch(
        firmware(vectors, vector["firmware"]),
        kernel(vector["kernel_hashes"]),
        vector.get("vcpus", 1),
        int(vector.get("vcpu_sig", "0x800f12"), 16),
        int(vector.get("guest_features", "0x1"), 16),
    )


def test_every_public_launch_digest_is_reproduced(vectors):
    found = load(vectors, "launch-digest.json")["vectors"]
    for vector in found:
        measured = snp.measure(launch(vectors, vector), snp_profile(f"snp/{vector['vmsa_profile']}/v1"))
        assert measured.registers["measurement"].hex() == vector["expected"], vector["name"]
        assert measured.steps[-1].after == measured.registers["measurement"]
    assert len(found) == 9


def test_a_kernel_without_a_place_for_its_hashes_is_malformed(vectors):
    for vector in load(vectors, "launch-digest.json")["errors"]:
        with pytest.raises(Malformed):
            snp.measure(launch(vectors, vector), snp_profile(PROFILE))


@pytest.mark.parametrize("name", ["ec2-metadata-only.json", "real-milan.json"])
def test_published_metadata_leads_to_the_digest_without_the_firmware(vectors, name):
    vector = load(vectors, name)
    sections = require_sections(
        [SEVSection(int(gpa, 16), int(size, 16), kind) for gpa, size, kind in vector["sections"]]
    )
    described = SEVFirmware(
        int(vector["reset_eip"], 16), int(vector.get("hashes_table_gpa", "0"), 16), sections
    )
    hashes = None
    if "kernel_sha256" in vector:
        line = KernelHashes.of(b"", b"", vector["cmdline"]).command_line
        hashes = KernelHashes(
            bytes.fromhex(vector["kernel_sha256"]), bytes.fromhex(vector["initrd_sha256"]), line
        )
    start = LaunchDigest(bytes.fromhex(vector["ovmf_hash"]))
    asked = SNPLaunch(
        b"", hashes, vector["vcpus"], int(vector.get("vcpu_sig", "0"), 16), int(vector["guest_features"], 16)
    )
    measured = snp.measure_from(start, described, asked, snp_profile(f"snp/{vector['vmsa_profile']}/v1"))
    assert measured.registers["measurement"].hex() == vector.get(
        "expected", vector.get("expected_measurement")
    )


def test_a_real_report_shows_the_recomputed_measurement(vectors):
    report = firmware(vectors, "real-milan-report.bin")
    assert report[0x90:0xC0].hex() == load(vectors, "real-milan.json")["expected_measurement"]


def test_the_gce_rules_give_the_published_digest(vectors):
    vector = load(vectors, "gce-fake-firmware.json")
    asked = SNPLaunch(firmware(vectors, "gce-fake-firmware.bin"), None, vector["vcpus"], 0, 1)
    measured = snp.measure(asked, snp_profile(f"snp/{vector['vmsa_profile']}/v1"))
    assert measured.registers["measurement"].hex() == vector["expected"]


def test_profiles_write_what_the_published_table_says(vectors):
    table = load(vectors, "vmsa-profiles.json")["profiles"]
    for name, row in table.items():
        found = snp_profile(f"snp/{name}/v1")
        assert found.cs_attributes == int(row["cs_attr_bsp"], 16), name
        assert found.cs_attributes_ap == int(row["cs_attr_ap"], 16), name
        assert found.ss_attributes == int(row["ss_attr"], 16), name
        assert found.tr_attributes == int(row["tr_attr"], 16), name
        assert found.g_pat == int(row["g_pat"], 16), name
        assert found.rdx == (None if row["rdx"] == "vcpu signature" else int(row["rdx"], 16)), name
        assert (found.mxcsr, found.x87_fcw) == (int(row["mxcsr"], 16), int(row["x87_fcw"], 16)), name
        assert found.vmsa_gpa == int(row["vmsa_gpa"], 16), name
        assert found.memory_page_type == {"ZERO": 3, "UNMEASURED": 4}[row["sec_mem_page_type"]], name
        assert found.cpuid_last == (row["cpuid_page"] == "after all other sections"), name
    assert len(table) == 6


def test_single_pages_give_the_published_prefixes(vectors):
    normal, zero = load(vectors, "gce-fake-firmware.json")["extra_checks"]
    content = b"LGTM" * 4 + bytes(3 * 4096 - 32) + b"LGTM" * 4
    digest = LaunchDigest()
    for page in range(3):
        digest.page(snp.NORMAL, page * 4096, content[page * 4096 : page * 4096 + 4096], "page")
    assert digest.value.hex().startswith(normal["expected_prefix"])
    digest = LaunchDigest()
    for page in range(3):
        digest.page(snp.ZERO_PAGE, 0x9000 + page * 4096, None, "page")
    assert digest.value.hex().startswith(zero["expected_prefix"])


def _second_opinion(
    path: str, vcpus: int, features: int, files: tuple[str, str, str] | None, vmm: str = "QEMU"
) -> str:
    guest = pytest.importorskip("sevsnpmeasure.guest")
    from sevsnpmeasure import vmm_types
    from sevsnpmeasure.sev_mode import SevMode

    kernel_path, initrd_path, line = files or ("", "", "")
    digest = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        vcpus,
        0x800F12,
        path,
        kernel_path,
        initrd_path,
        line,
        features,
        vmm_type=vmm_types.VMMType[vmm],
    )
    return digest.hex()


@pytest.mark.parametrize("vcpus", [1, 2, 7, 64])
@pytest.mark.parametrize("features", [0x1, 0x21, 0x201])
@pytest.mark.parametrize("with_kernel", [False, True])
def test_a_second_implementation_agrees(vectors, tmp_path, vcpus, features, with_kernel):
    path = vectors / "measure" / "snp" / "ovmf_AmdSev_suffix.bin"
    image, initrd, line = b"kernel" * 1000, b"initrd" * 999, "console=ttyS0 a=b"
    (tmp_path / "kernel").write_bytes(image)
    (tmp_path / "initrd").write_bytes(initrd)
    files = (str(tmp_path / "kernel"), str(tmp_path / "initrd"), line) if with_kernel else None
    hashes = KernelHashes.of(image, initrd, line) if with_kernel else None
    measured = snp.measure(
        SNPLaunch(path.read_bytes(), hashes, vcpus, 0x800F12, features), snp_profile(PROFILE)
    )
    assert measured.registers["measurement"].hex() == _second_opinion(str(path), vcpus, features, files)


@pytest.mark.parametrize("name", ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"])
@pytest.mark.parametrize(
    ("vmm", "profile"), [("QEMU", PROFILE), ("ec2", "snp/ec2-2026/v1"), ("gce", "snp/gce-milan/v1")]
)
def test_a_second_implementation_agrees_about_every_vmm_that_it_knows(vectors, name, vmm, profile):
    path = vectors / "measure" / "snp" / name
    for vcpus in (1, 3):
        measured = snp.measure(SNPLaunch(path.read_bytes(), None, vcpus, 0x800F12, 1), snp_profile(profile))
        assert measured.registers["measurement"].hex() == _second_opinion(str(path), vcpus, 1, None, vmm)


@settings(max_examples=50)
@given(bit=st.integers(0, 4096 * 8 - 1))
def test_any_flipped_bit_of_the_firmware_changes_the_digest_or_is_malformed(vectors, bit):
    image = bytearray(firmware(vectors, "ovmf_AmdSev_suffix.bin"))
    profile = snp_profile(PROFILE)
    before = snp.measure(SNPLaunch(bytes(image), None, 1, 0, 1), profile)
    image[bit // 8] ^= 1 << bit % 8
    try:
        after = snp.measure(SNPLaunch(bytes(image), None, 1, 0, 1), profile)
    except Malformed:
        return
    assert before.registers != after.registers
    assert "firmware page 0xfffff000" in before.first_difference(after)


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({"vcpus": 2}, "33 steps here, 34 there"),
        ({"signature": 1}, "vmsa 0"),
        ({"features": 3}, "vmsa 0"),
        ({"kernel": KernelHashes.of(b"k", b"", "")}, "SHA-256 of the kernel"),
    ],
)
def test_every_input_of_a_launch_counts_and_its_step_says_so(vectors, change, steps):
    given_launch = {
        "firmware": firmware(vectors, "ovmf_AmdSev_suffix.bin"),
        "kernel": None,
        "vcpus": 1,
        "signature": 0,
        "features": 1,
    }
    profile = snp_profile(PROFILE)
    before, after = (
        snp.measure(SNPLaunch(**launch), profile) for launch in (given_launch, {**given_launch, **change})
    )
    assert before.registers != after.registers
    assert steps in before.first_difference(after)


def test_launches_that_no_vmm_can_start_are_malformed(vectors):
    image, profile = firmware(vectors, "ovmf_AmdSev_suffix.bin"), snp_profile(PROFILE)
    for bad in (
        SNPLaunch(image[1:], None, 1, 0, 1),
        SNPLaunch(image, None, 0, 0, 1),
        SNPLaunch(image, None, 513, 0, 1),
        SNPLaunch(bytes(4096), None, 1, 0, 1),
        SNPLaunch(b"", None, 1, 0, 1),
    ):
        with pytest.raises(Malformed):
            snp.measure(bad, profile)
    for section in (
        SEVSection(0, 0, 1),
        SEVSection(1, 4096, 1),
        SEVSection(0, 4097, 1),
        SEVSection(0, 4096, 9),
        SEVSection(0, 1 << 40, 1),
    ):
        with pytest.raises(Malformed):
            require_sections([section])


def test_sections_that_overlap_each_other_or_the_firmware_are_malformed(vectors):
    one = SEVSection(0x800000, 8192, 1)
    assert require_sections([one, SEVSection(0x802000, 4096, 2)])
    for other in (SEVSection(0x801000, 4096, 2), SEVSection(0x7FF000, 8192, 1), one):
        with pytest.raises(Malformed, match="overlap"):
            require_sections([one, other])
    image = bytearray(firmware(vectors, "ovmf_AmdSev_suffix.bin"))
    struct.pack_into("<II", image, image.rindex(b"ASEV") + 16, 0xFFFFF000, 4096)
    with pytest.raises(Malformed, match="itself"):
        sev_firmware(bytes(image))


def test_broken_metadata_is_malformed(vectors):
    image = firmware(vectors, "ovmf_AmdSev_suffix.bin")
    at = image.rindex(b"ASEV")
    assert sev_firmware(image).sections
    for offset in range(16):
        bad = bytearray(image)
        bad[at + offset] ^= 0xFF
        with pytest.raises(Malformed):
            sev_firmware(bytes(bad))


def test_a_hash_table_across_a_page_is_malformed():
    with pytest.raises(Malformed):
        KernelHashes.of(b"", b"", "").page(0xFF0)


def test_profiles_are_found_by_name_and_kind():
    assert all(snp_profile(name) for name in names() if name.startswith("snp/") and "svsm" not in name)
    for name in ("process/v1", "snp/unknown/v1", "snp/qemu-svsm/v1"):
        with pytest.raises(Unsupported):
            snp_profile(name)


def built_firmware(*entries: tuple[uuid.UUID, bytes]) -> bytes:
    """4 KiB of firmware: one SEV section at the start, these entries and the two that must be there at the end."""
    metadata = struct.pack("<4sIII", b"ASEV", 28, 1, 1) + struct.pack("<III", 0x800000, 4096, 1)
    rows = (*entries, (SEV_METADATA_OFFSET, (4096).to_bytes(4, "little")), (SEV_RESET_BLOCK, b"\4\xb0\x80\0"))
    table = b"".join(data + struct.pack("<H", len(data) + 18) + name.bytes_le for name, data in rows)
    table += struct.pack("<H", len(table) + 18) + FOOTER.bytes_le
    return metadata + bytes(4096 - len(metadata) - len(table) - 32) + table + bytes(32)


def test_a_hash_table_entry_of_another_length_is_malformed():
    assert sev_firmware(built_firmware()).hash_table_gpa == 0
    assert (
        sev_firmware(built_firmware((SEV_HASH_TABLE, b"\0\x0c\x81\0" + bytes(4)))).hash_table_gpa == 0x810C00
    )
    for bad in (bytes(4), bytes(12)):
        with pytest.raises(Malformed):
            sev_firmware(built_firmware((SEV_HASH_TABLE, bad)))
    with pytest.raises(Malformed):
        sev_firmware(built_firmware((SEV_HASH_TABLE, bytes(8)), (SEV_HASH_TABLE, bytes(8))))
