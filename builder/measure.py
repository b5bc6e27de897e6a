"""From an image folder to a release's rows: which registers each platform will show for exactly these files.

The registers come from ``quotary.attestation.measure``, which a verifier has too. Hardware TDX needs the ACPI
tables that its VMM will give the firmware (RTMR0 is exact or not stated), since the images boot a kernel
without a sandbox for the host's ACPI code. The simulated machine has no such tables.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.eif import eif_of
from builder.image import Image
from quotary.attestation.measure.nitro import measure as measure_nitro
from quotary.attestation.measure.profiles import (
    nitro_profile,
    profile,
    profile_sha256,
    snp_profile,
    tdx_profile,
)
from quotary.attestation.measure.rtmr0 import material_of as tdx_material
from quotary.attestation.measure.sev import KernelHashes, sev_firmware
from quotary.attestation.measure.snp import SNPLaunch
from quotary.attestation.measure.snp import measure as measure_snp
from quotary.attestation.measure.tdvf import configuration_volume, sections
from quotary.attestation.measure.tdx import ACPI_BLOBS, TDXLaunch
from quotary.attestation.measure.tdx import measure as measure_tdx
from quotary.attestation.measure.trace import Measured
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed, Unsupported, Usage
from quotary.statements.measurement import REGISTERS, base_platform, measurement_id
from quotary.statements.row import Row, parse_row

SCHEMA = "quotary/measure/v1"
MIB = 1 << 20
MAX_ROWS_FILE = 4 << 20
PROFILES = {
    "sim-tdx": "tdx/simulated-direct-boot/v1",
    "tdx": "tdx/qemu-direct-boot/edk2-202502/v1",
    "snp": "snp/qemu-kvm-init2/v1",
    "sim-snp": "snp/qemu-kvm-init2/v1",
    "nitro": "nitro/eif-v4/v1",
    "sim-nitro": "nitro/eif-v4/v1",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The machine that a row is for.

    memory:    bytes of the guest's memory; it changes TDX's RTMR0, and RTMR1 below 2.75 GiB
    vcpus:     number of virtual processors; it changes SNP's launch digest
    signature: their CPUID signature (function 1, EAX), for SNP
    acpi:      folder with the VMM's three ACPI blobs, for hardware TDX
    """

    memory: int = 512 * MIB
    vcpus: int = 1
    signature: int = 0x00A00F11
    acpi: Path | None = None

    def document(self, base: str) -> dict[str, object]:
        """Return what a row's ``shape`` says of it, so that anybody can compute the row again.

        Nothing of the machine changes a Nitro enclave's registers.
        """
        if base == "nitro":
            return {}
        if base == "snp":
            return {"vcpus": self.vcpus, "cpuid_signature": f"{self.signature:08x}"}
        return {"memory_bytes": self.memory}


def compute(folder: Path, platform: str, name: str, shape: Shape) -> Measured:
    """Compute the registers of an image folder on a platform under a named profile, with every step."""
    if base_platform(platform) == "nitro":
        return measure_nitro(eif_of(folder), nitro_profile(name))
    image = Image.load(folder)
    image.verify(folder)
    read = {file: (folder / file).read_bytes() for file in ("firmware", "vmlinuz", "initrd.img")}
    base = base_platform(platform)
    if base == "tdx":
        chosen = tdx_profile(name)
        acpi = _acpi(shape.acpi) if chosen.acpi == "given" else {}
        kernel, initrd, line = read["vmlinuz"], read["initrd.img"], image.command_line
        return measure_tdx(TDXLaunch(read["firmware"], kernel, initrd, line, shape.memory, acpi), chosen)
    if base == "snp":
        if not sev_firmware(read["firmware"]).hash_table_gpa:
            raise Unsupported(
                "this firmware has no measured direct boot: no place for the kernel's hashes, so an SNP"
                " machine would start any kernel under the same launch digest",
                next_command="quotary measure run IMAGE --platform sim-tdx",
            )
        hashes = KernelHashes.of(read["vmlinuz"], read["initrd.img"], image.command_line)
        launch = SNPLaunch(read["firmware"], hashes, shape.vcpus, shape.signature, 1)
        return measure_snp(launch, snp_profile(name))
    raise Unsupported(f"images for {platform} are not built")


def row_of(platform: str, name: str, shape: Shape, found: Measured) -> dict[str, object]:
    """Return the release's row for computed registers."""
    base = base_platform(platform)
    require: dict[str, object] = {"configuration": "none"}
    if base == "tdx":
        require["rtmr0"] = {"exact": [found.registers["rtmr0"].hex()]}
    machine = shape.document(base)
    return {
        "platform": platform,
        "profile": name,
        "profile_sha256": profile_sha256(name).hex(),
        "registers": {register: found.registers[register].hex() for register in REGISTERS[base]},
        "require": require,
        **({"shape": machine} if machine else {}),
    }


def material_of(folder: Path) -> dict[str, object]:
    """Return what rows of other shapes can be computed from: digests of the launched files, and the disks."""
    image = Image.load(folder)
    files = {
        name: one.sha256 for name, one in image.files.items() if name in ("firmware", "vmlinuz", "initrd.img")
    }
    disks = {one.serial: {"root": one.root, "blocks": one.blocks, "salt": one.salt} for one in image.disks}
    return {"launch": files, "disks": disks, **_firmware_material((folder / "firmware").read_bytes())}


def registers_of(folder: Path, row: Row) -> Mapping[str, bytes]:
    """Compute a release's row again from other files, under its own profile and shape."""
    if profile_sha256(row.profile) != row.profile_sha256:
        raise Unsupported(f"the release's {row.profile} is not the one that this version knows")
    shape = row.shape or {}
    memory, vcpus = shape.get("memory_bytes", 512 * MIB), shape.get("vcpus", 1)
    if not isinstance(memory, int) or not isinstance(vcpus, int):
        raise Malformed("the row's shape is not of whole numbers")
    found = compute(folder, row.platform, row.profile, Shape(memory=memory, vcpus=vcpus))
    return {name: found.registers[name] for name in row.registers}


def save_rows(
    path: Path, rows: Sequence[Mapping[str, object]], material: Mapping[str, object]
) -> dict[str, object]:
    """Write rows and material for ``quotary release new``; return the document."""
    document: dict[str, object] = {"schema": SCHEMA, "rows": list(rows), "material": dict(material)}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return document


def load_rows(path: Path) -> tuple[list[Mapping[str, object]], Mapping[str, object]]:
    """Read what ``save_rows`` or ``quotary measure process`` wrote; each row is parsed as a release would."""
    try:
        data = path.read_bytes()[: MAX_ROWS_FILE + 1]
        fields = Fields(json.loads(data), "rows file")
    except OSError as error:
        raise CannotTell(
            f"cannot read {path}: {error.strerror}", next_command="quotary measure run"
        ) from error
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{path} is not JSON") from error
    rows: list[Mapping[str, object]] = []
    for item in fields.items("rows", 256, 1):
        parse_row(item)
        assert isinstance(item, dict), "a row that parses is an object"
        rows.append(item)
    return rows, fields.mapping("material", 256)


def load_all_rows(paths: Sequence[Path]) -> tuple[list[Mapping[str, object]], Mapping[str, object]]:
    """Read several files of rows as one release's; refuses material that two of them name."""
    rows: list[Mapping[str, object]] = []
    material: dict[str, object] = {}
    for path in paths:
        more, described = load_rows(path)
        twice = sorted(material.keys() & described.keys())
        if twice:
            raise Malformed(f"{path} describes {twice[0]} again")
        rows += more
        material |= described
    return rows, material


def measured_elsewhere(paths: Sequence[Path]) -> dict[tuple[str, str], Mapping[str, bytes]]:
    """Read registers that no image folder gives (profile ``process/v1``), by platform and profile."""
    rows = [parse_row(row) for path in paths for row in load_rows(path)[0]]
    return {(row.platform, row.profile): row.registers for row in rows}


def id_of(row: Mapping[str, object]) -> str:
    """Return a row's measurement id in hex."""
    parsed = parse_row(row)
    return measurement_id(parsed.platform, parsed.registers).hex()


def default_profile(platform: str) -> str:
    """Return the profile of a platform that this version builds for, or raise ``Unsupported``."""
    if platform not in PROFILES:
        raise Unsupported(f"images for {platform} are not built; known are {', '.join(sorted(PROFILES))}")
    return profile(PROFILES[platform]).name


def _firmware_material(firmware: bytes) -> dict[str, object]:
    """What the events of a TDX firmware follow from; nothing for firmware that no TD starts."""
    try:
        return {"tdx": tdx_material(sections(firmware), configuration_volume(firmware))}
    except Malformed:
        return {}


def _acpi(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        raise Usage(
            "hardware TDX needs the ACPI tables of the machine's shape: RTMR0 is stated exactly or not",
            next_command=f"give --acpi FOLDER with {', '.join(ACPI_BLOBS)}",
        )
    try:
        return {name: (folder / name).read_bytes() for name in ACPI_BLOBS}
    except OSError as error:
        raise CannotTell(f"cannot read the ACPI tables: {error}") from error
