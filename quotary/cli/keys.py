"""``quotary keys``: make signing keys and show their public halves."""

from pathlib import Path

import click

from quotary.canonical import b64
from quotary.cli.output import emit, json_option
from quotary.client.disk import write_new
from quotary.client.keys import PublicKey, create, create_in_token, load_public
from quotary.errors import Refused, Usage
from quotary.token.place import TokenPlace


@click.group(epilog="\b\nExample:\n  quotary keys new owner.key --public owner.pub")
def keys() -> None:
    """Make and show signing keys (Ed25519, in files of mode 0600 or in PKCS #11 tokens)."""


@keys.command(
    epilog="\b\nExample:\n  quotary keys new owner.key --public owner.pub"
    "\n  quotary keys new builder.token --hsm-module /usr/lib/libtoken.so --hsm ci --hsm-pin-file pin"
    "\n\nExit codes: 0, 2, 11, 20, 40."
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--public", "public_file", type=click.Path(path_type=Path), help="Also write the public half.")
@click.option("--hsm-module", help="Path of a PKCS #11 library: the key is made inside a token.")
@click.option("--hsm", help="Label of the token.")
@click.option("--hsm-pin-file", type=click.Path(path_type=Path), help="File (mode 0600) with the user's PIN.")
@json_option
def new(
    file: Path,
    public_file: Path | None,
    hsm_module: str | None,
    hsm: str | None,
    hsm_pin_file: Path | None,
    as_json: bool,
) -> None:
    """Make a key in the new file FILE; an existing file is never replaced.

    With a token, FILE (its name ends in .token) says where the key lies, which never leaves the token; its
    label there is FILE's name.
    """
    if public_file is not None and public_file.exists():
        raise Refused("public key file", f"{public_file} exists", "a new file")
    if hsm_module and hsm and hsm_pin_file:
        place = TokenPlace(hsm_module, hsm, file.stem, str(hsm_pin_file.resolve()))
        made = create_in_token(file, place)
    elif hsm_module or hsm or hsm_pin_file:
        raise Usage("--hsm-module, --hsm and --hsm-pin-file go together")
    else:
        made = create(file)
    if public_file is not None:
        write_new(public_file, made.pem)
    _show(made, as_json)


@keys.command(epilog="\b\nExample:\n  quotary keys show owner.key\n\nExit codes: 0, 2, 11, 20, 30, 40.")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show the public half of the key in FILE, secret or public."""
    _show(load_public(file), as_json)


def _show(key: PublicKey, as_json: bool) -> None:
    document = {"schema": "quotary/key/v1", "algorithm": "ed25519", "keyid": key.keyid, "spki": b64(key.spki)}
    text = f"keyid      {key.keyid}\nalgorithm  Ed25519\nspki       {b64(key.spki)}"
    emit(document, text, as_json=as_json)
