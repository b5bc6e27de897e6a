"""Firmware of a distribution, where it is installed: the published sections, MRTD, CFV and launch digests."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from quotary.attestation.measure import snp
from quotary.attestation.measure.profiles import snp_profile
from quotary.attestation.measure.sev import KernelHashes
from quotary.attestation.measure.snp import SNPLaunch
from quotary.attestation.measure.tdvf import configuration_volume, mrtd, sections

# Where packages put it; QUOTARY_FIRMWARE names a folder with more.
FOLDERS = (Path("/usr/share/ovmf"), Path("/usr/share/OVMF"))


def installed(sha256: str) -> bytes | None:
    """The firmware with this digest, if a package brought it."""
    extra = os.environ.get("QUOTARY_FIRMWARE")
    for folder in (*FOLDERS, *((Path(extra),) if extra else ())):
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
            measured = snp.measure(launch, snp_profile(f"snp/{vector['vmsa_profile']}/v1"))
            assert measured.registers["measurement"].hex() == vector["expected"]
