"""The log's keys: two for checkpoints (Ed25519 and ML-DSA-44, both named by the origin), one for promises.

While keys are rotated, four sign checkpoints. The file ``signing`` beside the keys names the key files that
sign, one a line; without it they are the first two.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quotary.errors import Malformed
from quotary.tlog.note import SigningKey, VerifierKey
from quotary.token.place import TokenPlace
from registry import keys

PROMISE_SUFFIX = "/promise"
SIGNING = "signing"
FIRST_KEYS = ("log-ed25519.pem", "log-mldsa44.pem")
FIRST_IN_TOKEN = ("log-ed25519.token", "log-mldsa44.pem")
MAX_SIGNING = 16

_KEY_FILE = re.compile(r"log-(ed25519(-[1-9][0-9]{0,3})?\.(pem|token)|mldsa44(-[1-9][0-9]{0,3})?\.pem)")


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What only the signer holds.

    signing: the keys of a checkpoint's signature lines, in their order: the oldest first
    promise: the key of promises, named ``<origin>/promise``
    """

    signing: tuple[SigningKey, ...]
    promise: SigningKey


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public halves, as verifier keys.

    log: those that a policy for this log lists: while keys are rotated, the new ones only
    """

    log: tuple[VerifierKey, ...]
    promise: VerifierKey


def create_log_keys(folder: Path, origin: str, token: TokenPlace | None = None) -> LogKeys:
    """Make the three keys in new files of mode 0600; with ``token`` the Ed25519 one inside a token."""
    if token is None:
        create_key(folder / FIRST_KEYS[0])
    else:
        from quotary.token.key import create_token_key

        create_token_key(token)
        keys.write_durably(folder / FIRST_IN_TOKEN[0], token.text().encode("utf-8"))
        write_signing(folder, FIRST_IN_TOKEN)
    create_key(folder / FIRST_KEYS[1])
    keys.create_ed25519(folder / "promise-ed25519.pem")
    return load_log_keys(folder, origin)


def load_log_keys(folder: Path, origin: str) -> LogKeys:
    """Read the keys that sign now."""
    return LogKeys(
        tuple(load_key(folder / name, origin) for name in signing_files(folder)),
        SigningKey.log(origin + PROMISE_SUFFIX, keys.load_ed25519(folder / "promise-ed25519.pem")),
    )


def create_key(path: Path) -> None:
    """Make a checkpoint key, of the type that its file's name says."""
    create = keys.create_ed25519 if path.name.startswith("log-ed25519") else keys.create_mldsa44
    create(path)


def load_key(path: Path, origin: str) -> SigningKey:
    """Read a checkpoint key, or open the token that holds it; the file's name says of which type it is."""
    if path.suffix == ".token":
        # The module of a token is foreign code: only a registry that has one loads it.
        from quotary.token.key import TokenKey

        return SigningKey.log(origin, TokenKey(TokenPlace.read(path)))
    if path.name.startswith("log-ed25519"):
        return SigningKey.log(origin, keys.load_ed25519(path))
    return SigningKey.cosigner(origin, keys.load_mldsa44(path))


def signing_files(folder: Path) -> tuple[str, ...]:
    """Name the key files that sign checkpoints, the oldest first."""
    path = folder / SIGNING
    names = tuple(path.read_text("utf-8").splitlines()) if path.exists() else FIRST_KEYS
    if not 1 <= len(names) <= MAX_SIGNING or len(set(names)) != len(names):
        raise Malformed(f"{path} names {len(names)} keys, wanted 1 to {MAX_SIGNING}, each once")
    for name in names:
        if _KEY_FILE.fullmatch(name) is None:
            raise Malformed(f"{path} names {name!r}, which is no key file of a log")
    return names


def write_signing(folder: Path, names: Sequence[str]) -> None:
    """Say which key files sign from the signer's next start or ``reload`` on."""
    keys.write_durably(folder / SIGNING, "".join(f"{name}\n" for name in names).encode("ascii"))


def public_keys(secret: LogKeys) -> PublicKeys:
    return PublicKeys(tuple(key.verifier for key in secret.signing), secret.promise.verifier)


def write_public(path: Path, public: PublicKeys) -> None:
    """Keep the verifier keys in a file that workers may read: log keys first, the promise key last."""
    lines = [*(key.vkey() for key in public.log), public.promise.vkey()]
    keys.write_durably(path, "".join(line + "\n" for line in lines).encode("utf-8"), 0o644)


def read_public(path: Path) -> PublicKeys:
    """Read them back."""
    *log, promise = (VerifierKey.parse(line) for line in path.read_text("utf-8").splitlines())
    return PublicKeys(tuple(log), promise)
