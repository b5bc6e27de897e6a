"""From a request to an answer and its signed result: the one place that decides what is said.

Whatever was not checked is false in the answer and named in its reasons. An answer that is ``valid`` means:
a vendor whose root the policy admits signed the evidence, it answers the challenge, nothing that the policy
demands failed, and its firmware was found to be good enough.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec

from quotary import __version__
from quotary.attestation.facts import Check
from quotary.attestation.kept import Kept
from quotary.attestation.quote import NOT_CHECKED
from quotary.client.appraisal import Appraisal, appraise_evidence
from quotary.client.ear import AFFIRMING, CONTRAINDICATED, NONE, WARNING, Result, claims_of, sign_result
from quotary.client.policy import Policy
from quotary.errors import Judged, Refused, Rejected
from quotary.statements.facts import check_document

PLATFORMS: Mapping[str, str] = MappingProxyType(
    {
        "intel-tdx": "tdx",
        "intel-sgx": "sgx",
        "amd-sev-snp": "snp",
        "aws-nitro": "nitro",
        "nvidia-gpu": "nvidia",
    }
)
SIMULATED = "simulated-"

# AR4SI, section 2.3: what each value says.
GENUINE, UNVERIFIABLE = 2, 99
KNOWN_HOLES, UNACCEPTED, DEBUGGABLE = 32, 96, 96
NO_KNOWN_WEAKNESS, KNOWN_MACHINE, OPAQUE = 3, 2, 2
# Refusals about how new firmware is; the others of an appraisal are about settings.
_FIRMWARE = (
    "tcb level", "qe tcb level", "tdx module tcb level", "tcb minimum", "tcb evaluation number", "tcb status",
    "tcb floor", "golden values", "denied advisory", "denied family", "denied chip",
)  # fmt: skip
# They say whose evidence it is, for whom, and what came with it, and nothing of the hardware.
_OF_THE_REQUEST = ("challenge", "platform", "device nonce", "machine", "timestamp", "revocation")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: evidence with its collateral, whose it should be, and the challenge it should answer."""

    kept: Kept
    platform: str
    challenge: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller is told, and what the verifier signs."""

    document: Mapping[str, object]
    claims: Mapping[str, object]


def judge(asked: Asked, policy: Policy, now: datetime) -> Answer:
    """Judge evidence; a check that fails is an answer, evidence that cannot be read or judged an error."""
    try:
        found = appraise_evidence(asked.kept, policy, asked.challenge)
        _require_platform(asked, found)
    except Judged as error:
        return _failed(asked, policy, error, now)
    return answer_for(asked, policy, found, now)


def signed(answer: Answer, key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
    """Give the answer with its result as a JWT."""
    return {**answer.document, "ear": sign_result(answer.claims, key)}


def _require_platform(asked: Asked, found: Appraisal) -> None:
    """Evidence is of the platform that was asked for; a simulator's is never hardware's."""
    if name_of(found.platform) != asked.platform:
        raise Rejected("platform", name_of(found.platform), asked.platform[:64])


def name_of(platform: str) -> str:
    """Name a platform as callers do: ``tdx`` is ``intel-tdx``, ``sim-tdx`` is ``simulated-intel-tdx``."""
    base = platform.removeprefix("sim-")
    named = next((name for name, known in PLATFORMS.items() if known == base), base)
    return f"{SIMULATED}{named}" if platform != base else named


def answer_for(asked: Asked, policy: Policy, found: Appraisal, now: datetime) -> Answer:
    """Say what an appraisal comes to; nothing of a simulator's is claimed to be hardware's."""
    reasons = [f"{check.name}: {check.found}" for check in found.checks if _open(check)]
    valid = found.fresh and found.assessed and found.up_to_date
    if found.assessed and not found.up_to_date:
        reasons.insert(
            0, "tcb status: the vendor knows newer firmware than this, and the policy has no floor"
        )
    document: dict[str, object] = {
        "valid": valid,
        "platform": name_of(found.platform),
        "firmware_version": found.firmware,
        "signature_verified": True,
        "certificate_chain_verified": True,
        "freshness_verified": found.fresh,
        "simulated": found.simulated,
        "reasons": reasons,
    }
    if found.simulated:
        # A simulator proves nothing about hardware, so nothing is claimed of any.
        status, vector = NONE, {"hardware": 0}
    else:
        status = AFFIRMING if valid else (WARNING if found.assessed else NONE)
        vector = _vector(found)
    return _answer(asked, policy, document, status, vector, found, now)


def _vector(found: Appraisal) -> dict[str, int]:
    vector = {"configuration": NO_KNOWN_WEAKNESS, "runtime-opaque": OPAQUE}
    if found.assessed:
        vector["hardware"] = GENUINE if found.up_to_date else KNOWN_HOLES
    return vector | ({"instance-identity": KNOWN_MACHINE} if found.known_machine else {})


def _failed(asked: Asked, policy: Policy, error: Judged, now: datetime) -> Answer:
    """Nothing is said to have been verified of evidence that one check failed for, but which one."""
    document: dict[str, object] = {
        "valid": False,
        "platform": asked.platform,
        "firmware_version": "",
        "signature_verified": False,
        "certificate_chain_verified": False,
        "freshness_verified": False,
        "simulated": False,
        "reasons": [str(error)],
    }
    return _answer(asked, policy, document, CONTRAINDICATED, _failed_vector(error), error, now)


def _failed_vector(error: Judged) -> dict[str, int]:
    if error.check in _OF_THE_REQUEST:
        return {"hardware": 0}
    if error.check == "debug":
        return {"configuration": DEBUGGABLE, "runtime-opaque": DEBUGGABLE}
    if error.check in _FIRMWARE:
        return {"hardware": UNACCEPTED}
    if isinstance(error, Refused):
        return {"configuration": UNACCEPTED}
    return {"hardware": UNVERIFIABLE}


def _answer(
    asked: Asked,
    policy: Policy,
    document: Mapping[str, object],
    status: str,
    vector: Mapping[str, int],
    found: Appraisal | Judged,
    now: datetime,
) -> Answer:
    result = Result(
        label=str(document["platform"]),
        status=status,
        vector=vector,
        policy=policy.digest,
        asked=asked.challenge,
        answered=bool(document["freshness_verified"]),
        evidence={"sha256": _digest(asked.kept.evidence), "simulated": document["simulated"]},
        verifier=_checked(asked.kept, found),
        build=f"quotary {__version__}",
        at=now,
    )
    return Answer(document, claims_of(result))


def _checked(kept: Kept, found: Appraisal | Judged) -> dict[str, object]:
    """Say what was looked at, and with which documents, so that somebody else can look again."""
    collateral = {name: _digest(text.encode()) for name, text in sorted(kept.collateral.items())}
    said: dict[str, object] = {"judged_at": kept.judged_at.isoformat(), "collateral_sha256": collateral}
    if isinstance(found, Judged):
        return said | {"failed": {"name": found.check, "found": found.found, "wanted": found.wanted}}
    return said | {"checks": [check_document(check) for check in found.checks]}


def _open(check: Check) -> bool:
    return check.found.startswith(NOT_CHECKED)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
