"""``quotary location``: say where machines stand, and how that is known."""

import hashlib
from datetime import timedelta
from pathlib import Path

import click

from quotary.attestation.document import MAX_DOCUMENT
from quotary.canonical import time_text
from quotary.cli.files import read_bytes
from quotary.cli.output import emit, json_option
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.statements.location import CLASSES, KIND, MAX_LIFETIME, Location
from quotary.statements.schema import statement_payload


@click.command(
    epilog="\b\nExample:\n  quotary location --machine 0f1e2d3c4b5a69788796a5b4c3d2e1f0 --place de-fra-1 \\\n"
    "    --class auditors-visit --document report.pdf --service example.org/auditor \\\n"
    "    --origin log.example.org/main --sequence 1 --out location.json\n"
    "  quotary sign location.json --key location.key --out location.entry\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@click.option("--machine", "machines", multiple=True, required=True, help="PPID or chip id in hex; repeat.")
@click.option("--place", required=True, help="A code of your own, e.g. de-fra-1.")
@click.option("--class", "evidence", type=click.Choice(CLASSES), required=True, help="How it is known.")
@click.option("--document", type=click.Path(path_type=Path), help="What it rests on; its digest is logged.")
@click.option("--days", type=click.IntRange(1, MAX_LIFETIME.days), default=31, show_default=True)
@click.option("--service", required=True, help="The attester's service in the log.")
@click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main.")
@click.option("--sequence", type=click.IntRange(1), required=True, help="Number of the statement.")
@click.option("--out", "output", type=click.Path(path_type=Path), required=True, help="New file, unsigned.")
@json_option
def location(
    machines: tuple[str, ...],
    place: str,
    evidence: str,
    document: Path | None,
    days: int,
    service: str,
    origin: str,
    sequence: int,
    output: Path,
    as_json: bool,
) -> None:
    """Make a statement that some machines stand in a place; its signer is believed, nothing is measured."""
    now = SystemClock().now().replace(microsecond=0)
    digest = None if document is None else hashlib.sha256(read_bytes(document, MAX_DOCUMENT)).digest()
    said = Location(tuple(sorted(set(machines))), place, evidence, digest, now, now + timedelta(days=days))
    header = {"log": origin, "service": service, "sequence": sequence, "issued": time_text(now)}
    write_new(output, statement_payload(KIND, header | dict(said.members())))
    text = f"{len(said.machines)} machines in {place}, by {evidence}\n"
    text += f"next: quotary sign {output} --key KEY --out {output}.entry"
    emit({"schema": "quotary/location/v1", "file": str(output), "place": place}, text, as_json=as_json)
