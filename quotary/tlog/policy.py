"""Which checkpoints are believed: log keys, witnesses and the quorum among them (c2sp.org/tlog-policy).

Stricter than the specification where it leaves room: a policy lists at least one log key; a checkpoint
needs the signature of *every* listed key of its origin, not of any one; and nothing under a log's own
name counts as a witness.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from quotary.errors import Malformed, Refused
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import COSIGNATURE_ED25519, COSIGNATURE_ML_DSA_44, ED25519, Note, VerifierKey

MAX_POLICY_LENGTH = 1_000_000
MAX_LINES_OF_A_KIND = 128
MAX_AHEAD_SECONDS = 300
NO_QUORUM = "none"

_LOG_TYPES = (ED25519, COSIGNATURE_ML_DSA_44)
_WITNESS_TYPES = (COSIGNATURE_ED25519, COSIGNATURE_ML_DSA_44)
_OTHER_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,3}")


@dataclass(frozen=True, slots=True)
class Witness:
    """A cosigner under the name that this policy gives it; ``url`` is empty where none is listed."""

    name: str
    key: VerifierKey
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """At least ``threshold`` of ``members`` (names of witnesses and groups) must have witnessed."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedCheckpoint:
    """A checkpoint that a policy accepted, and why.

    note:         the exact note, as evidence cosignatures: times (POSIX seconds, each above 0) of the
    policy's witnesses that signed, by the policy's names quorum_time:  POSIX seconds at which the quorum
    vouched for it; None only under ``quorum none``
    """

    checkpoint: Checkpoint
    note: Note
    cosignatures: Mapping[str, tuple[int, ...]]
    quorum_time: int | None


@dataclass(frozen=True, slots=True)
class TlogPolicy:
    """A parsed policy; ``text`` is what was parsed.

    logs:      log keys in the order of the file, at least one
    witnesses: by name
    groups:    by name; a group only refers to names before it
    quorum:    name of a witness or group, or ``none``
    """

    text: str
    logs: tuple[VerifierKey, ...]
    urls: Mapping[VerifierKey, str]
    witnesses: Mapping[str, Witness]
    groups: Mapping[str, Group]
    quorum: str

    @classmethod
    def parse(cls, text: str) -> "TlogPolicy":
        """Read a policy of at most 1,000,000 characters and 128 lines of each kind."""
        if len(text) > MAX_POLICY_LENGTH:
            raise Malformed(f"policy has {len(text)} characters, at most {MAX_POLICY_LENGTH} are allowed")
        if _OTHER_CONTROL.search(text):
            raise Malformed("policy contains a control character other than tab and line feed")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), 1):
            words = re.split(r"[ \t]+", line.strip(" \t"))
            if words[0] and not words[0].startswith("#"):
                try:
                    reader.line(words[0], words[1:])
                except Malformed as error:
                    raise Malformed(f"policy line {number}: {error}") from error
        return reader.policy(text)

    def verify(self, note: bytes, *, now: int | None = None) -> VerifiedCheckpoint:
        """Return the checkpoint in ``note`` if this policy accepts it, else raise.

        1. The note is well formed, and no line of a listed key is bad. 2. Every listed log key of the
        checkpoint's origin signed it. 3. The witnesses that signed it form the quorum. With ``now``
        (POSIX seconds), cosignatures more than 300
           seconds ahead of it count as absent; cosignatures without a time always do.

        Raises ``Malformed``, ``InvalidSignature`` or ``Refused``.
        """
        parsed = Note.parse(note)
        keys = [*self.logs, *(witness.key for witness in self.witnesses.values())]
        signed = parsed.verify(keys)
        checkpoint = Checkpoint.parse(parsed.text)
        self._check_log_keys(checkpoint.origin, signed)
        cosignatures = self._cosignatures(signed, now)
        quorum_time = None
        if self.quorum != NO_QUORUM:
            quorum_time = self._witnessed_at(self.quorum, cosignatures)
            if quorum_time is None:
                found = ", ".join(cosignatures) or "no witness of the policy"
                raise Refused("witness quorum", found, self._describe(self.quorum))
        return VerifiedCheckpoint(checkpoint, parsed, cosignatures, quorum_time)

    def _check_log_keys(self, origin: str, signed: Mapping[VerifierKey, tuple[int, ...]]) -> None:
        keys = [key for key in self.logs if key.name == origin]
        if not keys:
            raise Refused("log origin", origin, " or ".join(dict.fromkeys(key.name for key in self.logs)))
        missing = [key.key_id.hex() for key in keys if key not in signed]
        if missing:
            wanted = f"signatures by all {len(keys)} listed keys of {origin}"
            raise Refused("log keys", f"no signature by {', '.join(missing)}", wanted)

    def _cosignatures(
        self, signed: Mapping[VerifierKey, tuple[int, ...]], now: int | None
    ) -> dict[str, tuple[int, ...]]:
        found = {}
        for name, witness in self.witnesses.items():
            times = signed.get(witness.key, ())
            times = tuple(time for time in times if time and (now is None or time <= now + MAX_AHEAD_SECONDS))
            if times:
                found[name] = times
        return found

    def _witnessed_at(self, name: str, cosignatures: Mapping[str, tuple[int, ...]]) -> int | None:
        """Return when ``name`` vouched: a witness at its newest time, k of n at the k-th newest."""
        if name in self.witnesses:
            return max(cosignatures.get(name, ()), default=None)
        group = self.groups[name]
        found = (self._witnessed_at(member, cosignatures) for member in group.members)
        times = sorted((time for time in found if time is not None), reverse=True)
        return times[group.threshold - 1] if len(times) >= group.threshold else None

    def _describe(self, name: str) -> str:
        if name in self.witnesses:
            return name
        group = self.groups[name]
        return f"{group.threshold} of ({', '.join(self._describe(member) for member in group.members)})"


@dataclass(slots=True)
class _Reader:
    """What the lines so far have defined."""

    urls: dict[VerifierKey, str] = field(default_factory=dict)
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    quorum: str | None = None

    def line(self, kind: str, words: list[str]) -> None:
        if kind == "log" and len(words) in (1, 2):
            self._log(*words)
        elif kind == "witness" and len(words) in (2, 3):
            self._witness(*words)
        elif kind == "group" and len(words) >= 3:
            self._group(words[0], words[1], words[2:])
        elif kind == "quorum" and len(words) == 1:
            self._quorum(words[0])
        else:
            raise Malformed("not a log, witness, group or quorum line with its words")

    def policy(self, text: str) -> TlogPolicy:
        if not self.urls:
            raise Malformed("the policy lists no log")
        if self.quorum is None:
            raise Malformed("the policy has no quorum line")
        for witness in self.witnesses.values():
            for log in self.urls:
                if witness.key.name == log.name or witness.key.public == log.public:
                    raise Malformed(f"witness {witness.name} has the name or key of a log")
        return TlogPolicy(text, tuple(self.urls), self.urls, self.witnesses, self.groups, self.quorum)

    def _log(self, vkey: str, url: str = "") -> None:
        key = _key(vkey, _LOG_TYPES, self.urls)
        self.urls[key] = url

    def _witness(self, name: str, vkey: str, url: str = "") -> None:
        self._check_new(name, self.witnesses)
        known = [witness.key for witness in self.witnesses.values()]
        self.witnesses[name] = Witness(name, _key(vkey, _WITNESS_TYPES, known), url)

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._check_new(name, self.groups)
        for member in members:
            if member not in self.witnesses and member not in self.groups:
                raise Malformed(f"member {member} is not defined above")
            if member in self.members:
                raise Malformed(f"{member} is a member twice")
            self.members.add(member)
        if threshold in ("all", "any"):
            needed = len(members) if threshold == "all" else 1
        elif _THRESHOLD.fullmatch(threshold) and int(threshold) <= len(members):
            needed = int(threshold)
        else:
            raise Malformed(f"threshold is {threshold}, wanted all, any or 1 to {len(members)}")
        self.groups[name] = Group(name, needed, tuple(members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise Malformed("a second quorum line")
        if name != NO_QUORUM and name not in self.witnesses and name not in self.groups:
            raise Malformed(f"quorum {name} is not defined above")
        self.quorum = name

    def _check_new(self, name: str, kind: Mapping[str, object]) -> None:
        if name == NO_QUORUM or name in self.witnesses or name in self.groups:
            raise Malformed(f"the name {name} is taken")
        if len(kind) >= MAX_LINES_OF_A_KIND:
            raise Malformed(f"more than {MAX_LINES_OF_A_KIND} lines of a kind")


def _key(
    vkey: str, types: tuple[int, ...], known: Mapping[VerifierKey, str] | list[VerifierKey]
) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.alg not in types:
        raise Malformed(f"a key of type 0x{key.alg:02x} is of no use here")
    if any(other.public == key.public for other in known):
        raise Malformed(f"the key of {key.name} is listed twice")
    if len(known) >= MAX_LINES_OF_A_KIND:
        raise Malformed(f"more than {MAX_LINES_OF_A_KIND} lines of a kind")
    return key
