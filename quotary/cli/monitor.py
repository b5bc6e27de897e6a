"""``quotary monitor``: audit a log again and again, and tell when something happens in it or with it."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import click

from quotary.canonical import time_text
from quotary.cli.files import read_bytes, state_folder
from quotary.cli.options import policy_option, read_policy, simulation_option
from quotary.cli.output import emit, json_option, word
from quotary.cli.replaying import FINDINGS, files_of, origin_folder, progress
from quotary.client.finding import Finding, keep
from quotary.client.monitor import Looked, Monitor
from quotary.client.opener import Opener
from quotary.client.outputs import Mail, Output, Webhook, webhook_key
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.watch import MAX_WATCH, MailAccount, Watch
from quotary.errors import CannotTell, Malformed, Refused, Usage
from quotary.garbage import collected_rarely
from quotary.net.mail import MailServer, send_mail
from quotary.net.transport import HTTP


@click.command(
    epilog="\b\nExamples:\n"
    "  quotary monitor https://log.example.org --policy policy.json --watch watch.json --self-test\n"
    "  quotary monitor https://log.example.org --policy policy.json --watch watch.json --continuous\n\n"
    "Exit codes: 0 nothing to tell, 2, 10 the log contradicts itself, 11 something was told or is wrong,\n"
    "30, 40 the log or an output does not answer."
)
@click.argument("log")
@policy_option
@simulation_option
@click.option(
    "--watch",
    "watch_file",
    type=click.Path(path_type=Path),
    required=True,
    help="What to look for and whom to tell (docs/formats/watch.md).",
)
@click.option("--store", type=click.Path(path_type=Path), help="What the monitor remembers between runs.")
@click.option("--continuous", is_flag=True, help="Go on looking, until the log contradicts itself.")
@click.option("--interval", type=click.IntRange(1, 86_400), default=60, show_default=True, help="Seconds.")
@click.option(
    "--heartbeat",
    type=click.IntRange(0, 31 * 86_400),
    default=0,
    help="Say so many seconds apart that the monitor lives.  [default: never]",
)
@click.option("--from-start", is_flag=True, help="Tell of what was there before the first look too.")
@click.option("--self-test", is_flag=True, help="Look once, send every output a test, and say what matched.")
@json_option
def monitor(
    log: str,
    policy_file: Path,
    simulation: bool,
    watch_file: Path,
    store: Path | None,
    continuous: bool,
    interval: int,
    heartbeat: int,
    from_start: bool,
    self_test: bool,
    as_json: bool,
) -> None:
    """Tell when something happens in LOG, or with it, that the watch file asks for.

    Everything is verified here, as `quotary audit` does. The first look says nothing of what it finds unless
    --from-start is given; the next one goes on from there.
    """
    policy = read_policy(policy_file, simulation=simulation)
    watch = Watch.parse(read_bytes(watch_file, MAX_WATCH))
    if self_test and continuous:
        raise Usage("a self-test is made once, without --continuous")
    folder = store or origin_folder(state_folder() / "monitor", policy.origin)
    files, peers = files_of(log, policy), [files_of(peer, policy) for peer in watch.peers]
    with ReplayStore(folder, policy.origin) as opened, Opener(1) as opener, collected_rarely():
        found = Monitor(
            policy,
            watch,
            opened,
            _outputs(watch, policy),
            lambda: datetime.now(UTC),
            progress,
            opener,
            from_start=from_start,
            heartbeat_seconds=heartbeat,
        )
        while True:
            looked = found.look(files, peers)
            test = found.test() if self_test else None
            matches = found.matches() if self_test else None
            emit(_document(looked, policy, test, matches), _text(looked, policy, matches), as_json=as_json)
            if not continuous or isinstance(looked.error, Finding):
                _end(looked, policy, folder, test or {})
                return
            threading.Event().wait(interval)


def _outputs(watch: Watch, policy: Policy) -> list[Output]:
    transport = HTTP(plain_http=policy.simulation)
    key = None if watch.secret is None else webhook_key(read_bytes(Path(watch.secret), 256))
    found: list[Output] = [
        Webhook(transport, url, number, key, lambda: datetime.now(UTC))
        for number, url in enumerate(watch.webhooks, 1)
    ]
    if watch.mail is not None:
        found.append(Mail(watch.mail, partial(_post, _server(watch.mail))))
    return found


def _post(server: MailServer, message: EmailMessage) -> None:
    send_mail(server, message)


def _server(account: MailAccount) -> MailServer:
    host, _, port = account.server.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise Malformed(f"watch file: the mail server is host:port, found {account.server}")
    if account.login is None:
        return MailServer(host.strip("[]"), int(port), account.tls)
    lines = read_bytes(Path(account.login), 4096).decode("utf-8", "replace").splitlines()
    if len(lines) != 2:
        raise Malformed(f"{account.login} has {len(lines)} lines, wanted two: user and password")
    return MailServer(host.strip("[]"), int(port), account.tls, (lines[0], lines[1]))


def _end(looked: Looked, policy: Policy, folder: Path, test: Mapping[str, str]) -> None:
    """Leave with the code that says what was seen: the worst first."""
    error = looked.error
    if isinstance(error, Finding):
        click.echo(f"finding: {keep(error, policy.origin, folder / FINDINGS)}", err=True)
    if error is not None:
        raise error
    if untold := {**looked.untold, **test}:
        raise CannotTell("; ".join(untold.values()), next_command="repeat with --self-test")
    if told := [*looked.conditions, *(str(alert.document["event"]) for alert in looked.alerts)]:
        raise Refused("watch", ", ".join(dict.fromkeys(told)), "nothing to tell")


def _document(
    looked: Looked, policy: Policy, test: Mapping[str, str] | None, matches: object
) -> dict[str, object]:
    found = looked.audited
    return {
        "schema": "quotary/monitor/v1",
        "origin": policy.origin,
        "size": found.size if found else None,
        "root": found.root.hex() if found else None,
        "quorum_time": _time(found.quorum_at) if found else None,
        "error": str(looked.error) if looked.error else None,
        "conditions": dict(looked.conditions),
        "alerts": [{**alert.document, "number": alert.number} for alert in looked.alerts],
        "untold": {**looked.untold, **(test or {})},
        **({"rules": matches} if matches is not None else {}),
    }


def _text(looked: Looked, policy: Policy, matches: Mapping[str, Mapping[str, int]] | None) -> str:
    found = looked.audited
    lines = [f"{policy.origin}: could not be audited" if found is None else _audited(looked, policy)]
    lines += [f"  wrong     {word(text)}" for text in looked.conditions.values()]
    lines += [f"  told      {alert.document['event']}: {word(alert.text)}" for alert in looked.alerts]
    lines += [f"  UNTOLD    {word(reason)}" for reason in looked.untold.values()]
    for name, count in (matches or {}).items():
        newest = f", newest entry {count['newest']}" if "newest" in count else ""
        lines.append(f"  rule      {word(name)}: {count['matched']} entries from {count['since']} on{newest}")
    if policy.simulation:
        lines.append("  SIMULATION  this log is about simulated evidence")
    return "\n".join(lines)


def _audited(looked: Looked, policy: Policy) -> str:
    found = looked.audited
    assert found is not None
    age = (
        "freshness not checked: the policy has no quorum"
        if found.quorum_at is None
        else _time(found.quorum_at)
    )
    held = f"every check held for {found.size} entries, root {found.root.hex()}"
    return f"{policy.origin}: {held}, witnessed {age}"


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else time_text(datetime.fromtimestamp(seconds, UTC))
