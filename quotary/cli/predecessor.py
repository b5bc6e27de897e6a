"""``quotary audit --predecessor``: the closed log before the one that is audited."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from quotary.cli.files import read_bytes
from quotary.cli.replaying import FINDINGS, default_store, files_of
from quotary.client.audit import Auditor
from quotary.client.finding import Finding, keep
from quotary.client.inheritance import Closed, Inherited, Successor, check_succession
from quotary.client.opener import Opener
from quotary.client.policy import MAX_POLICY, Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.errors import Refused, Usage
from quotary.garbage import collected_rarely

F = TypeVar("F", bound=Callable[..., Any])


def predecessor_options(command: F) -> F:
    """Add ``--predecessor`` and ``--predecessor-policy``."""
    command = click.option(
        "--predecessor-policy",
        "old_policy",
        type=click.Path(path_type=Path),
        help="With --predecessor: its policy, as it was when that log was closed.",
    )(command)
    return click.option(
        "--predecessor",
        "old_log",
        metavar="LOG",
        help="The closed log, an address or a folder, that LOG goes on from: did it take over everything?",
    )(command)


@dataclass(frozen=True, slots=True)
class Before:
    """The closed log; ``folder`` is what its audit remembers between runs."""

    policy: Policy
    files: Files
    folder: Path
    jobs: int

    def compare(self, new: Successor, report: Callable[[int, int], None]) -> Inherited:
        """Audit it to its end, and hold its successor against it."""
        with (
            ReplayStore(self.folder, self.policy.origin) as store,
            Opener(self.jobs) as opener,
            collected_rarely(),
        ):
            auditor = Auditor(self.policy, store, report, opener)
            try:
                audited = auditor.audit(self.files)
            except Finding as finding:
                path = keep(finding, self.policy.origin, self.folder / FINDINGS)
                click.echo(f"finding about the predecessor: {path}", err=True)
                raise
            return check_succession(Closed(audited, auditor.note, store.state()), new)


def before_of(
    log: str | None, file: Path | None, policy: Policy, folder: Path | None, jobs: int
) -> Before | None:
    """Give the closed log that the options name; both stand together, and both logs are of one world."""
    if (log is None) != (file is None):
        raise Usage("--predecessor and --predecessor-policy belong together")
    if log is None or file is None:
        return None
    old = Policy.parse(read_bytes(file, MAX_POLICY))
    if old.simulation != policy.simulation:
        raise Refused("simulation", "one policy about simulated evidence, one not", "both or none")
    return Before(old, files_of(log, old), folder or default_store(old.origin), jobs)
