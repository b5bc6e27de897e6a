"""``quotary registry backup | restore | recover | export | verifier``: keep a log, and what it serves."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from registry.cli_options import EXITS, folder_option


@click.command(epilog="Example: quotary registry backup --dir log --out log.backup\n\n" + EXITS)
@folder_option
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A file that is new."
)
def backup(folder: Path, out: Path) -> None:
    """Copy the database of a running registry to a file, whole and checked; keys are not in it."""
    from registry.backup import make_backup
    from registry.config import load_config

    size = make_backup(load_config(folder), out)
    click.echo(f"{out} holds {size} entries")
    click.echo("the keys folder is not in it: keep a copy of it elsewhere, once", err=True)


@click.command(epilog="Example: quotary registry restore --dir log log.backup\n\n" + EXITS)
@folder_option
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def restore(folder: Path, file: Path) -> None:
    """Put back a backup, unless the signer or a witness has seen a larger log or another one.

    The registry must be stopped. What lay in its place is kept beside it.
    """
    from quotary.net.transport import HTTP
    from registry.backup import restore_backup
    from registry.config import load_config

    found = restore_backup(load_config(folder), file, HTTP())
    click.echo(f"restored {found.entries} entries, published {found.published}; recomputed and equal")
    click.echo(f"next: quotary registry serve --dir {folder}", err=True)


@click.command(
    epilog="Example: quotary registry recover --dir log --from-mirror https://mirror.example.org\n\n" + EXITS
)
@folder_option
@click.option("--from-mirror", "mirror", required=True, metavar="DIR|URL", help="Checkpoint and tiles.")
@click.option(
    "--forget-unpublished",
    is_flag=True,
    help="Drop what was signed and never published; needs every witness to say that it has not seen it.",
)
def recover(folder: Path, mirror: str, forget_unpublished: bool) -> None:
    """Rebuild the database from a copy of the published log, and let the signer go on from there.

    Every byte is checked under the log's own policy; a mirror smaller than what the signer or a witness has
    seen is refused. The registry must be stopped. What lay in the database's place is kept beside it.
    """
    from quotary.net.transport import HTTP
    from registry.config import load_config
    from registry.recover import open_mirror, recover_log

    transport = HTTP()
    found = recover_log(load_config(folder), open_mirror(mirror, transport), transport, forget_unpublished)
    click.echo(f"recovered {found.entries} entries, published {found.published}; recomputed and equal")
    click.echo(f"next: quotary registry serve --dir {folder}", err=True)


@click.command("import", epilog="Example: quotary registry import --dir log /srv/dump\n\n" + EXITS)
@folder_option
@click.argument("dump", metavar="DIR|URL")
def import_(folder: Path, dump: str) -> None:
    """Fill a new registry from an export or mirror of its log: checkpoint, tiles and entries.

    The registry has the log's own keys and policy, and holds nothing yet. Every byte is checked under them
    before anything of the registry changes; one that was cut off begins anew.
    """
    from quotary.net.transport import HTTP
    from registry.config import load_config
    from registry.recover import import_log, open_mirror

    transport = HTTP()
    found = import_log(load_config(folder), open_mirror(dump, transport), transport)
    click.echo(f"imported {found.entries} entries, published {found.published}; recomputed and equal")
    click.echo(f"next: quotary registry serve --dir {folder}", err=True)


@click.command(epilog="Example: quotary registry export --dir log s3://bucket/log\n\n" + EXITS)
@folder_option
@click.argument("target", metavar="FOLDER|s3://BUCKET/PREFIX")
def export(folder: Path, target: str) -> None:
    """Write the published log as files for any static host: checkpoint, tiles and entries.

    A folder is written anew, with every bundle. In an object store what is missing is created, what is
    there is compared byte for byte, and nothing but the checkpoint is ever replaced; its address and
    credentials come from the environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...).
    """
    from registry.config import load_config
    from registry.export import Exporter
    from registry.public import PublicLog
    from registry.store import open_store

    store = open_store(load_config(folder).database_url)
    public = PublicLog(store.read)
    try:
        if "://" in target:
            from registry.upload import Upload, open_bucket

            size = Upload(public, open_bucket(target)).run(compare_all=True)
        else:
            size = Exporter(public, Path(target)).export_all()
    finally:
        store.close()
    click.echo(f"{target} holds the published log of {size} entries")


@click.command(epilog="Example: quotary registry roles --prefix log | psql log\n\n" + EXITS)
@click.option("--prefix", default="quotary", show_default=True, help="What the roles' names begin with.")
def roles(prefix: str) -> None:
    """Print the SQL that makes PostgreSQL's roles PREFIX_web, PREFIX_sequencer and PREFIX_reader.

    Run it as the owner of the tables, and again after each upgrade, restore and recovery.
    """
    from registry.store.roles import script

    click.echo(script(prefix), nl=False)


@click.command(epilog="Example: quotary registry reload --dir log\n\n" + EXITS)
@folder_option
def reload(folder: Path) -> None:
    """Have the running registry replace its processes, without refusing a request; SIGHUP does the same.

    They run the code that lies on disk, with the registry.toml of now. A new number of workers or threads
    waits for the next start.
    """
    from registry.reload import ask

    ask(folder.resolve())
    click.echo("reloaded: every process runs the code on disk")


@click.command(epilog="Example: quotary registry reindex --dir log\n\n" + EXITS)
@folder_option
def reindex(folder: Path) -> None:
    """Make the search index anew from the entries; on PostgreSQL as the owner of the tables.

    Reads go on meanwhile; the sequencer waits, so the log stands still as long as it takes.
    """
    from registry.config import load_config
    from registry.reindex import reindex as make
    from registry.store import open_store

    store = open_store(load_config(folder).database_url)
    try:
        size = make(store)
    finally:
        store.close()
    click.echo(f"indexed up to size {size}")


@click.command(epilog="Example: quotary registry scrub --dir log\n\n" + EXITS)
@folder_option
def scrub(folder: Path) -> None:
    """Read the whole published log again and hash it, database and exported files; ends with 10 on damage.

    The sequencer does the same twice a day, a little after each round. ``fsck`` checks more and takes longer.
    """
    from registry.config import load_config
    from registry.scrub import Scrubber
    from registry.store import open_store

    config = load_config(folder)
    store = open_store(config.database_url)
    try:
        size, seconds = Scrubber(store.read, config.public, config.scrub, clock).run(progress)
    finally:
        store.close()
    click.echo(f"{size} entries read again in {seconds:.1f} s: equal to the root of the published checkpoint")


@click.command(epilog="Example: quotary registry verifier --out verify.html\n\n" + EXITS)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where the page goes."
)
def verifier(out: Path) -> None:
    """Write the browser's verifier as one page; print the item that names it in a statement of kind artefact.

    It is the same for every log of one version, so that its digest can be logged once and compared.
    """
    from registry.pages.standalone import item, standalone

    out.write_bytes(standalone())
    click.echo(json.dumps(item(), sort_keys=True, separators=(",", ":")))


def clock() -> datetime:
    return datetime.now(UTC)


def progress(done: int, size: int) -> None:
    click.echo(f"{done} of {size} entries", err=True)
