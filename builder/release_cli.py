"""``quotary release``: describe an image for the log, and compare releases."""

import hashlib
from pathlib import Path

import click

from builder import statement
from builder.diff import image_layers, release_layers
from builder.measure import load_all_rows
from builder.publish_cli import publish
from builder.release import MAX_DAYS, release_predicate
from builder.statement import Head
from builder.statement_cli import (
    origin_option,
    out_option,
    sequence_of,
    sequence_option,
    show_unsigned,
    url_option,
)
from quotary.cli.output import emit, json_option
from quotary.errors import CannotTell, Usage
from quotary.statements.corim import corim_of
from quotary.statements.release import Release
from quotary.statements.schema import Statement

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group(name="release", epilog="\b\nExample:\n  quotary release diff old.entry new.entry")
def release_group() -> None:
    """Describe, publish and compare releases."""


release_group.add_command(publish)


@release_group.command(
    name="new",
    epilog="\b\nExample:\n  quotary release new image --rows rows.json --service example.org/chat"
    " --origin log.example.org/main --source-uri https://example.org/src --sequence 1 --out release.json"
    "\n\nExit codes: 0, 2, 10 a file is not the one in boot.json, 30, 40.",
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--rows", required=True, multiple=True, type=FILE, help="What quotary measure wrote; may be repeated."
)
@click.option("--service", required=True, help="Whose release it is.")
@click.option("--source-uri", required=True, help="Where the source is.")
@click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=90, show_default=True, help="Until not_after."
)
@click.option(
    "--not-reproducible",
    "irreproducible",
    type=(str, str),
    multiple=True,
    metavar="OUTPUT REASON",
    help="An output that nobody can make again to the same bytes, and why; may be repeated.",
)
@origin_option
@sequence_option
@url_option
@out_option
@json_option
def new(
    folder: Path,
    rows: tuple[Path, ...],
    service: str,
    source_uri: str,
    days: int,
    irreproducible: tuple[tuple[str, str], ...],
    origin: str,
    sequence: int | None,
    url: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Write the unsigned release of the image in FOLDER; read it, then sign and submit it."""
    found, material = load_all_rows(rows)
    head = Head(origin, service, sequence_of(sequence, url, service, "release"), statement.now())
    said = dict(irreproducible)
    predicate = release_predicate(
        folder, found, material, head, days=days, source_uri=source_uri, irreproducible=said
    )
    show_unsigned(statement.write("release", predicate, out), out, as_json=as_json)


@release_group.command(
    name="diff",
    epilog="\b\nExample:\n  quotary release diff old.entry new.entry"
    "\n  quotary release diff old.entry new.entry --images old-image new-image"
    "\n\nExit codes: 0, 2, 30, 40.",
)
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--images", nargs=2, type=FOLDER, help="Folders of both images: names packages and files too.")
@json_option
def diff(old: Path, new: Path, images: tuple[Path, Path] | None, as_json: bool) -> None:
    """Say what two releases (statements or entries) say differently, layer by layer, causes first."""
    layers = release_layers(_release(old), _release(new))
    layers += image_layers(*images) if images else ()
    lines = [line for layer in layers for line in (layer.name, *(f"  {one}" for one in layer.lines))]
    text = "\n".join(lines) or "the same source, lock, outputs, weights, policy and measurements"
    document = {
        "schema": "quotary/release-diff/v1",
        "difference": [line for layer in layers for line in layer.lines],
        "layers": {layer.name: list(layer.lines) for layer in layers},
    }
    emit(document, text, as_json=as_json)


@release_group.command(
    name="corim",
    epilog="\b\nExample:\n  quotary release corim release.entry --out release.corim"
    "\n\nExit codes: 0, 2, 30, 40.",
)
@click.argument("file", type=FILE)
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@json_option
def corim(file: Path, out: Path, as_json: bool) -> None:
    """Write the reference values of a release (statement or entry) as CoRIM, for other verifiers.

    Nothing in it says whether the release is in force: only the log does.
    """
    found, payload = statement.statement_of(statement.read(file))
    name = "sha256:" + hashlib.sha256(payload).hexdigest()
    made = corim_of(_require_release(found, file), name)
    data = made.encode()
    try:
        out.write_bytes(data)
    except OSError as error:
        raise CannotTell(f"cannot write {out}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    text = f"{digest}  {out}  {len(data)} bytes, {len(made.measurements)} measurements of {name}"
    document = {"schema": "quotary/release-corim/v1", "release": name, "sha256": digest, "size": len(data)}
    emit(document, text, as_json=as_json)


def _release(path: Path) -> Release:
    return _require_release(statement.statement_of(statement.read(path))[0], path)


def _require_release(found: Statement, path: Path) -> Release:
    if not isinstance(found.predicate, Release):
        raise Usage(f"{path} is a {found.kind}, not a release")
    return found.predicate
