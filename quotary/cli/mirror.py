"""``quotary mirror``: a verified, byte-exact copy of a log."""

from pathlib import Path

import click

from quotary.cli.options import policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option
from quotary.cli.replaying import files_of, progress
from quotary.client.finding import Finding, keep
from quotary.client.mirror import mirror as make_copy
from quotary.errors import CannotTell


@click.command(
    epilog="\b\nExamples:\n  quotary mirror https://log.example.org ./copy --policy policy.json\n"
    "  quotary audit ./copy --policy policy.json\n\nExit codes: 0, 2, 10 a finding, 11, 30, 40."
)
@click.argument("log")
@click.argument("folder", type=click.Path(path_type=Path))
@policy_option
@simulation_option
@json_option
def mirror(log: str, folder: Path, policy_file: Path, simulation: bool, as_json: bool) -> None:
    """Copy what LOG, an address or another copy, publishes into FOLDER, under the same paths.

    Every byte is proven under the signed checkpoint before it is kept; a second run fetches only what is new.
    Who wants to know that the statuses are right too runs `quotary audit FOLDER`.
    """
    policy = read_policy(policy_file, simulation=simulation)
    files = files_of(log, policy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotTell(f"cannot make {folder}: {error.strerror}") from error
    try:
        found = make_copy(files, folder, policy, progress)
    except Finding as finding:
        path = keep(finding, policy.origin, folder.with_name(folder.name + ".findings"))
        click.echo(f"finding: {path}", err=True)
        raise
    document = {
        "schema": "quotary/mirror/v1",
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "fetched": found.fetched,
        "files_written": found.files,
        "folder": str(folder),
    }
    text = (
        f"{folder} holds {found.size} entries of {found.origin}, root {found.root.hex()}\n"
        f"  {found.fetched} entries fetched, {found.files} files written, all proven under that root"
    )
    emit(document, text, as_json=as_json)
