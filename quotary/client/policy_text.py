"""A policy in words: what it demands, sentence by sentence, and where it demands less than it could."""

from quotary.attestation.nitro import PLATFORM as NITRO
from quotary.attestation.nvidia import PLATFORM as NVIDIA
from quotary.client.demands import loosened
from quotary.client.device_rules import REQUIRED, UNREPORTED
from quotary.client.policy import PlatformRules, Policy, Rebuilders, StreamRules
from quotary.statements.measurement import base_platform
from quotary.tlog.note import COSIGNATURE_ML_DSA_44
from quotary.tlog.policy import NO_QUORUM

CLIENT_MAX_AGE_SECONDS = 900


def explain(policy: Policy) -> tuple[str, ...]:
    """Say what a machine must prove under this policy, in the order of the verification."""
    tlog = policy.tlog
    keys = f"all {len(tlog.logs)} listed keys" if len(tlog.logs) > 1 else "its one listed key"
    sentences = [
        f"Environment: {policy.environment}."
        + (" Evidence comes from a simulator, proving nothing of hardware." if policy.simulation else ""),
        *(_platform(name, rules) for name, rules in policy.platforms.items()),
        _devices(policy),
        f"The log is {policy.origin}, whose entry 0 has the leaf hash {policy.genesis.hex()}.",
        f"A checkpoint must be signed by {keys}; {_quorum(policy)}",
        f"It covers at least {policy.minimum_size} entries; its time is {policy.minimum_at.isoformat()}"
        f" or later and at most {policy.max_age_seconds} s old.",
        _auditors(policy),
        *(
            f"The service {name} may answer; its delegations start at {owner.threshold} of "
            f"{len(owner.keys)} owner keys."
            for name, owner in policy.services.items()
        ),
        _rebuilders(policy),
    ]
    if policy.enclave is not None:
        words = "accepts" if policy.enclave.plaintext else "refuses"
        sentences.append(
            f"An enclave under it asks the log every {policy.enclave.poll_seconds} s and {words} prompts "
            "outside the sealed channel."
        )
        doors = ", ".join(policy.enclave.doors) or "none"
        sentences.append(f"Doors for clients of other systems that are open there: {doors}.")
        if policy.enclave.cache_mib is not None:
            sentences.append(
                f"All its answers together keep {policy.enclave.cache_mib} MiB of keys and values."
            )
        sentences.append(_cadence(policy.enclave.stream))
        relays = "takes" if policy.enclave.oblivious else "refuses"
        sentences.append(f"Such an enclave {relays} requests that come in capsules through a relay.")
    return tuple(sentences)


def weaknesses(policy: Policy) -> tuple[str, ...]:
    """Name where the policy demands less than it could; none of these is an error."""
    found = []
    if policy.tlog.quorum == NO_QUORUM:
        found.append("quorum none: nobody but the log says which history is the one; no time can be proven")
    elif len(policy.tlog.witnesses) < 2:
        found.append("one witness alone decides which history is the one")
    if not policy.map_auditors:
        found.append("map auditor none: the log alone vouches for statuses")
    if policy.rebuilders is None:
        found.append("rebuilders none: nobody but the builder says what the source builds to")
    elif policy.rebuilders.needed > 1 and not policy.rebuilders.named:
        found.append("rebuilders without organisations: all the keys may be of one")
    if not any(log.alg == COSIGNATURE_ML_DSA_44 for log in policy.tlog.logs):
        found.append("no ML-DSA-44 key of the log is listed: a quantum computer could sign as the log")
    if policy.max_age_seconds > CLIENT_MAX_AGE_SECONDS:
        found.append(
            f"max_age_seconds {policy.max_age_seconds}: a revocation may stay unseen for so long; "
            f"clients use {CLIENT_MAX_AGE_SECONDS}"
        )
    for name, owner in policy.services.items():
        if owner.threshold == 1:
            found.append(f"one owner key alone decides who builds {name}")
    for name, rules in policy.platforms.items():
        if base_platform(name) == NITRO:
            found.append(f"{name}: no firmware version is attested, and none is demanded")
        elif rules.floors is None:
            found.append(f"{name}: the logged TCB floor alone decides which firmware is accepted")
        found += [f"{name}: {what}" for what in loosened(rules.demands)]
    devices = policy.devices
    if devices is not None and devices.floors is None:
        found.append(
            f"devices: the logged floors of {devices.platform} alone decide which firmware is accepted"
        )
    if devices is not None and devices.revocation != REQUIRED:
        found.append("devices: a GPU that NVIDIA took back is accepted where nobody shows its answer")
    if devices is not None and UNREPORTED in devices.modes:
        found.append("devices: a GPU whose firmware does not say how it was set up is accepted")
    if policy.enclave is not None and policy.enclave.plaintext:
        found.append("plaintext allowed: whoever ends TLS in front of the enclave reads prompts")
    if policy.enclave is not None and policy.enclave.doors:
        doors = ", ".join(policy.enclave.doors)
        found.append(f"doors {doors}: what they sign names no weights, no log and no parameters")
    return tuple(found)


def _cadence(rules: StreamRules | None) -> str:
    if rules is None:
        return "Streamed answers are sent as they are made: their rhythm and number of pieces can be seen."
    return (
        f"A streamed answer in the sealed channel has a frame every {rules.interval_ms} ms, "
        f"and a whole multiple of {rules.frames}."
    )


def _platform(name: str, rules: PlatformRules) -> str:
    if rules.simulator_root is not None:
        root = f"the simulator root {rules.simulator_root.hex()}"
    else:
        root = "the vendor's root"
    if base_platform(name) == NITRO:
        wrong = "" if rules.floors is None else ", so that the policy's own floors admit nothing"
        floors = f"no TCB floor, because its vendor attests no firmware version{wrong}"
    elif rules.floors is None:
        floors = "the logged TCB floor of its product"
    else:
        floors = f"the logged TCB floor and the policy's own, for {', '.join(rules.floors) or 'no product'}"
    said = [f"Evidence of {name} must end in {root}, must not be debuggable, and must reach {floors}."]
    if rules.demands.machines is not None:
        said.append(f"It must come from one of {len(rules.demands.machines)} listed machines.")
    if rules.demands.documents is not None:
        said.append(f"It must be judged under {len(rules.demands.documents)} listed documents.")
    return " ".join((*said, *(f"For it {what}." for what in loosened(rules.demands))))


def _devices(policy: Policy) -> str:
    rules = policy.devices
    if rules is None:
        return "A release that demands GPUs is refused."
    own = "" if rules.floors is None else f" and the policy's own, for {', '.join(rules.floors) or 'nothing'}"
    answers = "must" if rules.revocation == REQUIRED else "need not"
    roots = " and ".join(root.name for root in rules.roots if NVIDIA in root.platform)
    return (
        f"Devices that a release demands must end in {roots}, be in the mode {' or '.join(rules.modes)}, "
        "match signed manifests, be of one machine, and reach the "
        f"logged floors of {rules.platform}{own}; answers that none was revoked {answers} be there."
    )


def _quorum(policy: Policy) -> str:
    tlog = policy.tlog
    if tlog.quorum == NO_QUORUM:
        return "no witness is needed."
    if tlog.quorum in tlog.witnesses:
        return f"the witness {tlog.quorum} must have cosigned it."
    group = tlog.groups[tlog.quorum]
    return f"{group.threshold} of {', '.join(group.members)} must have cosigned it."


def _auditors(policy: Policy) -> str:
    if not policy.map_auditors:
        return "Nobody need have recomputed the statuses (map auditor: none)."
    return f"The statuses must have been recomputed, and cosigned, by {' and '.join(policy.map_auditors)}."


def _rebuilders(policy: Policy) -> str:
    if policy.rebuilders is None:
        return "Nobody need have rebuilt a release (rebuilders: none)."
    listed = f"{policy.rebuilders.count} listed rebuilders ({_whose(policy.rebuilders)})"
    return (
        f"{policy.rebuilders.needed} of {listed} must have rebuilt the release to the same measurement, "
        "and none of them to another."
    )


def _whose(rebuilders: Rebuilders) -> str:
    if not rebuilders.named:
        return "each key counts, whoever holds it"
    return f"the organisations {', '.join(sorted(set(rebuilders.organisations.values())))}"
