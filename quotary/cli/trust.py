"""``quotary trust``: what this machine has accepted of each log, and the proofs of forks that it keeps."""

from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.canonical import time_text
from quotary.cli.options import memory
from quotary.cli.output import emit, json_option
from quotary.client.disk import write_new
from quotary.client.trust import Accepted
from quotary.errors import CannotTell


@click.group(epilog="\b\nExample:\n  quotary trust show")
def trust() -> None:
    """Show what this machine has accepted; QUOTARY_TRUST names another folder."""


@trust.command(epilog="\b\nExample:\n  quotary trust show\n\nExit codes: 0, 30 a damaged file, 40.")
@json_option
def show(as_json: bool) -> None:
    """Show the newest accepted checkpoint of each log, and evidence of forks."""
    store = memory()
    accepted, evidence = store.all(), [str(path) for path in store.evidence()]
    document = {
        "schema": "quotary/trust/v1",
        "logs": [_document(record) for record in accepted],
        "fork_evidence": evidence,
    }
    lines = [
        f"{record.origin}\n  {record.size} entries, root {record.root.hex()}\n"
        f"  vouched for by the quorum at {_time(record)}"
        + ("\n  ENDED with this size" if record.final else "")
        for record in accepted
    ]
    lines += [f"FORK EVIDENCE  {path}" for path in evidence]
    emit(document, "\n".join(lines) or "no log has been accepted yet", as_json=as_json)


@trust.command(
    epilog="\b\nExample:\n  quotary trust export log.example.org/main --out newest.note\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@click.argument("origin")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the signed note.")
def export(origin: str, out: Path) -> None:
    """Write the newest accepted checkpoint of ORIGIN, to compare it with somebody else's."""
    found = memory().newest(origin)
    if found is None:
        raise CannotTell(
            f"no checkpoint of {origin} has been accepted here", next_command="quotary trust show"
        )
    write_new(out, found.note)
    click.echo(f"{origin} at {found.size} entries: {out}")


def _document(record: Accepted) -> dict[str, object]:
    return {
        "origin": record.origin,
        "size": record.size,
        "root": record.root.hex(),
        "quorum_time": _time(record),
        "ended": record.final,
    }


def _time(record: Accepted) -> str:
    return time_text(datetime.fromtimestamp(record.quorum_at, UTC))
