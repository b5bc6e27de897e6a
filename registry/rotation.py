"""Rotating the log's checkpoint keys without a stop (docs/operations.md, "Rotate").

1. ``begin`` makes new keys; the signer signs with the old and the new ones from its next head on, and
the roots get an order to sign. 2. Once that order is published, ``adopt`` has the log's own policy, and what
workers show, list the new keys. 3. ``retire`` drops the old keys when the overlap is over. Each step can be
repeated after a crash in it.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from quotary.canonical import time_text
from quotary.errors import Malformed, Refused
from quotary.statements.order import KeyRotation, Order
from quotary.tlog.note import VerifierKey
from quotary.tlog.policy import TlogPolicy
from quotary.token.place import TokenPlace
from registry import identity, keys
from registry.config import Config
from registry.identity import PublicKeys
from registry.store import Reader

ADOPTED = "rotation.json"
"""In the keys folder from ``adopt`` to ``retire``: the order under which keys overlap."""

TYPES = {"ed25519": "log-ed25519", "ml-dsa-44": "log-mldsa44"}
MAX_ORDER = 65_535


def begin(
    config: Config,
    types: Iterable[str],
    overlap: timedelta,
    now: datetime,
    token: TokenPlace | None = None,
) -> Order:
    """Have new keys of these types sign beside the old ones, and give the order for the roots to sign.

    Where that was done and no order has been adopted since, the order is made again for the same keys.

    token: holds the new Ed25519 key; without it all new keys are files
    """
    if (config.keys / ADOPTED).exists():
        until = time_text(adopted(config).until)
        raise Refused("rotation", f"one that ends at {until}", "none", next_command=_retire(config))
    old = _listed(config)
    new = [name for name in identity.signing_files(config.keys) if name not in old]
    if not new:
        new = [_new_key(config, found, token) for found in sorted(set(types))]
        identity.write_signing(config.keys, [*old, *new])
    kinds = {_kind(name) for name in new}
    at = now.replace(microsecond=0)
    remove = [name for name in old if _kind(name) in kinds]
    content = KeyRotation(_public(config, new), _public(config, remove), at + overlap)
    return Order(config.origin, at, content)


def adopt(config: Config, order: Order, read: Reader) -> None:
    """Have the log's own policy list the keys of a published order; its checkpoint has their signatures."""
    assert isinstance(order.content, KeyRotation)
    published = read.published()
    assert published is not None, "an order is adopted after it was published"
    text = config.policy.read_text("utf-8")
    public = identity.read_public(config.keys / "public")
    for before, after in _pairs(order.content):
        text = text.replace(before.vkey(), after.vkey())
        log = tuple(after if key == before else key for key in public.log)
        public = PublicKeys(log, public.promise)
    TlogPolicy.parse(text).verify(published.note)
    keys.write_durably(config.keys / ADOPTED, order.encode())
    identity.write_public(config.keys / "public", public)
    keys.write_durably(config.policy, text.encode("utf-8"), 0o644)


def adopted(config: Config) -> KeyRotation:
    """Give the rotation that was adopted and whose old keys still sign."""
    path = config.keys / ADOPTED
    if not path.exists():
        wanted = "a rotation that is published and adopted"
        raise Refused("rotation", "none", wanted, next_command="quotary registry order log")
    content = Order.parse(path.read_bytes()[: MAX_ORDER + 1]).content
    if not isinstance(content, KeyRotation):
        raise Malformed(f"{path} is no key rotation")
    return content


def retire(config: Config, now: datetime) -> tuple[str, ...]:
    """Drop the old keys from those that sign, and give the names of their files; their overlap is over."""
    found = adopted(config)
    if now < found.until:
        raise Refused("overlap", f"the time {time_text(now.replace(microsecond=0))}", _from(found.until))
    names = identity.signing_files(config.keys)
    gone = tuple(name for name in names if _public(config, [name])[0] in found.remove)
    if gone:
        identity.write_signing(config.keys, [name for name in names if name not in gone])
    return gone


def close(config: Config) -> None:
    """Forget a rotation whose old keys the signer has dropped."""
    (config.keys / ADOPTED).unlink(missing_ok=True)


def _listed(config: Config) -> tuple[str, ...]:
    """Name the key files that the log's policy lists."""
    known = identity.read_public(config.keys / "public").log
    names = identity.signing_files(config.keys)
    return tuple(name for name in names if _public(config, [name])[0] in known)


def _new_key(config: Config, kind: str, token: TokenPlace | None) -> str:
    number = 2
    while any(config.keys.glob(f"{TYPES[kind]}-{number}.*")):
        number += 1
    name = f"{TYPES[kind]}-{number}"
    if token is None or kind != "ed25519":
        identity.create_key(config.keys / f"{name}.pem")
        return f"{name}.pem"
    from quotary.token.key import create_token_key

    place = replace(token, key=f"{config.origin} log {number}")
    create_token_key(place)
    keys.write_durably(config.keys / f"{name}.token", place.text().encode("utf-8"))
    return f"{name}.token"


def _kind(name: str) -> str:
    return next(kind for kind, stem in TYPES.items() if name.startswith(stem))


def _public(config: Config, names: Iterable[str]) -> tuple[VerifierKey, ...]:
    return tuple(identity.load_key(config.keys / name, config.origin).verifier for name in names)


def _pairs(content: KeyRotation) -> list[tuple[VerifierKey, VerifierKey]]:
    added = {key.alg: key for key in content.add}
    return [(key, added[key.alg]) for key in content.remove]


def _from(until: datetime) -> str:
    return f"{time_text(until)} or later"


def _retire(config: Config) -> str:
    return f"quotary registry keys retire --dir {config.folder}"
