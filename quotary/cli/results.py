"""``quotary verifier check``: believe an attestation result that a verifier signed, offline."""

from datetime import UTC, datetime
from pathlib import Path

import click

from quotary.canonical import unb64
from quotary.cli.files import read_bytes
from quotary.cli.making import TIME
from quotary.cli.output import emit, json_option, word
from quotary.client.clock import SystemClock
from quotary.client.ear import AFFIRMING, Statement, verify_result
from quotary.errors import Malformed, Refused

FILE = click.Path(path_type=Path)
MAX_TOKEN_FILE = 1 << 17
MAX_KEYS_FILE = 1 << 20


@click.command(
    epilog="\b\nExample:\n  quotary verifier check result.jwt --keys jwks.json --nonce bXkgY2hhbGxlbmdl\n\n"
    "Exit codes: 0 affirming, 2, 10, 11, 20, 30, 40."
)
@click.argument("file", type=FILE)
@click.option("--keys", type=FILE, required=True, help="The verifier's key set, from where you trust it.")
@click.option("--nonce", help="Your challenge in base64; without it nobody knows whom the result answers.")
@click.option("--at", type=TIME, help="Time to hold it against, UTC; now if not said.")
@json_option
def check(file: Path, keys: Path, nonce: str | None, at: datetime | None, as_json: bool) -> None:
    """Check the attestation result (EAR, a JWT) in FILE: who signed it, when, for whom, and what it says.

    It is the verifier's word about hardware. It says nothing of the software that runs there.
    """
    try:
        text = read_bytes(file, MAX_TOKEN_FILE).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise Malformed(f"{file} is not a token") from error
    now = SystemClock().now() if at is None else at.replace(tzinfo=UTC)
    asked = None if nonce is None else unb64(nonce)
    found = verify_result(text, read_bytes(keys, MAX_KEYS_FILE), asked, now)
    emit(_document(found, asked is not None), _text(found, asked is not None), as_json=as_json)
    if found.status != AFFIRMING:
        raise Refused("status", found.status, AFFIRMING)


def _document(found: Statement, answered: bool) -> dict[str, object]:
    return {
        "schema": "quotary/result/v1",
        "status": found.status,
        "nonce": "ok" if answered else "not checked",
        "issued_at": found.at.isoformat(),
        "claims": dict(found.claims),
    }


def _text(found: Statement, answered: bool) -> str:
    lines = [f"signed by a key of the key set, issued {found.at.isoformat()}"]
    lines.append("nonce ok" if answered else "nonce not checked: say --nonce")
    for name, status in found.statuses.items():
        values = ", ".join(f"{category} {value}" for category, value in sorted(found.vectors[name].items()))
        lines.append(f"{word(name)}: {status} ({values or 'no vector'})")
        lines += [f"  {line}" for line in _checks(found, name)]
    lines.append(f"status {found.status}: a verifier's word about hardware, not about what runs on it")
    return "\n".join(lines)


def _checks(found: Statement, name: str) -> list[str]:
    """Repeat what the verifier says that it checked; other verifiers say it in other words, or not at all."""
    match found.claims["submods"]:
        case {**submodules}:
            match submodules[name]:
                case {"ear_verifier_claims": {"checks": [*checks]}}:
                    return [
                        f"{word(check.get('outcome'))}  {word(check.get('name'))}: {word(check.get('found'))}"
                        for check in checks
                        if isinstance(check, dict)
                    ]
                case {"ear_verifier_claims": {"failed": {"name": failed, "found": said}}}:
                    return [f"FAILED  {word(failed)}: {word(said)}"]
    return []
