"""Makes the vectors of F1: whole small logs, with what each entry does and what the map holds after each closing.

Run from the root of the repository: ``python -m tests.vectors.make_f1``. Keys come from fixed seeds and times are
constants, so the files come out the same each time. The code of every entry is written down here by hand; the
script stops where F1 disagrees. Records and roots are computed, and pinned by the files from then on.
"""

import json
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from quotary.canonical import canonical, time_text
from quotary.statements.envelope import PAYLOAD_TYPE, Envelope, Signature, sign
from quotary.statements.schema import STATEMENT_TYPE
from tests.fakes.authority import (
    DAY,
    FLOOR,
    NOW,
    ORIGIN,
    SERVICE,
    TS,
    Authority,
    key,
    keyid,
    keys,
    role,
    statement_id_of,
)
from tests.vectors.f1_story import OK, Story

FOLDER = Path(__file__).resolve().parent / "f1"
HOUR = timedelta(hours=1)


def genesis() -> Iterable[Story]:
    """What may be entry 0."""
    story = Story("an entry 0 that is not a genesis leaves the log without effect for ever", begin=False)
    story.add(story.by.release(), "no-genesis", "a release at index 0")
    story.add(story.by.genesis(), "no-genesis", "the genesis is one entry late")
    story.add(story.by.allocation(), "no-genesis", "nobody can allocate")
    yield story
    story = Story("a genesis that its own roots did not sign", begin=False)
    predicate = {
        "expires": time_text(NOW + DAY),
        "keys": keys("root1", "root2"),
        "roles": {"root": role(["root1", "root2"], 2)},
        **story.by.head("delegation", "log", 1),
    }
    story.add(story.by.entry("delegation", predicate, ["root1"]), "threshold", "one root of two")
    yield story
    story = Story("a genesis for another log", begin=False)
    story.by.origin = "log.example.net/simulation"
    story.add(story.by.genesis(), "other-log", "made for another origin")
    yield story


def form() -> Iterable[Story]:
    """Entries that cannot be read, and entries that are skipped."""
    story = Story("form: what is no statement of ours, reserved records, notices")
    release = story.by.release()
    envelope = Envelope.parse(release)
    story.add(b"", "malformed", "no bytes")
    story.add(b"hello", "malformed", "no JSON")
    story.add(release + b" ", "malformed", "a trailing space")
    story.add(b'{"v":1}', "malformed", "neither an envelope nor a reserved record")
    story.add(release.replace(PAYLOAD_TYPE.encode(), b"text/plain"), "malformed", "another payload type")
    story.add(Envelope(envelope.payload, ()).encode(), "malformed", "no signature")
    twice = Envelope(envelope.payload, envelope.signatures * 2)
    story.add(twice.encode(), "malformed", "the same signature twice")
    story.add(_raw("release", {"log": ORIGIN}), "malformed", "members are missing")
    story.add(
        _altered(release, lambda text: text.replace(b'"size":4096', b'"size":4096.0')), "malformed", "a float"
    )
    story.add(
        _altered(release, lambda text: text.replace(b'"size":4096', b'"size":4096,"x":1')),
        "malformed",
        "an unknown member",
    )
    story.add(
        _altered(release, lambda text: text.replace(b'"name":"image.raw"}]', b'"name":"image.img"}]')),
        "malformed",
        "a subject that is not the outputs",
    )
    story.add(_raw("weather", {"log": ORIGIN}), "unknown-kind", "a kind that is not ours")
    story.add(_raw("release/v1", {"log": ORIGIN}), "unknown-kind", "nearly ours")
    story.skip(canonical({"type": "freeze", "v": 1, "ts": TS, "reason": "planned work"}))
    story.skip(b'{"type":"something-new"}')
    story.add(story.by.notice(), "notice", "F1 does not ask who made a notice")
    story.add(release, OK, "the release itself")
    yield story


def signatures() -> Iterable[Story]:
    """Who signed, for which log, and whether it is new."""
    story = Story("signatures, thresholds, replays, sequences")
    by = story.by
    release = by.release()
    envelope = Envelope.parse(release)
    flipped = bytearray(envelope.signatures[0].sig)
    flipped[5] ^= 1
    bad = Envelope(envelope.payload, (Signature(envelope.signatures[0].keyid, bytes(flipped)),))
    story.add(bad.encode(), "invalid-signature", "one bit of R is wrong")
    raised = (
        int.from_bytes(envelope.signatures[0].sig[32:], "little")
        + 2**252
        + 27742317777372353535851937790883648493
    )
    high = envelope.signatures[0].sig[:32] + raised.to_bytes(32, "little")
    bad = Envelope(envelope.payload, (Signature(envelope.signatures[0].keyid, high),))
    story.add(bad.encode(), "invalid-signature", "S is not below the group order")
    small = bytes([1]) + bytes(31) + envelope.signatures[0].sig[32:]
    bad = Envelope(envelope.payload, (Signature(envelope.signatures[0].keyid, small),))
    story.add(bad.encode(), "invalid-signature", "R is the neutral element")
    story.add(sign(envelope.payload, [key("stranger")]), "unknown-key", "a key that nobody named")
    both = sign(envelope.payload, [key("builder1"), key("stranger")])
    story.add(both, "unknown-key", "a good signature does not make up for an unknown one")
    story.add(sign(envelope.payload, [key("owner1"), key("owner2")]), "threshold", "owners are not builders")
    story.add(
        sign(envelope.payload, [key("root1"), key("root2"), key("root3")]), "threshold", "nor are roots"
    )
    wrong = sign(envelope.payload, [key("builder1"), key("owner1")])
    mixed = Envelope.parse(wrong)
    swapped = tuple(
        Signature(item.keyid, other.sig)
        for item, other in zip(mixed.signatures, reversed(mixed.signatures), strict=True)
    )
    story.add(Envelope(mixed.payload, swapped).encode(), "invalid-signature", "two signatures change places")
    story.add(wrong, OK, "an owner's signature beside the builder's does no harm")
    story.add(release, "replay", "the same statement, signed by the builder alone")
    story.add(by.release("b", sequence=1), "sequence", "the sequence of the last effective release")
    story.add(by.release("b", sequence=2**32 + 2), "sequence-jump", "one step too far")
    story.add(by.release("b", sequence=2**32 + 1), OK, "the longest step")
    story.add(by.release("b", sequence=7), "sequence", "backwards")
    by.origin = "log.example.org/other"
    story.add(by.release("c", sequence=2**32 + 2), "other-log", "made for another log")
    by.origin = ORIGIN
    story.add(by.release(service="other", sequence=1), "unknown-service", "nobody allocated it")
    story.add(
        by.rebuild(wrong, {"a": True}, service="other", sequence=1), "unknown-service", "nor for rebuilds"
    )
    story.add(
        by.delegation(builders=("builder1", "builder2"), threshold=2), OK, "from here on two builders of two"
    )
    one = by.release("d", sequence=2**32 + 2)
    story.add(one, "threshold", "one builder of two")
    payload = Envelope.parse(one).payload
    story.add(sign(payload, [key("builder2")]), "threshold", "thresholds are not added up over entries")
    story.add(sign(payload, [key("builder1"), key("builder2")]), OK, "both in one entry")
    yield story


def delegations() -> Iterable[Story]:
    """Allocation, succession, and compromised keys."""
    story = Story("delegations: allocation once, succession by owners, roots cannot appoint builders")
    by = story.by
    story.add(by.allocation(issued=time_text(NOW - HOUR)), "already-allocated", "a name is given once")
    by.sequences[SERVICE, "delegation"] = 2
    second = by.last_delegation[SERVICE] = statement_id_of(story.log[2])
    story.add(by.delegation("other", sequence=2, previous=second), "unknown-service", "no allocation before")
    roots = by.delegation(builders=("evil",), signers=["root1", "root2", "root3"], sequence=3)
    story.add(roots, "threshold", "roots cannot appoint a builder")
    story.add(by.delegation(sequence=4), "sequence", "sequence must be exactly the next")
    story.add(
        by.delegation(sequence=3, previous="sha256:" + "00" * 32), "previous", "names another one before"
    )
    one = by.delegation(signers=["owner1"], builders=("builder2",), sequence=3)
    story.add(one, "threshold", "one owner of two")
    first = story.add(by.release("a", "b"), OK, "a release by builder1")
    story.add(by.delegation(builders=("builder2",)), OK, "builder2 takes over")
    story.add(by.release("c"), "unknown-key", "builder1 is out")
    by.sequences[SERVICE, "release"] -= 1
    story.add(by.release("b", "c", signers=["builder2"]), OK, "lists b again")
    at = story.log.index(first)
    lost = [{"key": keyid("builder1"), "from_index": at + 1}]
    story.add(
        by.delegation(builders=("builder2",), compromised=lost), OK, "builder1 compromised after its release"
    )
    story.add(by.delegation(builders=("builder1",), sequence=5), "compromised-key", "it cannot come back")
    lost = [{"key": keyid("builder1"), "from_index": at}]
    story.at(hours=1)
    story.add(
        by.delegation(builders=("builder2",), compromised=lost),
        OK,
        "compromised since its release: a and b are revoked, b also for the newer release",
    )
    story.add(
        by.delegation(builders=("builder2",), compromised=lost), OK, "saying it again touches nothing more"
    )
    story.add(by.allocation("second", signers=["root1", "root3"]), OK, "another service")
    alone = by.allocation("third", signers=["root1"])
    story.add(alone, "threshold", "one root does not allocate")
    yield story
    story = Story("the log's own delegation changes hands; a compromised rebuilder's verdicts go away")
    by = story.by
    release = story.add(by.release("a"), OK, "a release")
    story.add(by.rebuild(release, {"a": True}), OK, "rebuilder1")
    story.add(by.rebuild(release, {"a": True}, signers=["rebuilder2"]), OK, "rebuilder2")
    story.add(by.release("b"), OK, "a release that nobody rebuilt stays untouched")
    story.at(hours=1)
    changed: dict[str, Any] = {
        "keys": keys("root1", "root2", "root4", "tcb3", "rebuilder2"),
        "roles": {
            "root": role(["root1", "root2", "root4"], 2),
            "tcb": role(["tcb3"], 1),
            "rebuilder": role(["rebuilder2"], 1),
        },
        "compromised": [{"key": keyid("rebuilder1"), "from_index": 0}],
    }
    by.sequences["log", "delegation"] = 1
    story.add(
        by.delegation("log", signers=["root1", "owner1"], builders=(), sequence=2, **changed),
        "unknown-key",
        "owners of a service mean nothing here",
    )
    story.add(
        by.delegation("log", signers=["root3", "root2"], builders=(), **changed), OK, "two roots of three"
    )
    story.add(by.revocation(["a"], signers=["security1"]), "unknown-key", "the security role is gone")
    by.sequences[SERVICE, "revocation"] = 0
    story.add(by.floor(signers=["tcb3"]), OK, "the new tcb key")
    story.add(by.revocation(["a"], signers=["root1", "root4"]), OK, "the new roots revoke")
    yield story


def times() -> Iterable[Story]:
    """Deadlines at log time."""
    story = Story("deadlines: of statements, of delegations, limits on both")
    by = story.by
    story.add(
        by.release(issued=time_text(NOW + timedelta(seconds=301)), sequence=1),
        "issued-in-future",
        "301 s ahead",
    )
    story.add(by.release(not_after=time_text(NOW), sequence=1), "expired", "over as it is logged")
    long = time_text(NOW + timedelta(days=180, seconds=1))
    story.add(by.release(not_after=long, sequence=1), "release-too-long", "180 days and a second")
    exact = time_text(NOW + timedelta(days=180, seconds=300))
    release = by.release(not_after=exact, issued=time_text(NOW + timedelta(seconds=300)))
    story.add(release, OK, "exactly 180 days, issued 300 s ahead")
    story.add(by.floor(expires=time_text(NOW), sequence=1), "expired", "a floor that is over")
    story.add(by.delegation(expires=time_text(NOW), sequence=3), "expired", "a delegation that is over")
    late = by.revocation(release, suspend=timedelta(hours=72, seconds=1), sequence=1)
    story.add(late, "suspension-too-long", "72 hours and a second")
    story.add(by.revocation(release, suspend=timedelta(0), sequence=1), "expired", "over as it is logged")
    story.add(by.revocation(release, suspend=timedelta(hours=72)), OK, "exactly 72 hours")
    story.at(days=365, seconds=-1)
    story.add(by.release("b"), OK, "one second before the service's delegation expires")
    story.at(days=365)
    story.add(by.release("c"), "delegation-expired", "the builder's delegation has expired")
    story.add(by.delegation(sequence=3), "delegation-expired", "nor can its owners renew it")
    story.add(by.revocation(["b"], signers=["security1"]), OK, "the log's delegation has not")
    story.at(days=3650)
    story.add(by.floor(), "delegation-expired", "now it has")
    yield story


def releases() -> Iterable[Story]:
    """Releases and revocations."""
    story = Story("releases and revocations: nothing leaves revoked")
    by = story.by
    first = story.add(by.release("a", "b"), OK, "a and b")
    second = story.add(by.release("b", "c"), OK, "b again, and c")
    story.at(hours=1)
    story.add(by.revocation(["c"], suspend=DAY), OK, "c suspended for a day")
    story.add(
        by.revocation(["c"], signers=["security1"], suspend=HOUR), OK, "a shorter one does not shorten it"
    )
    story.add(by.revocation(["x"], suspend=DAY, sequence=3), "unknown-measurement", "nothing to suspend")
    story.add(by.revocation(first), OK, "the first release: a, and b though its release is newer")
    story.at(hours=2)
    story.add(by.revocation(first, sequence=4), "already-revoked", "again")
    story.add(by.revocation(["a"], suspend=DAY, sequence=4), "already-revoked", "suspending what is revoked")
    story.add(by.revocation(["a", "c"]), OK, "c only: a is untouched")
    story.add(by.release("a", "d"), OK, "a is released again and stays revoked; d is active")
    story.add(by.revocation(["e"]), OK, "e is revoked before anybody released it")
    story.add(by.release("e"), OK, "e is released and stays revoked")
    story.add(by.revocation(_unlogged(by), sequence=6), "unknown-release", "a release that is not in the log")
    story.add(by.allocation("second"), OK, "another service")
    story.add(by.delegation("second", builders=("builder9",)), OK, "with its own builder")
    other = by.revocation(second, "second", signers=["builder9"], sequence=1)
    story.add(other, "unknown-release", "a release of another service")
    story.add(
        by.revocation(["d"], "chat", signers=["builder9"], sequence=6), "unknown-key", "builders of others"
    )
    story.add(by.release("d", service="second", signers=["builder9"]), OK, "d of the second service")
    story.at(hours=3)
    story.add(by.revocation(["d"], "second", signers=["security1"]), OK, "security: d of one service only")
    yield story
    story = Story("revocations by the log: every service, and what is not released yet")
    by = story.by
    story.add(by.allocation("second"), OK, "another service")
    story.add(by.delegation("second", builders=("builder9",)), OK, "with its own builder")
    release = story.add(by.release("a", "b"), OK, "a and b")
    story.add(by.release("a", service="second", signers=["builder9"]), OK, "a of the second service")
    story.add(by.revocation(["a"], "log", sequence=1), "unknown-key", "not for builders")
    story.add(
        by.revocation(["x"], "log", signers=["security1"], suspend=DAY, sequence=1),
        "unknown-measurement",
        "nothing to suspend",
    )
    story.add(
        by.revocation(["a", "x"], "log", signers=["security1"], suspend=DAY), OK, "a suspended everywhere"
    )
    story.at(hours=1)
    story.add(by.revocation(["a", "x"], "log", signers=["security1"]), OK, "a everywhere, x for the future")
    story.add(
        by.revocation(["a", "x"], "log", signers=["root1", "root2"], sequence=3), "already-revoked", "again"
    )
    story.add(by.release("x", "y"), OK, "x is born revoked, y is active")
    story.add(by.revocation(release, "log", signers=["root1", "root2"]), OK, "a release: b everywhere")
    story.add(by.release("b", service="second", signers=["builder9"]), OK, "b is born revoked")
    story.add(
        by.revocation(["a"], "log", signers=["security1"], suspend=DAY, sequence=4),
        "already-revoked",
        "suspending what is revoked",
    )
    yield story


def rebuilds() -> Iterable[Story]:
    """Verdicts of rebuilders."""
    story = Story("rebuilds: recorded per row and key, for the release that the record names")
    by = story.by
    release = story.add(by.release("a", "b"), OK, "a and b")
    story.add(by.rebuild(release, {"a": True, "b": True}), OK, "rebuilder1: both match")
    story.add(
        by.rebuild(release, {"a": True, "b": False}, signers=["rebuilder2"]), OK, "rebuilder2: b differs"
    )
    both = by.rebuild(release, {"a": True}, signers=["rebuilder1", "rebuilder2"])
    story.add(both, OK, "both in one entry")
    story.add(by.rebuild(release, {}), OK, "rebuilder1 cannot build it any more")
    story.add(
        by.rebuild(release, {"a": True, "z": True}, sequence=5), "foreign-row", "z is not in the release"
    )
    story.add(
        by.rebuild(_unlogged(by), {"a": True}, sequence=5),
        "unknown-release",
        "a release that is not in the log",
    )
    story.add(
        by.rebuild(release, {"a": True}, signers=["builder1"], sequence=5), "threshold", "builders cannot"
    )
    story.at(hours=1)
    story.add(by.revocation(["b"]), OK, "b is revoked")
    story.add(by.rebuild(release, {"b": True}), OK, "and may still be rebuilt")
    newer = story.add(by.release("a"), OK, "a newer release of a starts without verdicts")
    story.add(by.rebuild(release, {"a": True}, sequence=6), "superseded", "a verdict about the old one")
    story.add(by.rebuild(release, {"a": True, "b": True}), OK, "counts for b only")
    story.add(by.rebuild(newer, {"a": True}), OK, "about the new one")
    story.add(by.allocation("second"), OK, "another service")
    foreign = by.rebuild(newer, {"a": True}, service="second")
    story.add(foreign, "unknown-release", "under the name of another service")
    yield story


def floors() -> Iterable[Story]:
    """TCB floors."""
    story = Story("floors: raised at once, lowered by root 72 hours later")
    by = story.by
    minimum = {"tee_tcb_svn": "05" * 16, "sgx_tcb_svn": "07" * 16, "pce_svn": 13}
    story.add(by.floor(), OK, "the first")
    story.add(by.floor(expires=time_text(NOW + 60 * DAY)), OK, "the same, renewed")
    mixed = {**minimum, "tee_tcb_svn": "06" * 15 + "04"}
    weaker: dict[str, dict[str, object]] = {
        "one component lower, others higher": {"minimum": mixed},
        "pce_svn lower": {"minimum": {**minimum, "pce_svn": 12}},
        "an older evaluation": {"evaluation_number": 16},
        "one more status": {"accepted_status": ["OutOfDate", "SWHardeningNeeded", "UpToDate"]},
        "more grace": {"grace_seconds": 86_401},
        "an advisory less": {"denied_advisories": []},
    }
    for note, change in weaker.items():
        story.add(by.floor(floor={**FLOOR, **change}, sequence=3), "floor-lower", note)
    story.add(by.floor(signers=["tcb1"], sequence=3), "threshold", "one tcb key of two")
    story.add(by.floor(signers=["security1"], sequence=3), "threshold", "security sets no floors")
    lower = {**FLOOR, "evaluation_number": 10}
    story.at(hours=1)
    story.add(by.floor(signers=["root1", "root2"], floor=lower), OK, "root lowers it: coming in 72 hours")
    story.add(by.floor(), OK, "a renewal keeps what is coming")
    story.at(hours=72)
    story.add(
        by.floor(floor={**FLOOR, "evaluation_number": 12}, sequence=5), "floor-lower", "not in force yet"
    )
    story.at(hours=73)
    story.add(by.floor(floor={**FLOOR, "evaluation_number": 12}), OK, "now 12 is a raise")
    lowest = {**FLOOR, "evaluation_number": 0}
    story.add(by.floor(signers=["root2", "root3"], floor=lowest), OK, "root lowers again")
    strict = {**FLOOR, "denied_chips": ["00" * 16], "denied_families": ["90c06f"], "evaluation_number": 18}
    story.add(by.floor(floor=strict), OK, "a stricter one cancels it")
    story.add(by.floor(floor={**strict, "denied_chips": []}, sequence=8), "floor-lower", "a chip less")
    story.add(by.floor(floor={**strict, "denied_families": []}, sequence=8), "floor-lower", "a family less")
    story.add(
        by.floor(product="00806f050000", signers=["root1", "root3"], floor=lower),
        OK,
        "another product, by root",
    )
    story.add(
        by.floor(platform="gh100", product="gh100", floor={**FLOOR, "minimum": {"driver": "0244"}}),
        OK,
        "a device",
    )
    longer = {**FLOOR, "minimum": {"driver": "024400"}}
    story.add(
        by.floor(platform="gh100", product="gh100", floor=longer, sequence=10),
        "floor-lower",
        "another length does not compare",
    )
    number = {**FLOOR, "minimum": {"driver": 580}}
    story.add(
        by.floor(platform="gh100", product="gh100", floor=number, sequence=10),
        "floor-lower",
        "nor another type",
    )
    more = {**FLOOR, "minimum": {"driver": "0244", "vbios": 96}}
    story.add(by.floor(platform="gh100", product="gh100", floor=more), OK, "one more component is a raise")
    yield story


def _raw(kind: str, predicate: dict[str, object]) -> bytes:
    document = {
        "_type": STATEMENT_TYPE,
        "predicate": predicate,
        "predicateType": f"https://quotary.dev/{kind}/v1",
        "subject": [],
    }
    return sign(canonical(document), [key("builder1")])


def _altered(entry: bytes, change: Callable[[bytes], bytes]) -> bytes:
    payload = Envelope.parse(entry).payload
    changed = change(payload)
    assert changed != payload
    return sign(changed, [key("builder1")])


def _unlogged(by: Authority) -> bytes:
    return by.release("nowhere", sequence=99)


TOPICS: tuple[Callable[[], Iterable[Story]], ...] = (
    genesis,
    form,
    signatures,
    delegations,
    times,
    releases,
    rebuilds,
    floors,
)


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    for topic in TOPICS:
        cases = [story.document() for story in topic()]
        text = json.dumps({"about": topic.__doc__, "cases": cases}, indent=1, sort_keys=True) + "\n"
        (FOLDER / f"{topic.__name__}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
