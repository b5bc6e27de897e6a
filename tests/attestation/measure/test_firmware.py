"""Firmware of a distribution, where it is installed: the published sections, MRTD, CFV and launch digests."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from builder.build import default_store
from quotary.attestation.measure import snp
from quotary.attestation.measure.guids import SEV_RESET_BLOCK, guid_table, word
from quotary.attestation.measure.profiles import SNPProfile, snp_profile
from quotary.attestation.measure.sev import FOUR_GIB, KernelHashes, SEVFirmware, SEVSection, require_sections
from quotary.attestation.measure.snp import LaunchDigest, SNPLaunch
from quotary.attestation.measure.tdvf import configuration_volume, mrtd, sections
from quotary.attestation.measure.trace import Measured
from quotary.errors import Malformed

# Where packages put it, and where a build of an image leaves it; QUOTARY_FIRMWARE names a folder with more.
FOLDERS = (Path("/usr/share/ovmf"), Path("/usr/share/OVMF"))


def installed(sha256: str) -> bytes | None:
    """The firmware with this digest, if a package brought it."""
    extra = os.environ.get("QUOTARY_FIRMWARE")
    built = default_store().glob("nix/store/*-firmware-files/usr/share/ovmf")
    for folder in (*FOLDERS, *built, *((Path(extra),) if extra else ())):
        for path in sorted(folder.glob("*.fd")):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
    return None


def test_installed_firmware_has_its_published_registers(vectors):
    known = json.loads((vectors / "measure" / "firmware-debian.json").read_text())["firmware"]
    found = [(entry, data) for entry in known if (data := installed(entry["sha256"])) is not None]
    if not found:
        pytest.skip("none of the published firmware packages is installed")
    for entry, data in found:
        expected = entry["tdx"]
        rows = [
            [hex(v) for v in (s.offset, s.raw, s.gpa, s.memory, s.type, s.attributes)] for s in sections(data)
        ]
        assert rows == expected["sections"]
        assert mrtd(data, "single-pass")[0].hex() == expected["mrtd_single_pass"]
        assert mrtd(data, "two-pass")[0].hex() == expected["mrtd_two_pass"]
        assert hashlib.sha384(configuration_volume(data)).hexdigest() == expected["cfv_sha384"]
        for vector in entry["snp"]:
            asked = vector["kernel_hashes"]
            hashes = None
            if asked:
                files = (bytes.fromhex(asked[name]) for name in ("kernel_hex", "initrd_hex"))
                hashes = KernelHashes.of(*files, asked["cmdline"])
            launch = SNPLaunch(
                data, hashes, vector["vcpus"], int(vector["vcpu_sig"], 16), int(vector["guest_features"], 16)
            )
            profile = snp_profile(f"snp/{vector['vmsa_profile']}/v1")
            measured = _launched(launch, profile, entry["package"])
            assert measured.registers["measurement"].hex() == vector["expected"]


def _launched(launch: SNPLaunch, profile: SNPProfile, package: str) -> Measured:
    if package != "ovmf-inteltdx":
        return snp.measure(launch, profile)
    # Its SEV metadata has empty sections, which no VMM adds: no machine shows the published value. The
    # arithmetic is held against it all the same, with a section as empty as none.
    with pytest.raises(Malformed, match="0 bytes"):
        snp.measure(launch, profile)
    digest, firmware = LaunchDigest(), launch.firmware
    digest.image(FOUR_GIB - len(firmware), firmware, "firmware page")
    table, start = guid_table(firmware), firmware.rindex(b"ASEV")
    rows = struct.iter_unpack(
        "<III", firmware[start + 16 : start + int.from_bytes(firmware[start + 4 : start + 8], "little")]
    )
    sections = require_sections([section for row in rows if (section := SEVSection(*row)).size])
    return snp.measure_from(
        digest, SEVFirmware(word(table, SEV_RESET_BLOCK, "reset block"), 0, sections), launch, profile
    )
