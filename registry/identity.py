"""The log's keys: two for checkpoints (Ed25519 and ML-DSA-44, both named by the origin), one for promises."""

from dataclasses import dataclass
from pathlib import Path

from quotary.tlog.note import SigningKey, VerifierKey
from registry import keys

PROMISE_SUFFIX = "/promise"


@dataclass(frozen=True, slots=True)
class LogKeys:
    """What only the signer holds.

    signing: the keys of a checkpoint's signature lines, Ed25519 first
    promise: the key of promises, named ``<origin>/promise``
    """

    signing: tuple[SigningKey, SigningKey]
    promise: SigningKey


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public halves, as verifier keys."""

    log: tuple[VerifierKey, ...]
    promise: VerifierKey


def create_log_keys(folder: Path, origin: str) -> LogKeys:
    """Make the three keys in new files of mode 0600."""
    keys.create_ed25519(folder / "log-ed25519.pem")
    keys.create_mldsa44(folder / "log-mldsa44.pem")
    keys.create_ed25519(folder / "promise-ed25519.pem")
    return load_log_keys(folder, origin)


def load_log_keys(folder: Path, origin: str) -> LogKeys:
    """Read the three keys."""
    return LogKeys(
        (
            SigningKey.log(origin, keys.load_ed25519(folder / "log-ed25519.pem")),
            SigningKey.cosigner(origin, keys.load_mldsa44(folder / "log-mldsa44.pem")),
        ),
        SigningKey.log(origin + PROMISE_SUFFIX, keys.load_ed25519(folder / "promise-ed25519.pem")),
    )


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
