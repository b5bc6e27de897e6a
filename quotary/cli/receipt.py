"""``quotary receipt``: check what an enclave signed about an answer."""

from pathlib import Path

import click

from quotary.cli.files import read_bytes
from quotary.cli.options import policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option, summary, table
from quotary.cli.verify import refuse
from quotary.client.files import EvidenceFile, verify_file, verify_receipt
from quotary.client.receipt import Receipt
from quotary.client.verdict import Trail, documents
from quotary.errors import Malformed, QuotaryError

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
@json_option
def verify(
    evidence: Path, policy_file: Path, simulation: bool, receipt_file: Path | None, as_json: bool
) -> None:
    """Verify the receipt in the EVIDENCE file, and the machine that signed it, at their time; offline."""
    policy = read_policy(policy_file, simulation=simulation)
    file, trail = EvidenceFile.parse(read_bytes(evidence)), Trail()
    try:
        verdict = verify_file(file, policy, trail)
        data = file.receipt if receipt_file is None else read_bytes(receipt_file)
        if data is None:
            raise Malformed(f"{evidence} holds no receipt", next_command="add --receipt FILE")
        found = Receipt.parse(data) if receipt_file is None else verify_receipt(data, verdict, trail)
    except QuotaryError as error:
        refuse(error, trail.checks, as_json)
    document = {
        "schema": "quotary/receipt-verdict/v1",
        "outcome": "proven",
        "simulated": verdict.simulated,
        "judged_at": file.judged_at.isoformat(),
        **_members(found),
        "checks": documents(trail.checks),
    }
    words = "\n".join(f"{name}: {value}" for name, value in _members(found).items())
    text = f"{table(trail.checks)}\n{words}\n{verdict.headline}\n{summary(trail.checks)}"
    emit(document, text, as_json=as_json)


def _members(found: Receipt) -> dict[str, object]:
    return {
        "receipt_id": found.served.receipt_id,
        "chat_id": found.served.chat_id,
        "complete": found.served.complete,
        "model": found.origin.model,
        "weights": f"sha256:{found.origin.weights.hex()}",
        "measurement": found.origin.measurement.hex(),
        "log_size_at_admission": found.origin.size_at_admit,
        "log_size_at_end": found.origin.size_at_end,
    }
