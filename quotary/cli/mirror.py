"""``quotary mirror``: a verified, byte-exact copy of a log."""

import threading
from collections.abc import Callable
from pathlib import Path

import click

from quotary.cli.options import log_client, policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option
from quotary.cli.replaying import files_of, progress
from quotary.client.finding import Finding, keep
from quotary.client.forwarding import Forwarder
from quotary.client.mirror import Mirrored
from quotary.client.mirror import mirror as make_copy
from quotary.client.mirror_server import MirrorServer
from quotary.client.policy import Policy
from quotary.client.source import Files
from quotary.errors import CannotTell, Refused, Usage


@click.command(
    epilog="\b\nExamples:\n  quotary mirror https://log.example.org ./copy --policy policy.json\n"
    "  quotary mirror https://log.example.org ./copy --policy policy.json --serve 127.0.0.1:8483\n"
    "  quotary audit ./copy --policy policy.json\n\nExit codes: 0, 2, 10 a finding, 11, 30, 40."
)
@click.argument("log")
@click.argument("folder", type=click.Path(path_type=Path))
@policy_option
@simulation_option
@click.option(
    "--serve", "bind", help="Serve the copy at host:port and renew it, until stopped; port 0 takes any."
)
@click.option(
    "--interval", type=click.IntRange(1, 86_400), default=60, show_default=True, help="With --serve: seconds."
)
@json_option
def mirror(
    log: str,
    folder: Path,
    policy_file: Path,
    simulation: bool,
    bind: str | None,
    interval: int,
    as_json: bool,
) -> None:
    """Copy what LOG, an address or another copy, publishes into FOLDER, under the same paths.

    Every byte is proven under the signed checkpoint before it is kept; a second run fetches only what is new.
    Who wants to know that the statuses are right too runs `quotary audit FOLDER`. With --serve it also takes
    revocations (POST /revocations), keeps them for everybody to see, and sends them on to LOG.
    """
    policy = read_policy(policy_file, simulation=simulation)
    files = files_of(log, policy)
    if bind is not None and not log.startswith(("http://", "https://")):
        raise Usage("a mirror that serves needs the address of a running log")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotTell(f"cannot make {folder}: {error.strerror}") from error
    found = _copied(files, folder, policy)
    emit(_document(found, folder), _text(found, folder), as_json=as_json)
    if bind is not None:
        forwarder = Forwarder(
            folder.with_name(folder.name + ".revocations"), policy.origin, log_client(policy, log)
        )
        _serve(bind, interval, folder, forwarder, lambda: _copied(files, folder, policy))


def _copied(files: Files, folder: Path, policy: Policy) -> Mirrored:
    try:
        return make_copy(files, folder, policy, progress)
    except Finding as finding:
        path = keep(finding, policy.origin, folder.with_name(folder.name + ".findings"))
        click.echo(f"finding: {path}", err=True)
        raise


def _serve(bind: str, interval: int, folder: Path, forwarder: Forwarder, renew: Callable[[], object]) -> None:
    """Serve until stopped, or until the log contradicts what was copied; the address is a line on stdout."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise Usage(f"--serve is host:port, found {bind}")
    try:
        server = MirrorServer((host, int(port)), folder, forwarder, lambda line: click.echo(line, err=True))
    except OSError as error:
        raise CannotTell(f"cannot listen on {bind}: {error.strerror}") from error
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        click.echo(f"http://{host}:{server.server_address[1]}")
        try:
            while not threading.Event().wait(interval):
                try:
                    renew()
                except (CannotTell, Refused) as error:
                    # The copy stays as good as it is old: who reads it sees by its checkpoint how old.
                    click.echo(f"not renewed: {error}", err=True)
                forwarder.retry()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
        finally:
            server.shutdown()
            thread.join()


def _document(found: Mirrored, folder: Path) -> dict[str, object]:
    return {
        "schema": "quotary/mirror/v1",
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "fetched": found.fetched,
        "files_written": found.files,
        "folder": str(folder),
    }


def _text(found: Mirrored, folder: Path) -> str:
    return (
        f"{folder} holds {found.size} entries of {found.origin}, root {found.root.hex()}\n"
        f"  {found.fetched} entries fetched, {found.files} files written, all proven under that root"
    )
