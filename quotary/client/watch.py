"""What a monitor is told to look for, and whom to tell: one file that a person writes
(``docs/formats/watch.md``).
"""

import hashlib
from dataclasses import dataclass

from quotary.canonical import Fields, canonical, parse_json
from quotary.errors import Malformed

MAX_WATCH = 1 << 20
MAX_RULES = 1000
MAX_NAMES = 1000

EVENTS = (
    "delegation",
    "ignored",
    "mismatch",
    "notice",
    "order",
    "rebuild",
    "release",
    "revocation",
    "tcb-floor",
)
"""What an entry can be for a rule: its kind, ``mismatch`` for a rebuild that came out otherwise or not at
all, and ``ignored`` for whatever the log holds without effect."""

_SHA256 = "sha256:"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry, as rules see it.

    services: it speaks of, or touches
    signers:  keys whose signatures stand under it; verified exactly where it had effect
    names:    digests, registers, ids, keys and products that it names or touches

    Hex in both is bare, without ``sha256:``.
    """

    index: int
    kind: str
    statement_id: str
    services: frozenset[str]
    signers: frozenset[str]
    names: frozenset[str]
    sentence: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Which events somebody wants to hear of; a selector that is None selects everything.

    digest: of the rule as it was written; a changed rule is another one
    """

    name: str
    events: frozenset[str]
    services: frozenset[str] | None
    builders: frozenset[str] | None
    keys: frozenset[str] | None
    digests: frozenset[str] | None
    digest: str

    def wants(self, event: Event) -> bool:
        """Say whether the event is one of the rule's and each selector names something of it."""
        return (
            event.kind in self.events
            and (self.services is None or bool(self.services & event.services))
            and (self.builders is None or bool(self.builders & event.signers))
            and (self.keys is None or bool(self.keys & (event.signers | event.names)))
            and (self.digests is None or bool(self.digests & event.names))
        )


@dataclass(frozen=True, slots=True)
class MailAccount:
    """Where mail is handed in, from whom and to whom.

    tls:   ``starttls``, ``tls``, or ``none`` on this machine only
    login: a file of two lines, user and password; None where the server wants none
    """

    server: str
    tls: str
    sender: str
    to: tuple[str, ...]
    login: str | None


@dataclass(frozen=True, slots=True)
class Watch:
    """A parsed watch file.

    stale_seconds: how old the witnesses' word may become
    witnesses:     whether each witness of the policy is missed, not only their quorum
    peers:         other places that show the same log
    webhooks:      addresses that take alerts; mail: None where no mail is sent; feed: path of an Atom file
    secret:        file with the key that signs what webhooks get; None where nothing does
    """

    rules: tuple[Rule, ...]
    stale_seconds: int
    witnesses: bool
    peers: tuple[str, ...]
    webhooks: tuple[str, ...]
    secret: str | None
    mail: MailAccount | None
    feed: str | None

    @classmethod
    def parse(cls, data: bytes) -> "Watch":
        """Read a watch file in any spacing; unknown members are refused."""
        fields = Fields(parse_json(data, "the watch file"), "watch file")
        fields.integer("v", 1, 1)
        fields.choice("type", "quotary/watch/v1")
        rules = tuple(_rule(item) for item in fields.items("rules", MAX_RULES))
        log, outputs = fields.fields("log"), fields.fields("outputs")
        fields.done()
        if len({rule.name for rule in rules}) != len(rules):
            raise Malformed("watch file: two rules have one name")
        found = cls(
            rules,
            log.integer("stale_seconds", 1),
            log.boolean("each_witness"),
            _texts(log, "peers") or (),
            _texts(outputs, "webhooks") or (),
            outputs.optional("webhook_secret_file", outputs.text),
            outputs.optional("mail", lambda name: _mail(outputs.fields(name))),
            outputs.optional("feed", outputs.text),
        )
        log.done()
        outputs.done()
        return found


def _rule(item: object) -> Rule:
    fields = Fields(item, "rule")
    name, events = fields.text("name", 100), _texts(fields, "events") or ()
    if not events or not set(events) <= set(EVENTS):
        raise Malformed(f"rule {name}: events are one or more of {', '.join(EVENTS)}")
    services, builders = _texts(fields, "services"), _texts(fields, "builders")
    keys, digests = _texts(fields, "keys"), _texts(fields, "digests")
    fields.done()
    return Rule(
        name,
        frozenset(events),
        None if services is None else frozenset(services),
        None if builders is None else frozenset(map(_bare, builders)),
        None if keys is None else frozenset(map(_bare, keys)),
        None if digests is None else frozenset(map(_bare, digests)),
        hashlib.sha256(canonical(item)).hexdigest(),
    )


def _mail(fields: Fields) -> MailAccount:
    found = MailAccount(
        fields.text("server", 300),
        fields.choice("tls", "starttls", "tls", "none"),
        fields.text("from", 300),
        _texts(fields, "to") or (),
        fields.optional("login_file", fields.text),
    )
    fields.done()
    if not found.to:
        raise Malformed("watch file: mail goes to nobody")
    return found


def _texts(fields: Fields, name: str) -> tuple[str, ...] | None:
    if not fields.has(name):
        return None
    found = fields.items(name, MAX_NAMES, low=1)
    for item in found:
        if not isinstance(item, str) or not item or len(item) > 2000 or not item.isprintable():
            raise Malformed(f"watch file: {name} holds something that is no line of text")
    return tuple(str(item) for item in found)


def _bare(text: str) -> str:
    return text.lower().removeprefix(_SHA256)
