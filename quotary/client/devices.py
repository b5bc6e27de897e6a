"""The last step of the verification order: GPUs and switches of the machine (design sections 5 and 6).

The CPU's evidence hashes the very bytes of the devices' evidence, and each device answers a nonce that is
derived from the keyset: so the measured enclave chose these devices for these keys, within the keyset's hour.
That it also computes on them is its code's promise, which the release's source shows.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from quotary.attestation import rim
from quotary.attestation.binding import gpu_nonce, keyset_digest
from quotary.attestation.devices import (
    meet_floor,
    meet_rules,
    parse_evidence,
    require_one_machine,
    verify_devices,
)
from quotary.attestation.document import AttestationDocument
from quotary.attestation.nvidia import DeviceFacts, driver_rim_id, vbios_rim_id
from quotary.attestation.ocsp import Answer
from quotary.attestation.quote import OCSP, find_manifest, manifests_of
from quotary.canonical import time_text, unb64
from quotary.client.device_rules import REQUIRED, DeviceRules, meet_machines
from quotary.client.policy import Policy
from quotary.client.standing import Times
from quotary.client.verdict import Trail
from quotary.errors import Refused
from quotary.statements.keys import key_tcb
from quotary.statements.records import Record, TCBRecord
from quotary.statements.row import Row

ANCHOR = "row of the release"
# No signed field says it; the measured enclave asks its own driver before it serves (enclave.boot).
CONFIDENTIAL = "no signed field says it: the measured enclave asks its driver before it serves"


def require_devices(
    document: AttestationDocument,
    row: Row,
    records: Mapping[bytes, Record],
    policy: Policy,
    now: datetime,
    times: Times,
    trail: Trail,
) -> None:
    """14. The devices that the row demands are proven, each and together.

    1. The vendor whose roots the policy admits signed each device's evidence, over the nonce that this keyset
       and its place in the list give; none is there twice.
    2. They are those of the row: how many of each architecture, driver, VBIOS, and a mode that the policy
       admits; the vendor took none back, as far as the policy wants to know. They are the policy's, if it
       lists any.
    3. Their measurements are the values of signed manifests.
    4. They are of one machine.
    5. They reach the logged floors of their architectures, which are in force, and the policy's own.
    What is presented where the row demands nothing is not looked at, and the verdict says so.
    """
    demanded = row.require.devices
    if not demanded:
        _unasked(document, trail)
        return
    wanted = ", ".join(f"{rule.count} {rule.architecture}" for rule in demanded)
    with trail.step("devices", wanted, ANCHOR):
        rules, data = policy.devices, document.devices
        if rules is None:
            raise Refused("devices", "a policy without rules for devices", "the policy's member devices")
        if data is None:
            raise Refused("devices", "none presented", wanted)
        answers = _answers(document.device_collateral)
        found = _verified(data, keyset_digest(document.keyset), answers, rules, now, trail)
        trail.vendor("devices", meet_rules(found, demanded, rules.modes, rules.revocation))
        trail.vendor("devices", meet_machines(found, rules))
        _require_reference(found, document.device_collateral, answers, rules, now, trail)
        if len(found) > 1:
            trail.vendor("devices", require_one_machine(found, sum(each.kind == "switch" for each in found)))
        _require_floors(found, records, rules, times, trail)
        trail.not_checked("devices: confidential mode", CONFIDENTIAL, "on, no developer tools", ANCHOR)
        trail.held("devices", wanted, f"{wanted}, each and together", ANCHOR)


def _unasked(document: AttestationDocument, trail: Trail) -> None:
    if document.devices is not None:
        trail.not_checked("devices", "device evidence that nothing demands", "none", ANCHOR)
    else:
        trail.held("devices", "none presented", "none", ANCHOR)


def _answers(collateral: Mapping[str, str]) -> tuple[Answer, ...]:
    found = (text for name, text in collateral.items() if name.startswith(OCSP))
    return tuple(Answer.parse(unb64(text)) for text in found)


def _verified(
    data: bytes, keyset: bytes, answers: Sequence[Answer], rules: DeviceRules, now: datetime, trail: Trail
) -> tuple[DeviceFacts, ...]:
    evidence = parse_evidence(data)
    nonces = [gpu_nonce(keyset, index) for index in range(len(evidence))]
    found = verify_devices(evidence, nonces, answers, now, rules.roots)
    for index, device in enumerate(found):
        trail.vendor(f"devices: {index} {device.architecture}", device.checks)
    return found


def _require_reference(
    devices: Sequence[DeviceFacts],
    collateral: Mapping[str, str],
    answers: Sequence[Answer],
    rules: DeviceRules,
    now: datetime,
    trail: Trail,
) -> None:
    """Hold every device against the manifests of its versions, which must be there."""
    manifests = [rim.verify(found, answers, now, rules.roots) for found in manifests_of(collateral)]
    for index, device in enumerate(devices):
        driver = find_manifest(manifests, device, device.driver) if device.kind == "gpu" else None
        vbios = find_manifest(manifests, device, device.vbios)
        if vbios is None:
            raise Refused("golden values", "no manifest", vbios_rim_id(device))
        if driver is None and device.kind == "gpu":
            raise Refused("golden values", "no manifest", driver_rim_id(device))
        for manifest in (vbios, driver):
            if manifest is not None and manifest.good_until is None and rules.revocation == REQUIRED:
                raise Refused("rim revocation", "not checked", "answers of NVIDIA's OCSP service")
        trail.vendor(f"devices: {index} {device.architecture}", rim.match(device, driver, vbios))


def _require_floors(
    devices: Sequence[DeviceFacts],
    records: Mapping[bytes, Record],
    rules: DeviceRules,
    times: Times,
    trail: Trail,
) -> None:
    for name in sorted({device.architecture.lower() for device in devices}):
        members = [device for device in devices if device.architecture.lower() == name]
        record = records.get(key_tcb(rules.platform, name))
        if not isinstance(record, TCBRecord):
            raise Refused("device floor", "no logged floor", f"the floor of {rules.platform} {name}")
        logged = record.at(times.earliest)
        if times.latest >= logged.expires:
            ended = time_text(logged.expires)
            raise Refused("device floor", f"one of {name} that ended at {ended}", "a floor in force")
        trail.vendor(f"devices: floor of {name} (log)", meet_floor(members, logged.floor))
        if rules.floors is not None:
            if name not in rules.floors:
                wanted = f"one of {', '.join(rules.floors) or 'none'}"
                raise Refused("device floor", f"architecture {name}", wanted)
            trail.vendor(f"devices: floor of {name} (policy)", meet_floor(members, rules.floors[name]))
