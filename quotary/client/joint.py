"""Two receipts as one: two enclaves of different kinds gave the same answer (docs/formats/joint.md).

Both receipts commit under one salt, which the client chose for the two of them. So whoever has both sees
whether prompt and answer are the same without seeing either. Nothing else is signed: the statement beside the
receipts says in one place what follows from them, and is made again by whoever verifies.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.client.files import EvidenceFile, verify_file
from quotary.client.policy import Policy
from quotary.client.receipt import FOLLOWED, Receipt, parameters_digest
from quotary.client.verdict import Check, Trail, Verdict
from quotary.errors import Malformed, Refused, Rejected
from quotary.statements.keyset import RECEIPT

TYPE = "quotary/joint/v1"
MAX_JOINT = 48 << 20

# How an answer was computed, not what was asked: two machines with these alike give the same bits.
CLASSES = ("device", "gpu", "dtype", "kernel")
# The number of rows changes no answer (docs/decisions/0019-a-batch-of-our-own.md).
_FREE = ("batching",)
_FOLLOWING = ("follow_count", "diverged_count", "diverged_first", "gap_ppm")


@dataclass(frozen=True, slots=True)
class Proven:
    """One enclave that was judged, and its receipt that was held against it."""

    verdict: Verdict
    receipt: Receipt

    @property
    def platform(self) -> str:
        """The kind of hardware, e.g. ``sim-tdx``, as its evidence was verified."""
        return self.verdict.facts.platform


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two receipts say together.

    exact:    equal answers, computed alike
    diverged: steps at which the second prover, told the first one's answer, would have gone on otherwise;
              0 where both answered by themselves
    gap_ppm:  how far its own choice was ahead at most, in millionths; 0 where there was none
    """

    first: Proven
    second: Proven
    exact: bool
    diverged: int = 0
    gap_ppm: int = 0

    def statement(self) -> dict[str, object]:
        """Say what holds of both, and name the two."""
        receipt, provers = self.first.receipt, (self.first, self.second)
        found: dict[str, object] = {
            "agreement": "exact" if self.exact else "tolerant",
            "model": receipt.origin.weights.hex(),
            "params": parameters_digest(_asked(receipt)).hex(),
            "prompt_ids": receipt.commitments.prompt_ids.hex(),
            "output_ids": receipt.commitments.output_ids.hex(),
            "tokens": receipt.commitments.tokens_out,
            "provers": [_named(prover) for prover in provers],
        }
        return found if self.exact else found | {"diverged": self.diverged, "gap_ppm": self.gap_ppm}


@dataclass(frozen=True, slots=True)
class JointFile:
    """Both evidence files, each with its receipt, and the statement, canonical bytes."""

    first: bytes
    second: bytes
    statement: bytes

    @classmethod
    def parse(cls, data: bytes) -> "JointFile":
        fields = Fields(parse_canonical(data, MAX_JOINT), "joint receipt")
        fields.integer("v", 1, 1)
        fields.choice("type", TYPE)
        parts = (fields.base64(name, limit=MAX_JOINT) for name in ("first", "second", "statement"))
        found = cls(*parts)
        fields.done()
        return found

    def encode(self) -> bytes:
        parts = {name: b64(getattr(self, name)) for name in ("first", "second", "statement")}
        return canonical({"v": 1, "type": TYPE, **parts})

    @classmethod
    def of(cls, agreement: Agreement, first: EvidenceFile, second: EvidenceFile) -> "JointFile":
        """Put together what is worth keeping of an agreement."""
        return cls(first.encode(), second.encode(), canonical(agreement.statement()))


def verify_joint(
    file: JointFile, policy: Policy, gap_ppm: int | None, trails: tuple[Trail, Trail], joint: Trail
) -> Agreement:
    """Judge both machines at their time, and what their receipts say together; offline.

    gap_ppm: how far apart two choices may have been at most; None demands equal answers. The trails are of
    the first machine, the second one, and both together.
    """
    first, second = (
        _proven(EvidenceFile.parse(data), policy, trail)
        for data, trail in zip((file.first, file.second), trails, strict=True)
    )
    found = agree(first, second, gap_ppm, joint)
    if canonical(found.statement()) != file.statement:
        raise Rejected("joint statement", "another one", "what follows from the two receipts")
    return found


def agree(first: Proven, second: Proven, gap_ppm: int | None, trail: Trail) -> Agreement:
    """Decide what two receipts say together, or raise what keeps them apart.

    1. Two enclaves signed them, on two kinds of hardware, with the same weights.
    2. They were asked the same with the same effective parameters.
    3. Their answers are the same tokens; or, where a gap is allowed, the second one followed the first
       one's, and was nowhere further from it.
    """
    check_distinct(first.verdict, second.verdict, trail)
    followed = second.receipt.served.finish_reason == FOLLOWED
    _check_request(first.receipt, second.receipt, followed, trail)
    free = (*_FREE, *(() if gap_ppm is None else CLASSES), *(_FOLLOWING if followed else ()))
    alike = _check_parameters(first.receipt, second.receipt, free, trail)
    _check_tokens(first.receipt, second.receipt, followed, trail)
    if followed:
        return _followed(first, second, gap_ppm, trail)
    return Agreement(first, second, alike)


def check_distinct(first: Verdict, second: Verdict, trail: Trail) -> None:
    """Require two enclaves on two kinds of hardware that answer from the same weights."""
    # Keysets change every hour; the key of its receipts stays as long as an enclave does.
    keys = [{key.public for key in each.keyset.of_role(RECEIPT)} for each in (first, second)]
    check = _Check(trail, "provers", "two enclaves", "their keysets")
    check.refuse_if(bool(keys[0] & keys[1]), f"one enclave twice, {first.keyset.instance}")
    check.held(f"keysets {first.keyset.digest.hex()} and {second.keyset.digest.hex()}")
    kinds = first.facts.platform, second.facts.platform
    check = _Check(trail, "platforms", "two kinds of hardware", "their evidence")
    check.refuse_if(kinds[0].removeprefix("sim-") == kinds[1].removeprefix("sim-"), f"{kinds[0]} twice")
    check.held(" and ".join(kinds))
    weights = first.predicate.weights_sha256.hex(), second.predicate.weights_sha256.hex()
    check = _Check(trail, "model", "the same weights", "their releases")
    check.refuse_if(weights[0] != weights[1], f"{weights[0]} and {weights[1]}")
    check.held(weights[0])


@dataclass(frozen=True, slots=True)
class _Check:
    """One check of both together, on its way into the trail."""

    trail: Trail
    name: str
    wanted: str
    anchor: str = "both receipts"

    def refuse_if(self, wrong: bool, found: str) -> None:
        if wrong:
            self.trail.checks.append(Check(self.name, "failed", found, self.wanted, self.anchor))
            raise Refused(self.name, found, self.wanted)

    def held(self, found: str) -> None:
        self.trail.held(self.name, found, self.wanted, self.anchor)


def _check_request(first: Receipt, second: Receipt, followed: bool, trail: Trail) -> None:
    one, other = first.commitments, second.commitments
    check = _Check(trail, "request", "the same request under one salt")
    check.refuse_if(one.prompt_ids != other.prompt_ids, "two prompts, or two salts")
    # Who is told what to answer is sent that too, in the same body.
    check.refuse_if(not followed and one.request != other.request, "two bodies")
    check.held("equal commitments")


def _check_parameters(first: Receipt, second: Receipt, free: tuple[str, ...], trail: Trail) -> bool:
    """Return whether they were computed alike, too. free: names of what may differ."""
    values = first.parameters, second.parameters
    check = _Check(trail, "parameters", "the same effective parameters")
    for name in sorted({*values[0], *values[1]} - {*free}):
        found = [values[place].get(name, "nothing") for place in (0, 1)]
        check.refuse_if(found[0] != found[1], f"{name} {found[0]} and {found[1]}")
    check.held(f"equal but for {', '.join(free)}")
    return all(values[0].get(name) == values[1].get(name) for name in CLASSES)


def _check_tokens(first: Receipt, second: Receipt, followed: bool, trail: Trail) -> None:
    check = _Check(trail, "tokens", "the same tokens of two whole answers")
    # What followed is no whole answer of its own, but has to be one of the other's.
    for each, whole in ((first, first.served.complete), (second, second.served.complete or followed)):
        check.refuse_if(not whole, f"an answer that ended by {each.served.finish_reason}")
    check.refuse_if(first.commitments.output_ids != second.commitments.output_ids, "two answers")
    check.held(f"equal commitments to {first.commitments.tokens_out} tokens")


def _followed(first: Proven, second: Proven, gap_ppm: int | None, trail: Trail) -> Agreement:
    values, wanted = second.receipt.parameters, first.receipt.commitments.tokens_out
    count, diverged = _number(values, "follow_count"), _number(values, "diverged_count")
    gap = _number(values, "gap_ppm") if diverged else 0
    said = f"{count} of {wanted} tokens followed, {diverged} of them apart by {gap} ppm at most"
    allowed = "two answers of their own" if gap_ppm is None else f"all, at most {gap_ppm} ppm apart"
    check = _Check(trail, "gap", allowed, "the second receipt")
    check.refuse_if(count != wanted or gap_ppm is None or gap > gap_ppm, said)
    check.held(said)
    return Agreement(first, second, False, diverged, gap)


def _proven(file: EvidenceFile, policy: Policy, trail: Trail) -> Proven:
    verdict = verify_file(file, policy, trail)
    if file.receipt is None:
        raise Malformed("a joint receipt with a part that holds no receipt")
    return Proven(verdict, Receipt.parse(file.receipt))


def _asked(receipt: Receipt) -> dict[str, int | str]:
    free = {*_FREE, *CLASSES, *_FOLLOWING}
    return {name: value for name, value in receipt.parameters.items() if name not in free}


def _named(prover: Proven) -> dict[str, object]:
    return {
        "platform": prover.platform,
        "measurement": prover.verdict.measurement_id.hex(),
        "receipt": prover.receipt.digest().hex(),
    }


def _number(values: Mapping[str, int | str], name: str) -> int:
    found = values.get(name)
    if not isinstance(found, int):
        raise Malformed(f"receipt parameter {name} is no number")
    return found
