"""The witness over HTTP: ``POST /add-checkpoint`` and ``GET /<hex SHA-256 of origin>/checkpoint``."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from flask import Flask, Response

from quotary.errors import CannotTell, InvalidProof, Malformed, NotAuthorised
from quotary.tlog.note import SigningKey, VerifierKey
from quotary.tlog.witness import MAX_REQUEST, SIZE_TYPE, Conflict
from registry import keys, logs
from registry.body import read_body
from registry.errors import FlushFailed, NotFound, TooLarge
from registry.witness import Witness

TEXT = "text/plain; charset=utf-8"
REFUSALS = (
    (Malformed, 400),
    (NotAuthorised, 403),
    (NotFound, 404),
    (TooLarge, 413),
    (InvalidProof, 422),
    (FlushFailed, 507),
)


def create_witness(folder: Path, name: str, origins: list[VerifierKey]) -> SigningKey:
    """Make a witness's folder: key (0600), name, and the log keys that it follows."""
    (folder / "seen").mkdir(parents=True, exist_ok=True)
    key = SigningKey.cosigner(name, keys.create_ed25519(folder / "witness-ed25519.pem"))
    (folder / "name").write_text(name + "\n", "utf-8")
    follow_logs(folder, origins)
    return key


def follow_logs(folder: Path, origins: list[VerifierKey]) -> None:
    """Replace the list of logs that the witness cosigns (one verifier key a line)."""
    text = "".join(f"vkey {key.vkey()}\n" for key in origins)
    keys.write_durably(folder / "logs", b"logs/v0\n" + text.encode("utf-8"), 0o644)


def wall_clock() -> datetime:
    return datetime.now(UTC)


def open_witness(folder: Path, now: Callable[[], datetime] = wall_clock) -> Witness:
    """Read a witness's folder."""
    try:
        name = (folder / "name").read_text("utf-8").rstrip("\n")
        followed_logs(folder)
    except OSError as error:
        create = f"quotary registry witness init --dir {folder} --name witness.example.org"
        raise CannotTell(f"no witness in {folder}: {error.strerror}", next_command=create) from error
    except UnicodeDecodeError as error:
        raise Malformed(f"{folder} holds a name or a list of logs that is not text") from error
    key = SigningKey.cosigner(name, keys.load_ed25519(folder / "witness-ed25519.pem"))
    return Witness(folder, key, lambda: followed_logs(folder), now)


def followed_logs(folder: Path) -> tuple[VerifierKey, ...]:
    """Read the keys of the logs that the witness cosigns; a witness that runs follows each change."""
    lines = (folder / "logs").read_text("utf-8").splitlines()
    if lines[:1] != ["logs/v0"] or any(not line.startswith("vkey ") for line in lines[1:]):
        raise Malformed(f"{folder / 'logs'} is not a list of logs")
    return tuple(VerifierKey.parse(line.removeprefix("vkey ")) for line in lines[1:])


def create_app(folder: str, now: Callable[[], datetime] = wall_clock) -> Flask:
    """Make the WSGI application of the witness in ``folder``."""
    logs.set_up()
    witness = open_witness(Path(folder), now)
    app = Flask("registry.witness_app", static_folder=None)

    @app.post("/add-checkpoint")
    def add_checkpoint() -> Response:
        return Response(witness.add_checkpoint(read_body(MAX_REQUEST)), content_type=TEXT)

    @app.get("/<origin_hash>/checkpoint")
    def newest(origin_hash: str) -> Response:
        return Response(witness.newest(origin_hash), content_type=TEXT)

    @app.get("/healthz")
    def healthz() -> Response:
        witness.check_disk()
        return Response("ok\n", content_type=TEXT)

    app.register_error_handler(Conflict, _conflict)
    for kind, status in REFUSALS:
        app.register_error_handler(kind, _refusal(status))
    app.register_error_handler(OSError, _forgetful)
    return app


def _conflict(error: Conflict) -> Response:
    return Response(f"{error.size}\n", 409, content_type=SIZE_TYPE)


def _forgetful(error: OSError) -> Response:
    """Answer that nothing was cosigned, because it could not have been remembered (a full disk, mostly)."""
    return Response(f"nothing was cosigned: {error.strerror}\n", 507, content_type=TEXT)


def _refusal(status: int):  # type: ignore[no-untyped-def]
    def handle(error: Exception) -> Response:
        return Response(f"{error}\n", status, content_type=TEXT)

    return handle
