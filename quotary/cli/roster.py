"""``quotary roster``: log which instances a service has, and see which a client could pick."""

import re
import threading
from pathlib import Path

import click

from quotary.canonical import time_text
from quotary.cli.options import log_client, memory, policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option, summary, table
from quotary.client.clock import SystemClock
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.roster import Picked, Roster, read_roster
from quotary.client.roster_maker import RosterMaker
from quotary.client.source import Files, HTTPSource
from quotary.client.submit import submit
from quotary.client.verdict import Trail, documents
from quotary.client.ways import the_service
from quotary.errors import QuotaryError, Usage
from quotary.net.transport import HTTP
from quotary.statements.envelope import sign

_INSTANCE = re.compile(r"([a-z0-9][a-z0-9-]{0,62})=(https?://[!-~]{1,1000})")


@click.group(epilog="\b\nExample:\n  quotary roster show --policy policy.json")
def roster() -> None:
    """Log which instances a service has, so that clients choose among them themselves."""


@roster.command(
    epilog="\b\nExample:\n  quotary roster publish a=https://a.example.org b=https://b.example.org \\\n"
    "    --service example.org/chat --origin log.example.org/main --log https://log.example.org \\\n"
    "    --key keyset.key\n\nExit codes: 0, 2, 30, 40, 41."
)
@click.argument("instances", nargs=-1, required=True, metavar="NAME=URL...")
@click.option("--service", required=True, help="Whose instances they are.")
@click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main.")
@click.option("--log", "log_url", required=True, help="Address of the log.")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Key of the role keyset.")
@click.option("--interval", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Log once and end.")
@json_option
def publish(
    instances: tuple[str, ...],
    service: str,
    origin: str,
    log_url: str,
    key: Path,
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Log the keysets of the instances, under the names that the relay has for them, when one is new."""
    transport = HTTP(plain_http=origin.endswith("/simulation"))
    maker = RosterMaker(dict(map(_pair, instances)), service, origin, transport, SystemClock())
    signer, log = open_signer(key), LogClient(transport, log_url)
    while True:
        try:
            made = maker.made()
            if made is not None:
                found = submit(log, sign(made.payload, [signer]), wait=True)
                maker.logged(made)
                document = {
                    "schema": "quotary/roster-entry/v1",
                    "index": found.index,
                    "instances": made.names,
                }
                emit(document, f"entry {found.index}: {', '.join(made.names)}", as_json=as_json)
        except QuotaryError as error:
            if once:
                raise
            click.echo(f"error: {error}", err=True)
        if once:
            return
        threading.Event().wait(interval)


@roster.command(
    epilog="\b\nExample:\n  quotary roster show --policy policy.json\n\nExit codes: 0, 2, 10, 11, 30, 40."
)
@policy_option
@simulation_option
@click.option("--service", help="Whose instances, if the policy names several services.")
@click.option("--log", "log_url", help="Address of the log, if not the one in the policy.")
@json_option
def show(
    policy_file: Path, simulation: bool, service: str | None, log_url: str | None, as_json: bool
) -> None:
    """List the instances that a client could pick now, as the last hour of the log has them."""
    policy, trail = read_policy(policy_file, simulation=simulation), Trail()
    found = _read(policy, the_service(policy, service), log_url, trail)
    document = {
        "schema": "quotary/roster/v1",
        "service": found.service,
        "origin": found.origin,
        "size": found.size,
        "instances": {name: sorted(d.hex() for d in digests) for name, digests in found.keysets.items()},
        "entries": sorted(found.entries),
        "signed by the service": "not checked",
        "checks": documents(trail.checks),
    }
    lines = [f"{name}: {len(digests)} keysets" for name, digests in sorted(found.keysets.items())]
    said = f"{len(found.keysets)} instances of {found.service} at {found.size} entries of {found.origin}"
    missing = "not checked: that the service signed them, which a client does with the machine that it picks"
    emit(
        document,
        "\n".join([table(trail.checks), *lines, said, missing, summary(trail.checks)]),
        as_json=as_json,
    )


def pick_instance(policy: Policy, service: str, log_url: str | None, least: int) -> Picked:
    """Choose an instance of a service by this machine's own randomness."""
    trail = Trail()
    found = _read(policy, service, log_url, trail).pick(least)
    count, at = len(found.roster.keysets), time_text(SystemClock().now().replace(microsecond=0))
    click.echo(f"picked {found.name} of {count} instances at {found.roster.size} entries, {at}", err=True)
    return found


def _read(policy: Policy, service: str, log_url: str | None, trail: Trail) -> Roster:
    log = log_client(policy, log_url)
    files = Files(HTTPSource(HTTP(plain_http=policy.simulation), log.url))
    return read_roster(files, policy, service, memory(), SystemClock(), trail)


def _pair(text: str) -> tuple[str, str]:
    found = _INSTANCE.fullmatch(text)
    if found is None:
        raise Usage(f"an instance is NAME=URL, found {text}")
    return found[1], found[2].rstrip("/")
