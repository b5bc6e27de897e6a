"""Make a new registry: folder, keys, genesis, policy, database."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.canonical import b64, time_text
from quotary.errors import Refused
from quotary.statements.envelope import key_id, raw_public_key, sign, spki
from quotary.statements.f1 import F1
from quotary.statements.schema import statement_payload
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.note import VerifierKey
from quotary.tlog.policy import TlogPolicy
from quotary.token.place import TokenPlace
from registry import keys
from registry.config import Config
from registry.identity import PublicKeys, create_log_keys, public_keys, write_public
from registry.memory import create_memory
from registry.store import EMPTY_HEAD, create_store, open_store

ROLES = ("root", "tcb", "security", "rebuilder")
GENESIS_YEARS = 10


@dataclass(frozen=True, slots=True)
class WitnessLine:
    """A witness as the operator names it."""

    url: str
    key: VerifierKey


def create_registry(
    config: Config,
    witnesses: list[WitnessLine],
    genesis: bytes | None,
    now: datetime,
    token: TokenPlace | None = None,
    *,
    awaits: bool = False,
) -> PublicKeys:
    """Make everything that ``serve`` needs; an existing registry is never touched.

    genesis: the bytes of entry 0, signed elsewhere; None makes root keys in the keys folder and signs it
    with them
    token:   where to make the log's Ed25519 key; None makes it in a file
    awaits:  the log has no entry 0 before ``registry.succession`` makes it
    """
    if config.folder.joinpath("registry.toml").exists():
        raise Refused("folder", f"{config.folder} holds a registry", "a new folder")
    existed = config.folder.exists()
    try:
        public = _create(config, witnesses, token)
        if not awaits:
            _begin(config, genesis or own_genesis(config, now)[0], now)
        # Last, because it is what says that here is a registry.
        keys.write_durably(config.folder / "registry.toml", config.text().encode("utf-8"))
        return public
    except BaseException:
        # Half a registry would stand in the way of the next try.
        if not existed:
            shutil.rmtree(config.folder, ignore_errors=True)
        raise


def check_genesis(origin: str, entry: bytes, now: datetime) -> None:
    """Refuse an entry 0 that would have no effect."""
    (outcome,) = F1(origin).close([(0, entry)], int(now.timestamp())).outcomes
    if not outcome.effect:
        raise Refused("genesis", outcome.code, f"a delegation of the roots of {origin}, signed by them")


def write_policy(path: Path, public: PublicKeys, witnesses: list[WitnessLine], quorum: int | None) -> None:
    """Write the log's tlog-policy: every log key, every witness, and ``quorum`` of them (default: more than
    half).
    """
    lines = [f"log {key.vkey()}" for key in public.log]
    lines += [f"witness {line.key.name} {line.key.vkey()} {line.url}" for line in witnesses]
    if witnesses:
        names = " ".join(line.key.name for line in witnesses)
        lines += [f"group witnesses {quorum or len(witnesses) // 2 + 1} {names}", "quorum witnesses"]
    else:
        lines.append("quorum none")
    text = "".join(line + "\n" for line in lines)
    TlogPolicy.parse(text)
    keys.write_durably(path, text.encode("utf-8"), 0o644)


def _create(config: Config, witnesses: list[WitnessLine], token: TokenPlace | None) -> PublicKeys:
    for folder in (config.folder, config.keys):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.public.mkdir(exist_ok=True)
    public = public_keys(create_log_keys(config.keys, config.origin, token))
    write_public(config.keys / "public", public)
    create_memory(config.keys / "signed-head.json")
    write_policy(config.policy, public, witnesses, None)
    store = create_store(config.database_url)
    store.write.create(EMPTY_HEAD)
    store.close()
    return public


def _begin(config: Config, genesis: bytes, now: datetime) -> None:
    check_genesis(config.origin, genesis, now)
    store = open_store(config.database_url)
    store.write.enqueue([(leaf_hash(genesis), genesis)], int(now.timestamp()))
    store.close()


@dataclass(frozen=True, slots=True)
class Roots:
    """The keys of the role ``root``, of which so many have to sign."""

    keys: tuple[Ed25519PrivateKey, ...]
    threshold: int


def own_genesis(
    config: Config, now: datetime, roots: Roots | None = None, predecessor: Mapping[str, object] | None = None
) -> tuple[bytes, Roots]:
    """Make the role keys in the keys folder, and the genesis that names them.

    roots: keys that are there already; without them one root key is made too
    """
    made = {role: (keys.create_ed25519(config.keys / f"{role}.pem"),) for role in ROLES[1:]}
    roots = roots or Roots((keys.create_ed25519(config.keys / "root.pem"),), 1)
    named = {"root": roots.keys, **made}
    issued = now.replace(microsecond=0)
    predicate = {
        "log": config.origin,
        "service": "log",
        "sequence": 1,
        "issued": time_text(issued),
        "expires": time_text(issued + timedelta(days=365 * GENESIS_YEARS)),
        "keys": {_key_id(key): b64(spki(raw_public_key(key))) for held in named.values() for key in held},
        "roles": {
            role: {
                "keys": sorted(map(_key_id, held)),
                "threshold": roots.threshold if role == "root" else 1,
            }
            for role, held in named.items()
        },
        **({"predecessor": dict(predecessor)} if predecessor else {}),
    }
    return sign(statement_payload("delegation", predicate), roots.keys), roots


def _key_id(key: Ed25519PrivateKey) -> str:
    return key_id(raw_public_key(key))
