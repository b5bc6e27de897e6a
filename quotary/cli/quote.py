"""``quotary quote``: look at hardware evidence, or verify what the vendor signed. Neither is a verdict."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.attestation.tdx import TDXQuote
from quotary.attestation.tdx import verify as verify_tdx
from quotary.canonical import hexbytes
from quotary.cli.files import read_bytes, read_json
from quotary.cli.making import TIME
from quotary.cli.output import emit, json_option
from quotary.client.clock import SystemClock
from quotary.errors import Malformed, Refused
from quotary.statements.measurement import measurement_id

FILE = click.Path(path_type=Path)
MAX_QUOTE = 1 << 20


@click.group(epilog="\b\nExample:\n  quotary quote inspect quote.bin")
def quote() -> None:
    """Look at or verify hardware evidence (TDX); what it means is decided by a policy."""


@quote.command(epilog="\b\nExample:\n  quotary quote inspect quote.bin\n\nExit codes: 0, 20, 30, 40.")
@click.argument("file", type=FILE)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what FILE says, without believing it."""
    found = TDXQuote.parse(_quote_bytes(file))
    fields = {name: value.hex() for name, value in found.body.items()}
    document = {"schema": "quotary/quote/v1", "proven": False, "version": found.version, "fields": fields}
    lines = [f"TDX quote, version {found.version}; nothing is verified"]
    lines += [f"  {name:<16} {value}" for name, value in fields.items()]
    emit(document, "\n".join(lines), as_json=as_json)


@quote.command(
    epilog="\b\nExample:\n  quotary quote verify quote.bin --collateral collateral.json --at 2026-11-21\n\n"
    "Exit codes: 0, 2, 10, 11, 20, 30, 40."
)
@click.argument("file", type=FILE)
@click.option("--collateral", type=FILE, required=True, help="The vendor's documents: JSON of nine strings.")
@click.option("--at", type=TIME, help="Time to hold certificates against, UTC; now if not said.")
@click.option("--simulator-root", "simulator_root_hex", help="SHA-256 of a simulator's root, in hex.")
@click.option("--simulation", is_flag=True, help="Accept that it proves nothing about hardware.")
@json_option
def verify(
    file: Path,
    collateral: Path,
    at: datetime | None,
    simulator_root_hex: str | None,
    simulation: bool,
    as_json: bool,
) -> None:
    """Verify that the vendor signed the quote in FILE; its TCB and registers are shown, not judged."""
    if simulator_root_hex is not None and not simulation:
        raise Refused("simulation", "a simulator's root", "--simulation beside it")
    roots: tuple[Root, ...] = VENDOR_ROOTS
    if simulator_root_hex is not None:
        roots = (simulator_root("tdx", hexbytes(simulator_root_hex, 32)),)
    now = SystemClock().now() if at is None else at.replace(tzinfo=UTC)
    parsed = TDXQuote.parse(_quote_bytes(file))
    facts = verify_tdx(parsed, Collateral.parse(_members(collateral)), now, roots)
    emit(_document(facts), _text(facts), as_json=as_json)


def _quote_bytes(file: Path) -> bytes:
    """Read a quote, raw or in hex; vendors' tools write both."""
    data = read_bytes(file, MAX_QUOTE)
    try:
        return bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        return data


def _members(file: Path) -> Mapping[str, str]:
    found = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Malformed(f"{file} is not a JSON object of strings")
    return found


def _document(facts: Facts) -> dict[str, object]:
    return {
        "schema": "quotary/facts/v1",
        "platform": facts.platform,
        "simulated": facts.simulated,
        "product": facts.product,
        "measurement": measurement_id(facts.platform, facts.registers).hex(),
        "registers": {name: value.hex() for name, value in facts.registers.items()},
        "report_data": facts.report_data.hex(),
        "tcb_status": facts.tcb.status,
        "advisories": list(facts.tcb.advisories),
        "evaluation_number": facts.tcb.evaluation_number,
        "judged_at": facts.judged_at.isoformat(),
        "checks": [
            {"name": check.name, "found": check.found, "wanted": check.wanted, "anchor": check.anchor}
            for check in facts.checks
        ],
    }


def _text(facts: Facts) -> str:
    lines = [f"  ok  {check.name:<16} {check.found}; against {check.anchor}" for check in facts.checks]
    lines.append(f"{facts.platform} {facts.product}, TCB {facts.tcb.status}")
    lines.append(f"at {facts.judged_at.isoformat()}")
    lines.append(f"measurement {measurement_id(facts.platform, facts.registers).hex()}")
    lines.append("the vendor signed this; no policy, log or nonce was looked at")
    if facts.simulated:
        lines.append("SIMULATED evidence, proves nothing about hardware")
    return "\n".join(lines)
