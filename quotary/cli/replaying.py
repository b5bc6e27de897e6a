"""What the commands that replay a log share: where its files are, what is remembered, how far it is."""

import hashlib
from pathlib import Path

import click

from quotary.cli.files import state_folder
from quotary.client.policy import Policy
from quotary.client.source import Files, FolderSource, HTTPSource
from quotary.errors import Usage
from quotary.net.transport import HTTP

FINDINGS = "findings"


def files_of(log: str, policy: Policy) -> Files:
    """Read a log from its address or from a folder."""
    if log.startswith(("http://", "https://")):
        return Files(HTTPSource(HTTP(plain_http=policy.simulation), log))
    if not Path(log).is_dir():
        raise Usage(f"neither an address nor a folder: {log}")
    return Files(FolderSource(Path(log)))


def default_store(origin: str) -> Path:
    """Name the folder in which this user's audits of a log are remembered."""
    return origin_folder(state_folder() / "audit", origin)


def origin_folder(folder: Path, origin: str) -> Path:
    """Name the folder of one log; an origin is no file name."""
    return folder / hashlib.sha256(origin.encode()).hexdigest()[:32]


def progress(done: int, size: int) -> None:
    """Say on stderr how far it is."""
    click.echo(f"{done} of {size} entries", err=True)
