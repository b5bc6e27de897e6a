"""The log's own pages: its newest checkpoint with every signature, and that a size continues another."""

from datetime import UTC, datetime

from flask import request

from quotary.canonical import b64
from quotary.errors import InvalidSignature, Malformed
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.merkle import proof_ranges, verify_consistency
from quotary.tlog.note import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    ED25519,
    Note,
    Signature,
    VerifierKey,
)
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.tiles import root_at
from registry.errors import NotPublished
from registry.pages.lookup import iso
from registry.public import Snapshot
from registry.site import Site

PAGE = 20

_ALGORITHMS = {ED25519: "Ed25519", COSIGNATURE_ED25519: "Ed25519", COSIGNATURE_ML_DSA_44: "ML-DSA-44"}


def newest(site: Site) -> dict[str, object]:
    """Say what the newest published checkpoint holds, who signed it and when, and which came before."""
    snapshot = site.public.snapshot()
    policy = TlogPolicy.parse(site.policy_text())
    note, keys = Note.parse(snapshot.note), _keys(policy)
    signed = {(line.name, line.key_id) for line in note.signatures}
    return {
        "origin": snapshot.checkpoint.origin,
        "size": snapshot.size,
        "root": snapshot.checkpoint.root.hex(),
        "published_at": _at(snapshot.at),
        "log_time": _at(snapshot.state.ts),
        **({"ended": snapshot.state.end} if snapshot.state.end else {}),
        "note": snapshot.note.decode("utf-8"),
        "signatures": signatures(site, snapshot.note),
        "missing": [f"{role} {name}" for (name, id), (role, _) in keys.items() if (name, id) not in signed],
        "quorum": policy.quorum,
        "before": _before(site, snapshot),
    }


def signatures(site: Site, note: bytes) -> list[dict[str, object]]:
    """Say of each line under a note whose it is, and whether it holds under the log's own policy."""
    parsed, keys = Note.parse(note), _keys(TlogPolicy.parse(site.policy_text()))
    return [_line(line, parsed, keys) for line in parsed.signatures]


def consistency(site: Site) -> dict[str, object]:
    """Say which hashes prove that the published tree of ``new`` entries continues that of ``old``."""
    snapshot = site.public.snapshot()
    size = snapshot.size
    new, old = _size("new", size), _size("old", max(1, size - 1))
    if not 1 <= old <= new:
        raise Malformed(f"old is {old}, wanted 1 to new ({new})")
    if new > size:
        raise NotPublished(f"the checkpoint covers {size} entries, you asked for {new}", size)
    path = site.public.consistency(old, new, size)
    roots = root_at(old, site.public.tiles), root_at(new, site.public.tiles)
    verify_consistency(old, new, *roots, path)
    ranges = proof_ranges(0, old, new)
    steps = [
        {"first": first, "last": end - 1, "entries": end - first, "hash": digest.hex()}
        for (first, end), digest in zip(ranges, path, strict=True)
    ]
    names = [{"hex": root.hex(), "base64": b64(root)} for root in roots]
    return {"size": size, "old": old, "new": new, "old_root": names[0], "new_root": names[1], "path": steps}


def _keys(policy: TlogPolicy) -> dict[tuple[str, bytes], tuple[str, VerifierKey]]:
    found = {(key.name, key.key_id): ("log", key) for key in policy.logs}
    return found | {(w.key.name, w.key.key_id): ("witness", w.key) for w in policy.witnesses.values()}


def _line(
    line: Signature, note: Note, keys: dict[tuple[str, bytes], tuple[str, VerifierKey]]
) -> dict[str, object]:
    said: dict[str, object] = {"name": line.name, "key": line.key_id.hex()}
    role, key = keys.get((line.name, line.key_id), ("unknown", None))
    if key is None:
        return {**said, "role": role, "algorithm": "unknown", "outcome": "not checked", "signed_at": None}
    said |= {"role": role, "algorithm": _ALGORITHMS.get(key.alg, "unknown")}
    try:
        time = key.verify(note.text, line.signature)
    except InvalidSignature:
        return {**said, "outcome": "failed", "signed_at": None}
    return {**said, "outcome": "passed", "signed_at": _at(time) if time else None}


def _before(site: Site, snapshot: Snapshot) -> list[dict[str, object]]:
    rows = site.store.read.signed_before(snapshot.size, PAGE)
    checkpoints = [Checkpoint.parse(Note.parse(row.note).text) for row in rows]
    return [{"size": found.size, "root": found.root.hex()} for found in checkpoints]


def _size(name: str, otherwise: int) -> int:
    text = request.args.get(name, str(otherwise)).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Malformed(f"{name} is a number of entries")
    return int(text)


def _at(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))
