"""A monitor: an audit that goes on, and says so when something happens that its owner asked to hear of.

It believes what an audit believes (``client.audit``): the policy's keys, its witnesses and its own replay of
every entry. Rules look at entries; conditions are about the log itself. All that it knows lies in the
replay's store, so it goes on after a restart and tells nothing twice on its own account.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quotary.canonical import time_text
from quotary.client.audit import Audited, Auditor, Report
from quotary.client.events import events_of
from quotary.client.finding import Finding
from quotary.client.opener import Opener
from quotary.client.outbox import Alert
from quotary.client.outputs import Output, write_feed
from quotary.client.policy import Policy
from quotary.client.replay import Interval
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files
from quotary.client.watch import Event, Rule, Watch
from quotary.errors import CannotTell, Malformed, QuotaryError, Refused

FEED_LENGTH = 100
CONTRADICTION, REFUSED, UNREACHABLE, STALE = "contradiction", "refused", "unreachable", "stale"


@dataclass(frozen=True, slots=True)
class Looked:
    """One look at the log.

    audited:    None where the log could not be audited; ``error`` says why then
    conditions: what is wrong now, by name
    alerts:     what this look added
    untold:     outputs that did not take their alerts, with the reason
    """

    audited: Audited | None
    error: QuotaryError | None
    conditions: Mapping[str, str]
    alerts: Sequence[Alert]
    untold: Mapping[str, str]


class Monitor:
    """Watches one log.

    from_start: also tell of what was there before the first look
    heartbeat_seconds: say at this distance that the monitor lives; 0 for never
    """

    def __init__(
        self,
        policy: Policy,
        watch: Watch,
        store: ReplayStore,
        outputs: Sequence[Output],
        now: Callable[[], datetime],
        report: Report,
        opener: Opener,
        *,
        from_start: bool = False,
        heartbeat_seconds: int = 0,
    ) -> None:
        self._policy = policy
        self._watch = watch
        self._store = store
        self._outbox = store.outbox()
        self._outputs = outputs
        self._now = now
        self._heartbeat_seconds = heartbeat_seconds
        self._auditor = Auditor(policy, store, report, opener, self._observe)
        self._silent = not from_start and store.fact("watching") is None
        self._outbox.begin(output.name for output in outputs)
        for rule in watch.rules:
            self._keep_count(rule, self._count(rule))

    def look(self, files: Files, peers: Sequence[Files] = ()) -> Looked:
        """Audit what is new, decide what is wrong, and tell the outputs.

        Peers are read first: what they have seen the log must continue, and a log that shows less is refused.
        """
        before, audited, error = self._outbox.newest_number, None, None
        try:
            audited = self._auditor.audit(files, [peer.checkpoint() for peer in peers])
        except (Finding, Refused, CannotTell, Malformed) as failure:
            error = failure
        else:
            self._silent = False
        with self._store.transaction():
            if audited is not None:
                self._store.keep("watching", str(audited.size).encode())
            conditions = self._conditions(error)
            self._tell_changes(conditions)
            self._beat(audited)
        untold = self._deliver()
        self._write_feed()
        return Looked(audited, error, conditions, self._outbox.after(before), untold)

    def test(self) -> Mapping[str, str]:
        """Send a test to every output; gives those that did not take it, with the reason."""
        self._say("test", "This is a test: whoever reads it hears of what happens in the log.")
        untold = self._deliver()
        self._write_feed()
        return untold

    def matches(self) -> Mapping[str, Mapping[str, int]]:
        """Say of each rule since which index it is watched, how often it matched, and where the last time."""
        return {rule.name: self._count(rule) for rule in self._watch.rules}

    def _observe(self, interval: Interval) -> None:
        for event in events_of(interval, self._store):
            for rule in self._watch.rules:
                if rule.wants(event):
                    self._match(rule, event)

    def _match(self, rule: Rule, event: Event) -> None:
        count = self._count(rule)
        found = {**count, "matched": count["matched"] + 1, "newest": event.index}
        self._keep_count(rule, found)
        if not self._silent:
            facts = {"rule": rule.name, "index": event.index, "services": sorted(event.services)}
            self._say(event.kind, event.sentence, {**facts, "statement": event.statement_id})

    def _count(self, rule: Rule) -> dict[str, int]:
        found = self._store.fact(f"rule {rule.digest}")
        if found is not None:
            return {name: int(value) for name, value in json.loads(found).items()}
        return {"since": self._store.progress().frontier.size, "matched": 0}

    def _keep_count(self, rule: Rule, count: Mapping[str, int]) -> None:
        self._store.keep(f"rule {rule.digest}", json.dumps(count).encode())

    def _known(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._store.fact("conditions") or b"{}")
        return found

    def _conditions(self, error: QuotaryError | None) -> dict[str, str]:
        """Say what is wrong with the log, in the words of the check that found it."""
        found: dict[str, str] = {}
        match error:
            case Finding():
                found[CONTRADICTION] = f"The log contradicts itself or its past: {error}."
            case CannotTell():
                # What was wrong when it could still be read is not over.
                found = {
                    name: text for name, text in self._known().items() if name in (CONTRADICTION, REFUSED)
                }
                found[UNREACHABLE] = f"The log could not be read: {error}."
            case QuotaryError():
                found[REFUSED] = f"What the log shows is not accepted by the policy: {error}."
        note = self._store.fact("note")
        if note is not None:
            # Malformed or refused now only where the policy changed since: the audit says so by itself.
            with suppress(Refused, Malformed):
                found |= self._age(note)
        return found

    def _age(self, note: bytes) -> dict[str, str]:
        """Look at the witnesses' times under the newest checkpoint that was accepted, by this clock."""
        now, limit = int(self._now().timestamp()), self._watch.stale_seconds
        verified, found = self._policy.tlog.verify(note, now=now), {}
        at = verified.quorum_time
        if at is not None and now - at > limit:
            since = time_text(datetime.fromtimestamp(at, UTC))
            found[STALE] = (
                f"The witnesses' newest word is of {since}, {now - at} s old; {limit} s are allowed."
            )
        for name in self._policy.tlog.witnesses if self._watch.witnesses else ():
            newest = max(verified.cosignatures.get(name, ()), default=None)
            if newest is None or now - newest > limit:
                last = "nothing" if newest is None else time_text(datetime.fromtimestamp(newest, UTC))
                found[f"witness {name}"] = f"The witness {name} is missing: its newest word is {last}."
        return found

    def _tell_changes(self, conditions: Mapping[str, str]) -> None:
        known = self._known()
        for name, text in conditions.items():
            if name not in known:
                self._say(name, text, {"state": "begins"})
        for name in sorted(known.keys() - conditions.keys()):
            self._say(name, f"Over: {name}.", {"state": "ends"})
        self._store.keep("conditions", json.dumps(dict(conditions)).encode())

    def _beat(self, audited: Audited | None) -> None:
        now = int(self._now().timestamp())
        last = int(self._store.fact("heartbeat") or b"0")
        if not self._heartbeat_seconds or now - last < self._heartbeat_seconds:
            return
        self._store.keep("heartbeat", str(now).encode())
        seen = f"{audited.size} entries replayed" if audited else "the log could not be audited just now"
        self._say("heartbeat", f"The monitor lives: {seen}.")

    def _say(self, event: str, text: str, facts: Mapping[str, object] | None = None) -> None:
        document = {"v": 1, "type": "quotary/alert/v1", "origin": self._policy.origin, "event": event}
        at = time_text(self._now().replace(microsecond=0))
        self._outbox.post({**document, **(facts or {}), "at": at, "text": text})

    def _deliver(self) -> dict[str, str]:
        untold = {}
        for output in self._outputs:
            waiting = self._outbox.waiting(output.name)
            try:
                for start in range(0, len(waiting), output.most):
                    some = waiting[start : start + output.most]
                    output.send(some)
                    self._outbox.told(output.name, some[-1].number)
            except QuotaryError as error:
                untold[output.name] = str(error)
        return untold

    def _write_feed(self) -> None:
        if self._watch.feed is not None:
            at = time_text(self._now().replace(microsecond=0))
            write_feed(Path(self._watch.feed), self._policy.origin, at, self._outbox.newest(FEED_LENGTH))
