"""``quotary receipt``: check what an enclave signed about an answer, and log by when it was there."""

import threading
from pathlib import Path

import click

from quotary.canonical import hexbytes, time_text
from quotary.cli.files import read_bytes
from quotary.cli.options import log_client, policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option, summary, table
from quotary.cli.provers import is_joint, show_joint
from quotary.cli.verify import refuse
from quotary.client.clock import SystemClock
from quotary.client.disk import write_new
from quotary.client.files import EvidenceFile, verify_file, verify_receipt
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.receipt import Receipt
from quotary.client.receipt_root import (
    KIND,
    MAX_ANSWER,
    ReceiptPlace,
    parse_roots,
    verify_logged,
    verify_place,
)
from quotary.client.root_log import RootBook, RootLogger, Round
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail, documents
from quotary.client.verify import verify_proof
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused, Usage
from quotary.net.transport import HTTP, Limits, Request
from quotary.statements.schema import statement_payload

FILE = click.Path(path_type=Path)


@click.group(epilog="\b\nExample:\n  quotary receipt verify answer.evidence.json --policy policy.json")
def receipt() -> None:
    """Check what an enclave signed about an answer."""


@receipt.command(
    epilog="\b\nExample:\n  quotary receipt verify answer.evidence.json --policy policy.json\n\n"
    "Exit codes: 0, 2, 10, 11, 12, 20, 30, 40."
)
@click.argument("evidence", type=FILE)
@policy_option
@simulation_option
@click.option("--receipt", "receipt_file", type=FILE, help="Receipt, if it is not in the evidence file.")
@click.option("--place", "place_file", type=FILE, help="Its place under a root of receipts.")
@click.option("--entry", "entry_file", type=FILE, help="Logged statement that names the root.")
@click.option("--proof", "proof_file", type=FILE, help="That entry's proof under a checkpoint of now.")
@click.option("--from", "enclave", help="Address of the enclave: fetch place, entry and proof instead.")
@click.option("--log", "log_url", help="With --from: address of the log, if not the one in the policy.")
@click.option("--tolerate", type=click.IntRange(0), help="How far apart two machines may be, in millionths.")
@json_option
def verify(
    evidence: Path,
    policy_file: Path,
    simulation: bool,
    receipt_file: Path | None,
    place_file: Path | None,
    entry_file: Path | None,
    proof_file: Path | None,
    enclave: str | None,
    log_url: str | None,
    tolerate: int | None,
    as_json: bool,
) -> None:
    """Verify the receipt in the EVIDENCE file, and the machine that signed it, at their time; offline
    unless --from.

    Of two machines (quotary chat --with) both receipts, and what they say together. With --place, --entry and
    --proof also that it was there before that entry was logged.
    """
    logged = [path for path in (place_file, entry_file, proof_file) if path is not None]
    if len(logged) not in (0, 3) or (logged and enclave is not None):
        raise Usage("--place, --entry and --proof belong together, or --from in their place")
    policy = read_policy(policy_file, simulation=simulation)
    kept = read_bytes(evidence)
    if is_joint(kept):
        if logged or receipt_file is not None or enclave is not None:
            raise Usage("--receipt, --from, --place, --entry and --proof are about one machine's receipt")
        show_joint(kept, policy, tolerate, as_json)
        return
    if tolerate is not None:
        raise Usage("--tolerate is about two machines, and this file is of one")
    file, trail = EvidenceFile.parse(kept), Trail()
    try:
        verdict = verify_file(file, policy, trail)
        data = file.receipt if receipt_file is None else read_bytes(receipt_file)
        if data is None:
            raise Malformed(f"{evidence} holds no receipt", next_command="add --receipt FILE")
        found = Receipt.parse(data) if receipt_file is None else verify_receipt(data, verdict, trail)
        if enclave is not None:
            before = _fetched(found, verdict.service, policy, enclave, log_url)
        else:
            before = _logged(found, verdict.service, policy, *map(read_bytes, logged)) if logged else {}
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    document = {
        "schema": "quotary/receipt-verdict/v1",
        "outcome": "proven",
        "simulated": verdict.simulated,
        "judged_at": file.judged_at.isoformat(),
        **_members(found),
        **before,
        "checks": documents(trail.checks),
    }
    words = "\n".join(f"{name}: {value}" for name, value in (_members(found) | before).items())
    text = f"{table(trail.checks)}\n{words}\n{verdict.headline}\n{summary(trail.checks)}"
    emit(document, text, as_json=as_json)


@receipt.command(
    epilog="\b\nExample:\n  quotary receipt roots https://chat.example.org --service example.org/chat \\\n"
    "    --origin log.example.org/main --sequence 1 --out roots.json\n"
    "  quotary sign roots.json --key receipt-root.key --out roots.entry\n\n"
    "Exit codes: 0, 2, 30, 40."
)
@click.argument("url")
@click.option("--service", required=True, help="Whose receipts they are.")
@click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main.")
@click.option("--sequence", type=click.IntRange(1), required=True, help="Number of the statement.")
@click.option("--out", "output", type=FILE, required=True, help="New file for the unsigned statement.")
@json_option
def roots(url: str, service: str, origin: str, sequence: int, output: Path, as_json: bool) -> None:
    """Take the newest roots over receipts from the enclave at URL into a statement for the log.

    The statement is the service's word, signed by its role receipt-root; an enclave keeps 256 roots.
    """
    reply = HTTP(plain_http=origin.endswith("/simulation")).send(
        Request(url.rstrip("/") + "/v1/receipt-roots", limits=Limits(length=MAX_ANSWER))
    )
    if reply.status != 200:
        raise CannotTell(f"{url} answered {reply.status}")
    found = parse_roots(reply.body)
    if not found:
        raise CannotTell(f"{url} has closed no root yet", next_command="ask again in a minute")
    issued = time_text(SystemClock().now().replace(microsecond=0))
    header = {"log": origin, "service": service, "sequence": sequence, "issued": issued}
    payload = statement_payload(KIND, header | {"items": [root.item for root in found]})
    write_new(output, payload)
    document = {"schema": "quotary/receipt-roots/v1", "roots": len(found), "file": str(output)}
    text = f"{len(found)} roots, receipts {found[0].first} to {found[-1].first + found[-1].size - 1}\n"
    emit(document, text + f"next: quotary sign {output} --key KEY --out {output}.entry", as_json=as_json)


@receipt.command(
    epilog="\b\nExample:\n  quotary receipt follow https://chat.example.org --service example.org/chat \\\n"
    "    --origin log.example.org/main --log https://log.example.org --key receipt-root.key --dir roots\n\n"
    "Exit codes: 0, 2, 30, 40, 41."
)
@click.argument("url")
@click.option("--service", required=True, help="Whose receipts they are.")
@click.option("--origin", required=True, help="Origin of the log, e.g. log.example.org/main.")
@click.option("--log", "log_url", required=True, help="Address of the log.")
@click.option("--key", type=FILE, required=True, help="Key with the service's role receipt-root.")
@click.option(
    "--dir", "folder", type=FILE, required=True, help="Where what was seen and sent is written down."
)
@click.option("--interval", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Look once; 40 where something could not be logged.")
@json_option
def follow(
    url: str,
    service: str,
    origin: str,
    log_url: str,
    key: Path,
    folder: Path,
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Log the roots of the enclave at URL as it closes them; what could not be logged is tried again."""
    folder.mkdir(parents=True, exist_ok=True)
    transport = HTTP(plain_http=origin.endswith("/simulation"))
    book, log = RootBook(folder / "roots.db"), LogClient(transport, log_url)
    logger = RootLogger(url, transport, log, book, origin, service, open_signer(key), SystemClock())
    while True:
        looked = logger.round()
        for error in looked.errors:
            click.echo(f"error: {error}", err=True)
        _tell(looked, as_json)
        if once:
            if looked.errors:
                raise looked.errors[-1]
            return
        threading.Event().wait(interval)


def _tell(looked: Round, as_json: bool) -> None:
    document = {
        "schema": "quotary/receipt-follow/v1",
        "seen": looked.seen,
        "logged": [{"index": each.index, "roots": each.roots} for each in looked.logged],
        "waiting": looked.waiting,
        "errors": [str(error) for error in looked.errors],
    }
    lines = [f"entry {each.index}: {each.roots} roots" for each in looked.logged]
    emit(document, "\n".join([*lines, f"{looked.waiting} roots wait"]), as_json=as_json)


def _fetched(
    found: Receipt, service: str, policy: Policy, enclave: str, log_url: str | None
) -> dict[str, object]:
    """Fetch where the receipt stands and the entry that names its root, and prove both."""
    path = f"/v1/receipts/{found.served.receipt_id}/place"
    limits = Limits(length=MAX_ANSWER)
    reply = HTTP(plain_http=policy.simulation).send(Request(enclave.rstrip("/") + path, limits=limits))
    if reply.status != 200:
        raise CannotTell(
            f"{enclave} answered {reply.status}", next_command="ask again a minute after the answer"
        )
    log, root = log_client(policy, log_url), ReceiptPlace.parse(reply.body).root
    results = log.search(root.root.hex()).get("results")
    # A hint: whatever the log names is verified, and what it hides could not be told from what is not there.
    rows = [row for row in results if isinstance(row, dict)] if isinstance(results, list) else []
    indices = [row.get("index") for row in rows if row.get("kind") == KIND]
    if not indices or not isinstance(indices[-1], int):
        raise CannotTell(f"{log.url} names no entry with the root of receipts {root.root.hex()}")
    index = indices[-1]
    return _logged(found, service, policy, reply.body, log.entry(index), log.proof(index))


def _logged(
    found: Receipt, service: str, policy: Policy, place: bytes, entry: bytes, proof: bytes
) -> dict[str, object]:
    """Prove that the receipt was there before an entry of the log."""
    shown = ReceiptPlace.parse(place)
    verify_place(found, shown)
    verify_logged(shown, entry, service)
    included = verify_proof(proof, entry, policy, ProcessMemory(), SystemClock())
    return {"logged_index": included.index, "logged_before": time_text(included.times.quorum_at)}


def _members(found: Receipt) -> dict[str, object]:
    return {
        "receipt_id": found.served.receipt_id,
        "chat_id": found.served.chat_id,
        "complete": found.served.complete,
        "finish_reason": found.served.finish_reason,
        "model": found.origin.model,
        "weights": f"sha256:{found.origin.weights.hex()}",
        "measurement": found.origin.measurement.hex(),
        "log_size_at_admission": found.origin.size_at_admit,
        "log_size_at_end": found.origin.size_at_end,
    }


@receipt.command(
    epilog="\b\nExample:\n  quotary receipt browser kept.json --measurement 4d4d... --simulation\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40."
)
@click.argument("kept", type=FILE)
@click.option("--measurement", required=True, help="What the enclave must measure as, 64 hex digits.")
@simulation_option
@json_option
def browser(kept: Path, measurement: str, simulation: bool, as_json: bool) -> None:
    """Verify what the enclave's page kept of an exchange; its quote is the enclave's own word."""
    from quotary.client.browser import MAX_KEPT, Kept, verify_kept

    if not simulation:
        raise Refused(
            "simulation",
            "a quote that is signed by the key it names",
            "hardware's evidence about that key",
            next_command="add --simulation, or verify the machine with quotary chat",
        )
    found = Kept.parse(read_bytes(kept, MAX_KEPT))
    verify_kept(found, hexbytes(measurement, 32))
    said = "quote and receipt hold under one key; nothing here says that hardware holds it"
    document = {
        "schema": "quotary/browser-receipt/v1",
        "said": said,
        "measurement": measurement,
        "simulated": True,
    }
    emit(document, said, as_json=as_json)
