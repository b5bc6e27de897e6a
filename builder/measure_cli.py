"""``quotary measure``: what hardware will show for an image, step by step where it is asked for."""

from pathlib import Path

import click

from builder import statement
from builder.explain import against_release, difference, load_steps, steps_document, words_difference
from builder.image import Image
from builder.machines import FOLDER, machine_options, machines, platform_option, profile_option
from builder.measure import Loaded, compute, default_profile, demanding, id_of, measure_image, save_rows
from quotary.attestation.measure.shape import Shape
from quotary.cli.files import read_json
from quotary.cli.output import emit, json_option
from quotary.errors import Malformed, Unsupported, Usage
from quotary.statements.recompute import verify_row
from quotary.statements.release import Release

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
EXIT_CODES = "Exit codes: 0, 2, 10 a file is not the one in boot.json, 20, 30, 40."


@click.group(
    name="measure", epilog="\b\nExample:\n  quotary measure run image --platform sim-tdx --out rows.json"
)
def measure_group() -> None:
    """Predict what hardware will measure."""


@measure_group.command(
    name="run",
    epilog="\b\nExample:\n  quotary measure run image --platform sim-tdx --memory 512 --memory 2048"
    f" --out rows.json\n\n{EXIT_CODES}",
)
@click.argument("folder", type=FOLDER)
@platform_option
@profile_option
@machine_options
@click.option("--devices", type=FILE, help="JSON file: the devices that each row demands (GPUs, switches).")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File of rows for quotary release new."
)
@json_option
def run(
    folder: Path,
    platforms: tuple[str, ...],
    rule: str | None,
    memory: tuple[int, ...],
    vcpus: tuple[int, ...],
    cpu: tuple[int, ...],
    acpi: Path | None,
    devices: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compute the registers and measurement ids of the image in FOLDER from its files.

    There is a row for each machine that shows other registers: --memory (for TDX), --vcpus and --cpu may be
    repeated.
    """
    rows, material = measure_image(folder, platforms, rule, machines(memory, vcpus, cpu, acpi))
    if devices is not None:
        rows = demanding(rows, read_json(devices))
    if out is not None:
        save_rows(out, rows, material)
    ids = [id_of(row) for row in rows]
    document = {"schema": "quotary/measure/v1", "measurements": ids, "rows": rows, "material": material}
    emit(document, "\n".join(line for row in rows for line in row_lines(row)), as_json=as_json)


@measure_group.command(
    name="explain",
    epilog="\b\nExample:\n  quotary measure explain image --platform sim-tdx"
    "\n  quotary measure explain image other-image\n  quotary measure explain image release.entry"
    f"\n\n{EXIT_CODES}",
)
@click.argument("folder", type=FOLDER)
@click.argument("other", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--platform", default="sim-tdx", show_default=True)
@profile_option
@machine_options
@json_option
def explain(
    folder: Path,
    other: Path | None,
    platform: str,
    rule: str | None,
    memory: tuple[int, ...],
    vcpus: tuple[int, ...],
    cpu: tuple[int, ...],
    acpi: Path | None,
    as_json: bool,
) -> None:
    """Show every step that led to the registers of the image in FOLDER on one machine.

    With OTHER, another image folder, a release or the --json output of this command for an image, name the
    first input that makes the measurements differ. A release's machine is its own.
    """
    name, found = rule or default_profile(platform), machines(memory, vcpus, cpu, acpi)
    if len(found) != 1:
        raise Usage("one machine at a time: give --memory, --vcpus and --cpu once")
    if other is not None:
        said = _explain(folder, other, platform, name, found[0])
        document = {"schema": "quotary/measure-difference/v1", "platform": platform, "profile": name}
        emit(document | {"same": not said, "first": said}, said or "every step is the same", as_json=as_json)
        return
    measured = compute(folder, platform, name, found[0])
    text = "\n".join(f"{one.register:<11}  {one.digest.hex()}  {one.name}" for one in measured.steps)
    emit(steps_document(platform, name, measured), text, as_json=as_json)


@measure_group.command(
    name="check",
    epilog="\b\nExample:\n  quotary measure check release.entry"
    "\n\nExit codes: 0 every row, 2, 10 a row has other registers, 20 a row is not checked, 30, 40.",
)
@click.argument("file", type=FILE)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Compute every row of the release in FILE again from the release's own material, without its files."""
    release = release_of(file)
    rows, unchecked = [], 0
    for row in release.rows:
        try:
            verdict = f"recomputed for {len(verify_row(row, release.material))} machine(s)"
        except Unsupported as error:
            verdict, unchecked = f"not checked: {error}", unchecked + 1
        rows.append({"measurement": row.measurement.hex(), "platform": row.platform, "verdict": verdict})
    text = "\n".join(f"{one['measurement']}  {one['platform']}\n  {one['verdict']}" for one in rows)
    emit({"schema": "quotary/measure-check/v1", "rows": rows}, text, as_json=as_json)
    if unchecked:
        raise Unsupported(
            f"{unchecked} of {len(rows)} rows are not checked: their registers need the files themselves",
            next_command=f"quotary rebuild run {file}",
        )


def release_of(path: Path) -> Release:
    """Read a release (statement or entry)."""
    found, _ = statement.statement_of(statement.read(path))
    if not isinstance(found.predicate, Release):
        raise Usage(f"{path} is a {found.kind}, not a release")
    return found.predicate


def row_lines(row: dict[str, object]) -> list[str]:
    """Say a row to people."""
    registers = row["registers"]
    assert isinstance(registers, dict), "rows_of writes an object"
    lines = [f"{row['platform']}, profile {row['profile']}, {row.get('shape', 'any machine')}"]
    lines += [f"  {name}  {value}" for name, value in registers.items()]
    return [*lines, f"  measurement id  {id_of(row)}"]


def _explain(folder: Path, other: Path, platform: str, name: str, shape: Shape) -> str:
    if other.is_dir():
        lines = [Image.load(one).command_line for one in (folder, other)]
        said = difference(compute(folder, platform, name, shape), compute(other, platform, name, shape))
        return words_difference(said, *lines)
    try:
        release = release_of(other)
    except Malformed:
        return difference(compute(folder, platform, name, shape), load_steps(other, platform, name))
    return against_release(Loaded.of(folder, (platform,)).material, release, platform, name)
