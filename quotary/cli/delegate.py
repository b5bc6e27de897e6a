"""``quotary delegate``: say which keys may speak for a service, or for the log itself."""

from datetime import datetime
from pathlib import Path

import click

from quotary.canonical import b64
from quotary.cli.making import Making, finish, statement_options
from quotary.client.keys import PublicKey, load_public
from quotary.errors import Usage


@click.command(
    epilog="\b\nExample (owners name a builder):\n"
    "  quotary delegate --service example.org/chat --origin log.example.org/main --sequence 2 \\\n"
    "    --previous sha256:... --expires 2027-01-01 --role owner=owner.pub --role builder=builder.pub \\\n"
    "    --key owner.key --url https://log.example.org --submit\n\n"
    "Exit codes: 0, 2, 11 key file, 30, 40, 41 the log refuses it."
)
@click.option("--service", required=True, help="Whose keys; `log` for the log's own roles.")
@click.option("--previous", help="Statement id of the delegation before; not for the first one.")
@click.option("--role", "roles", multiple=True, required=True, metavar="ROLE=FILE", help="A key with a role.")
@click.option(
    "--threshold", "thresholds", multiple=True, metavar="ROLE=N", help="Signatures needed; 1 if unsaid."
)
@click.option("--compromised", multiple=True, metavar="KEYID@INDEX", help="Not to be believed from INDEX on.")
@statement_options
def delegate(
    service: str,
    previous: str | None,
    roles: tuple[str, ...],
    thresholds: tuple[str, ...],
    compromised: tuple[str, ...],
    origin: str,
    sequence: int | None,
    expires: datetime,
    key_files: tuple[Path, ...],
    output: Path | None,
    url: str | None,
    send: bool,
    as_json: bool,
) -> None:
    """Make, sign and send a delegation: roles, keys and thresholds of a service."""
    members = _members(roles)
    needed = _thresholds(thresholds, members)
    predicate: dict[str, object] = {
        "keys": {key.keyid: b64(key.spki) for keys in members.values() for key in keys},
        "roles": {
            name: {"keys": sorted({key.keyid for key in keys}), "threshold": needed.get(name, 1)}
            for name, keys in members.items()
        },
    }
    if previous is not None:
        predicate["previous"] = previous
    if compromised:
        named = dict(_compromised(item) for item in compromised)
        predicate["compromised"] = [{"key": key, "from_index": named[key]} for key in sorted(named)]
    making = Making(origin, sequence, expires, key_files, output, url, send, as_json)
    finish("delegation", service, predicate, making)


def _members(roles: tuple[str, ...]) -> dict[str, list[PublicKey]]:
    members: dict[str, list[PublicKey]] = {}
    for item in roles:
        name, file = _pair(item, "ROLE=FILE")
        members.setdefault(name, []).append(load_public(Path(file)))
    return members


def _thresholds(thresholds: tuple[str, ...], members: dict[str, list[PublicKey]]) -> dict[str, int]:
    needed = {}
    for item in thresholds:
        name, count = _pair(item, "ROLE=N")
        if name not in members or not _number(count):
            raise Usage(f"{item!r} is not ROLE=N for a role that has keys")
        needed[name] = int(count)
    return needed


def _pair(text: str, form: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise Usage(f"{text!r} is not {form}")
    return name, value


def _compromised(text: str) -> tuple[str, int]:
    key, _, index = text.rpartition("@")
    if not key or not _number(index):
        raise Usage(f"{text!r} is not KEYID@INDEX")
    return key, int(index)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
