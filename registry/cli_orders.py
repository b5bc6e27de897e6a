"""``quotary registry keys | order``: the log's keys, and what its roots order (docs/formats/orders.md)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.errors import Usage
from registry.cli_options import EXITS, folder_option, token_options, token_place

NEW_FILE = click.Path(path_type=Path, dir_okay=False)
OLD_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(epilog="Example: quotary registry keys show --dir log\n\n" + EXITS)
def keys() -> None:
    """The log's own keys: which sign, and how they are rotated."""


@keys.command(epilog="Example: quotary registry keys show --dir log\n\n" + EXITS)
@folder_option
def show(folder: Path) -> None:
    """Ask the signer which keys sign checkpoints now."""
    from registry.config import load_config
    from registry.signing import SignerClient

    for key in SignerClient(load_config(folder).socket).vkeys():
        click.echo(key.vkey())


@keys.command(epilog="Example: quotary registry keys rotate --dir log --out rotation.json\n\n" + EXITS)
@folder_option
@click.option(
    "--type",
    "types",
    type=click.Choice(["ed25519", "ml-dsa-44"]),
    multiple=True,
    help="Rotate only this one of the two keys.",
)
@click.option("--overlap-days", type=click.IntRange(0, 3650), default=90, show_default=True)
@click.option("--out", required=True, type=NEW_FILE, help="New file for the order that the roots sign.")
@token_options
def rotate(
    folder: Path,
    types: tuple[str, ...],
    overlap_days: int,
    out: Path,
    hsm_module: str | None,
    hsm: str | None,
    hsm_pin_file: str | None,
) -> None:
    """Make new keys that sign beside the old ones at once, and the order that announces them."""
    from registry import rotation
    from registry.config import load_config
    from registry.signing import SignerClient

    config, overlap = load_config(folder), timedelta(days=overlap_days)
    token = token_place(config.origin, hsm_module, hsm, hsm_pin_file)
    order = rotation.begin(config, types or tuple(rotation.TYPES), overlap, datetime.now(UTC), token)
    SignerClient(config.socket).reload()
    _write(out, order.encode())
    click.echo(order.sentence)
    click.echo(f"next: quotary registry order sign {out} --key root.pem", err=True)


@keys.command(epilog="Example: quotary registry keys retire --dir log\n\n" + EXITS)
@folder_option
def retire(folder: Path) -> None:
    """Drop the old keys after the overlap: only the new ones sign from then on."""
    from registry import rotation
    from registry.config import load_config
    from registry.signing import SignerClient

    config = load_config(folder)
    gone = rotation.retire(config, datetime.now(UTC))
    for key in SignerClient(config.socket).reload():
        click.echo(key.vkey())
    rotation.close(config)
    click.echo(
        f"destroy {', '.join(str(config.keys / name) for name in gone) or 'the old key files'}", err=True
    )


@click.group(epilog="Example: quotary registry order sign freeze.json --key root.pem\n\n" + EXITS)
def order() -> None:
    """Orders of the log's roots: rotate its keys, freeze it, close it."""


@order.command(
    epilog="Example: quotary registry order freeze --origin log.example.org --reason 'key stolen' "
    "--out freeze.json\n\n" + EXITS
)
@click.option("--origin", required=True, help="The log.")
@click.option("--reason", required=True, help="Why; everybody can read it.")
@click.option("--out", required=True, type=NEW_FILE, help="New file for the order that the roots sign.")
def freeze(origin: str, reason: str, out: Path) -> None:
    """Write the order after which the log takes no entries, and nobody believes it any more."""
    from quotary.statements.order import Freeze

    _draft(origin, Freeze(reason), out)


@order.command(
    epilog="Example: quotary registry order close --origin log.example.org --reason retired "
    "--successor log2.example.org --vkey VKEY --out close.json\n\n" + EXITS
)
@click.option("--origin", required=True, help="The log.")
@click.option("--reason", required=True, help="Why; everybody can read it.")
@click.option("--successor", required=True, help="Origin of the log that goes on.")
@click.option("--vkey", "vkeys", required=True, multiple=True, help="Its verifier keys; repeatable.")
@click.option("--out", required=True, type=NEW_FILE, help="New file for the order that the roots sign.")
def close(origin: str, reason: str, successor: str, vkeys: tuple[str, ...], out: Path) -> None:
    """Write the order that ends a log in favour of another."""
    from quotary.statements.order import ShardClosed
    from quotary.tlog.note import VerifierKey

    found = tuple(VerifierKey.parse(vkey) for vkey in vkeys)
    _draft(origin, ShardClosed(reason, successor, found), out)


@order.command(epilog="Example: quotary registry order sign freeze.json --key root.pem\n\n" + EXITS)
@click.argument("file", type=OLD_FILE)
@click.option("--key", "key_files", required=True, type=OLD_FILE, multiple=True, help="A root's secret key.")
def sign(file: Path, key_files: tuple[Path, ...]) -> None:
    """Sign an order as a root; what it orders is printed. The other roots sign the same file after you."""
    from quotary.statements.order import Order
    from registry.keys import load_ed25519, write_durably

    draft = Order.parse_draft(file.read_bytes())
    signed = draft.signed_by([load_ed25519(path) for path in key_files])
    write_durably(file, signed.encode(), 0o644)
    click.echo(f"for {signed.log}: {signed.sentence}")
    for signature in signed.signatures:
        click.echo(f"signed by {signature.keyid}")


@order.command(epilog="Example: quotary registry order log --dir log rotation.json\n\n" + EXITS)
@folder_option
@click.argument("file", type=OLD_FILE)
def log(folder: Path, file: Path) -> None:
    """Put a signed order into the running log, wait until it is published, and do what follows from it."""
    from registry.config import load_config
    from registry.obey import obey

    found = obey(load_config(folder), file.read_bytes(), lambda: datetime.now(UTC))
    click.echo(f"entry {found.index}: {found.order.sentence}")
    if not found.order.ends_log:
        click.echo("policies for this log list the new keys from now on: publish policy.tlog", err=True)
        click.echo(f"next: quotary registry keys retire --dir {folder}, after the overlap", err=True)


@click.command(
    epilog="\b\nExamples:\n  quotary registry succeed --dir log2 --predecessor log\n"
    "  quotary registry succeed --dir log2 --predecessor log --root a.pem --root b.pem --threshold 2\n\n"
    + EXITS
)
@folder_option
@click.option(
    "--predecessor",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the closed registry.",
)
@click.option(
    "--root",
    "root_files",
    type=OLD_FILE,
    multiple=True,
    help="Secret key of one of the new roots, read once; repeatable. Without it one is made here.",
)
@click.option("--threshold", type=click.IntRange(1, 64), help="How many of them sign.  [default: all]")
def succeed(folder: Path, predecessor: Path, root_files: tuple[Path, ...], threshold: int | None) -> None:
    """Begin a log made with `init --successor`: its genesis, and what it takes over from a closed log.

    Services, revocations and floors of the closed log are said again, signed by the new log's roots.
    """
    from registry.config import load_config
    from registry.keys import load_ed25519
    from registry.setup import Roots
    from registry.succession import begin

    if threshold is not None and threshold > len(root_files):
        raise Usage(f"--threshold {threshold} of {len(root_files)} roots")
    roots = Roots(tuple(map(load_ed25519, root_files)), threshold or len(root_files)) if root_files else None
    config = load_config(folder)
    count = begin(config, load_config(predecessor), datetime.now(UTC), roots)
    click.echo(f"entry 0 and {count} statements taken over wait for the first checkpoint")
    if roots is None:
        click.echo(f"root keys lie in {config.keys}: move root.pem off this machine", err=True)
    click.echo(f"next: quotary registry serve --dir {folder}", err=True)


def _draft(origin: str, content: object, out: Path) -> None:
    from quotary.statements.order import Order

    made = Order(origin, datetime.now(UTC).replace(microsecond=0), content)  # type: ignore[arg-type]  # one of the three
    Order.parse_draft(made.encode())
    _write(out, made.encode())
    click.echo(made.sentence)
    click.echo(f"next: quotary registry order sign {out} --key root.pem", err=True)


def _write(out: Path, data: bytes) -> None:
    from quotary.errors import CannotTell, Refused

    try:
        with out.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise Refused("file", f"{out} exists", "a new file") from error
    except OSError as error:
        raise CannotTell(f"cannot write {out}: {error.strerror}") from error
