"""The commands that measure: a row for every machine, rows from the entry alone, and mismatches that explain
themselves."""

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.measure import acpi_of, compute, default_profile, measure_image, registers_of, row_of
from builder.measure_cli import measure_group
from builder.release import release_predicate
from quotary.attestation.measure.acpi import derive
from quotary.attestation.measure.material import recompute
from quotary.attestation.measure.shape import CPUS, Shape
from quotary.attestation.measure.tdx import ACPI_BLOBS
from quotary.errors import CannotTell, Malformed, Rejected, Unsupported, Usage
from quotary.statements.recompute import verify_row
from quotary.statements.row import parse_row
from quotary.statements.schema import statement_payload
from tests.attestation.measure.test_acpi import tables
from tests.builder.test_statements import HEAD, LINE, image
from tests.fakes import firmware

FILES = {
    "vmlinuz": firmware.kernel(),
    "initrd.img": b"ramdisk",
    "rootfs.img": b"root",
    "firmware": firmware.firmware(),
}
ALL = ("sim-tdx", "tdx", "snp", "sim-snp", "nitro", "sim-nitro")


@pytest.fixture
def acpi(tmp_path: Path) -> Path:
    folder = tmp_path / "acpi"
    folder.mkdir()
    for name in ACPI_BLOBS:
        (folder / name).write_bytes(name.encode())
    return folder


def measure(*words: object) -> Result:
    return CliRunner().invoke(measure_group, [str(word) for word in words])


def released(folder: Path, path: Path, platforms: tuple[str, ...], *shapes: Shape) -> Path:
    rows, material = measure_image(folder, platforms, None, shapes or (Shape(),))
    predicate = release_predicate(folder, rows, material, HEAD, days=90, source_uri="https://example.org")
    path.write_bytes(statement_payload("release", predicate))
    return path


def test_an_image_without_a_ramdisk_and_its_unified_form_have_rows_that_follow_from_material(
    tmp_path: Path,
) -> None:
    line = {".cmdline": LINE.encode(), ".uname": b"6.12", ".sbat": b"sbat,1"}
    files = {name: data for name, data in FILES.items() if name != "initrd.img"}
    files["enclave.efi"] = firmware.unified({**line, ".linux": files["vmlinuz"]})
    folder = image(tmp_path / "image", files)
    for profile in ("tdx/simulated-direct-boot/v1", "tdx/simulated-uki/v1"):
        rows, material = measure_image(folder, ("sim-tdx",), profile, [Shape()])
        (row,) = [parse_row(one) for one in rows]
        assert registers_of(folder, row) == row.registers
        assert recompute("tdx", profile, Shape(), material).registers["rtmr2"] == row.registers["rtmr2"]
    (snp,), material = measure_image(folder, ("snp",), None, [Shape()])
    assert registers_of(folder, parse_row(snp)) == parse_row(snp).registers
    with pytest.raises(Unsupported, match="enclave"):
        compute(image(tmp_path / "older", FILES), "sim-tdx", "tdx/simulated-uki/v1", Shape())


def test_every_row_of_every_platform_is_computed_again_from_material_and_from_files(
    tmp_path: Path, acpi: Path
) -> None:
    folder = image(tmp_path / "image", FILES)
    machine = Shape(acpi=acpi_of(acpi))
    rows, material = measure_image(folder, ALL, None, [machine, Shape(vcpus=4, acpi=machine.acpi)])
    assert len(rows) == 2 + 2 * 2 + 2
    for found in map(parse_row, rows):
        assert verify_row(found, {**material, "command_line": material["command_line"]})
        assert registers_of(folder, found) == found.registers


def test_machines_with_other_registers_get_rows_and_those_that_share_an_id_share_one(tmp_path: Path) -> None:
    folder = image(tmp_path / "image", FILES)
    words = ["run", folder, "--platform", "sim-tdx", "--platform", "snp", "--json"]
    for option in ("--memory=512", "--memory=2048", "--memory=8192", "--vcpus=1", "--vcpus=2"):
        words.append(option)
    done = measure(*words, "--cpu=EPYC-Genoa", "--cpu=00800f12")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["rows"]
    shapes = [row["shape"] for row in rows if row["platform"] == "sim-tdx"]
    assert shapes == [
        {"memory_bytes": 512 << 20},
        {"machines": [{"memory_bytes": 2048 << 20}, {"memory_bytes": 8192 << 20}]},
    ]
    assert [len(row["require"]["rtmr0"]["exact"]) for row in rows[:2]] == [1, 2]
    assert {(row["shape"]["vcpus"], row["shape"]["cpuid_signature"]) for row in rows[2:]} == {
        (count, signature) for count in (1, 2) for signature in (f"{CPUS['EPYC-Genoa']:08x}", "00800f12")
    }


def test_each_row_demands_the_devices_that_a_file_names(tmp_path: Path) -> None:
    folder, listed = image(tmp_path / "image", FILES), tmp_path / "devices.json"
    demanded = [{"architecture": "gh100", "count": 1, "drivers": ["580.95.05"], "vbios": ["96.00.DA.00.11"]}]
    listed.write_text(json.dumps(demanded))
    words = ("run", folder, "--platform", "sim-tdx", "--memory=512", "--memory=8192", "--devices", listed)
    rows = json.loads(measure(*words, "--json").output)["rows"]
    assert [row["require"]["devices"] for row in rows] == [demanded] * len(rows)
    assert all(row["require"]["rtmr0"] for row in rows)
    listed.write_text(json.dumps([*demanded, {"architecture": "ls10"}]))
    assert isinstance(measure(*words).exception, Malformed)


def test_odd_machines_are_refused_before_anything_is_read(tmp_path: Path, acpi: Path) -> None:
    folder = image(tmp_path / "image", FILES)
    assert measure("run", folder, "--cpu", "no-such-cpu").exit_code == 2
    assert measure("run", folder, "--vcpus", "513").exit_code == 2
    done = measure("run", folder, "--acpi", acpi, "--memory=512", "--memory=1024")
    assert isinstance(done.exception, Usage)
    done = measure("explain", folder, "--vcpus=1", "--vcpus=2")
    assert isinstance(done.exception, Usage)
    (acpi / "acpi-loader").unlink()
    with pytest.raises(Malformed, match="ACPI"):
        acpi_of(acpi)
    (acpi / "acpi-tables").unlink()
    with pytest.raises(CannotTell):
        acpi_of(acpi)
    assert isinstance(measure("run", folder, "--platform", "tdx").exception, Usage)
    assert isinstance(measure("run", folder, "--platform", "sgx").exception, Unsupported)


def test_a_release_is_checked_from_its_entry_alone(tmp_path: Path) -> None:
    path = released(image(tmp_path / "image", FILES), tmp_path / "release.json", ("sim-tdx", "snp"))
    done = measure("check", path)
    assert done.exit_code == 0, done.output
    assert done.output.count("recomputed for 1 machine(s)") == 2
    other = json.loads(path.read_bytes())
    other["predicate"]["material"]["tdx-launch"]["initrd"] = "00" * 48
    path.write_bytes(statement_payload("release", other["predicate"]))
    done = measure("check", path)
    assert isinstance(done.exception, Rejected)
    assert "rtmr2" in str(done.exception)


def test_rows_that_need_the_files_are_called_not_checked(tmp_path: Path) -> None:
    path = released(image(tmp_path / "image", FILES), tmp_path / "release.json", ("sim-tdx", "snp"))
    other = json.loads(path.read_bytes())["predicate"]
    del other["material"]["snp-launch"]
    path.write_bytes(statement_payload("release", other))
    done = measure("check", path)
    assert isinstance(done.exception, Unsupported)
    assert "1 of 2 rows are not checked" in str(done.exception)
    assert done.output.count("not checked: ") == 1


@pytest.mark.parametrize(
    ("platform", "change", "said"),
    [
        ("sim-tdx", {"initrd.img": b"another"}, "rtmr2: initrd is "),
        ("sim-tdx", {"initrd.img": b"longer than that"}, "rtmr1: length of the initrd is "),
        ("sim-tdx", {"vmlinuz": firmware.kernel(seed=1)}, "rtmr1: kernel is "),
        ("sim-tdx", {"firmware": firmware.firmware(seed=1)}, "mrtd: firmware is "),
        ("snp", {"firmware": firmware.firmware(seed=1)}, "measurement: firmware is "),
        ("snp", {"vmlinuz": firmware.kernel(seed=1)}, "measurement: SHA-256 of the kernel is "),
        ("snp", {"initrd.img": b"other"}, "measurement: SHA-256 of the initrd is "),
        ("nitro", {"rootfs.img": b"other"}, "pcr0: parts of the image is "),
    ],
)
def test_an_image_that_is_not_the_released_one_says_where_it_parts(
    tmp_path: Path, platform: str, change: dict[str, bytes], said: str
) -> None:
    path = released(image(tmp_path / "image", FILES), tmp_path / "release.json", (platform,))
    same = measure("explain", tmp_path / "image", path, "--platform", platform)
    assert same.output == "every step is the same\n"
    other = image(tmp_path / "other", FILES | change)
    assert measure("explain", other, path, "--platform", platform).output.startswith(said)


def test_words_of_the_command_line_that_differ_are_named(tmp_path: Path) -> None:
    folder = image(tmp_path / "image", FILES)
    path = released(folder, tmp_path / "release.json", ("sim-tdx",))
    other = image(tmp_path / "other", FILES)
    boot = json.loads((other / "boot.json").read_bytes())
    text = boot["cmdline"]["text"] + " debug"
    boot["cmdline"] = {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (other / "boot.json").write_text(json.dumps(boot))
    (other / "cmdline").write_text(text)
    for against in (path, folder):
        done = measure("explain", other, against)
        assert done.output.startswith("rtmr2: load-options is ")
        assert done.output.endswith("; registers that differ: rtmr2; command line: +debug\n")


def test_a_release_without_such_a_row_explains_nothing(tmp_path: Path) -> None:
    folder = image(tmp_path / "image", FILES)
    path = released(folder, tmp_path / "release.json", ("sim-tdx",))
    done = measure("explain", folder, path, "--platform", "snp")
    assert isinstance(done.exception, Unsupported)


def overlapping() -> bytes:
    """Firmware whose second SEV section begins inside the first."""
    data = bytearray(FILES["firmware"])
    at = data.rindex(b"ASEV") + 16 + 12
    data[at : at + 4] = (0x801000).to_bytes(4, "little")
    return bytes(data)


def unknown_section() -> bytes:
    """Firmware with a TDVF section of a type that nobody knows."""
    data = bytearray(FILES["firmware"])
    data[data.rindex(b"TDVF") + 16 + 24] = 9
    return bytes(data)


@pytest.mark.parametrize(
    ("platform", "change", "error", "said"),
    [
        ("sim-tdx", {"firmware": FILES["firmware"][:-4096]}, Malformed, "no TDVF metadata"),
        ("sim-tdx", {"firmware": FILES["firmware"][4096:]}, Malformed, "more data than memory or file"),
        ("sim-tdx", {"firmware": b""}, Malformed, "TDVF"),
        ("sim-tdx", {"firmware": unknown_section()}, Malformed, "type 9"),
        ("sim-tdx", {"vmlinuz": b"MZ"}, Malformed, "setup header"),
        ("sim-tdx", {"vmlinuz": firmware.kernel()[:0x300]}, Malformed, "header"),
        ("snp", {"firmware": overlapping()}, Malformed, "overlap"),
        ("snp", {"firmware": FILES["firmware"][:4096]}, Malformed, "SEV metadata"),
        (
            "snp",
            {"firmware": firmware.firmware(hash_table=0)},
            Unsupported,
            "no place for the kernel's hashes",
        ),
        ("snp", {"firmware": bytes((64 << 20) + 4096)}, Malformed, "at most"),
    ],
)
def test_what_no_machine_can_start_is_named_and_writes_nothing(
    tmp_path: Path, platform: str, change: dict[str, bytes], error: type[Exception], said: str
) -> None:
    folder = image(tmp_path / "image", FILES | change)
    done = measure("run", folder, "--platform", platform, "--out", tmp_path / "rows.json")
    assert isinstance(done.exception, error), done.exception
    assert said in str(done.exception)
    assert not (tmp_path / "rows.json").exists()


def test_rows_from_material_are_those_from_the_files(tmp_path: Path, acpi: Path) -> None:
    folder = image(tmp_path / "image", FILES)
    machine = Shape(memory=1 << 30, vcpus=3, acpi=acpi_of(acpi))
    rows, _ = measure_image(folder, ALL, None, [machine])
    for platform, row in zip(ALL, rows, strict=True):
        direct = compute(folder, platform, default_profile(platform), machine)
        assert row == row_of(platform, default_profile(platform), machine, direct)


def test_the_tables_alone_give_the_blobs_that_qemu_makes_of_them(tmp_path: Path) -> None:
    (tmp_path / "acpi-tables").write_bytes(tables())
    alone = acpi_of(tmp_path)
    for name, data in derive(tables()).items():
        (tmp_path / name).write_bytes(data)
    assert acpi_of(tmp_path) == alone
    (tmp_path / "acpi-rsdp").write_bytes(b"what the machine really had")
    assert acpi_of(tmp_path)["acpi-rsdp"] != alone["acpi-rsdp"]
