"""What the doctor looks at: each function raises what is wrong, and returns nothing where all is well."""

import os
import stat
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from quotary.errors import CannotTell, Malformed, Refused
from quotary.net.transport import Limits, Reply, Request, Transport
from quotary.tlog.policy import NO_QUORUM, TlogPolicy
from registry.config import Config
from registry.errors import NotPublished
from registry.identity import load_log_keys, public_keys, read_public
from registry.machine import RESERVE_BYTES, check_against, check_room
from registry.memory import NAME, recall
from registry.quota import is_loopback
from registry.signing import SignerClient
from registry.store import open_store

LIMITS = Limits(connect_seconds=2.0, read_seconds=5.0, total_seconds=8.0, length=1 << 20)
SECRETS = ("*.pem", "*.token", "signed-head.json")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies outside the folder.

    front:   the address under which readers reach the log; empty where nobody said it
    without: parts that another machine runs, and keeps the keys of
    """

    transport: Transport
    now: Callable[[], datetime]
    front: str = ""
    without: Collection[str] = ()


def check_settings(config: Config, _: Surroundings) -> None:
    if not config.promise_seconds > 2 * max(config.publish_interval_seconds, config.refresh_seconds):
        wanted = "more than twice publish_interval_seconds and refresh_seconds"
        raise Refused("promise_seconds", str(config.promise_seconds), wanted)
    host = config.bind.rpartition(":")[0].strip("[]")
    if host != "localhost" and not is_loopback(host):
        raise Refused("bind", config.bind, "an address of this machine only, with nginx before it")


def check_modes(config: Config, _: Surroundings) -> None:
    for path in (config.folder, config.keys):
        if stat.S_IMODE(os.stat(path).st_mode) & 0o022:
            raise Refused("mode", f"{path} writable by others", "0700", next_command=f"chmod go-w {path}")
    for path in sorted(found for pattern in SECRETS for found in config.keys.glob(pattern)):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            raise Refused("mode", f"{path} {mode:04o}", "0600", next_command=f"chmod 600 {path}")


def check_keys(config: Config, _: Surroundings) -> None:
    found, shown = public_keys(load_log_keys(config.keys, config.origin)), read_public(config.keys / "public")
    # While keys are rotated more of them sign than policies list: one of each type, Ed25519 first.
    listed = [key.alg for key in shown.log]
    known = set(shown.log) <= set(found.log) and found.promise == shown.promise
    if not known or listed != sorted({key.alg for key in found.log}):
        raise Refused("verifier keys", "others", "those of the secret keys")


def check_memory(config: Config, _: Surroundings) -> None:
    recall(config.keys / NAME)


def check_policy(config: Config, _: Surroundings) -> None:
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    if set(policy.logs) != set(read_public(config.keys / "public").log):
        raise Refused("log keys in the policy", "others", "those of this log")


def check_quorum(config: Config, _: Surroundings) -> None:
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    if policy.quorum == NO_QUORUM and not config.origin.endswith("/simulation"):
        raise Refused("quorum", "none", "witnesses of other operators")


def check_database(config: Config, _: Surroundings) -> None:
    with closing(open_store(config.database_url)) as store:
        store.check_standbys()
        if store.read.head() is None:
            raise CannotTell("the database holds no log")


def check_clock(config: Config, around: Surroundings) -> None:
    with closing(open_store(config.database_url)) as store:
        head = store.read.head()
    now = around.now()
    if head is not None and head.ts > now.timestamp():
        check_against("the log", datetime.fromtimestamp(head.ts, UTC), now)


def check_disk(config: Config, _: Surroundings) -> None:
    check_room(config.folder, RESERVE_BYTES)


def check_signer(config: Config, _: Surroundings) -> None:
    SignerClient(config.socket).head()


def check_witnesses(config: Config, around: Surroundings) -> None:
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    silent = []
    for witness in policy.witnesses.values():
        try:
            if witness.url:
                _check_date(_get(around, witness.url), witness.url, around.now())
        except CannotTell as error:
            silent.append(str(error))
    if silent:
        raise CannotTell("; ".join(silent))


def check_front(config: Config, around: Surroundings) -> None:
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    front = around.front.rstrip("/")
    reply = _get(around, f"{front}/checkpoint")
    if reply.status != 200:
        raise CannotTell(f"{front}/checkpoint answers {reply.status}")
    size = policy.verify(reply.body).checkpoint.size
    with closing(open_store(config.database_url)) as store:
        published = store.read.published_size()
    if size > published:
        raise NotPublished(f"{front} serves size {size}, the database has published {published}", published)
    if _get(around, f"{front}/metrics").status == 200:
        raise Refused(f"{front}/metrics", "200", "404: its numbers are for the operator")
    _check_date(reply, front, around.now())


def _get(around: Surroundings, url: str) -> Reply:
    return around.transport.send(Request(url, limits=LIMITS))


def _check_date(reply: Reply, who: str, now: datetime) -> None:
    text = reply.headers.get("date", "")
    if not text:
        return
    try:
        theirs = parsedate_to_datetime(text)
    except ValueError as error:
        raise Malformed(f"{who} sends the date {text[:40]!r}") from error
    check_against(who, theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC), now)
