"""``quotary measure``: what hardware will show for an image, step by step where it is asked for."""

from pathlib import Path

import click

from builder.explain import difference, load_steps, steps_document
from builder.measure import MIB, Shape, compute, default_profile, id_of, material_of, row_of, save_rows
from quotary.cli.output import emit, json_option
from quotary.statements.measurement import REGISTERS, base_platform

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
EXIT_CODES = "Exit codes: 0, 2, 10 a file is not the one in boot.json, 20, 30, 40."

platform_option = click.option(
    "--platform", "platforms", multiple=True, default=("sim-tdx",), show_default=True, help="May be repeated."
)
profile_option = click.option(
    "--profile", help="How registers are computed. [default: the platform's newest]"
)
memory_option = click.option(
    "--memory", type=click.IntRange(64), default=512, show_default=True, help="MiB of the machine."
)
vcpus_option = click.option(
    "--vcpus", type=click.IntRange(1, 512), default=1, show_default=True, help="For SNP."
)
acpi_option = click.option("--acpi", type=FOLDER, help="The VMM's ACPI blobs, for hardware TDX.")


@click.group(
    name="measure", epilog="\b\nExample:\n  quotary measure run image --platform sim-tdx --out rows.json"
)
def measure_group() -> None:
    """Predict what hardware will measure."""


@measure_group.command(
    name="run",
    epilog=f"\b\nExample:\n  quotary measure run image --platform sim-tdx --out rows.json\n\n{EXIT_CODES}",
)
@click.argument("folder", type=FOLDER)
@platform_option
@profile_option
@memory_option
@vcpus_option
@acpi_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File of rows for quotary release new."
)
@json_option
def run(
    folder: Path,
    platforms: tuple[str, ...],
    profile: str | None,
    memory: int,
    vcpus: int,
    acpi: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compute the registers and measurement ids of the image in FOLDER from its files."""
    shape = Shape(memory=memory * MIB, vcpus=vcpus, acpi=acpi)
    rows, lines = [], []
    for platform in platforms:
        name = profile or default_profile(platform)
        found = compute(folder, platform, name, shape)
        row = row_of(platform, name, shape, found)
        rows.append(row)
        machine = shape.document(base_platform(platform)) or "any machine"
        lines += [f"{platform}, profile {name}, {machine}"]
        lines += [
            f"  {register}  {found.registers[register].hex()}"
            for register in REGISTERS[base_platform(platform)]
        ]
        lines += [f"  measurement id  {id_of(row)}"]
    material = material_of(folder)
    if out is not None:
        save_rows(out, rows, material)
    ids = [id_of(row) for row in rows]
    document = {"schema": "quotary/measure/v1", "measurements": ids, "rows": rows, "material": material}
    emit(document, "\n".join(lines), as_json=as_json)


@measure_group.command(
    name="explain",
    epilog="\b\nExample:\n  quotary measure explain image --platform sim-tdx"
    f"\n  quotary measure explain image other-image\n\n{EXIT_CODES}",
)
@click.argument("folder", type=FOLDER)
@click.argument("other", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--platform", default="sim-tdx", show_default=True)
@profile_option
@memory_option
@vcpus_option
@acpi_option
@json_option
def explain(
    folder: Path,
    other: Path | None,
    platform: str,
    profile: str | None,
    memory: int,
    vcpus: int,
    acpi: Path | None,
    as_json: bool,
) -> None:
    """Show every step that led to the registers of the image in FOLDER.

    With OTHER, another image folder or the --json output of this command for one, name the first input that
    makes the measurements differ.
    """
    name, shape = profile or default_profile(platform), Shape(memory=memory * MIB, vcpus=vcpus, acpi=acpi)
    found = compute(folder, platform, name, shape)
    if other is not None:
        theirs = (
            compute(other, platform, name, shape) if other.is_dir() else load_steps(other, platform, name)
        )
        said = difference(found, theirs)
        document = {"schema": "quotary/measure-difference/v1", "platform": platform, "profile": name}
        emit(document | {"same": not said, "first": said}, said or "every step is the same", as_json=as_json)
        return
    text = "\n".join(f"{one.register:<11}  {one.digest.hex()}  {one.name}" for one in found.steps)
    emit(steps_document(platform, name, found), text, as_json=as_json)
