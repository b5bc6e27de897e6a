"""``quotary floor``: set the oldest firmware of a product that anybody accepts."""

from datetime import datetime
from pathlib import Path

import click

from quotary.canonical import Fields
from quotary.cli.files import read_json
from quotary.cli.making import Making, finish, statement_options
from quotary.statements.floor import parse_floor
from quotary.statements.predicates import LOG_SERVICE


@click.command(
    epilog="\b\nExample:\n"
    "  quotary floor --platform tdx --product 50806f000000 --floor floor.json --origin log.example.org/m \\\n"
    "    --expires 2027-01-01 --key tcb1.key --key tcb2.key --url https://log.example.org --submit\n\n"
    "Exit codes: 0, 2, 11 key file, 30, 40, 41 the log refuses it."
)
@click.option("--platform", required=True, help="tdx, snp, ... or sim-tdx.")
@click.option("--product", required=True, help="What the vendor keeps levels for; FMSPC in hex for TDX.")
@click.option(
    "--floor",
    "floor_file",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON file: minimum, evaluation_number, accepted_status, grace_seconds, denied_*.",
)
@statement_options
def floor(
    platform: str,
    product: str,
    floor_file: Path,
    origin: str,
    sequence: int | None,
    expires: datetime,
    key_files: tuple[Path, ...],
    output: Path | None,
    url: str | None,
    send: bool,
    as_json: bool,
) -> None:
    """Make, sign and send a TCB floor; one lower than before takes effect only 72 h later."""
    found = parse_floor(Fields(read_json(floor_file), "floor"), platform)
    predicate = {"platform": platform, "product": product, "floor": found.document()}
    making = Making(origin, sequence, expires, key_files, output, url, send, as_json)
    finish("tcb-floor", LOG_SERVICE, predicate, making)
