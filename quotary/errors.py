"""What can go wrong, as types; each carries the exit code that the command line gives it.

Names state the fact. A message is one lower-case line that says what was found and what was wanted;
``next_command`` is what the user can do about it. Pure packages raise only these; others subclass them
where they need a narrower fact.
"""

from errno import EDQUOT, EFBIG, ENOSPC


class QuotaryError(Exception):
    """The root of every failure that is not our own mistake."""

    exit_code = 1

    def __init__(self, message: str, *, next_command: str | None = None) -> None:
        super().__init__(message)
        self.next_command = next_command


class Usage(QuotaryError):
    """The command's words do not fit together."""

    exit_code = 2


class InvalidProof(QuotaryError):
    """A Merkle or trie proof does not lead to the root."""

    exit_code = 10


class InvalidSignature(QuotaryError):
    """A signature, or the key that should have made it, does not hold."""

    exit_code = 10


class Judged(QuotaryError):
    """A named check decided against what was presented."""

    def __init__(self, check: str, found: str, wanted: str, *, next_command: str | None = None) -> None:
        super().__init__(f"{check}: found {found}, wanted {wanted}", next_command=next_command)
        self.check = check
        self.found = found
        self.wanted = wanted


class Rejected(Judged):
    """Cryptography or a measurement contradicts the claim."""

    exit_code = 10


class Refused(Judged):
    """The claim is genuine, and the policy does not allow it (revoked, TCB, quorum, age)."""

    exit_code = 11


class NotInLog(QuotaryError):
    """A verified absence proof under a fresh checkpoint says that the log does not have it."""

    exit_code = 12


class Unsupported(QuotaryError):
    """Well formed, but of a kind that this version or this machine cannot handle."""

    exit_code = 20


class Malformed(QuotaryError):
    """The bytes are not what they should be; nothing further was looked at."""

    exit_code = 30


class CannotTell(QuotaryError):
    """The question could not be answered (network, missing file, missing tool); never the same as yes."""

    exit_code = 40


class PortInUse(CannotTell):
    """The address to listen on is somebody else's, or is not this machine's."""


class OurBug(QuotaryError):
    """Something that nobody foresaw; the message names it in one line."""

    exit_code = 1


class NotAuthorised(QuotaryError):
    """The key is genuine and may not do this."""

    exit_code = 41


def as_ours(error: Exception) -> QuotaryError:
    """Name any failure in one line: what the operating system refused as that, the rest as our bug."""
    if isinstance(error, QuotaryError):
        return error
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (ENOSPC, EDQUOT, EFBIG)
        return CannotTell(
            f"the operating system refused: {where}{error.strerror}", next_command="df -h" if full else None
        )
    if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name or ""):
        return Unsupported(
            f"this needs the Python package {error.name}, which is not installed",
            next_command=f"pip install 'quotary[{_EXTRA_OF.get(error.name or '', 'registry,enclave')}]'",
        )
    return OurBug(f"internal error: {type(error).__name__}: {error} (this is our bug)")


# Which optional dependency brings a package that a command imports when it runs (pyproject.toml).
_EXTRA_OF = {
    "sqlalchemy": "registry",
    "alembic": "registry",
    "pysqlite3": "registry",
    "flask": "registry",
    "prometheus_client": "registry",
    "packaging": "simulator,enclave",
    "tokenizers": "enclave",
    "torch": "enclave",
    "transformers": "enclave",
    "pymerkle": "audit",
    "pkcs11": "pkcs11",
    "pyhpke": "private",
    "gmpy2": "private",
}


_OURS = frozenset(("", "quotary", "registry", "builder", "enclave", "simulator", "verifier", "private"))


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in _OURS
