"""``quotary kms``: run one node of a key service, and take part in its ceremonies."""

import os
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quotary.cli.files import read_bytes
from quotary.cli.options import log_client, policy_option, read_policy, simulation_option, url_option
from quotary.cli.output import emit, json_option
from quotary.client.disk import write_new
from quotary.errors import Usage
from quotary.net.listen import open_listener

if TYPE_CHECKING:
    from flask import Flask

    from quotary.client.key_epoch import KeyEpoch
    from quotary.threshold.group import Ceremony

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
MAX_FILE = 1 << 18

_dir = click.option("--dir", "folder", type=FOLDER, required=True, help="The node's folder.")
_node = click.option(
    "--node", "urls", multiple=True, required=True, metavar="URL", help="A node's address; repeat for each."
)
_out = click.option("--out", type=FILE, required=True, help="New file.")
_sequence = click.option(
    "--sequence", type=click.IntRange(1), default=1, show_default=True, help="Number of the statement."
)
_group = click.option("--group", "group_file", type=FILE, required=True, help="Who holds shares.")


@click.group(epilog="\b\nExample:\n  quotary kms serve --dir node --policy policy.json")
def kms() -> None:
    """Keep keys for enclaves in shares that several operators hold."""


@kms.command(epilog="\b\nExample:\n  quotary kms init --dir node --out card.json\n\nExit codes: 0, 2, 40.")
@_dir
@_out
def init(folder: Path, out: Path) -> None:
    """Make a node's own keys, and a card with their public halves for the other operators."""
    from private.kms.folder import NodeFolder
    from quotary.canonical import canonical
    from quotary.statements.envelope import key_id

    card = NodeFolder(folder).create(os.urandom).card(1)
    write_new(out, canonical(card.document()))
    click.echo(f"key {key_id(card.key)}\ncard {out}")


@kms.command(
    epilog="\b\nExample:\n  quotary kms group --service example.org/keys --log log.example.org \\\n"
    "    --threshold 2 --card a.json --card b.json --card c.json --out group.json\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@click.option("--service", required=True, help="The key service's name in the log.")
@click.option("--log", "origin", required=True, help="Origin of the log.")
@click.option("--threshold", type=click.IntRange(1), required=True, help="How many nodes a key needs.")
@click.option(
    "--card",
    "cards",
    type=FILE,
    multiple=True,
    required=True,
    help="A node's card; their order numbers them.",
)
@_out
def group(service: str, origin: str, threshold: int, cards: tuple[Path, ...], out: Path) -> None:
    """Name the nodes that hold a key together. Operators compare the digest that it prints."""
    from dataclasses import replace

    from quotary.canonical import parse_canonical
    from quotary.threshold.group import MAX_DOCUMENT, Group, Node

    found = [Node.read(parse_canonical(read_bytes(card, MAX_FILE), MAX_DOCUMENT)) for card in cards]
    nodes = tuple(replace(node, number=number) for number, node in enumerate(found, 1))
    made = Group.parse(Group(service, origin, threshold, nodes).encode())
    write_new(out, made.encode())
    click.echo(f"group {made.digest.hex()}: {threshold} of {len(nodes)} nodes")


@kms.command(
    epilog="\b\nExample:\n  quotary kms dkg --group group.json --out ceremony.json\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@_group
@_sequence
@_out
def dkg(group_file: Path, sequence: int, out: Path) -> None:
    """Propose the generation of the first key. Nothing happens before every operator approved it."""
    _propose(group_file, 1, 0, "none", sequence, out)


@kms.command(
    epilog="\b\nExample:\n  quotary kms rotate --group group.json --epoch 2 --out ceremony.json\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@_group
@click.option("--epoch", type=click.IntRange(2), required=True, help="Number of the new key.")
@_sequence
@_out
def rotate(group_file: Path, epoch: int, sequence: int, out: Path) -> None:
    """Propose a new key. The old one remains until every node destroyed its share of it."""
    _propose(group_file, epoch, 0, "none", sequence, out)


@kms.command(
    epilog="\b\nExample:\n  quotary kms refresh --group group.json --before epoch-1.json \\\n"
    "    --policy policy.json --url https://log.example.org --out ceremony.json\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40."
)
@_group
@click.option("--before", type=FILE, required=True, help="The entry of the shares in use.")
@policy_option
@url_option
@simulation_option
@_sequence
@_out
def refresh(
    group_file: Path,
    before: Path,
    policy_file: Path,
    url: str | None,
    simulation: bool,
    sequence: int,
    out: Path,
) -> None:
    """Propose new shares of a key, for the same nodes or others; the old ones are worth nothing then."""
    found, _ = _shares(before, policy_file, url, simulation=simulation)
    _propose(group_file, found.epoch, found.generation + 1, found.statement_id, sequence, out)


@kms.command(
    epilog="\b\nExample:\n  quotary kms approve --dir node --ceremony ceremony.json\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@_dir
@click.option("--ceremony", "ceremony_file", type=FILE, required=True, help="What was proposed.")
@click.option("--discard", is_flag=True, help="Give up a share that was signed and never used.")
def approve(folder: Path, ceremony_file: Path, discard: bool) -> None:
    """Let this node take part in a ceremony. Compare the digest that it prints with the other operators'."""
    from private.kms.folder import NodeFolder

    ceremony = _ceremony(ceremony_file)
    node = NodeFolder(folder)
    number = ceremony.group.number_of(node.keys().card(1).key)
    node.approve(ceremony, discard=discard)
    held = f"{ceremony.group.threshold} of {len(ceremony.group.nodes)}"
    click.echo(
        f"approved {ceremony.digest.hex()}: {ceremony.kind}, epoch {ceremony.epoch}, "
        f"generation {ceremony.generation}, {held}, this is node {number}"
    )


@kms.command(
    epilog="\b\nExample:\n  quotary kms run --ceremony ceremony.json --out epoch-1.json \\\n"
    "    --policy policy.json --url https://log.example.org \\\n"
    "    --node https://a.example --node https://b.example --node https://c.example\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40, 41."
)
@click.option("--ceremony", "ceremony_file", type=FILE, required=True, help="What every operator approved.")
@_node
@click.option("--before", type=FILE, help="For new shares: the entry of those in use.")
@click.option(
    "--without", type=click.IntRange(1), multiple=True, help="A node that does not deal; may be repeated."
)
@policy_option
@url_option
@simulation_option
@click.option("--out", type=FILE, required=True, help="The entry that all nodes sign; there, it goes on.")
def run(
    ceremony_file: Path,
    urls: tuple[str, ...],
    before: Path | None,
    without: tuple[int, ...],
    policy_file: Path,
    url: str | None,
    simulation: bool,
    out: Path,
) -> None:
    """Carry an approved ceremony from node to node, log what came of it, and have the shares used.

    Who runs this sees no share. Every step can be repeated; after a failure the same command goes on.
    """
    from private.kms.conduct import Conductor, find_nodes
    from quotary.client.submit import submit
    from quotary.net.transport import HTTP

    ceremony, policy = _ceremony(ceremony_file), read_policy(policy_file, simulation=simulation)
    if (before is None) != (ceremony.generation == 0):
        raise Usage("--before belongs to new shares of a key, and to nothing else")
    log, transport = log_client(policy, url), HTTP(plain_http=policy.simulation)
    nodes = find_nodes(ceremony, urls, transport)
    conductor = Conductor(ceremony, nodes, transport, lambda line: click.echo(line, err=True))
    if not out.exists():
        shares, logged = _shares(before, policy_file, url, simulation=simulation) if before else (None, None)
        write_new(out, conductor.hold(logged, shares.before if shares else None, without))
    entry = read_bytes(out, MAX_FILE)
    placed = submit(log, entry, wait=True)
    conductor.activate(entry, log.proof(placed.leaf_hash))
    click.echo(
        f"epoch {ceremony.epoch}, generation {ceremony.generation}: "
        f"{placed.statement_id}, index {placed.index}"
    )


@kms.command(
    epilog="\b\nExample:\n  quotary kms serve --dir node --policy policy.json\n\n"
    "Exit codes: 0, 2, 11, 30, 40."
)
@_dir
@policy_option
@url_option
@simulation_option
@click.option("--bind", default="127.0.0.1:8485", show_default=True, help="Where it listens.")
@click.option(
    "--announce-seconds", type=click.IntRange(1, 3600), default=60, show_default=True,
    help="How long after a release the ledger's head goes to the log.",
)  # fmt: skip
def serve(
    folder: Path, policy_file: Path, url: str | None, simulation: bool, bind: str, announce_seconds: int
) -> None:
    """Answer attested enclaves, each judged under --policy at this node's own checkpoint.

    Each release is in the ledger before its answer leaves, and the ledger's head goes to the log.
    """
    from private.kms.folder import TRUST, NodeFolder
    from private.kms.node import announcer, open_node
    from quotary.client.clock import SystemClock
    from quotary.client.trust import FileMemory
    from quotary.net.service import serve as run_server

    policy, node = read_policy(policy_file, simulation=simulation), NodeFolder(folder)
    node.keys()
    log, clock = log_client(policy, url), SystemClock()
    memory = FileMemory(folder / TRUST)
    with closing(open_listener(bind, "--bind host:port")) as listener:
        host, port = listener.getsockname()[:2]
        click.echo(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

        def make() -> "Flask":
            app = open_node(node, policy, log, memory, clock)
            announcer(app, node, policy, log, announce_seconds).start()
            return app

        run_server(make, listener, workers=1)


@kms.command(
    epilog="\b\nExample:\n  quotary kms status --node https://a.example --node https://b.example\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@_node
@click.option("--plain-http", is_flag=True, help="Nodes beyond this machine may be reached without TLS.")
@json_option
def status(urls: tuple[str, ...], plain_http: bool, as_json: bool) -> None:
    """Show which shares nodes say that they hold, and how much they released. It is their word."""
    from private.kms.conduct import status_of
    from quotary.net.transport import HTTP
    from quotary.statements.envelope import key_id

    transport = HTTP(plain_http=plain_http)
    found = {url: status_of(url, transport) for url in urls}
    rows = [
        {
            "url": url,
            "key": key_id(item.key),
            "shares": [{"epoch": shares.epoch, "generation": shares.generation} for shares in item.shares],
            "released": item.released,
            "ledger": item.ledger.hex(),
        }
        for url, item in found.items()
    ]
    lines = [
        f"{url}  {key_id(item.key)[:23]}  released {item.released}  "
        + (", ".join(f"epoch {s.epoch} generation {s.generation}" for s in item.shares) or "no share")
        for url, item in found.items()
    ]
    emit({"schema": "quotary/kms-status/v1", "nodes": rows}, "\n".join(lines), as_json=as_json)


@kms.command(epilog="\b\nExample:\n  quotary kms destroy --dir node --epoch 1\n\nExit codes: 0, 2, 11, 40.")
@_dir
@click.option("--epoch", type=click.IntRange(1), required=True, help="Whose share goes.")
def destroy(folder: Path, epoch: int) -> None:
    """Overwrite this node's share of an epoch. What is sealed under that epoch's keys alone is lost then."""
    from private.kms.folder import NodeFolder

    NodeFolder(folder).destroy(epoch)
    click.echo(f"destroyed the share of epoch {epoch}")


@kms.command(epilog="\b\nExample:\n  quotary kms ledger --dir node\n\nExit codes: 0, 2, 30, 40.")
@_dir
def ledger(folder: Path) -> None:
    """Follow the chain of what this node released; its head is what the log was told."""
    from private.kms.folder import LEDGER
    from private.kms.ledger import read_ledger

    head = read_ledger(folder / LEDGER)
    click.echo(f"{head.size} releases, head {head.digest.hex()}: each line follows from the one before")


def _propose(group_file: Path, epoch: int, generation: int, previous: str, sequence: int, out: Path) -> None:
    from quotary.threshold.group import MAX_DOCUMENT, Ceremony, Group

    found = Group.parse(read_bytes(group_file, MAX_DOCUMENT))
    issued = datetime.now(UTC).replace(microsecond=0)
    made = Ceremony(found, epoch, generation, previous, sequence, issued, os.urandom(32))
    write_new(out, made.encode())
    click.echo(f"ceremony {made.digest.hex()}")
    click.echo(f"next, for each operator: quotary kms approve --dir NODE --ceremony {out}", err=True)


def _ceremony(path: Path) -> "Ceremony":
    from quotary.threshold.group import MAX_DOCUMENT, Ceremony

    return Ceremony.parse(read_bytes(path, MAX_DOCUMENT))


def _shares(
    path: Path, policy_file: Path, url: str | None, *, simulation: bool
) -> "tuple[KeyEpoch, tuple[bytes, bytes]]":
    """Read an entry about shares, with the proof that the log has it."""
    from quotary.client.key_epoch import read_epoch
    from quotary.tlog.merkle import leaf_hash

    policy = read_policy(policy_file, simulation=simulation)
    entry = read_bytes(path, MAX_FILE)
    proof = log_client(policy, url).proof(leaf_hash(entry))
    return read_epoch(entry, proof, policy), (entry, proof)
