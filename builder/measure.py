"""From an image folder to a release's rows: which registers each platform will show for exactly these files.

The registers come from ``quotary.attestation.measure``, which a verifier has too. Hardware TDX needs the ACPI
tables that its VMM will give the firmware (RTMR0 is exact or not stated), since the images boot a kernel
without a sandbox for the host's ACPI code. The simulated machine has no such tables.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.eif import assemble_eif
from builder.image import Image
from quotary.attestation.measure.acpi import derive
from quotary.attestation.measure.material import (
    FIRMWARE,
    INITRD,
    KERNEL,
    UNIFIED,
    Files,
    describe,
    recompute,
)
from quotary.attestation.measure.nitro import Streams, registers, streams
from quotary.attestation.measure.profiles import (
    SNPProfile,
    TDXProfile,
    nitro_profile,
    profile,
    profile_sha256,
    snp_profile,
    tdx_profile,
)
from quotary.attestation.measure.sev import KernelHashes, sev_firmware
from quotary.attestation.measure.shape import Shape, parse_shape, shape_document
from quotary.attestation.measure.snp import SNPLaunch
from quotary.attestation.measure.snp import measure as measure_snp
from quotary.attestation.measure.tdx import ACPI_BLOBS, TDXLaunch, sha384
from quotary.attestation.measure.tdx import measure as measure_tdx
from quotary.attestation.measure.trace import Measured
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed, Unsupported, Usage
from quotary.statements.measurement import REGISTERS, base_platform, measurement_id
from quotary.statements.row import Row, parse_row

SCHEMA = "quotary/measure/v1"
ACPI_TABLES = "acpi-tables"
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
class Loaded:
    """An image folder whose files were hashed and read once.

    enclave: its Nitro form, hashed, where somebody asked for it
    """

    image: Image
    files: Files
    enclave: Streams | None

    @classmethod
    def of(cls, folder: Path, platforms: Sequence[str]) -> "Loaded":
        """Read what these platforms start."""
        image = Image.load(folder)
        image.verify(folder)
        firmware, kernel = ((folder / name).read_bytes() for name in (FIRMWARE, KERNEL))
        initrd = (folder / INITRD).read_bytes() if INITRD in image.files else None
        unified = (folder / UNIFIED).read_bytes() if UNIFIED in image.files else None
        wanted = any(base_platform(platform) == "nitro" for platform in platforms)
        # One formula is known, so its parts are hashed before anybody names it.
        enclave = streams(assemble_eif(folder, image), nitro_profile(PROFILES["nitro"])) if wanted else None
        return cls(image, Files(firmware, kernel, initrd, image.command_line, unified), enclave)

    def compute(self, platform: str, name: str, shape: Shape) -> Measured:
        """Compute the registers on a platform under a named profile, with every step."""
        base = base_platform(platform)
        _require_startable(self.files, base, name, shape)
        if base == "nitro" and self.enclave is not None:
            nitro_profile(name)
            return registers(self.enclave)
        if base == "tdx":
            return _tdx(self.files, tdx_profile(name), shape)
        if base == "snp":
            return _snp(self.files, snp_profile(name), shape)
        raise Unsupported(f"images for {platform} are not built")

    def material(self, shapes: Sequence[Shape]) -> dict[str, object]:
        """Return what the rows of these machines, and others, can be computed from, and the disks."""
        disks = {
            one.serial: {"root": one.root, "blocks": one.blocks, "salt": one.salt} for one in self.image.disks
        }
        return {"disks": disks, **describe(self.files, shapes, self.enclave)}


def compute(folder: Path, platform: str, name: str, shape: Shape) -> Measured:
    """Compute the registers of an image folder on a platform under a named profile, with every step."""
    return Loaded.of(folder, (platform,)).compute(platform, name, shape)


def measure_image(
    folder: Path, platforms: Sequence[str], rule: str | None, shapes: Sequence[Shape]
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Return the rows of an image for these platforms and machines, and their material.

    rule: name of a profile, or None for each platform's own
    """
    loaded = Loaded.of(folder, platforms)
    material = loaded.material(shapes)
    rows = [
        row
        for platform in platforms
        for row in _rows(loaded, material, platform, rule or default_profile(platform), shapes)
    ]
    return rows, material


def row_of(platform: str, name: str, shape: Shape, found: Measured) -> dict[str, object]:
    """Return the release's row for computed registers."""
    return _row(platform, name, [(shape, found)])


def material_of(folder: Path, shapes: Sequence[Shape] = ()) -> dict[str, object]:
    """Return the material of an image folder, without its Nitro form."""
    return Loaded.of(folder, ()).material(shapes)


def registers_of(folder: Path, row: Row) -> Mapping[str, bytes]:
    """Compute a release's row again from other files, under its own profile and for its own machines.

    Where its machines do not agree about a register of the measurement id, the first that differs from the
    row counts.
    """
    if profile_sha256(row.profile) != row.profile_sha256:
        raise Unsupported(f"the release's {row.profile} is not the one that this version knows")
    found: Mapping[str, bytes] = {}
    for shape in parse_shape(base_platform(row.platform), row.shape):
        measured = compute(folder, row.platform, row.profile, shape)
        found = {name: measured.registers[name] for name in row.registers}
        if found != row.registers:
            break
    return found


def acpi_of(folder: Path) -> dict[str, bytes]:
    """Hash the three ACPI blobs of a VMM that lie in a folder (48 bytes each).

    The tables are enough: what QEMU makes of them is derived where it does not lie beside them.
    """
    try:
        given = {
            name: (folder / name).read_bytes()
            for name in ACPI_BLOBS
            if name == ACPI_TABLES or (folder / name).exists()
        }
    except OSError as error:
        raise CannotTell(f"cannot read the ACPI tables: {error}") from error
    whole = given if len(given) == len(ACPI_BLOBS) else {**derive(given[ACPI_TABLES]), **given}
    return {name: sha384(whole[name]) for name in ACPI_BLOBS}


def demanding(rows: Sequence[Mapping[str, object]], devices: object) -> list[dict[str, object]]:
    """Let each row demand these devices; ``Malformed`` where a release could not say so."""
    found: list[dict[str, object]] = []
    for row in rows:
        require = row["require"]
        assert isinstance(require, dict)
        found.append({**row, "require": {**require, "devices": devices}})
        parse_row(found[-1])
    return found


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


def _tdx(files: Files, profile: TDXProfile, shape: Shape) -> Measured:
    acpi = shape.acpi if profile.acpi == "given" else {}
    launch = TDXLaunch(files.firmware, files.kernel, files.initrd, files.command_line, shape.memory, acpi)
    if "uki" in profile.rtmr1:
        if files.uki is None:
            raise Unsupported(f"the image has no {UNIFIED}", next_command="quotary build run")
        launch = TDXLaunch.unified(files.firmware, files.uki, shape.memory, acpi)
    return measure_tdx(launch, profile)


def _snp(files: Files, profile: SNPProfile, shape: Shape) -> Measured:
    hashes = KernelHashes.of(files.kernel, files.initrd or b"", files.command_line)
    launch = SNPLaunch(files.firmware, hashes, shape.vcpus, shape.signature, shape.features)
    return measure_snp(launch, profile)


def _require_startable(files: Files, base: str, name: str, shape: Shape) -> None:
    if base == "tdx" and tdx_profile(name).acpi == "given" and not shape.acpi:
        raise Usage(
            "hardware TDX needs the ACPI tables of the machine's shape: RTMR0 is stated exactly or not",
            next_command=f"give --acpi FOLDER with {', '.join(ACPI_BLOBS)}",
        )
    if base == "snp" and not sev_firmware(files.firmware).hash_table_gpa:
        raise Unsupported(
            "this firmware has no measured direct boot: no place for the kernel's hashes, so an SNP"
            " machine would start any kernel under the same launch digest",
            next_command="quotary measure run IMAGE --platform sim-tdx",
        )


def _rows(
    loaded: Loaded, material: Mapping[str, object], platform: str, name: str, shapes: Sequence[Shape]
) -> list[dict[str, object]]:
    # Each file is hashed once, for the material; machines are computed from that, however many they are.
    # Machines that differ in RTMR0 alone share a measurement id, and so a row with all their values.
    base = base_platform(platform)
    together: dict[tuple[bytes, ...], list[tuple[Shape, Measured]]] = {}
    seen: list[object] = []
    for shape in shapes:
        if (document := shape.document(base)) in seen:
            continue
        seen.append(document)
        _require_startable(loaded.files, base, name, shape)
        try:
            found = recompute(base, name, shape, material)
        except Unsupported:
            # A part is missing because a file is not what the platform starts; the file says why.
            found = loaded.compute(platform, name, shape)
        covered = tuple(found.registers[register] for register in REGISTERS[base])
        together.setdefault(covered, []).append((shape, found))
    return [_row(platform, name, machines) for machines in together.values()]


def _row(platform: str, name: str, machines: Sequence[tuple[Shape, Measured]]) -> dict[str, object]:
    base = base_platform(platform)
    require: dict[str, object] = {"configuration": "none"}
    if base == "tdx":
        require["rtmr0"] = {"exact": sorted({found.registers["rtmr0"].hex() for _, found in machines})}
    shape = shape_document(base, [one for one, _ in machines])
    values = machines[0][1].registers
    return {
        "platform": platform,
        "profile": name,
        "profile_sha256": profile_sha256(name).hex(),
        "registers": {register: values[register].hex() for register in REGISTERS[base]},
        "require": require,
        **({"shape": shape} if shape else {}),
    }
