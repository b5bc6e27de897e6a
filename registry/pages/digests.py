"""From whatever somebody has in hand to what the log says of it: search, and the page of one digest."""

import re
from typing import Any

from flask import request

from quotary.canonical import unb64
from quotary.errors import Malformed
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope
from quotary.statements.floor import TCBFloor
from quotary.statements.keys import key_measurement
from quotary.statements.opened import open_entry
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.schema import Statement
from quotary.tlog.merkle import leaf_hash
from registry.pages.lookup import described, listed, parsed, status_of
from registry.search import LONGEST, Found
from registry.search import search as find
from registry.site import Site

PAGE = 50
NIX32 = "0123456789abcdfghijklmnpqrsvwxyz"

_STORE_PATH = re.compile(r"/nix/store/([0-9a-z]{32})-\S+")
_HEX = re.compile(r"(?:sha256:|sha384:)?(?:0x)?((?:[0-9a-f]{2}[ :-]?){20,64})")


def search(site: Site) -> dict[str, object]:
    """Say how the words were read, and the newest entries that name them exactly."""
    query = request.args.get("q", "").strip()[:LONGEST]
    snapshot = site.public.snapshot()
    read_as, word = reading(query)
    found = find(site.store.read, word, snapshot.size, PAGE)
    return {
        "query": query,
        "read_as": read_as,
        "word": word,
        "size": snapshot.size,
        "indexed": found.indexed,
        "entries": listed(described(site, found.indices, snapshot)),
        "complete": found.complete,
    }


def reading(query: str) -> tuple[str, str]:
    """Say what a text was taken for, and as what it is looked for.

    Order matters: decimal digits are an index, also where they could be hex.
    """
    text = query.strip()
    bare = text.removeprefix("#")
    if bare.isascii() and bare.isdigit() and len(bare) <= 18:
        return "the index of an entry", str(int(bare))
    if text.startswith(("{", "-----BEGIN", "c2sp.org/tlog-proof", "— ")) or "\n" in text:
        return "a document: the page Verify reads it, and sends it nowhere", text
    if _STORE_PATH.fullmatch(text):
        return "a path in the Nix store: releases name source revisions and digests, not such paths", text
    if match := _HEX.fullmatch(text.lower()):
        digest = re.sub(r"[ :-]", "", match[1])
        return f"a digest or register of {len(digest) // 2} bytes", digest
    if (decoded := _other_digest(text)) is not None:
        return f"a digest of {len(decoded) // 2} bytes, decoded", decoded
    if "@" in text:
        return "the name of a service; releases are told apart by their digests", text.partition("@")[0]
    return "a name or id, exactly as it stands", text


def digest(site: Site, digest: str) -> dict[str, object]:
    """Say every role that a digest has in the newest entries that name it, and its status as a measurement.

    ``?at=`` is a size of a state in the past: the status is the one of then.
    """
    snapshot = site.public.snapshot()
    _, word = reading(digest)
    if not word or len(word) > LONGEST:
        raise Malformed("not a digest")
    at = request.args.get("at", snapshot.size, type=int)
    if not 1 <= at <= snapshot.size:
        raise Malformed(f"at is a size from 1 to {snapshot.size}")
    found: Found = find(site.store.read, word, snapshot.size, PAGE)
    lines: list[dict[str, Any]] = []
    for line in listed(described(site, found.indices, snapshot)):
        lines.append(
            {**line, "roles": _roles(site.public.entry(int(str(line["index"])), snapshot.size), word)}
        )
    return {
        "digest": word,
        "size": snapshot.size,
        "at": at,
        "measurements": _statuses(site, word, at),
        "roles": sorted({role for line in lines for role in line["roles"]}),
        "entries": lines,
        "complete": found.complete,
    }


def _other_digest(text: str) -> str | None:
    """Read SRI (``sha256-…=``), base64 and Nix's base 32 of 32 bytes; None for anything else."""
    body = text.removeprefix("sha256-").removeprefix("sha256:")
    if len(body) == 44 and body.endswith("="):
        try:
            return unb64(body, length=32).hex()
        except Malformed:
            return None
    if len(body) == 52 and set(body) <= set(NIX32):
        return _nix32(body)
    return None


def _nix32(text: str) -> str | None:
    """Decode Nix's base 32: the last character holds the lowest five bits, and bytes run upwards."""
    number = 0
    for letter in text:
        number = number << 5 | NIX32.index(letter)
    return None if number >> 256 else number.to_bytes(32, "little").hex()


def _statuses(site: Site, word: str, at: int) -> list[dict[str, object]]:
    if not re.fullmatch("[0-9a-f]{64}", word):
        return []
    found, measurement = [], bytes.fromhex(word)
    for service in site.store.read.holders(measurement, at)[:PAGE]:
        data = site.store.read.record(key_measurement(service, measurement), at)
        record = parsed(data) if data else None
        found.append(
            {"service": service, "state": status_of(record), "release": (record or {}).get("release")}
        )
    return found


def _roles(entry: bytes, word: str) -> list[str]:
    opened = open_entry(entry)
    roles = [] if opened.statement is None else list(_of_statement(opened.statement, word))
    if opened.envelope is not None and _signed(opened.envelope, word):
        roles.append("key that signed")
    if leaf_hash(entry).hex() == word:
        roles.append("leaf hash")
    return roles or ["named"]


def _signed(envelope: Envelope, word: str) -> bool:
    return any(item.keyid.removeprefix("sha256:") == word for item in envelope.signatures)


def _of_statement(statement: Statement, word: str) -> list[str]:
    found = [("statement id", statement.statement_id)]
    match statement.predicate:
        case Release() as one:
            found += [(f"output {output.name}", output.sha256.hex()) for output in one.outputs]
            found += [("lock", one.lock_sha256.hex()), ("weights", one.weights_sha256.hex())]
            found += [("policy", one.policy_sha256.hex()), ("source revision", one.source_revision)]
            for row in one.rows:
                found += [(f"measurement ({row.platform})", row.measurement.hex())]
                found += [(f"profile {row.profile}", row.profile_sha256.hex())]
                found += [
                    (f"register {name} ({row.platform})", value.hex())
                    for name, value in row.registers.items()
                ]
        case Revocation() as one:
            found += [("measurement withdrawn", item.hex()) for item in one.measurements]
            found += [("release withdrawn", one.release or ""), ("replacement", one.replacement or "")]
        case Rebuild() as one:
            found += [("release built again", one.release)]
            found += [("measurement built again", row.measurement.hex()) for row in one.rows]
        case Delegation() as one:
            found += [(f"key of role {name}", key) for name, role in one.roles.items() for key in role.keys]
            found += [("key called compromised", item.key) for item in one.compromised]
        case TCBFloor() as one:
            found += [("product", one.product)]
    return sorted({role for role, text in found if text.removeprefix("sha256:") == word})
