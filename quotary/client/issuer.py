"""Which keys an issuer of anonymous tokens has: those in the log, signed by whom the policy names.

A key that only one client were shown would mark that client's tokens. So a key counts once it is in the log,
where everybody sees the same ones, and no more than two of a tier at any time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from quotary.canonical import Fields
from quotary.client.log import LogClient
from quotary.client.notices import Wanted, read_notice
from quotary.client.policy import IssuerRules, Policy
from quotary.errors import CannotTell, Malformed, Refused, Rejected
from quotary.oblivious.privacy_pass import Challenge, decode_key, key_id
from quotary.statements.notice import Notice

KIND = "issuer-key"
MAX_LIFETIME = timedelta(days=8)
MAX_AT_ONCE = 2
MAX_FOUND = 64


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """A key of an issuer as the log has it.

    tier:   what its tokens are worth, e.g. ``standard``; index: of the entry that says so
    public: SubjectPublicKeyInfo, 342 bytes; valid from not_before up to and without not_after
    """

    index: int
    tier: str
    public: bytes
    not_before: datetime
    not_after: datetime

    @property
    def id(self) -> bytes:
        """The id that its tokens name, 32 bytes."""
        return key_id(self.public)


def rules_of(policy: Policy) -> IssuerRules:
    """Give the policy's issuer, or refuse where answers cost no token."""
    if policy.issuer is None:
        raise Refused("issuer", "a policy without one", "one whose tokens an answer costs")
    return policy.issuer


def challenge(rules: IssuerRules, keyset_digest: bytes) -> Challenge:
    """Give what a token for the enclave with this keyset must answer."""
    return Challenge(rules.name, keyset_digest, ())


def read_issuer_key(entry: bytes, proof: bytes, policy: Policy) -> IssuerKey:
    """Read one entry that says what a key is, or raise what speaks against it.

    1. The entry is in the log, under a checkpoint that the policy accepts.
    2. It is a notice of the issuer's service about one key.
    3. As many of the policy's signers as it demands signed it.
    """
    rules = rules_of(policy)
    logged = read_notice(entry, proof, policy, Wanted("issuer key", KIND, rules.service, rules.signers))
    return _key(logged.notice, logged.index)


def issuer_keys(log: LogClient, policy: Policy, now: datetime) -> Sequence[IssuerKey]:
    """Fetch the keys that are valid now, each verified, the newest first.

    The log's word of which entries there are is a hint: a key that it hides gives fewer tokens, never
    another's. More than ``MAX_AT_ONCE`` of one tier are refused, because they could tell clients apart.
    """
    results = log.search(rules_of(policy).service).get("results")
    rows = [row for row in results if isinstance(row, dict)] if isinstance(results, list) else []
    indices = [row.get("index") for row in rows if row.get("kind") == KIND][:MAX_FOUND]
    found = []
    for index in indices:
        if not isinstance(index, int) or isinstance(index, bool):
            raise Malformed("the log names an entry by something other than a number")
        key = read_issuer_key(log.entry(index), log.proof(index), policy)
        if key.index != index:
            raise Rejected("issuer key", f"the proof of entry {key.index}", f"that of entry {index}")
        if key.not_before <= now < key.not_after:
            found.append(key)
    tier, count = max(Counter(key.tier for key in found).items(), key=lambda item: item[1], default=("", 0))
    if count > MAX_AT_ONCE:
        raise Refused("issuer key", f"{count} keys of the tier {tier} at once", f"at most {MAX_AT_ONCE}")
    return sorted(found, key=lambda key: (key.not_before, key.index), reverse=True)


def key_of(keys: Sequence[IssuerKey], named: bytes) -> IssuerKey:
    """Give the key with an id, or raise ``CannotTell`` where it is not among them (yet)."""
    for key in keys:
        if key.id == named:
            return key
    raise CannotTell("no key of the issuer in the log has this id now")


def _key(notice: Notice, index: int) -> IssuerKey:
    fields = Fields(dict(notice.data or {}), "issuer key")
    key = IssuerKey(
        index,
        fields.name("tier", 64),
        fields.base64("key", limit=512),
        _time(fields, "not_before"),
        _time(fields, "not_after"),
    )
    fields.done()
    decode_key(key.public)
    if [item.sha256 for item in notice.items] != [key.id]:
        raise Malformed("an issuer key's digest is not that of its one item")
    if not timedelta(0) < key.not_after - key.not_before <= MAX_LIFETIME:
        raise Malformed(f"an issuer key is valid for more than {MAX_LIFETIME.days} days, or for none")
    return key


def _time(fields: Fields, name: str) -> datetime:
    return fields.time(name).astimezone(UTC)
