"""Options that the verifying commands share, and what they mean: which policy, which log, which memory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from quotary.cli.files import read_bytes, state_folder
from quotary.client.log import LogClient
from quotary.client.policy import MAX_POLICY, Policy
from quotary.client.trust import FileMemory
from quotary.errors import Refused, Usage
from quotary.net.transport import HTTP, Offline

F = TypeVar("F", bound=Callable[..., Any])

MEMORY_VARIABLE = "QUOTARY_TRUST"


def policy_option(command: F) -> F:
    """Add ``--policy``; a verifier without a policy demands nothing and so proves nothing."""
    return click.option(
        "--policy",
        "policy_file",
        type=click.Path(path_type=Path),
        required=True,
        envvar="QUOTARY_POLICY",
        show_envvar=True,
        help="What to demand (see `quotary policy`).",
    )(command)


def simulation_option(command: F) -> F:
    """Add ``--simulation``: without it, simulated evidence never ends in exit code 0."""
    return click.option(
        "--simulation", is_flag=True, help="Accept that simulated evidence proves nothing about hardware."
    )(command)


def offline_option(command: F) -> F:
    """Add ``--offline``."""
    return click.option("--offline", is_flag=True, help="Open no socket.")(command)


def url_option(command: F) -> F:
    """Add ``--url``; without it, the policy's own address of the log counts."""
    return click.option("--url", help="Address of the log, if not the one in the policy.")(command)


def read_policy(path: Path, *, simulation: bool) -> Policy:
    """Read a policy; one about simulation needs the user's word too."""
    policy = Policy.parse(read_bytes(path, MAX_POLICY))
    if policy.simulation and not simulation:
        raise Refused(
            "simulation",
            f"a policy about simulated evidence ({path})",
            "a production policy, or --simulation",
            next_command="add --simulation if you know that it proves nothing about hardware",
        )
    return policy


def log_client(policy: Policy, url: str | None, *, offline: bool = False) -> LogClient:
    """Give the client for the policy's log; a simulated log may be reached over plain http."""
    address = url or policy.log_url
    if not address:
        raise Usage("the policy lists no address of its log", next_command="add --url URL")
    return LogClient(Offline() if offline else HTTP(plain_http=policy.simulation), address)


def memory() -> FileMemory:
    """Give what this user's verifications remember."""
    named = os.environ.get(MEMORY_VARIABLE)
    if named:
        return FileMemory(Path(named))
    return FileMemory(state_folder() / "trust")
