"""``quotary rebuild``: repeat a release's build, and say what came out in a signed statement of the log."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from builder import statement
from builder.build import find_source, revision
from builder.follow import Done, Rebuilder, next_due
from builder.logged import Logged, logged_release, release_of
from builder.measure import measured_elsewhere
from builder.place import Folder, Place
from builder.prefetch import Cache
from builder.progress import Progress
from builder.rebuild import Rebuilt, rebuild_predicate
from builder.statement import Head
from builder.statement_cli import (
    FILE,
    out_option,
    sequence_of,
    sequence_option,
    show_unsigned,
    url_option,
)
from builder.workshop import Workshop
from quotary.cli.files import state_folder
from quotary.cli.options import log_client, memory, read_policy, simulation_option
from quotary.cli.options import policy_option as required_policy_option
from quotary.cli.output import emit, json_option
from quotary.cli.replaying import files_of
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.submit import submit
from quotary.errors import CannotTell, Rejected, Usage
from quotary.net.transport import HTTP
from quotary.statements.envelope import Signer, sign

FOLDER = click.Path(path_type=Path, file_okay=False)
GIVEN = click.Path(path_type=Path, file_okay=False, exists=True)
INTERVAL_SECONDS = 600
TRIES = 5

F = TypeVar("F", bound=Callable[..., Any])

organisation_option = click.option("--organisation", required=True, help="Who says so.")


def workshop_options(command: F) -> F:
    """Add what a release is built from and where."""
    options = (
        click.option(
            "--source-url", help="Where to fetch the source by its commit. [default: the release's]"
        ),
        click.option("--inputs", metavar="URL", help="Mirror of inputs by SHA-256 (a cache folder served)."),
        click.option("--model", type=GIVEN, help="The release's model."),
        click.option("--work", type=FOLDER, help="Parent of the fresh store. [default: the system's]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    name="rebuild",
    epilog="\b\nExamples:\n  quotary rebuild run 7 --policy policy.json --organisation Us --out r.json\n"
    "  quotary rebuild follow --policy policy.json --organisation Us --key us.key",
)
def rebuild_group() -> None:
    """Repeat a build and say what came out."""


@rebuild_group.command(
    name="run",
    epilog="\b\nExamples:\n  quotary rebuild run 7 --policy policy.json --organisation Us --key us.key"
    " --out r.json\n  quotary rebuild run release.entry --organisation Us --sequence 1 --out r.json"
    "\n\nExit codes: 0 all match, 2, 10 one does not, 11 another source, lock or model, 20, 30, 40 no verdict"
    " or `failed`, 41 the log refuses it.",
)
@click.argument("release")
@organisation_option
@click.option(
    "--policy",
    "policy_file",
    type=FILE,
    help="What proves that an entry stands in the log; needed where RELEASE is no file.",
)
@simulation_option
@click.option(
    "--source", type=FOLDER, help="Checkout of the release's revision. [default: fetched by commit]"
)
@click.option(
    "--lock", type=FOLDER, help="The release's lock, as IMAGE/lock holds it. [default: its source's]"
)
@click.option(
    "--measured",
    multiple=True,
    type=FILE,
    help="Own output of quotary measure process, for rows that no image gives.",
)
@click.option("--original", type=GIVEN, help="The release's image: OUT.txt says which file differs.")
@workshop_options
@click.option(
    "--key", "keys", multiple=True, type=FILE, help="Rebuilder's key: sign to OUT.entry and submit."
)
@sequence_option
@url_option
@out_option
@json_option
def run(
    release: str,
    organisation: str,
    policy_file: Path | None,
    simulation: bool,
    source: Path | None,
    lock: Path | None,
    measured: tuple[Path, ...],
    original: Path | None,
    source_url: str | None,
    inputs: str | None,
    model: Path | None,
    work: Path | None,
    keys: tuple[Path, ...],
    sequence: int | None,
    url: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Build RELEASE again, in a fresh store without any cache of built things, and compare.

    RELEASE is a file, or the index, leaf hash or statement id of an entry of the policy's log.
    """
    signers = [open_signer(path) for path in keys]
    logged, log = _find(release, policy_file, simulation, url)
    if signers and log is None:
        raise Usage("--key signs and submits: give --url or --policy too")
    found = logged.statement
    number = sequence_of(sequence, log.url if log else None, found.service, "rebuild")
    head = Head(found.log, found.service, number, statement.now())
    place = Workshop(
        Cache.default(inputs),
        source or _here(logged),
        source_url,
        lock,
        model,
        measured_elsewhere(measured),
        work,
    )
    result, tool = place.rebuild(logged.release, Progress(), original, out.with_name(out.name + ".txt"))
    predicate = rebuild_predicate(head, found.statement_id, organisation, tool, result)
    written = statement.write("rebuild", predicate, out)
    if signers and log is not None:
        _publish(log, out, signers, as_json)
    else:
        show_unsigned(written, out, as_json=as_json)
    _raise(result)


@rebuild_group.command(
    name="follow",
    epilog="\b\nExample:\n  quotary rebuild follow --policy policy.json --organisation Us --key us.key"
    "\n\nExit codes: 0 nothing differs (--once), 2, 10 something does, 11, 30, 40 something waits (--once) or"
    " this machine cannot build.",
)
@organisation_option
@required_policy_option
@simulation_option
@click.option("--service", "services", multiple=True, help="Whose releases. [default: all of the policy's]")
@workshop_options
@click.option("--key", "keys", required=True, multiple=True, type=FILE, help="Rebuilder's key.")
@click.option("--url", help="Address of the log, if not the one in the policy.")
@click.option("--state", type=FOLDER, help="Folder of the rebuilder's place. [default: the user's]")
@click.option("--once", is_flag=True, help="Build what is there now, then end.")
@click.option(
    "--interval", type=click.IntRange(1), default=INTERVAL_SECONDS, show_default=True, help="Seconds."
)
@click.option(
    "--tries",
    type=click.IntRange(1, 100),
    default=TRIES,
    show_default=True,
    help="Until `failed` is said of a release whose source or inputs are missing.",
)
@json_option
def follow(
    organisation: str,
    policy_file: Path,
    simulation: bool,
    services: tuple[str, ...],
    source_url: str | None,
    inputs: str | None,
    model: Path | None,
    work: Path | None,
    keys: tuple[Path, ...],
    url: str | None,
    state: Path | None,
    once: bool,
    interval: int,
    tries: int,
    as_json: bool,
) -> None:
    """Build every release of the policy's services again as the log publishes it, and submit the verdicts.

    It keeps its place and goes on there after an end at any moment; only one works on a place at a time.
    """
    policy = read_policy(policy_file, simulation=simulation)
    unknown = sorted(set(services) - policy.services.keys())
    if unknown:
        raise Usage(f"the policy has no service {unknown[0]}")
    log, progress = log_client(policy, url), Progress()
    bench = Workshop(Cache.default(inputs), source_url=source_url, model=model, work=work)
    folder = Folder(state or state_folder() / "rebuilder" / policy.origin.replace("/", "_"))
    rebuilder = Rebuilder(
        policy,
        log,
        files_of(log.url, policy),
        memory(),
        SystemClock(),
        folder,
        frozenset(services or policy.services),
        organisation,
        [open_signer(path) for path in keys],
        tries,
        lambda release: bench.rebuild(release, progress),
        progress,
    )
    with folder.taken():
        while True:
            done = _round(rebuilder, as_json, patient=not once)
            if once:
                _end(done, folder.load(policy.origin))
                return
            place = folder.load(policy.origin)
            threading.Event().wait(next_due(place, interval, statement.seconds()))


def _find(
    name: str, policy_file: Path | None, simulation: bool, url: str | None
) -> tuple[Logged, LogClient | None]:
    policy = read_policy(policy_file, simulation=simulation) if policy_file else None
    log = log_client(policy, url) if policy else LogClient(HTTP(), url) if url else None
    if Path(name).is_file():
        return release_of(statement.read(Path(name))), log
    if policy is None or log is None:
        raise Usage(f"{name} is no file", next_command="add --policy FILE to fetch the release from its log")
    logged = logged_release(name, log, policy, memory(), SystemClock())
    click.echo(f"entry {logged.index} of {policy.origin}: proven to stand in the log", err=True)
    return logged, log


def _here(logged: Logged) -> Path | None:
    """Return this very checkout where it is the release's revision; else the source is fetched."""
    try:
        source = find_source(None)
    except CannotTell:
        return None
    return source if revision(source)["revision"] == logged.release.source_revision else None


def _publish(log: LogClient, out: Path, signers: list[Signer], as_json: bool) -> None:
    entry, place = sign(out.read_bytes(), signers), out.with_name(out.name + ".entry")
    write_new(place, entry)
    found = submit(log, entry, wait=True)
    document = {
        "schema": "quotary/rebuild-published/v1",
        "statement_id": found.statement_id,
        "leaf_hash": found.leaf_hash.hex(),
        "index": found.index,
        "entry": str(place),
    }
    text = f"published {found.statement_id}\nindex {found.index}, leaf hash {found.leaf_hash.hex()}: {place}"
    emit(document, f"{text}\nso says the log; proof: quotary proof {found.leaf_hash.hex()}", as_json=as_json)


def _raise(result: Rebuilt) -> None:
    if result.verdict == "mismatch":
        raise Rejected(
            "rebuild", result.detail or "other registers from the same files", "every measurement id"
        )
    if result.verdict == "failed":
        raise CannotTell(f"the release could not be built: {result.detail}")


def _round(rebuilder: Rebuilder, as_json: bool, *, patient: bool) -> list[Done]:
    try:
        rebuilder.look()
    except CannotTell as error:
        if not patient:
            raise
        click.echo(f"waiting: {error}", err=True)
    done = rebuilder.work()
    releases = [
        {"index": one.index, "release": one.statement_id, "verdict": one.verdict, "detail": one.detail}
        for one in done
    ]
    lines = [f"{one.verdict}  entry {one.index}  {one.statement_id}  {one.detail}" for one in done]
    if done or not patient:
        document = {"schema": "quotary/rebuild-followed/v1", "releases": releases}
        emit(document, "\n".join(lines) or "nothing to build", as_json=as_json)
    return done


def _end(done: list[Done], place: Place) -> None:
    different = [one for one in done if one.verdict == "mismatch"]
    if different:
        raise Rejected("rebuild", f"{len(different)} releases that differ", "the same measurements")
    left = [one.detail for one in done if one.verdict == "set aside"]
    left += [one.reason for one in place.waiting]
    if left:
        raise CannotTell(f"{len(left)} releases without a verdict, the first: {left[0]}")
