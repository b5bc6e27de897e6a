"""Which shares of which key a key service holds: what its nodes signed and the log has (docs/formats/kms.md).

An epoch is one key, a generation one set of shares of it. Enclaves need the public side of every share to
catch a node that answers with something else, and take it from the log alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields, time_text
from quotary.client.notices import Wanted, read_notice
from quotary.client.policy import KeyServiceRules, Policy
from quotary.errors import Malformed, Refused
from quotary.statements.notice import Notice
from quotary.statements.schema import statement_payload
from quotary.threshold.ceremony import Before, Outcome
from quotary.threshold.group import MAX_EPOCH, MAX_NODES, Ceremony
from quotary.threshold.ristretto import check_element

KIND = "key-release"
CHECK = "key epoch"


@dataclass(frozen=True, slots=True)
class KeyEpoch:
    """One set of shares.

    threshold:     how many nodes are needed
    public_key:    the key times the generator; public_shares: each node's share likewise, by its number
    statement_id:  of the entry; group, transcript: 32 bytes, digests of who and how
    """

    service: str
    epoch: int
    generation: int
    threshold: int
    public_key: bytes
    public_shares: Mapping[int, bytes]
    statement_id: str
    signers: frozenset[str]
    group: bytes
    transcript: bytes

    @property
    def before(self) -> Before:
        """What the shares after these are held against."""
        return Before(self.threshold, self.public_shares)


def rules_of(policy: Policy) -> KeyServiceRules:
    """Give the policy's key service, or refuse where it has none."""
    if policy.kms is None:
        raise Refused("key service", "a policy without one", "one that names whose nodes keep keys")
    return policy.kms


def epoch_payload(ceremony: Ceremony, found: Outcome) -> bytes:
    """Write the statement that every node signs about a ceremony's outcome."""
    group = ceremony.group
    name = f"kms/epoch/{ceremony.epoch}/{ceremony.generation}"
    predicate: dict[str, object] = {
        "log": group.origin,
        "service": group.service,
        "sequence": ceremony.sequence,
        "issued": time_text(ceremony.issued),
        "items": [{"name": name, "sha256": found.transcript.hex()}],
        "data": {
            "epoch": ceremony.epoch,
            "generation": ceremony.generation,
            "previous": ceremony.previous,
            "threshold": group.threshold,
            "group": group.digest.hex(),
            "key": found.public_key.hex(),
            "shares": [found.public_shares[node.number].hex() for node in group.nodes],
            "dealers": list(found.dealers),
            "faults": list(found.faults),
        },
    }
    return statement_payload(KIND, predicate)


def read_epoch(entry: bytes, proof: bytes, policy: Policy) -> KeyEpoch:
    """Read an entry about a key service's shares, or raise what speaks against it (``read_notice``)."""
    rules = rules_of(policy)
    logged = read_notice(entry, proof, policy, Wanted(CHECK, KIND, rules.service, rules.signers))
    return _epoch(logged.notice, logged.statement_id, logged.signers)


def _epoch(notice: Notice, statement_id: str, signers: frozenset[str]) -> KeyEpoch:
    fields = Fields(dict(notice.data or {}), "key epoch")
    shares = tuple(_element(item) for item in fields.items("shares", MAX_NODES, low=1))
    found = KeyEpoch(
        notice.header.service,
        fields.integer("epoch", 1, MAX_EPOCH),
        fields.integer("generation", 0, MAX_EPOCH),
        fields.integer("threshold", 1, len(shares)),
        _element(fields.text("key", 64)),
        dict(enumerate(shares, 1)),
        statement_id,
        signers,
        fields.hexbytes("group", 32),
        notice.items[0].sha256,
    )
    fields.text("previous", 71)
    fields.items("dealers", MAX_NODES)
    fields.items("faults", 256)
    fields.done()
    if [item.name for item in notice.items] != [f"kms/epoch/{found.epoch}/{found.generation}"]:
        raise Malformed("a key epoch's one item is not named by its epoch and generation")
    return found


def _element(value: object) -> bytes:
    try:
        return check_element(bytes.fromhex(value if isinstance(value, str) else ""), "share")
    except ValueError as error:
        raise Malformed("a key epoch holds something that is not hex") from error
