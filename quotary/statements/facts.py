"""Facts as one JSON document, the same from the command line, a registry and a verifier.

Every check says ``ok`` or ``not checked``; one that failed raised, and there are no facts.
"""

from dataclasses import asdict

from quotary.attestation.facts import Check, Facts
from quotary.attestation.nvidia import DeviceFacts
from quotary.attestation.quote import NOT_CHECKED, Verified
from quotary.statements.measurement import measurement_id

SERVICE = "NVIDIA's remote attestation service"
SCHEMA = "quotary/facts/v1"


def facts_document(found: Verified) -> dict[str, object]:
    """Write what a vendor signed, with the checks that were made and those that were not."""
    document: dict[str, object] = {"schema": SCHEMA, "kind": found.kind}
    if found.facts is not None:
        document |= _facts(found.facts)
    elif found.claims is not None:
        document |= {"said_by": SERVICE, "simulated": found.simulated}
        document |= {"claimed_devices": [asdict(device) for device in found.claims.devices]}
    else:
        document |= {"devices": [_device(device) for device in found.devices]}
    return document | {"checks": [check_document(check) for check in found.checks]}


def check_document(check: Check) -> dict[str, object]:
    """Write one check."""
    return {
        "name": check.name,
        "outcome": outcome(check),
        "found": check.found,
        "wanted": check.wanted,
        "anchor": check.anchor,
    }


def outcome(check: Check) -> str:
    """Say ``ok``, or ``not checked`` for what nobody looked at."""
    return NOT_CHECKED if check.found.startswith(NOT_CHECKED) else "ok"


def _facts(facts: Facts) -> dict[str, object]:
    return {
        "platform": facts.platform,
        "simulated": facts.simulated,
        "product": facts.product,
        "measurement": measurement_id(facts.platform, facts.registers).hex(),
        "registers": {name: value.hex() for name, value in facts.registers.items()},
        "report_data": facts.report_data.hex(),
        "tcb_status": facts.tcb.status,
        "advisories": list(facts.tcb.advisories),
        "evaluation_number": facts.tcb.evaluation_number,
        "judged_at": facts.judged_at.isoformat(),
    }


def _device(device: DeviceFacts) -> dict[str, object]:
    return {
        "platform": device.platform,
        "simulated": device.simulated,
        "architecture": device.architecture,
        "kind": device.kind,
        "serial": device.serial,
        "pdi": device.pdi.hex(),
        "driver": device.driver,
        "vbios": device.vbios,
        "judged_at": device.judged_at.isoformat(),
    }
