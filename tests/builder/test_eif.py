"""Image folders as Nitro images: everything in them is measured, and nothing depends on the moment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from builder.build_cli import build_group
from builder.eif import eif_of, write_eif
from builder.measure import PROFILES, compute, default_profile, registers_of, row_of
from builder.measure_cli import measure_group
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.eif_signature import signer_of
from quotary.attestation.measure.profiles import nitro_profile
from quotary.attestation.measure.shape import Shape
from quotary.attestation.measure.trace import Measured
from quotary.errors import CannotTell, Malformed, Refused, Rejected, Unsupported, Usage
from quotary.statements.measurement import REGISTERS, base_platform
from quotary.statements.row import parse_row
from tests.attestation.measure.test_eif_signature import KEY, OTHER_KEY, PEM, SHORT_KEY
from tests.builder.test_image import FILES
from tests.builder.test_statements import image


def test_the_file_has_the_kernel_the_line_the_ramdisk_and_the_disks(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    found, data = write_eif(folder, tmp_path / "image.eif")
    assert (tmp_path / "image.eif").read_bytes() == data
    assert EIF.parse(data) == found
    assert found.kernel == FILES["vmlinuz"]
    assert found.ramdisks[0] == FILES["initrd.img"]
    assert b"disks/rootfs.img" in found.ramdisks[1]
    assert FILES["rootfs.img"] in found.ramdisks[1]
    assert write_eif(folder, tmp_path / "again.eif")[1] == data
    assert json.loads(found.metadata or b"")["BuildMetadata"]["BuildTime"].startswith("1970")


@pytest.mark.parametrize("platform", ["nitro", "sim-nitro"])
def test_its_row_parses_and_is_computed_again_from_the_files(tmp_path: Path, platform: str) -> None:
    folder = image(tmp_path / "image")
    profile = default_profile(platform)
    found = compute(folder, platform, profile, Shape())
    row = parse_row(row_of(platform, profile, Shape(), found))
    assert row.shape is None
    assert registers_of(folder, row) == row.registers == found.registers


def test_every_file_that_boots_changes_the_measurement(tmp_path: Path) -> None:
    profile = default_profile("nitro")
    before = compute(image(tmp_path / "image"), "nitro", profile, Shape())
    said = {"vmlinuz": "kernel", "initrd.img": "ramdisk 0", "rootfs.img": "ramdisk 1"}
    for name, part in said.items():
        other = image(tmp_path / name, FILES | {name: b"other"})
        after = compute(other, "nitro", profile, Shape())
        assert before.first_difference(after).startswith(f"pcr0: {part} is ")


def test_a_file_that_is_not_the_named_one_makes_no_image(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    (folder / "rootfs.img").write_bytes(b"another")
    with pytest.raises(Rejected):
        eif_of(folder)
    with pytest.raises(CannotTell):
        eif_of(tmp_path)
    (folder / "rootfs.img").write_bytes(FILES["rootfs.img"])
    with pytest.raises(CannotTell):
        write_eif(folder, tmp_path / "no" / "folder.eif")


def test_an_image_without_a_ramdisk_makes_no_enclave_image(tmp_path: Path) -> None:
    without = {name: data for name, data in FILES.items() if name != "initrd.img"}
    folder = image(tmp_path / "image", without)
    with pytest.raises(Unsupported, match=r"has no initrd\.img"):
        eif_of(folder)


def test_the_commands_write_the_file_and_its_registers(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    out = tmp_path / "image.eif"
    done = CliRunner().invoke(build_group, ["eif", str(folder), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["size"] == out.stat().st_size
    done = CliRunner().invoke(measure_group, ["run", str(folder), "--platform", "nitro", "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.output)["rows"][0]["registers"]) == {"pcr0", "pcr1", "pcr2"}
    done = CliRunner().invoke(measure_group, ["run", str(folder), "--platform", "nitro"])
    assert "any machine" in done.output


@pytest.mark.parametrize("platform", sorted(PROFILES))
def test_a_row_can_carry_the_name_of_every_profile_that_is_built_for(platform: str) -> None:
    names = REGISTERS[base_platform(platform)]
    registers = {name: bytes(48) for name in (*names, "rtmr0")}
    row = row_of(platform, default_profile(platform), Shape(), Measured(registers, ()))
    assert parse_row(row).profile == PROFILES[platform]


def test_the_command_signs_with_a_private_key_file_and_says_pcr8(tmp_path: Path) -> None:
    folder, out = image(tmp_path / "image"), tmp_path / "image.eif"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.touch(0o600)
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(PEM)
    words = ["eif", str(folder), "--out", str(out), "--key", str(key), "--certificate", str(certificate)]
    done = CliRunner().invoke(build_group, [*words, "--json"])
    assert done.exit_code == 0, done.output
    read = EIF.parse(out.read_bytes())
    assert json.loads(done.output)["pcr8"] == signer_of(read, nitro_profile(PROFILES["nitro"])).pcr8.hex()
    assert replace(read, signature=None) == eif_of(folder)
    assert "PCR8" in CliRunner().invoke(build_group, words).output
    assert isinstance(CliRunner().invoke(build_group, words[:-2]).exception, Usage)
    out.unlink()
    for pem, error in (
        (SHORT_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), Unsupported),
        (b"no key", Malformed),
        (OTHER_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), Rejected),
    ):
        key.write_bytes(pem)
        assert isinstance(CliRunner().invoke(build_group, words).exception, error)
        assert not out.exists()
    key.chmod(0o644)
    assert isinstance(CliRunner().invoke(build_group, words).exception, Refused)
