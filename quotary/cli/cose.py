"""``quotary cose``: the log's proofs as COSE receipts (RFC 9942), fetched and verified."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import click

from quotary.canonical import hexbytes
from quotary.cli.files import read_bytes
from quotary.cli.options import log_client, policy_option, read_policy, simulation_option, url_option
from quotary.cli.output import emit, json_option
from quotary.client.disk import write_new
from quotary.client.policy import Policy
from quotary.errors import Usage
from quotary.statements.cose import CoseReceipt, verify_consistency_receipt, verify_inclusion_receipt
from quotary.statements.envelope import spki
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import ED25519

FILE = click.Path(path_type=Path)
OUT = click.option("--out", type=FILE, required=True, help="New file for the receipt.")


@click.group(epilog="\b\nExample:\n  quotary cose inclusion 4 --policy policy.json --out 4.cose")
def cose() -> None:
    """Fetch and verify the log's proofs as COSE receipts, for verifiers that read those."""


@cose.command(
    epilog="\b\nExample:\n  quotary cose inclusion 4 --policy policy.json --out 4.cose\n\n"
    "Exit codes: 0, 2, 10, 30, 40."
)
@click.argument("name")
@policy_option
@simulation_option
@url_option
@OUT
@json_option
def inclusion(
    name: str, policy_file: Path, simulation: bool, url: str | None, out: Path, as_json: bool
) -> None:
    """Fetch and verify the receipt that the entry NAME (an index or a leaf hash) stands in the log."""
    policy = read_policy(policy_file, simulation=simulation)
    log = log_client(policy, url)
    if len(name) == 64:
        digest = hexbytes(name, 32)
        entry, data = log.entry_by_hash(digest), log.cose_inclusion(digest)
    elif name.isascii() and name.isdecimal() and len(name) < 17:
        entry, data = log.entry(int(name)), log.cose_inclusion(int(name))
    else:
        raise Usage(f"{name!r} is neither an index nor a leaf hash of 64 hex digits")
    found = verify_inclusion_receipt(data, leaf_hash(entry), log_keys(policy), policy.origin)
    write_new(out, data)
    _tell(found, f"entry {found.index}", as_json)


@cose.command(
    epilog="\b\nExample:\n  quotary cose consistency --old checkpoint --policy policy.json --out new.cose\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40."
)
@click.option("--old", "old_file", type=FILE, required=True, help="A signed checkpoint of before.")
@policy_option
@simulation_option
@url_option
@OUT
@json_option
def consistency(
    old_file: Path, policy_file: Path, simulation: bool, url: str | None, out: Path, as_json: bool
) -> None:
    """Fetch and verify the receipt that the log continues the checkpoint of before."""
    policy = read_policy(policy_file, simulation=simulation)
    old = _head(old_file, policy)
    data = log_client(policy, url).cose_consistency(old[0])
    found = verify_consistency_receipt(data, old, log_keys(policy), policy.origin)
    write_new(out, data)
    _tell(found, f"the log of {old[0]} entries", as_json)


@cose.command(
    epilog="\b\nExample:\n  quotary cose verify 4.cose --entry 4.json --policy policy.json\n\n"
    "Exit codes: 0, 2, 10, 11, 30, 40."
)
@click.argument("receipt", type=FILE)
@policy_option
@simulation_option
@click.option("--entry", "entry_file", type=FILE, help="The entry that the receipt includes, exact bytes.")
@click.option("--old", "old_file", type=FILE, help="The signed checkpoint that the receipt continues.")
@json_option
def verify(
    receipt: Path,
    policy_file: Path,
    simulation: bool,
    entry_file: Path | None,
    old_file: Path | None,
    as_json: bool,
) -> None:
    """Verify a RECEIPT of inclusion (--entry) or of consistency (--old), offline."""
    policy = read_policy(policy_file, simulation=simulation)
    data, keys = read_bytes(receipt), log_keys(policy)
    if entry_file is not None and old_file is None:
        found = verify_inclusion_receipt(data, leaf_hash(read_bytes(entry_file)), keys, policy.origin)
        _tell(found, f"entry {found.index}", as_json)
    elif old_file is not None and entry_file is None:
        old = _head(old_file, policy)
        found = verify_consistency_receipt(data, old, keys, policy.origin)
        _tell(found, f"the log of {old[0]} entries", as_json)
    else:
        raise Usage(
            "a receipt is about an entry or about an older checkpoint", next_command="add --entry FILE"
        )


def log_keys(policy: Policy) -> Mapping[bytes, bytes]:
    """Give the log's Ed25519 keys that the policy lists, by SHA-256 of their SubjectPublicKeyInfo."""
    keys = [key.public for key in policy.tlog.logs if key.alg == ED25519 and key.name == policy.origin]
    return {hashlib.sha256(spki(key)).digest(): key for key in keys}


def _head(path: Path, policy: Policy) -> tuple[int, bytes]:
    checkpoint = policy.tlog.verify(read_bytes(path)).checkpoint
    return checkpoint.size, checkpoint.root


def _tell(found: CoseReceipt, what: str, as_json: bool) -> None:
    head = found.head
    text = f"{what} is part of {head.origin} at {head.size} entries, by its key {head.key.hex()}"
    document = {
        "schema": "quotary/cose-receipt/v1",
        "origin": head.origin,
        "size": head.size,
        "index": found.index,
        "old_size": found.old,
        "key_sha256": head.key.hex(),
        "witnesses": "not checked",
        "age": "not checked",
    }
    missing = "not checked: witnesses and age, which no COSE receipt has (quotary proof)"
    emit(document, f"{text}\n{missing}", as_json=as_json)
