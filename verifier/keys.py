"""The verifier's own key, P-256: made once, read at each start, published as a key set."""

import json
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from quotary.client.disk import PRIVATE, cannot_write, write_new
from quotary.client.ear import jwk
from quotary.errors import CannotTell, Malformed

KEY = "key.pem"
KEY_SET = "jwks.json"


def create_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Make the folder with a new key (0600) and its key set; an existing one is never overwritten."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    key = ec.generate_private_key(ec.SECP256R1())
    write_new(folder / KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), PRIVATE)
    write_new(folder / KEY_SET, key_set(key.public_key()))
    return key


def load_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key of a folder."""
    path = folder / KEY
    try:
        found = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        create = f"quotary verifier init --dir {folder}"
        raise CannotTell(f"no verifier in {folder}: {error.strerror}", next_command=create) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Malformed(f"{path} is no private key") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise Malformed(f"{path} is a key of another kind than P-256")
    return found


def key_set(key: ec.EllipticCurvePublicKey) -> bytes:
    """Write the published key set (RFC 7517)."""
    return json.dumps({"keys": [jwk(key)]}, indent=1).encode("ascii") + b"\n"
