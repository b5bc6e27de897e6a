"""What the commands that make statements share: options for the header, signing and submitting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from quotary.canonical import time_text
from quotary.cli.output import emit, json_option
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.submit import submit
from quotary.errors import Usage
from quotary.net.transport import HTTP
from quotary.statements.envelope import sign, statement_id
from quotary.statements.schema import statement_payload

F = TypeVar("F", bound=Callable[..., Any])

TIME = click.DateTime(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])


@dataclass(frozen=True, slots=True)
class Making:
    """What was asked for besides the predicate's own members."""

    origin: str
    sequence: int | None
    expires: datetime
    key_files: tuple[Path, ...]
    output: Path | None
    url: str | None
    send: bool
    as_json: bool


def statement_options(command: F) -> F:
    """Add the options of every command that makes a statement; ``making`` takes their values."""
    for option in (
        json_option,
        click.option("--submit", "send", is_flag=True, help="Send it to the log and wait for its place."),
        click.option("--url", help="Address of the log; it is asked for the next number."),
        click.option("--out", "output", type=click.Path(path_type=Path), help="New file for the statement."),
        click.option(
            "--key",
            "key_files",
            type=click.Path(path_type=Path),
            multiple=True,
            help="Secret key file, or .token file, to sign with; repeat for m of n; none leaves it unsigned.",
        ),
        click.option("--expires", type=TIME, required=True, help="End of its authority, UTC."),
        click.option(
            "--sequence", type=click.IntRange(1), help="Number of the statement: previous plus one."
        ),
        click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main."),
    ):
        command = option(command)
    return command


def finish(kind: str, service: str, members: Mapping[str, object], making: Making) -> None:
    """Write a statement with the common members, sign it, send it, and say what came of it."""
    _check_purpose(making)
    payload = statement_payload(kind, {**_header(kind, service, making), **members})
    data = sign(payload, [open_signer(path) for path in making.key_files]) if making.key_files else payload
    document: dict[str, object] = {"schema": "quotary/statement/v1", "kind": kind}
    document |= {"statement_id": statement_id(payload), "signed": bool(making.key_files)}
    lines = [f"{kind} {statement_id(payload)}"]
    if making.output is not None:
        write_new(making.output, data)
        document["file"] = str(making.output)
        lines.append(f"{'signed' if making.key_files else 'unsigned'}: {making.output}")
    if making.send and making.url is not None:
        found = submit(LogClient(HTTP(), making.url), data, wait=True, tick=_waiting)
        document |= {"index": found.index, "leaf_hash": found.leaf_hash.hex()}
        lines.append(f"entry {found.index} of {making.url}, by the log's word")
        lines.append(f"next: quotary proof {found.index} --policy policy.json")
    elif not making.key_files:
        lines.append(f"next: quotary sign {making.output} --key KEY --out {making.output}.entry")
    emit(document, "\n".join(lines), as_json=making.as_json)


def _check_purpose(making: Making) -> None:
    if making.output is None and not making.send:
        raise Usage("nothing to do with the statement", next_command="add --out FILE or --submit")
    if making.send and (making.url is None or not making.key_files):
        raise Usage("--submit needs --url and at least one --key")


def _header(kind: str, service: str, making: Making) -> dict[str, object]:
    sequence = making.sequence
    if sequence is None:
        if making.url is None:
            raise Usage("give --sequence, or --url of the log to ask")
        sequence = LogClient(HTTP(), making.url).next_sequence(service, kind)
    return {
        "log": making.origin,
        "service": service,
        "sequence": sequence,
        "issued": time_text(SystemClock().now().replace(microsecond=0)),
        "expires": time_text(making.expires.replace(tzinfo=UTC)),
    }


def _waiting() -> None:
    click.echo("waiting for the log to publish it", err=True)
