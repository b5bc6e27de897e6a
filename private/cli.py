"""``quotary relay serve``: the command of an operator who sees who asks, and not what."""

import re
from contextlib import closing

import click

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
    from private.server import serve as run
    from quotary.net.transport import HTTP

    named = dict(_parse(text) for text in gateways)
    if len(named) != len(gateways):
        raise Usage("two gateways have the same name")
    with closing(open_listener(bind, "--bind host:port")) as listener:
        host, port = listener.getsockname()[:2]
        click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        run(lambda: create_app(named, HTTP(plain_http=plain_http)), listener)


def _parse(text: str) -> tuple[str, str]:
    found = _GATEWAY.fullmatch(text)
    if found is None:
        raise Usage(f"a gateway is NAME=URL, found {text}")
    return found[1], found[2].rstrip("/")
