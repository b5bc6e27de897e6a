"""``quotary sign``, ``submit`` and ``revoke``: from a reviewed statement to an entry of the log."""

from datetime import timedelta
from pathlib import Path

import click

from builder import statement
from builder.statement import Head
from quotary.canonical import time_text
from quotary.cli.output import emit, json_option
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.submit import submit as send
from quotary.errors import Usage
from quotary.net.transport import HTTP
from quotary.statements.schema import Statement

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
MAX_SUSPENSION_HOURS = 72

origin_option = click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main.")
sequence_option = click.option("--sequence", type=click.IntRange(1), help="Number of the statement.")
url_option = click.option("--url", help="Address of the log; it is asked for the next number.")
out_option = click.option("--out", required=True, type=NEW_FILE, help="New file for the unsigned statement.")


key_option = click.option(
    "--key",
    "keys",
    required=True,
    multiple=True,
    type=FILE,
    help="Secret key file, or .token file of a PKCS #11 token; may be repeated.",
)


@click.command(
    epilog="\b\nExample:\n  quotary sign release.json --key builder.key --out release.entry"
    "\n\nExit codes: 0, 2, 11 a key file that others may read, 30, 40.",
)
@click.argument("file", type=FILE)
@click.option(
    "--key",
    "keys",
    required=True,
    multiple=True,
    type=FILE,
    help="Secret key file, or .token file; may be repeated.",
)
@click.option("--out", required=True, type=NEW_FILE, help="File for the signed entry.")
@json_option
def sign(file: Path, keys: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Sign the statement in FILE, or add signatures to the entry in FILE."""
    found, entry = statement.sign_file(statement.read(file), [open_signer(path) for path in keys])
    out.write_bytes(entry)
    document = {
        "schema": "quotary/signed/v1",
        "kind": found.kind,
        "statement_id": found.statement_id,
        "entry": str(out),
        "length": len(entry),
    }
    text = f"signed {found.kind} {found.statement_id}\nof {found.service}, sequence {found.sequence}: {out}"
    emit(document, text, as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary submit release.entry --url https://log.example.org --wait"
    "\n\nExit codes: 0, 2, 10 the log answers for another entry, 30, 40, 41 the log refuses it.",
)
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--url", required=True, help="Address of the log.")
@click.option("--wait", is_flag=True, help="Return when the entries are published.")
@json_option
def submit(files: tuple[Path, ...], url: str, wait: bool, as_json: bool) -> None:
    """Send signed entries to a log and hold its answers against what was sent."""
    log = LogClient(HTTP(), url)
    answers = []
    for path in files:
        found = send(
            log, statement.read(path), wait=wait, tick=lambda: click.echo("waiting for the log", err=True)
        )
        answers.append(
            {
                "file": str(path),
                "statement_id": found.statement_id,
                "leaf_hash": found.leaf_hash.hex(),
                **({"index": found.index} if found.index is not None else {"promise": found.promise}),
            }
        )
    lines = [
        f"{one['statement_id']}  {'index ' + str(one['index']) if 'index' in one else 'promised'}"
        f"\n  leaf hash {one['leaf_hash']}; proof: quotary proof {one['leaf_hash']} --url {url}"
        for one in answers
    ]
    emit({"schema": "quotary/submitted/v1", "entries": answers}, "\n".join(lines), as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary revoke --release sha256:... --service chat --origin log.example.org/main"
    " --reason 'wrong weights' --sequence 1 --out revoke.json\n\nExit codes: 0, 2, 30, 40.",
)
@click.option("--release", help="Statement id of the release.")
@click.option("--measurement", "measurements", multiple=True, help="Measurement id in hex; may be repeated.")
@click.option("--service", required=True, help="Whose release it is.")
@click.option("--reason", required=True, help="Why, in one line that everybody will read.")
@click.option("--advisory", help="Where to read more.")
@click.option("--replacement", help="Statement id of the release to use instead.")
@click.option("--suspend-hours", type=click.IntRange(1, MAX_SUSPENSION_HOURS), help="Suspend, not revoke.")
@origin_option
@sequence_option
@url_option
@out_option
@json_option
def revoke(
    release: str | None,
    measurements: tuple[str, ...],
    service: str,
    reason: str,
    advisory: str | None,
    replacement: str | None,
    suspend_hours: int | None,
    origin: str,
    sequence: int | None,
    url: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Write the statement that revokes (for ever) or suspends a release or measurements."""
    head = Head(origin, service, sequence_of(sequence, url, service, "revocation"), statement.now())
    predicate = head.members() | {"reason": reason}
    predicate |= {"release": release} if release else {"measurements": sorted(set(measurements))}
    if release and measurements:
        raise Usage("name a release or measurements, not both")
    if suspend_hours is None:
        predicate |= {"action": "revoke"}
    else:
        until = time_text(head.issued + timedelta(hours=suspend_hours))
        predicate |= {"action": "suspend", "until": until}
    optional = {"advisory": advisory, "replacement": replacement}
    predicate |= {name: value for name, value in optional.items() if value}
    show_unsigned(statement.write("revocation", predicate, out), out, as_json=as_json)


def sequence_of(given: int | None, url: str | None, service: str, kind: str) -> int:
    """Return the number given, or the one that the log names."""
    if given is not None:
        return given
    if url is None:
        raise Usage("give --sequence, or --url of the log to ask")
    return LogClient(HTTP(), url).next_sequence(service, kind)


def show_unsigned(found: Statement, out: Path, *, as_json: bool) -> None:
    """Print what was written and what comes next."""
    document = {
        "schema": "quotary/statement/v1",
        "kind": found.kind,
        "statement_id": found.statement_id,
        "sequence": found.sequence,
        "file": str(out),
    }
    text = (
        f"{found.kind} {found.statement_id}\nof {found.service}, sequence {found.sequence}, unsigned: {out}"
    )
    emit(document, f"{text}\nnext: quotary sign {out} --key KEY --out {out}.entry", as_json=as_json)
