"""``quotary proxy``: let any OpenAI client on this machine talk to verified machines only."""

import json
import logging
from pathlib import Path

import click

import web
from quotary.cli.files import read_bytes
from quotary.cli.options import memory, policy_option, read_policy, simulation_option
from quotary.cli.output import summary, table
from quotary.cli.verify import refuse
from quotary.client.files import EvidenceFile
from quotary.client.policy import MAX_POLICY
from quotary.client.proxy import FACTS, Proxy
from quotary.client.session import Client
from quotary.client.trust import write_private
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, QuotaryError

_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
_FILES = {
    "enclave": ("index.html", "page.js", "worker.js", "layout.js", "evidence.js"),
    "static": (
        "style.css",
        "verify.js",
        "ed25519.js",
        "documents.js",
        "receipt.js",
        "trie.js",
        "kept.js",
        "quote.js",
        "devices.js",
        "layouts.js",
        "x509.js",
        "cbor.js",
        "bundle.js",
        "owners.js",
        "statements.js",
    ),
}


@click.command(
    epilog="\b\nExample:\n  quotary proxy https://chat.example.org --policy policy.json --port 8080\n"
    "  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python my_program.py\n"
    "  curl http://127.0.0.1:8080/verdict.json     (what it verified; / is the same as a page)\n\n"
    "Exit codes: 0, 2, 10, 11, 12, 20, 30, 40 before it listens."
)
@click.argument("url")
@policy_option
@simulation_option
@click.option("--service", help="Whose machine it must be, if the policy names several.")
@click.option("--log", "log_url", help="Address of the log, if not the one in the policy.")
@click.option("--ratls", is_flag=True, help="URL is the enclave's second door: TLS that ends inside it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the evidence of every answer.")
def proxy(
    url: str,
    policy_file: Path,
    simulation: bool,
    service: str | None,
    log_url: str | None,
    ratls: bool,
    host: str,
    port: int,
    keep: Path | None,
) -> None:
    """Verify the machine at URL, then serve OpenAI's API on this machine until interrupted."""
    policy = read_policy(policy_file, simulation=simulation)
    client = Client(url, policy, service=service, log_url=log_url, memory=memory(), ratls=ratls)
    trail = Trail()
    try:
        found = client.verify(trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json=False)
    main = [check for check in trail.checks if ":" not in check.name]
    click.echo(f"{table(main)}\n{found.verdict.headline}\n{summary(main)}", err=True)
    log = logging.getLogger("quotary.client.proxy")
    log.addHandler(_Lines())
    log.setLevel(logging.INFO)
    server = Proxy(client, host, port, _keeper(keep), page_files(read_bytes(policy_file, MAX_POLICY)))
    click.echo(server.url)
    click.echo(f"what is verified: {server.page}", err=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def page_files(policy: bytes) -> dict[str, tuple[str, bytes]]:
    """Give the page on which a browser judges for itself, what it imports, and the policy for it."""
    files = {"/policy.json": ("application/json", policy)}
    for folder, names in _FILES.items():
        for name in names:
            data = (web.FOLDER / folder / name).read_bytes()
            files[f"/{folder}/{name.removeprefix('index.html')}"] = (_TYPES[Path(name).suffix], data)
    return files


class _Lines(logging.Handler):
    """Writes the proxy's events as JSON lines on stderr; no prompt is among their facts."""

    def emit(self, record: logging.LogRecord) -> None:
        facts = {name: value for name, value in vars(record).items() if name in FACTS}
        line = {"event": record.getMessage(), "level": record.levelname} | facts
        click.echo(json.dumps(line), err=True)


class _Keeper:
    """Writes each answer's evidence to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, file: EvidenceFile) -> None:
        from quotary.client.receipt import Receipt

        assert file.receipt is not None, "a file without receipt is not handed over"
        name = Receipt.parse(file.receipt).served.receipt_id
        write_private(self._folder / f"{name}.evidence.json", file.encode())


def _keeper(folder: Path | None) -> _Keeper | None:
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotTell(f"cannot make the folder {folder}: {error.strerror}") from error
    return _Keeper(folder)
