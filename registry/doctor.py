"""Look at everything a registry needs, one by one (``registry doctor``)."""

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator

from quotary.errors import CannotTell, QuotaryError, Refused
from quotary.tlog.policy import TlogPolicy
from registry.config import Config
from registry.identity import load_log_keys, public_keys, read_public
from registry.memory import recall
from registry.signing import SignerClient
from registry.store import open_store

RESERVE_BYTES = 64 << 20


def examine(config: Config, without: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the name of each thing with what is wrong with it; an empty text is fine.

    without: ``signer`` where another machine runs it, and keeps the keys
    """
    signers: dict[str, Callable[[Config], None]] = {
        "log keys, and the verifier keys beside them": _keys,
        "the signer's memory": lambda found: _ignore(recall(found.keys / "signed-head.json")),
    }
    looks: dict[str, Callable[[Config], None]] = {
        "secret files readable by their owner only": _modes,
        **({} if "signer" in without else signers),
        "tlog-policy lists exactly the log's keys": _policy,
        "database: version, settings, schema, standbys, a log in it": _database,
        f"{RESERVE_BYTES >> 20} MiB of free disk": _disk,
        "a signer answers": lambda found: _ignore(SignerClient(found.socket).head()),
    }
    for name, look in looks.items():
        try:
            look(config)
        except (QuotaryError, OSError) as error:
            yield name, str(error)
        else:
            yield name, ""


def _modes(config: Config) -> None:
    for path in sorted(config.keys.glob("*.pem")):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            raise Refused("mode", f"{path} {mode:04o}", "0600", next_command=f"chmod 600 {path}")


def _keys(config: Config) -> None:
    found = public_keys(load_log_keys(config.keys, config.origin))
    if found != read_public(config.keys / "public"):
        raise Refused("verifier keys", "others", "those of the secret keys")


def _policy(config: Config) -> None:
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    if set(policy.logs) != set(read_public(config.keys / "public").log):
        raise Refused("log keys in the policy", "others", "those of this log")


def _database(config: Config) -> None:
    store = open_store(config.database_url)
    try:
        store.check_standbys()
        if store.read.head() is None:
            raise CannotTell("the database holds no log")
    finally:
        store.close()


def _disk(config: Config) -> None:
    free = shutil.disk_usage(config.folder).free
    if free < RESERVE_BYTES:
        raise CannotTell(f"{free} bytes are free")


def _ignore(_: object) -> None:
    """What was read is of no interest; that it could be read is."""
