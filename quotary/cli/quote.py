"""``quotary quote``: look at hardware evidence, or verify what the vendor signed. Neither is a verdict."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.attestation.facts import Facts
from quotary.attestation.kept import MAX_KEPT, NONCE_LENGTH, Kept
from quotary.attestation.nras import ClaimedDevice
from quotary.attestation.quote import Terms, Verified, verify_quote
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.canonical import hexbytes
from quotary.cli.fields import fields_of
from quotary.cli.files import read_bytes, read_json
from quotary.cli.making import TIME
from quotary.cli.options import offline_option
from quotary.cli.output import emit, json_option, word
from quotary.client.clock import SystemClock
from quotary.client.collateral import Cache, Fetcher, gather
from quotary.client.disk import write_new
from quotary.errors import Malformed, Refused
from quotary.net.transport import HTTP, Offline
from quotary.net.vendors import Services
from quotary.statements.facts import SERVICE, facts_document, outcome
from quotary.statements.measurement import measurement_id

FILE = click.Path(path_type=Path)
MAX_AGE = timedelta(minutes=5)


@click.group(epilog="\b\nExample:\n  quotary quote inspect quote.bin")
def quote() -> None:
    """Look at or verify hardware evidence; what it means is decided by a policy."""


@quote.command(epilog="\b\nExample:\n  quotary quote inspect quote.bin\n\nExit codes: 0, 20, 30, 40.")
@click.argument("file", type=FILE)
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Show what FILE says, without believing it: TDX, SGX, SNP, Nitro, NVIDIA or Azure HCL.

    FILE may be what `quotary quote verify --keep` wrote.
    """
    title, fields = fields_of(_kept(file, None, None).evidence)
    document = {"schema": "quotary/quote/v1", "proven": False, "kind": title, "fields": dict(fields)}
    width = max(map(len, fields))
    lines = [f"{title}; nothing is verified"]
    lines += [f"  {name:<{width}} {value}" for name, value in fields.items()]
    emit(document, "\n".join(lines), as_json=as_json)


@quote.command(
    epilog="\b\nExample:\n  quotary quote verify quote.bin --collateral collateral.json --at 2026-11-21\n\n"
    "Exit codes: 0, 2, 10, 11, 20, 30, 40."
)
@click.argument("file", type=FILE)
@click.option("--collateral", type=FILE, help="The vendor's documents: a JSON object of texts.")
@click.option("--at", type=TIME, help="Time to hold certificates against, UTC; now if not said.")
@click.option(
    "--nonce",
    "nonces",
    multiple=True,
    help="Nonce in hex, one for each NVIDIA device in order; one for a token of NVIDIA's service.",
)
@click.option("--simulator-root", "simulator_root_hex", help="SHA-256 of a simulator's root, in hex.")
@click.option("--simulation", is_flag=True, help="Accept that it proves nothing about hardware.")
@click.option("--fetch", is_flag=True, help="Ask the vendor's services for what --collateral lacks.")
@click.option("--registry", default="", metavar="URL", help="With --fetch: ask a registry before them.")
@click.option("--cache", type=FILE, help="Folder of what was fetched, if not the user's own.")
@click.option("--keep", type=FILE, help="New file for evidence, collateral and time: repeats this offline.")
@offline_option
@json_option
def verify(
    file: Path,
    collateral: Path | None,
    at: datetime | None,
    nonces: tuple[str, ...],
    simulator_root_hex: str | None,
    simulation: bool,
    fetch: bool,
    registry: str,
    cache: Path | None,
    keep: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Verify that the vendor signed the evidence in FILE; registers and TCB are shown, not judged.

    Of a token of NVIDIA's attestation service it is verified that NVIDIA said so, not that it is so.

    FILE may be what --keep wrote; then it brings its collateral and its time.
    """
    if simulator_root_hex is not None and not simulation:
        raise Refused("simulation", "a simulator's root", "--simulation beside it")
    kept = _kept(file, None if collateral is None else _members(collateral), at)
    if nonces:
        kept = replace(kept, nonces=tuple(hexbytes(nonce, NONCE_LENGTH) for nonce in nonces))
    terms = Terms(_roots(simulator_root_hex), kept.judged_at, MAX_AGE, kept.nonces)
    with warnings.catch_warnings():
        # AMD gives every VCEK the serial number 0, which the library that parses them warns about.
        warnings.filterwarnings("ignore", message="Parsed a serial number")
        if fetch:
            transport = Offline() if offline else HTTP()
            source = Fetcher(
                transport,
                Cache(cache or Path.home() / ".cache" / "quotary" / "collateral"),
                Services(),
                SystemClock().now(),
                registry,
            )
            kept = replace(kept, collateral=gather(kept.evidence, kept.collateral, terms, source))
        found = verify_quote(kept.evidence, kept.collateral, terms)
    if keep is not None:
        write_new(keep, bytes(kept))
    emit(facts_document(found), _text(found), as_json=as_json)


def _roots(simulator_root_hex: str | None) -> tuple[Root, ...]:
    if simulator_root_hex is None:
        return VENDOR_ROOTS
    digest = hexbytes(simulator_root_hex, 32)
    return tuple(simulator_root(name, digest) for name in sorted({root.platform for root in VENDOR_ROOTS}))


def _kept(file: Path, members: Mapping[str, str] | None, at: datetime | None) -> Kept:
    """Bring evidence, collateral and time together; what the options say goes before what was kept."""
    data = _quote_bytes(file)
    now = SystemClock().now().replace(microsecond=0)
    found = Kept.parse(data) if data.startswith(b"{") else Kept(data, {}, now, ())
    if members is not None:
        found = replace(found, collateral=members)
    return found if at is None else replace(found, judged_at=at.replace(tzinfo=UTC))


def _quote_bytes(file: Path) -> bytes:
    """Read evidence, raw or in hex; vendors' tools write both."""
    data = read_bytes(file, MAX_KEPT)
    try:
        return bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        return data


def _members(file: Path) -> Mapping[str, str]:
    found = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise Malformed(f"{file} is not a JSON object of strings")
    return found


def _text(found: Verified) -> str:
    marks = [outcome(check) for check in found.checks]
    width, names = max(map(len, marks)), max(len(check.name) for check in found.checks)
    lines = [
        f"  {mark:<{width}}  {check.name:<{names}}  {check.found}; against {check.anchor}"
        for mark, check in zip(marks, found.checks, strict=True)
    ]
    lines += _summary(found.facts) if found.facts is not None else []
    for device in found.devices:
        driver = f", driver {device.driver}" if device.driver else ""
        lines.append(f"{device.platform} {device.architecture} {device.kind}{driver}, VBIOS {device.vbios}")
    if found.claims is None:
        lines.append("the vendor signed this; no policy, log or nonce in report data was looked at")
    else:
        lines += [_said(device) for device in found.claims.devices]
        lines.append(f"{SERVICE} says so; the devices' own evidence was not verified here")
    if found.simulated:
        lines.append("SIMULATED evidence, proves nothing about hardware")
    return "\n".join(lines)


def _said(device: ClaimedDevice) -> str:
    driver = f", driver {word(device.driver)}" if device.driver else ""
    return (
        f"{device.name} {word(device.model)}{driver}, VBIOS {word(device.vbios)}, serial {word(device.ueid)}"
    )


def _summary(facts: Facts) -> list[str]:
    return [
        f"{facts.platform} {facts.product}, TCB {facts.tcb.status}",
        f"at {facts.judged_at.isoformat()}",
        f"measurement {measurement_id(facts.platform, facts.registers).hex()}",
    ]
