"""How the log stands: its keys and how to pin them, its witnesses and how far they are, and its own state."""

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from quotary.tlog.merkle import leaf_hash
from quotary.tlog.policy import TlogPolicy
from registry.lag import Times, longest_gap, read_history
from registry.pages.history import signatures
from registry.pages.lookup import iso
from registry.picture import bars_picture, lag_picture
from registry.public import Snapshot
from registry.site import Site

LATE_SECONDS = 600
BACKLOG = 8192


def witnesses(site: Site) -> dict[str, object]:
    """Say of each witness of the log's policy when it cosigned the newest checkpoint, and how long ago."""
    snapshot = site.public.snapshot()
    policy = TlogPolicy.parse(site.policy_text())
    lines = _witnesses(site, policy, snapshot, site.now())
    bars = [(str(line["name"]), line["age_seconds"]) for line in lines]
    now = int(site.now().timestamp())
    history = _history(policy, read_history(site.config.cosignatures), now)
    return {
        "origin": snapshot.checkpoint.origin,
        "size": snapshot.size,
        "quorum": policy.quorum,
        "groups": [
            {"name": group.name, "threshold": group.threshold, "members": list(group.members)}
            for group in policy.groups.values()
        ],
        "witnesses": lines,
        "picture": Markup(bars_picture("Seconds since each witness signed", bars)),  # noqa: S704  escaped there
        "history": history,
        "history_picture": Markup(lag_picture([(line["name"], line["times"]) for line in history], now)),  # noqa: S704  escaped there
    }


def _history(policy: TlogPolicy, kept: Times, now: int) -> list[dict[str, Any]]:
    """Say when each witness cosigned, as far as this machine kept it, and its longest silence."""
    found = []
    for witness in policy.witnesses.values():
        times = kept.get(witness.url, ())
        gap = longest_gap(times, now)
        found.append(
            {
                "name": witness.name,
                "times": list(times),
                "kept": len(times),
                "since": _iso(times[0]) if times else None,
                "silent_seconds": gap[0] if gap else None,
                "silent_from": _iso(gap[1]) if gap else None,
                "late": gap is not None and gap[0] > LATE_SECONDS,
            }
        )
    return found


def _iso(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))


def trust(site: Site) -> dict[str, object]:
    """Say what a verifier pins: the log's keys, its witnesses, entry 0; and what follows from none of it."""
    snapshot = site.public.snapshot()
    policy = TlogPolicy.parse(site.policy_text())
    return {
        "origin": snapshot.checkpoint.origin,
        "size": snapshot.size,
        "vkeys": [key.vkey() for key in policy.logs],
        "promise_vkey": site.keys.promise.vkey(),
        "witnesses": [
            {"name": found.name, "vkey": found.key.vkey(), "url": found.url}
            for found in policy.witnesses.values()
        ],
        "quorum": policy.quorum,
        "genesis": leaf_hash(site.public.entry(0, snapshot.size)).hex(),
        "tlog_policy": site.policy_text(),
        "simulated": site.config.origin.endswith("/simulation"),
    }


def status(site: Site) -> dict[str, object]:
    """Say what works and what is late, from this server's own database; nothing is asked of others."""
    snapshot, read = site.public.snapshot(), site.store.read
    now, oldest, head, signed = int(site.now().timestamp()), read.oldest_waiting(), read.head(), read.signed()
    committed, sealed = head.size if head else 0, signed.size if signed else 0
    count, policy = read.waiting_count(), TlogPolicy.parse(site.policy_text())
    lines = _witnesses(site, policy, snapshot, site.now())
    late = [line for line in lines if line["state"] != "fresh"]
    parts = [
        _part("publication", now - snapshot.at <= LATE_SECONDS, f"last {now - snapshot.at} s ago"),
        _part(
            "signer",
            committed - sealed <= BACKLOG,
            f"{committed - sealed} committed entries are not signed yet",
        ),
        _part(
            "witnesses", not late, f"{len(lines) - len(late)} of {len(lines)} signed within {LATE_SECONDS} s"
        ),
        _part("admission", oldest is None or now - oldest <= LATE_SECONDS, _waiting(count, oldest, now)),
        _part("goes on", snapshot.state.end is None, snapshot.state.end or "the log takes entries"),
    ]
    return {
        "size": snapshot.size,
        "parts": parts,
        "working": all(part["works"] for part in parts),
        "promise_seconds": site.config.promise_seconds,
        "at": iso(site.now()),
    }


def _witnesses(site: Site, policy: TlogPolicy, snapshot: Snapshot, now: datetime) -> list[dict[str, object]]:
    held = [line for line in signatures(site, snapshot.note) if line["outcome"] == "passed"]
    found: list[dict[str, object]] = []
    for witness in policy.witnesses.values():
        mine = [
            line
            for line in held
            if (line["name"], line["key"]) == (witness.key.name, witness.key.key_id.hex())
        ]
        newest = max((str(line["signed_at"]) for line in mine if line["signed_at"]), default=None)
        age = None if newest is None else max(0, int((now - datetime.fromisoformat(newest)).total_seconds()))
        state = "missing" if age is None else "fresh" if age <= LATE_SECONDS else "late"
        found.append(
            {
                "name": witness.name,
                "key": witness.key.vkey(),
                "url": witness.url,
                "state": state,
                "size": snapshot.size if newest is not None else None,
                "signed_at": newest,
                "age_seconds": age,
            }
        )
    return found


def _part(name: str, works: bool, found: str) -> dict[str, object]:
    return {"name": name, "works": works, "found": found}


def _waiting(count: int, oldest: int | None, now: int) -> str:
    if oldest is None:
        return "none waits"
    return f"{count} wait, the oldest for {max(0, now - oldest)} s"
