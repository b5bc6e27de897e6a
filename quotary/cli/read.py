"""``quotary get``, ``search``, ``proof``, ``bundle``: fetch from a log, and check what can be checked."""

import json
from pathlib import Path

import click

from quotary.canonical import hexbytes, parse_canonical
from quotary.cli.options import log_client, memory, policy_option, read_policy, simulation_option, url_option
from quotary.cli.output import emit, json_option, summary, table, word
from quotary.cli.verify import refuse
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.client.log import LogClient
from quotary.client.verdict import Trail, documents
from quotary.client.verify import verify_bundle, verify_proof
from quotary.errors import Malformed, QuotaryError, Rejected, Unsupported, Usage
from quotary.net.transport import HTTP
from quotary.statements.envelope import MAX_ENTRY, Envelope
from quotary.statements.schema import parse_statement
from quotary.tlog.merkle import leaf_hash

OUT = click.option("--out", type=click.Path(path_type=Path), help="New file for the bytes.")
URL = click.option("--url", required=True, envvar="QUOTARY_LOG", show_envvar=True, help="Address of the log.")


@click.command(
    epilog="\b\nExample:\n  quotary get 4 --url https://log.example.org\n\nExit codes: 0, 2, 30, 40."
)
@click.argument("name")
@URL
@OUT
@json_option
def get(name: str, url: str, out: Path | None, as_json: bool) -> None:
    """Fetch the entry NAME (an index or a leaf hash) and show what it says; nothing is proven by that."""
    log = LogClient(HTTP(), url)
    entry = log.entry(_index(name)) if len(name) < 64 else log.entry_by_hash(hexbytes(name, 32))
    if out is not None:
        write_new(out, entry)
    document: dict[str, object] = {"schema": "quotary/entry/v1", "leaf_hash": leaf_hash(entry).hex()}
    try:
        envelope = Envelope.parse(entry)
        statement = parse_statement(envelope.payload)
    except (Malformed, Unsupported):
        document["content"] = parse_canonical(entry, MAX_ENTRY)
        words = "a record of the log itself, or of a kind that this version does not know"
    else:
        document |= {"kind": statement.kind, "statement_id": statement.statement_id}
        document["signers"] = [signature.keyid for signature in envelope.signatures]
        document["content"] = json.loads(envelope.payload)["predicate"]
        words = (
            f"{statement.kind} {statement.statement_id} of {statement.service}, sequence {statement.sequence}"
        )
    shown = json.dumps(document["content"], indent=2, ensure_ascii=True)
    text = f"{words}\nleaf hash {leaf_hash(entry).hex()}\n{shown}\nnot verified: quotary proof {name}"
    emit(document, text, as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary search example.org/chat --url https://log.example.org\n\n"
    "Exit codes: 0, 2, 40."
)
@click.argument("words")
@URL
@json_option
def search(words: str, url: str, as_json: bool) -> None:
    """Ask a log for a service, statement id, digest or measurement; the answer is a hint, not proof."""
    found = LogClient(HTTP(), url).search(words)
    results = found.get("results")
    if not isinstance(results, list):
        raise Malformed(f"{url} did not answer with results")
    document = {"schema": "quotary/search/v1", "proven": False, "results": results}
    lines = [
        "  ".join(word(item.get(name)) for name in ("index", "kind", "service", "statement_id"))
        + f"  {'effective' if item.get('effect') else word(item.get('code'))}"
        for item in results
        if isinstance(item, dict)
    ]
    lines.append(f"{len(results)} entries, by the log's word alone")
    emit(document, "\n".join(lines), as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary proof 4 --policy policy.json --out 4.tlog-proof\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40."
)
@click.argument("name")
@policy_option
@simulation_option
@url_option
@OUT
@json_option
def proof(
    name: str, policy_file: Path, simulation: bool, url: str | None, out: Path | None, as_json: bool
) -> None:
    """Fetch and verify the inclusion proof of the entry NAME (an index or a leaf hash)."""
    policy = read_policy(policy_file, simulation=simulation)
    log, trail = log_client(policy, url), Trail()
    by_hash = len(name) == 64
    data = log.proof(hexbytes(name, 32) if by_hash else _index(name))
    entry = log.entry_by_hash(hexbytes(name, 32)) if by_hash else log.entry(_index(name))
    try:
        found = verify_proof(data, entry, policy, memory(), SystemClock(), trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    if out is not None:
        write_new(out, data)
    checkpoint = found.checkpoint.checkpoint
    document = {
        "schema": "quotary/proof/v1",
        "index": found.index,
        "leaf_hash": found.leaf_hash.hex(),
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "checks": documents(trail.checks),
    }
    words = f"entry {found.index} of {checkpoint.origin} at {checkpoint.size} entries"
    emit(document, f"{table(trail.checks)}\n{words}\n{summary(trail.checks)}", as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary bundle example.org/chat 9a3f... --policy policy.json --out b.json\n\n"
    "Exit codes: 0, 2, 10, 11, 12, 30, 40."
)
@click.argument("service")
@click.argument("measurement")
@policy_option
@simulation_option
@url_option
@OUT
@json_option
def bundle(
    service: str,
    measurement: str,
    policy_file: Path,
    simulation: bool,
    url: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fetch and verify the bundle of a MEASUREMENT id of SERVICE."""
    policy = read_policy(policy_file, simulation=simulation)
    wanted, trail = hexbytes(measurement, 32), Trail()
    data = log_client(policy, url).bundle(service, wanted)
    if out is not None:
        write_new(out, data)
    try:
        found = verify_bundle(data, wanted, policy, memory(), SystemClock(), trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    if found.service != service:
        raise Rejected("release inclusion", f"a release of {found.service}", service)
    document = {
        "schema": "quotary/bundle-verdict/v1",
        "outcome": "proven",
        "service": found.service,
        "measurement": found.measurement_id.hex(),
        "release": found.release,
        "checks": documents(trail.checks),
    }
    emit(document, f"{table(trail.checks)}\n{found.headline}\n{summary(trail.checks)}", as_json=as_json)


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Usage(f"{text!r} is neither an index nor a leaf hash of 64 hex digits")
    return int(text)
