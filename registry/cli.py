"""``quotary registry``: make, run and check a registry."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.errors import CannotTell, OurBug, QuotaryError, Usage, as_ours
from registry.cli_collateral import collateral
from registry.cli_options import (
    EXITS,
    ending_with_words,
    folder_option,
    token_options,
    token_place,
    without_option,
)
from registry.cli_orders import keys, order, succeed
from registry.cli_upkeep import (
    backup,
    export,
    import_,
    recover,
    reindex,
    reload,
    restore,
    roles,
    scrub,
    verifier,
)


@click.group(
    epilog="Example: quotary registry init --dir log --origin log.example.org/simulation\n\n" + EXITS
)
def registry() -> None:
    """Make, run and check a transparency log."""


@registry.command(epilog="Example: quotary registry init --dir log --origin log.example.org\n\n" + EXITS)
@folder_option
@click.option("--origin", required=True, help="Unique name of the log, usually its address without https://.")
@click.option("--bind", default="127.0.0.1:8480", show_default=True, help="Where serve listens.")
@click.option("--publish-interval", default=1.0, show_default=True, help="Seconds between checkpoints.")
@click.option(
    "--refresh", default=120.0, show_default=True, help="Seconds between new cosignatures when idle."
)
@click.option("--database", default="sqlite:///log.db", show_default=True, help="SQLAlchemy URL.")
@click.option(
    "--genesis", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Entry 0, signed."
)
@click.option(
    "--witness", "witnesses", type=(str, str), multiple=True, metavar="URL VKEY", help="Repeatable."
)
@click.option("--successor", is_flag=True, help="Make no entry 0: the log goes on from one that closes.")
@token_options
def init(
    folder: Path,
    origin: str,
    bind: str,
    publish_interval: float,
    refresh: float,
    database: str,
    genesis: Path | None,
    witnesses: tuple[tuple[str, str], ...],
    successor: bool,
    hsm_module: str | None,
    hsm: str | None,
    hsm_pin_file: str | None,
) -> None:
    """Make a registry: keys (mode 0600), database, and the genesis that names the log's roots."""
    from registry.config import Config
    from registry.setup import create_registry

    config = Config(folder.resolve(), origin, database, bind, publish_interval, refresh, 600, 2, 160)
    lines = [_witness_line(url, vkey) for url, vkey in witnesses]
    place = token_place(origin, hsm_module, hsm, hsm_pin_file)
    entry = genesis.read_bytes() if genesis else None
    if entry is not None and successor:
        raise Usage("--genesis and --successor do not go together")
    public = create_registry(config, lines, entry, datetime.now(UTC), place, awaits=successor)
    for key in (*public.log, public.promise):
        click.echo(key.vkey())
    if successor:
        click.echo("next: quotary registry order close, with the first keys above; then succeed", err=True)
        return
    if genesis is None:
        click.echo(f"root keys lie in {config.keys}: move root.pem off this machine", err=True)
    click.echo(f"next: quotary registry serve --dir {folder}", err=True)


@registry.command(epilog="Example: quotary registry serve --dir log --bind 127.0.0.1:0\n\n" + EXITS)
@folder_option
@click.option("--bind", help="host:port instead of the configured one; port 0 takes a free one.")
@click.option("--metrics", help="host:port for /metrics (Prometheus); keep it private.")
@without_option
def serve(folder: Path, bind: str | None, metrics: str | None, without: tuple[str, ...]) -> None:
    """Run signer, sequencer, judge and HTTP server until SIGTERM; the address is the first line on stdout.

    On PostgreSQL a sequencer stands by while another machine's leads.
    """
    from registry import logs, run
    from registry.config import load_config
    from registry.store import open_store

    logs.set_up()
    config = load_config(folder)
    open_store(config.database_url).close()
    sys.exit(run.serve(config, bind or config.bind, lambda address: click.echo(address), metrics, without))


@registry.command(epilog="Example: quotary registry sequence --dir log\n\n" + EXITS)
@folder_option
@click.option("--key", type=int, hidden=True, help="Descriptor of the key of the judge's seals, from serve.")
def sequence(folder: Path, key: int | None) -> None:
    """Run the sequencer alone; on PostgreSQL it stands by while another one leads."""
    from registry import logs
    from registry.config import load_config
    from registry.sequence import run_sequencer

    logs.set_up()
    config = load_config(folder)
    with ending_with_words():
        run_sequencer(config, key)


@registry.command(epilog="Example: quotary registry judge --dir log\n\n" + EXITS)
@folder_option
@click.option("--listener", type=int, hidden=True, help="Descriptor of the socket, from serve.")
@click.option("--key", type=int, hidden=True, help="Descriptor of the key of its seals, from serve.")
def judge(folder: Path, listener: int | None, key: int | None) -> None:
    """Run the judge alone, which admits entries for the workers, on the socket judge.sock of the folder."""
    from registry import logs
    from registry.config import load_config
    from registry.judge import run_judge

    logs.set_up()
    config = load_config(folder)
    with ending_with_words():
        run_judge(config, listener, key)


@registry.command(epilog="Example: quotary registry sign --dir log\n\n" + EXITS)
@folder_option
@click.option("--listener", type=int, hidden=True, help="Descriptor of the socket, from serve.")
def sign(folder: Path, listener: int | None) -> None:
    """Run the signer alone, on the socket signer.sock of the folder."""
    from registry import logs
    from registry.config import load_config
    from registry.signer import run_signer

    logs.set_up()
    config = load_config(folder)
    with ending_with_words():
        run_signer(config.keys, config.origin, config.socket, listener)


@registry.command(epilog="Example: quotary registry fsck --dir log\n\n" + EXITS)
@folder_option
def fsck(folder: Path) -> None:
    """Recompute leaf hashes, tiles, map, records and checkpoints from the entries, and compare."""
    from quotary.tlog.policy import TlogPolicy
    from registry.config import load_config
    from registry.flush import withdraw
    from registry.fsck import check_store
    from registry.memory import NAME
    from registry.store import open_store

    config = load_config(folder)
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    store = open_store(config.database_url)
    found = check_store(store.read, config.origin, policy, config.public)
    store.close()
    for file in (config.keys / NAME, store.file):
        if file is not None:
            withdraw(file)
    click.echo(
        f"equal: {found.entries} entries, {found.states} state entries, {found.tiles} tiles, "
        f"{found.records} records, {found.checkpoints} signed checkpoints, {found.files} exported files; "
        f"published {found.published} "
        f"under the keys and quorum of {config.policy}"
    )


@registry.command(epilog="Example: quotary registry upgrade --dir log\n\n" + EXITS)
@folder_option
def upgrade(folder: Path) -> None:
    """Bring the database to this version's schema."""
    from registry.config import load_config
    from registry.store import create_store
    from registry.store.schema import REVISION

    create_store(load_config(folder).database_url).close()
    click.echo(f"schema {REVISION}")


@registry.command(epilog="Example: quotary registry doctor --dir log\n\n" + EXITS)
@folder_option
@without_option
@click.option("--front", default="", metavar="URL", help="Address under which readers reach the log.")
@click.option("--json", "as_json", is_flag=True, help="Print a list for programs.")
def doctor(folder: Path, without: tuple[str, ...], front: str, as_json: bool) -> None:
    """Look at everything that a registry needs; of what is wrong say why it matters and what to do."""
    import json
    from dataclasses import asdict

    from quotary.net.transport import HTTP
    from registry.config import load_config
    from registry.doctor import examine
    from registry.looks import Surroundings

    around = Surroundings(HTTP(), lambda: datetime.now(UTC), front, without)
    findings = list(examine(load_config(folder), around))
    lines = [json.dumps([asdict(found) for found in findings])] if as_json else map(str, findings)
    click.echo("\n".join(lines))
    if any(found.state == "wrong" for found in findings):
        raise CannotTell("something is wrong", next_command="repair the lines that say wrong")


@registry.group(epilog=EXITS)
def witness() -> None:
    """Witnesses of this log, and a witness of our own."""


@witness.command("add", epilog="Example: quotary registry witness add --dir log URL VKEY\n\n" + EXITS)
@folder_option
@click.argument("url")
@click.argument("vkey")
@click.option("--quorum", type=click.IntRange(1, 128), help="How many must cosign; default more than half.")
def witness_add(folder: Path, url: str, vkey: str, quorum: int | None) -> None:
    """Add a witness to the log's policy; a running sequencer follows it from its next round on."""
    from quotary.tlog.policy import TlogPolicy
    from registry.config import load_config
    from registry.identity import read_public
    from registry.setup import WitnessLine, write_policy

    config = load_config(folder)
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    known = [WitnessLine(found.url, found.key) for found in policy.witnesses.values()]
    write_policy(
        config.policy, read_public(config.keys / "public"), [*known, _witness_line(url, vkey)], quorum
    )
    click.echo(config.policy.read_text("utf-8"), nl=False)


@witness.command("list", epilog="Example: quotary registry witness list --dir log\n\n" + EXITS)
@folder_option
def witness_list(folder: Path) -> None:
    """Print the log's tlog-policy: its keys, its witnesses and the quorum."""
    from registry.config import load_config

    click.echo(load_config(folder).policy.read_text("utf-8"), nl=False)


@witness.command(
    "init", epilog="Example: quotary registry witness init --dir w --name w.example.org\n\n" + EXITS
)
@folder_option
@click.option("--name", required=True, help="The witness's key name.")
@click.option("--log", "vkeys", multiple=True, help="Verifier key of a log to follow; repeatable.")
def witness_init(folder: Path, name: str, vkeys: tuple[str, ...]) -> None:
    """Make a witness's folder and key; prints its verifier key."""
    from quotary.tlog.note import VerifierKey
    from registry.witness_app import create_witness

    key = create_witness(folder, name, [VerifierKey.parse(vkey) for vkey in vkeys])
    click.echo(key.verifier.vkey())


@witness.command("follow", epilog="Example: quotary registry witness follow --dir w --log VKEY\n\n" + EXITS)
@folder_option
@click.option("--log", "vkeys", multiple=True, required=True, help="Verifier key of a log; repeatable.")
def witness_follow(folder: Path, vkeys: tuple[str, ...]) -> None:
    """Replace the list of logs that the witness cosigns."""
    from quotary.tlog.note import VerifierKey
    from registry.witness_app import follow_logs

    follow_logs(folder, [VerifierKey.parse(vkey) for vkey in vkeys])


@witness.command(
    "serve", epilog="Example: quotary registry witness serve --dir w --bind 127.0.0.1:0\n\n" + EXITS
)
@folder_option
@click.option(
    "--bind", default="127.0.0.1:8481", show_default=True, help="host:port; port 0 takes a free one."
)
def witness_serve(folder: Path, bind: str) -> None:
    """Run a witness until SIGTERM; the address is the first line on stdout."""
    from registry import logs, run
    from registry.witness_app import open_witness

    logs.set_up()
    open_witness(folder)
    sys.exit(run.serve_witness(folder, bind, lambda address: click.echo(address)))


for command in (
    *(backup, restore, recover, import_, export, roles, reload, reindex, scrub, verifier, collateral),
    *(keys, order, succeed),
):
    registry.add_command(command)


def main() -> None:
    """Run the group on its own; ``quotary registry`` is the same."""
    try:
        registry(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except QuotaryError as error:
        click.echo(f"error: {error}", err=True)
        if error.next_command:
            click.echo(f"next: {error.next_command}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  # no traceback for users; 1 has the supervisor start it again
        click.echo(f"error: {as_ours(error)}", err=True)
        sys.exit(OurBug.exit_code)


def _witness_line(url: str, vkey: str):  # type: ignore[no-untyped-def]
    from quotary.tlog.note import VerifierKey
    from registry.setup import WitnessLine

    if not url.startswith(("http://", "https://")) or any(c.isspace() for c in url):
        raise Usage(f"a witness has an http or https address, found {url}")
    return WitnessLine(url, VerifierKey.parse(vkey))
