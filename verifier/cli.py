"""``quotary verifier init`` and ``serve``: an attestation verifier of one's own."""

from contextlib import closing
from pathlib import Path

import click

from quotary.cli.options import offline_option, policy_option, read_policy, simulation_option
from quotary.net.listen import open_listener

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(epilog="\b\nExample:\n  quotary verifier init --dir verifier\n\nExit codes: 0, 2, 40.")
@click.option("--dir", "folder", type=FOLDER, required=True, help="The verifier's folder.")
def init(folder: Path) -> None:
    """Make a verifier's key (P-256, mode 0600) and the key set that its results are checked with."""
    from quotary.client.ear import jwk
    from verifier.keys import KEY_SET, create_key

    key = create_key(folder)
    click.echo(f"key {jwk(key.public_key())['kid']}\npublish {folder / KEY_SET}")


@click.command(
    epilog="\b\nExample:\n  quotary verifier serve --dir verifier --policy policy.json\n\n"
    "Exit codes: 0, 2, 11, 20, 30, 40."
)
@click.option("--dir", "folder", type=FOLDER, required=True, help="The verifier's folder.")
@policy_option
@click.option("--bind", default="127.0.0.1:8482", show_default=True, help="Where it listens.")
@click.option("--registry", default="", metavar="URL", help="Ask a registry for documents before vendors.")
@click.option("--cache", type=FOLDER, help="Folder of vendors' documents, if not `cache` in --dir.")
@simulation_option
@offline_option
def serve(
    folder: Path,
    policy_file: Path,
    bind: str,
    registry: str,
    cache: Path | None,
    simulation: bool,
    offline: bool,
) -> None:
    """Judge evidence that is sent, under --policy and without a log, and sign the results.

    POST /api/verify/tee-attestation; the key is at /.well-known/jwks.json. Nothing that is sent is kept.
    """
    from verifier.keys import load_key
    from verifier.serve import Options
    from verifier.serve import serve as run

    policy = read_policy(policy_file, simulation=simulation)
    load_key(folder)
    with closing(open_listener(bind, "--bind host:port")) as listener:
        host, port = listener.getsockname()[:2]
        click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        run(Options(folder, policy, cache or folder / "cache", registry, offline), listener)
