"""``quotary audit``: check everything that a log ever said, and with a key, say so."""

import os
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.canonical import time_text
from quotary.cli.files import read_bytes
from quotary.cli.options import policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option
from quotary.cli.predecessor import Before, before_of, predecessor_options
from quotary.cli.replaying import FINDINGS, default_store, files_of, progress
from quotary.client.audit import Audited, Auditor
from quotary.client.cosigner import Cosigner, CosignServer
from quotary.client.finding import Finding, keep
from quotary.client.inheritance import Inherited, Successor
from quotary.client.keys import load
from quotary.client.log import MAX_NOTE
from quotary.client.opener import Opener
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.second_opinion import cross_check, entries_of
from quotary.client.source import Files
from quotary.errors import CannotTell, Usage
from quotary.garbage import collected_rarely
from quotary.tlog.note import SigningKey


@click.command(
    epilog="\b\nExamples:\n  quotary audit https://log.example.org --policy policy.json\n"
    "  quotary audit ./copy --policy policy.json --cross-check\n"
    "  quotary audit ./log2 --policy 2.json --predecessor ./log --predecessor-policy 1.json\n"
    "  quotary audit https://log.example.org --policy policy.json --cosign a.key --name a.example.net\n\n"
    "Exit codes: 0, 2, 10 a finding, 11, 20, 30, 40."
)
@click.argument("log")
@policy_option
@simulation_option
@click.option("--store", type=click.Path(path_type=Path), help="What the audit remembers between runs.")
@click.option(
    "--checkpoint",
    "notes",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A signed checkpoint from elsewhere that must be part of the same history; repeatable.",
)
@click.option("--continuous", is_flag=True, help="Go on auditing what the log appends, until a finding.")
@click.option("--interval", type=click.IntRange(1, 86_400), default=30, show_default=True, help="Seconds.")
@click.option("--cross-check", "second", is_flag=True, help="Let pymerkle rebuild the tree as well.")
@click.option(
    "--cosign",
    "key_file",
    type=click.Path(path_type=Path),
    help="Serve as map auditor: cosign with this key what was audited (needs --name).",
)
@click.option("--name", help="With --cosign: the key's name, as in policies.")
@click.option(
    "--bind", default="127.0.0.1:8482", show_default=True, help="With --cosign: host:port; port 0 takes any."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="Processes that verify signatures.  [default: one for each processor; 1: all in this process]",
)
@predecessor_options
@json_option
def audit(
    log: str,
    policy_file: Path,
    simulation: bool,
    store: Path | None,
    notes: tuple[Path, ...],
    continuous: bool,
    interval: int,
    second: bool,
    key_file: Path | None,
    name: str | None,
    bind: str,
    jobs: int | None,
    old_log: str | None,
    old_policy: Path | None,
    as_json: bool,
) -> None:
    """Check everything that LOG, an address or a folder made by `quotary mirror`, has ever said.

    Every entry, tile, root, statement, state entry and map root is recomputed; the next run goes on from
    there. A finding is written to a file that proves it to others.
    """
    policy = read_policy(policy_file, simulation=simulation)
    files = files_of(log, policy)
    folder = store or default_store(policy.origin)
    others = [read_bytes(path, MAX_NOTE) for path in notes]
    if (key_file is None) != (name is None):
        raise Usage("--cosign and --name belong together")
    if old_log is not None and (continuous or key_file is not None):
        raise Usage("a predecessor is compared once, without --continuous and --cosign")
    jobs = jobs or os.cpu_count() or 1
    before = before_of(old_log, old_policy, policy, store and store / "predecessor", jobs)
    with ReplayStore(folder, policy.origin) as opened, Opener(jobs) as opener, collected_rarely():
        try:
            if key_file is not None and name is not None:
                _cosign(log, policy, opened, SigningKey.cosigner(name, load(key_file)), bind)
                return
            auditor = Auditor(policy, opened, progress, opener)
            while True:
                _round(
                    auditor, files, others, policy, before, second=second, patient=continuous, as_json=as_json
                )
                if not continuous:
                    return
                threading.Event().wait(interval)
        except Finding as finding:
            path = keep(finding, policy.origin, folder / FINDINGS)
            click.echo(f"finding: {path}", err=True)
            raise


def _round(
    auditor: Auditor,
    files: Files,
    others: list[bytes],
    policy: Policy,
    before: Before | None,
    *,
    second: bool,
    patient: bool,
    as_json: bool,
) -> None:
    """Audit once and print it; a patient auditor waits for a log that does not answer."""
    try:
        found = auditor.audit(files, others)
        paths = cross_check(files, auditor.note, entries_of(files, auditor.note)) if second else None
        successor = Successor(found, auditor.note, files, policy.tlog.logs)
        inherited = before.compare(successor, progress) if before else None
    except CannotTell as error:
        if not patient:
            raise
        click.echo(f"waiting: {error}", err=True)
    else:
        emit(_document(found, paths, inherited), _text(found, paths, inherited, policy), as_json=as_json)


def _cosign(log: str, policy: Policy, store: ReplayStore, key: SigningKey, bind: str) -> None:
    """Serve add-checkpoint until stopped; the address and the key stand in the first two lines on stdout."""
    if not log.startswith(("http://", "https://")):
        raise Usage("a cosigner needs the address of a running log")
    host, _, port = bind.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise Usage(f"--bind is host:port, found {bind}")
    files = files_of(f"{log.rstrip('/')}/signed", policy)
    cosigner = Cosigner(policy, store, files, key, lambda: datetime.now(UTC), store.path.parent / FINDINGS)
    try:
        cosigner.catch_up(files_of(log, policy), progress)
    except CannotTell as error:
        click.echo(f"nothing replayed yet: {error}", err=True)
    try:
        server = CosignServer((host, int(port)), cosigner, lambda line: click.echo(line, err=True))
    except OSError as error:
        raise CannotTell(f"cannot listen on {bind}: {error.strerror}") from error
    with server:
        click.echo(f"http://{host}:{server.server_address[1]}")
        click.echo(key.verifier.vkey())
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


def _document(found: Audited, paths: int | None, inherited: Inherited | None) -> dict[str, object]:
    document: dict[str, object] = {
        "schema": "quotary/audit/v1",
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "log_time": _time(found.log_time),
        "map_root": found.map_root.hex(),
        "state_entries": found.states,
        "outcomes": dict(found.outcomes),
        "orders": [
            {"index": index, "kind": order.kind, "says": order.sentence} for index, order in found.orders
        ],
        "replayed_now": found.fresh,
        "continued_checkpoints": found.checkpoints,
    }
    if found.quorum_at is not None:
        document["quorum_time"] = _time(found.quorum_at)
    if paths is not None:
        document["cross_checked_paths"] = paths
    if inherited is not None:
        document["predecessor"] = asdict(inherited)
    return document


def _text(found: Audited, paths: int | None, inherited: Inherited | None, policy: Policy) -> str:
    quorum = "no quorum in the policy" if found.quorum_at is None else _time(found.quorum_at)
    outcomes = ", ".join(f"{count} {code}" for code, count in found.outcomes.items())
    lines = [
        f"every check held for {found.size} entries of {found.origin}",
        f"  root        {found.root.hex()}, signed by {len(policy.tlog.logs)} log keys",
        f"  quorum      {quorum}",
        f"  statements  {outcomes}",
        f"  map root    {found.map_root.hex()}, derived here, as in {found.states} state entries",
        f"  log time    {_time(found.log_time)}",
        f"  this run    {found.fresh} entries; continues {found.checkpoints} other checkpoints",
    ]
    lines += [f"  order       entry {index}: {order.sentence}" for index, order in found.orders]
    if found.orders and found.orders[-1][1].ends_log:
        lines.append(
            "  ENDED       this log takes no entries any more, and verifiers accept nothing on its word"
        )
    if paths is not None:
        lines.append(f"  pymerkle    agrees on the roots and on {paths} inclusion paths")
    if inherited is not None:
        said = f"{inherited.statements} statements take over all that had to be"
        lines.append(f"  succession  from {inherited.origin}, audited to its end at {inherited.size}: {said}")
    if policy.simulation:
        lines.append("  SIMULATION  this log is about simulated evidence")
    return "\n".join(lines)


def _time(seconds: int) -> str:
    return time_text(datetime.fromtimestamp(seconds, UTC))
