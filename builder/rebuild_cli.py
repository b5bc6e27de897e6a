"""``quotary rebuild``: repeat a release's build and write the signed-to-be verdict."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from builder import statement
from builder.build import Recipe, find_source
from builder.measure import measured_elsewhere, registers_of
from builder.nix import Nix
from builder.prefetch import Cache
from builder.progress import Progress
from builder.rebuild import rebuild_predicate, repeat
from builder.statement import Head
from builder.statement_cli import out_option, sequence_of, sequence_option, show_unsigned, url_option
from quotary.errors import Malformed, Rejected, Usage
from quotary.statements.release import Release
from quotary.statements.row import Row

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(
    name="rebuild",
    epilog="\b\nExample:\n  quotary rebuild run release.entry --organisation Us --sequence 1 --out r.json",
)
def rebuild_group() -> None:
    """Repeat a build and say what came out."""


@rebuild_group.command(
    name="run",
    epilog="\b\nExample:\n  quotary rebuild run release.entry --organisation Us --sequence 1 --out r.json"
    "\n\nExit codes: 0 all match, 2, 10 one does not, 11 another lock or model, 30, 40.",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--organisation", required=True, help="Who says so.")
@click.option("--source", type=FOLDER, help="Checkout of the release's revision. [default: this one]")
@click.option(
    "--lock", type=FOLDER, help="The release's lock, as IMAGE/lock holds it. [default: the checkout's]"
)
@click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False, exists=True), help="The release's model."
)
@click.option(
    "--measured",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Own output of quotary measure process, for rows that no image gives.",
)
@click.option(
    "--work", type=FOLDER, help="Parent of the fresh store. [default: a new folder of the system's]"
)
@sequence_option
@url_option
@out_option
@click.option("--json", "as_json", is_flag=True, help="Print one stable JSON object.")
def run(
    file: Path,
    organisation: str,
    source: Path | None,
    lock: Path | None,
    model: Path | None,
    measured: tuple[Path, ...],
    work: Path | None,
    sequence: int | None,
    url: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Build the release in FILE again, in a fresh store without any cache of built things, and compare."""
    found, _ = statement.statement_of(statement.read(file))
    release = found.predicate
    if not isinstance(release, Release):
        raise Usage(f"{file} is a {found.kind}, not a release")
    recipe = _recipe(release, find_source(source), lock, model)
    head = Head(
        found.log, found.service, sequence_of(sequence, url, found.service, "rebuild"), statement.now()
    )
    elsewhere = measured_elsewhere(measured)

    def measure(image: Path, row: Row) -> Mapping[str, bytes]:
        return elsewhere.get((row.platform, row.profile)) or registers_of(image, row)

    with tempfile.TemporaryDirectory(dir=work, prefix="quotary-rebuild-") as folder:
        nix = Nix.open(Path(folder) / "store")
        progress = Progress()
        try:
            result = repeat(release, recipe, nix, Cache.default(), Path(folder), measure, progress)
            tool = f"quotary with Nix {nix.version()}"
        finally:
            nix.remove()
    predicate = rebuild_predicate(head, found.statement_id, organisation, tool, result)
    show_unsigned(statement.write("rebuild", predicate, out), out, as_json=as_json)
    if result.verdict != "match":
        raise Rejected(
            "rebuild", result.detail or "other registers from the same files", "every measurement id"
        )


def _recipe(release: Release, checkout: Path, lock: Path | None, model: Path | None) -> Recipe:
    profile = release.material.get("profile")
    if not isinstance(profile, str):
        raise Malformed("the release's material has no profile")
    return Recipe(checkout, profile, (lock or checkout / "nix" / "lock").resolve(), model=model)
