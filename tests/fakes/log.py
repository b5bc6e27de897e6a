"""The keys of a log and of those who watch it, from fixed seeds, and policies that list them.

``tests.fakes.authority`` signs the entries; here are the checkpoint's signers: the log's two keys, one witness and
one map auditor.
"""

import hashlib
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from quotary.canonical import canonical
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.cosignature import cosign
from quotary.tlog.note import SigningKey
from tests.fakes import authority

WITNESS = "witness.example.net/w1"
AUDITOR = "auditor.example.com/map"
GENESIS_PLACEHOLDER = "00" * 32


def _seed(name: str) -> bytes:
    return hashlib.sha256(f"quotary test log key {name}".encode()).digest()


def log_keys(origin: str = authority.ORIGIN) -> tuple[SigningKey, SigningKey]:
    """The log's Ed25519 (0x01) and ML-DSA-44 (0x06) keys."""
    return (
        SigningKey.log(origin, Ed25519PrivateKey.from_private_bytes(_seed(origin))),
        SigningKey.cosigner(origin, MLDSA44PrivateKey.from_seed_bytes(_seed(origin))),
    )


def witness_key(name: str = WITNESS) -> SigningKey:
    """A cosigner's Ed25519 key (0x04)."""
    return SigningKey.cosigner(name, Ed25519PrivateKey.from_private_bytes(_seed(name)))


def tlog_policy(origin: str = authority.ORIGIN, url: str = "") -> str:
    """Both log keys, and both cosigners needed."""
    logs = "".join(f"log {key.verifier.vkey()} {url}".rstrip() + "\n" for key in log_keys(origin))
    cosigners = "".join(
        f"witness {name} {witness_key(name).verifier.vkey()}\n" for name in (WITNESS, AUDITOR)
    )
    return f"{logs}{cosigners}group both all {WITNESS} {AUDITOR}\nquorum both\n"


def signed_note(
    checkpoint: Checkpoint, time: int, witnesses: Iterable[str] = (WITNESS, AUDITOR), log_signers: int = 2
) -> bytes:
    """The checkpoint's note, signed by the log and cosigned at ``time``."""
    text = str(checkpoint)
    lines = [key.line(text, time) for key in log_keys(checkpoint.origin)[:log_signers]]
    lines += [cosign(text, witness_key(name), time) for name in witnesses]
    return (text + "\n" + "".join(lines)).encode()


def policy_document(
    origin: str = authority.ORIGIN, genesis: str = GENESIS_PLACEHOLDER, root: str = "11" * 32, url: str = ""
) -> dict[str, object]:
    """A policy for simulation with everything demanded that can be: what tests change to be wrong."""
    return {
        "v": 1,
        "environment": "simulation",
        "tlog_policy": tlog_policy(origin, url),
        "genesis": genesis,
        "services": {
            authority.SERVICE: {
                "owner": {"keys": authority.keys("owner1", "owner2", "owner3"), "threshold": 2}
            }
        },
        "minimum": {"size": 1, "time": "2026-11-01T00:00:00Z"},
        "max_age_seconds": 900,
        "map_auditor": [AUDITOR],
        "rebuilders": {"keys": authority.keys("rebuilder1", "rebuilder2"), "k": 1},
        "platforms": {
            "sim-tdx": {
                "floors": {"ff53494d0000": dict(authority.FLOOR)},
                "require": {"debug": "refused"},
                "simulator_root_sha256": root,
            }
        },
        "enclave": {"poll_seconds": 30, "plaintext": "refused"},
    }


def policy_bytes(document: Mapping[str, object]) -> bytes:
    return canonical(dict(document), multiline=True)
