"""``quotary enclave forward``: carry connections to and from a machine that has no network."""

import click

from quotary.net.endpoint import Endpoint
from quotary.net.forward import CONNECT_SECONDS, MOST, Forwarder


@click.command(
    epilog="\b\nExample, on the machine that started a Nitro enclave with the context id 16:\n"
    "  quotary enclave forward --listen 0.0.0.0:8443 --to vsock:16:8443\n"
    "  quotary enclave forward --listen vsock:8000 --to log.example.org:443\n\n"
    "Exit codes: 0 interrupted, 2, 20 no such sockets here, 40 the address is taken."
)
@click.option("--listen", required=True, help="HOST:PORT, unix:/PATH or vsock:PORT.")
@click.option("--to", "target", required=True, help="HOST:PORT, unix:/PATH or vsock:CID:PORT.")
@click.option(
    "--most", type=click.IntRange(1, 65_536), default=MOST, show_default=True, help="Connections at once."
)
def forward(listen: str, target: str, most: int) -> None:
    """Carry every connection to LISTEN on to another address, without looking at it, until interrupted."""
    to = Endpoint.parse(target, listen=False)
    listener = Endpoint.parse(listen, listen=True).listen("--listen")
    carrier = Forwarder(listener, lambda: to.connect(CONNECT_SECONDS), most=most)
    click.echo(f"{listen} to {target}", err=True)
    try:
        carrier.serve()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    finally:
        carrier.close()
