"""An issuer's folder: its keys (0600), its accounts by the digest of their secrets, and its ledger."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from private.issuer import Account, SigningKey
from quotary.canonical import Fields, b64, canonical, parse_canonical, time_text
from quotary.client.disk import PRIVATE, cannot_write, write_new
from quotary.client.issuer import KIND, MAX_LIFETIME
from quotary.errors import CannotTell, Malformed, Usage
from quotary.oblivious.blind_rsa import Signer
from quotary.oblivious.privacy_pass import encode_key, key_id
from quotary.statements.schema import statement_payload

LEDGER = "ledger.db"
_MAX_FILE = 1 << 16


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a new key is for, and the header of the statement that will say so."""

    tier: str
    not_before: datetime
    not_after: datetime
    log: str
    service: str
    sequence: int


def create_key(folder: Path, epoch: Epoch) -> bytes:
    """Make a key for a tier and epoch; returns the statement's payload, to be signed and logged."""
    if not timedelta(0) < epoch.not_after - epoch.not_before <= MAX_LIFETIME:
        raise Usage(f"a key is valid for at most {MAX_LIFETIME.days} days")
    private = rsa.generate_private_key(65537, 2048)
    public = encode_key(private.public_key())
    named = key_id(public)
    valid = {"not_before": time_text(epoch.not_before), "not_after": time_text(epoch.not_after)}
    payload = statement_payload(
        KIND,
        {
            "log": epoch.log,
            "service": epoch.service,
            "sequence": epoch.sequence,
            "issued": time_text(datetime.now(UTC).replace(microsecond=0)),
            "items": [{"name": "token-key", "sha256": named.hex(), "size": len(public)}],
            "data": {"tier": epoch.tier, "key": b64(public), **valid},
        },
    )
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    document = {"v": 1, "tier": epoch.tier, **valid, "private": b64(der)}
    _folder(folder / "keys")
    write_new(folder / "keys" / f"{named.hex()[:16]}.json", canonical(document), PRIVATE)
    return payload


def create_account(folder: Path, tier: str, per_day: int) -> str:
    """Make an account; returns its secret, which is kept nowhere."""
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    _folder(folder / "accounts")
    document = {"v": 1, "secret_sha256": digest, "tier": tier, "per_day": per_day}
    write_new(folder / "accounts" / f"{digest[:16]}.json", canonical(document), PRIVATE)
    return secret


def load_keys(folder: Path) -> Sequence[SigningKey]:
    """Read every key of a folder."""
    found = [_key(path) for path in sorted((folder / "keys").glob("*.json"))]
    if not found:
        raise CannotTell(f"no key in {folder}", next_command=f"quotary issuer key --dir {folder} ...")
    return found


def load_accounts(folder: Path) -> Sequence[Account]:
    """Read every account of a folder."""
    return [_account(path) for path in sorted((folder / "accounts").glob("*.json"))]


def _key(path: Path) -> SigningKey:
    fields = _read(path, "issuer key")
    try:
        private = load_der_private_key(fields.base64("private", limit=8192), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed(f"{path} has no private key") from error
    if not isinstance(private, rsa.RSAPrivateKey):
        raise Malformed(f"{path} has a key of another kind than RSA")
    tier, begin, end = fields.name("tier", 64), fields.time("not_before"), fields.time("not_after")
    fields.done()
    return SigningKey(tier, encode_key(private.public_key()), begin, end, Signer(private))


def _account(path: Path) -> Account:
    fields = _read(path, "account")
    account = Account(
        fields.hexbytes("secret_sha256", 32), fields.name("tier", 64), fields.integer("per_day", 0, 1 << 30)
    )
    fields.done()
    return account


def _read(path: Path, what: str) -> Fields:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotTell(f"{path} cannot be read: {error.strerror}") from error
    fields = Fields(parse_canonical(data, _MAX_FILE), what)
    fields.integer("v", 1, 1)
    return fields


def _folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
