"""``quotary relay`` and ``quotary issuer``: the commands of operators who see one half each."""

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from quotary.client.disk import write_new
from quotary.errors import Usage
from quotary.net.listen import open_listener

_GATEWAY = re.compile(r"([a-z0-9][a-z0-9-]{0,62})=(https?://[!-~]{1,1000})")


@click.group(epilog="\b\nExample:\n  quotary relay serve --gateway chat=https://chat.example.org")
def relay() -> None:
    """Pass capsules on: it sees who asks, and not what."""


@relay.command(
    epilog="\b\nExample:\n  quotary relay serve --gateway chat=https://chat.example.org\n\n"
    "Exit codes: 0, 2, 40."
)
@click.option(
    "--gateway", "gateways", multiple=True, required=True, metavar="NAME=URL",
    help="An enclave by its name in this relay's paths; may be repeated.",
)  # fmt: skip
@click.option("--bind", default="127.0.0.1:8483", show_default=True, help="Where it listens.")
@click.option("--plain-http", is_flag=True, help="Gateways beyond this machine may be reached without TLS.")
def serve(gateways: tuple[str, ...], bind: str, plain_http: bool) -> None:
    """Forward what clients seal to the gateways that are named, and to nothing else.

    It writes nothing about requests anywhere. Put TLS in front of it, and let another operator than the
    enclave's run it: one who runs both knows who asks.
    """
    from private.relay import create_app
    from quotary.net.service import serve as run
    from quotary.net.transport import HTTP

    named = dict(_parse(text) for text in gateways)
    if len(named) != len(gateways):
        raise Usage("two gateways have the same name")
    with closing(open_listener(bind, "--bind host:port")) as listener:
        host, port = listener.getsockname()[:2]
        click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        run(lambda: create_app(named, HTTP(plain_http=plain_http)), listener)


FOLDER = click.Path(path_type=Path, file_okay=False)
_dir = click.option("--dir", "folder", type=FOLDER, required=True, help="The issuer's folder.")


@click.group(epilog="\b\nExample:\n  quotary issuer serve --dir issuer")
def issuer() -> None:
    """Issue anonymous tokens: it knows its customers, and not where they spend."""


@issuer.command(
    epilog="\b\nExample:\n  quotary issuer key --dir issuer --log log.example.org "
    "--service example.org/issuer --sequence 1 --out key.json\n\nExit codes: 0, 2, 30, 40."
)
@_dir
@click.option("--tier", default="standard", show_default=True, help="What its tokens are worth.")
@click.option("--days", type=click.IntRange(1, 8), default=7, show_default=True)
@click.option("--from", "begin", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), help="UTC; now if not said.")
@click.option("--log", "origin", required=True, help="Origin of the log.")
@click.option("--service", required=True, help="The issuer's service in the log.")
@click.option("--sequence", type=click.IntRange(1), required=True, help="One above its last issuer-key.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file: sign and submit it.")
def key(
    folder: Path,
    tier: str,
    days: int,
    begin: datetime | None,
    origin: str,
    service: str,
    sequence: int,
    out: Path,
) -> None:
    """Make a key for a tier and an epoch, and the statement that tells the log of it.

    Clients and enclaves take its tokens once the log has that statement, signed by whom their policy names.
    """
    from private.issuing import Epoch, create_key

    start = (begin or datetime.now(UTC)).replace(tzinfo=UTC, microsecond=0)
    epoch = Epoch(tier, start, start + timedelta(days=days), origin, service, sequence)
    write_new(out, create_key(folder, epoch))
    click.echo(f"statement {out}")
    click.echo(f"next: quotary sign {out} --key SIGNER --out {out.with_suffix('.entry')}", err=True)


@issuer.command(
    epilog="\b\nExample:\n  quotary issuer account --dir issuer --per-day 100 --out customer.secret\n\n"
    "Exit codes: 0, 2, 40."
)
@_dir
@click.option("--tier", default="standard", show_default=True)
@click.option("--per-day", type=click.IntRange(1), required=True, help="Tokens a day.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file for the secret.")
def account(folder: Path, tier: str, per_day: int, out: Path) -> None:
    """Make an account; its secret goes into a file for the customer and is kept nowhere else."""
    from private.issuing import create_account
    from quotary.client.disk import PRIVATE

    write_new(out, create_account(folder, tier, per_day).encode() + b"\n", PRIVATE)
    click.echo(f"secret {out}")


@issuer.command(
    "serve", epilog="\b\nExample:\n  quotary issuer serve --dir issuer\n\nExit codes: 0, 2, 30, 40."
)
@_dir
@click.option("--bind", default="127.0.0.1:8484", show_default=True, help="Where it listens.")
def serve_issuer(folder: Path, bind: str) -> None:
    """Sign blinded tokens for the accounts in --dir. It writes down how many, and nothing else."""
    from private.issuer import create_app
    from private.issuing import LEDGER, load_accounts, load_keys
    from private.ledger import Ledger
    from quotary.net.service import serve as run

    keys, accounts = load_keys(folder), load_accounts(folder)
    with closing(open_listener(bind, "--bind host:port")) as listener:
        host, port = listener.getsockname()[:2]
        click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        run(lambda: create_app(keys, accounts, Ledger(folder / LEDGER), lambda: datetime.now(UTC)), listener)


def _parse(text: str) -> tuple[str, str]:
    found = _GATEWAY.fullmatch(text)
    if found is None:
        raise Usage(f"a gateway is NAME=URL, found {text}")
    return found[1], found[2].rstrip("/")
