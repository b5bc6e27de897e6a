"""The boot check: may this very machine serve? Decided as a client would decide it, by the same function.

The enclave asks its device for evidence, fetches the bundle for its own measurement id, and lets
``quotary.client.verify.judge`` go through the whole verification order under the policy on its measured
command line. On top come two facts that only the machine can check about itself: the release names this
policy, and (``enclave.weights``) this model. Nothing here imports a web framework or a model library, and
no setting skips a step.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from enclave.batches import NonceBatches
from enclave.device import Device, DeviceEvidence, Evidence
from enclave.events import BootChecked, emit
from enclave.hardware import Documents, open_tee
from enclave.keyset import LiveKeyset
from enclave.network import ports_of
from enclave.placement import GPU, MODE
from quotary.attestation.binding import (
    UNCHALLENGED,
    Binding,
    devices_digest,
    gpu_nonce,
    keyset_digest,
    report_data,
)
from quotary.attestation.devices import NO_DRIVER
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.cli.output import summary, table
from quotary.client.caller import Caller
from quotary.client.clock import Clock, SystemClock
from quotary.client.evidence import evidence_time, verify_evidence
from quotary.client.hint import nearest
from quotary.client.location import find_location
from quotary.client.log import LogClient
from quotary.client.platforms import claimed_registers
from quotary.client.policy import MAX_POLICY, EnclaveRules, Policy
from quotary.client.session import Client
from quotary.client.trust import Memory, ProcessMemory
from quotary.client.verdict import HERE, Check, Trail, Verdict
from quotary.client.verify import judge
from quotary.errors import CannotTell, NotInLog, QuotaryError, Refused
from quotary.net.transport import HTTP
from quotary.statements.keyset import Keyset
from quotary.statements.measurement import measurement_id
from quotary.statements.release import Release
from quotary.tlog.merkle import EMPTY_ROOT

# By these the machine itself is refused, whatever the log may say later
# (``attestation.appraise.meet_floor``; ``judge`` names them inside its step "tcb floor").
TCB_CHECKS = frozenset(
    {
        "tcb minimum",
        "tcb evaluation number",
        "tcb status",
        "denied advisory",
        "denied family",
        "denied chip",
    }
)


class Bundles(Protocol):
    """Where bundles come from; nothing about it is trusted."""

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        """Fetch the bundle of a measurement id."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a check needs, fixed for the life of the process.

    devices: how many GPUs and switches the machine shows
    ports:   where the process that serves may connect to by TCP
    """

    policy: Policy
    rules: EnclaveRules
    service: str
    device: Device
    log: Bundles
    memory: Memory
    clock: Clock
    devices: int = 0
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """A check that held.

    document: the evidence that was judged; bundle: what it was judged against
    release:  the logged release that this machine runs
    checks:   every named check, the machine's own ones last
    """

    document: AttestationDocument
    bundle: bytes
    verdict: Verdict
    release: Release
    checks: tuple[Check, ...]

    @property
    def evidence_digest(self) -> bytes:
        """SHA-256 of the evidence, as receipts name it."""
        return hashlib.sha256(self.document.evidence).digest()


@dataclass(frozen=True, slots=True)
class Shown:
    """Evidence over 64 bytes that are not this project's binding, for a door's report (``enclave.doors``).

    platform, registers: as the machine's own evidence showed them; keyset: canonical bytes
    quote:     over the 64 bytes; devices: NVIDIA's list over the report's nonce, or None
    gpus:      how many of the list are GPUs, which come first; architecture: theirs, as the release has it
    """

    platform: str
    registers: Mapping[str, bytes]
    keyset: bytes
    quote: bytes
    devices: bytes | None
    gpus: int = 0
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a failed check means for a serving enclave. code: for clients; final: this process is finished."""

    code: str
    final: bool


def open_setup(policy: Path, registry: str, service: str, tee: str, devices: int) -> Setup:
    """Read the measured command line's words; anything not understood is refused."""
    try:
        data = policy.read_bytes() if policy.stat().st_size <= MAX_POLICY else b""
    except OSError as error:
        raise CannotTell(f"the policy {policy} cannot be read: {error.strerror}") from error
    found = Policy.parse(data)
    if found.enclave is None:
        raise Refused("policy", "no member enclave", "rules for running an enclave")
    if service not in found.services:
        raise Refused("policy", f"no owner keys for {service}", "the owner keys of the service to run")
    http, clock = HTTP(plain_http=found.simulation), SystemClock()
    documents = Documents(http, registry, clock)
    log, ports = LogClient(http, registry), ports_of(registry, documents.services)
    device = open_tee(tee, documents)
    return Setup(found, found.enclave, service, device, log, ProcessMemory(), clock, devices, ports)


class Machine:
    """This machine, judging itself."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._batches = NonceBatches(self._shown)

    def rehearse(self, trail: Trail) -> SelfCheck:
        """Run the check with keys that are dropped afterwards: what a start would find.

        trail: takes the checks as they are made, so that a refusal can be shown with what held before it
        """
        keyset = LiveKeyset.born(self.setup.service, "rehearsal", int(self.setup.clock.now().timestamp()))
        return self._check(keyset.document, trail)

    def check(self, keyset: bytes) -> SelfCheck:
        """Judge this machine with a keyset of its own (canonical bytes), or raise what a client would meet.

        1. GPUs and switches answer nonces of this keyset; the device signs a binding of both.
        2. The registers in that evidence say which bundle to fetch; a hint until the next step.
        3. The whole verification order holds (design section 5).
        4. The release names the policy under which this was decided, and demands the devices that are shown.
        """
        return self._check(keyset, Trail())

    def renew(self, believed: SelfCheck) -> SelfCheck:
        """Judge the same evidence against a newly fetched bundle."""
        bundle = self.setup.log.bundle(self.setup.service, believed.verdict.measurement_id)
        return _judged(self.setup, believed.document, bundle, Trail())

    def attest(self, believed: SelfCheck, nonce: bytes | None) -> bytes:
        """Make a document for a client: new evidence over its nonce (32 bytes), and the newest bundle.

        Nonces that come while the hardware is busy share its next evidence. Without a nonce it shows the
        evidence by which it judged itself. GPUs answered nonces of the keyset when it was made, and are not
        asked again.
        """
        if nonce is None:
            return replace(believed.document, bundle=believed.bundle).encode()
        shown, place = self._batches.ask(believed, nonce)
        return replace(shown, nonce=place).encode()

    def ask(self, service: str, url: str, caller: Callable[[], Caller]) -> Client:
        """Make what asks another enclave through its second door, judging it as this one judges itself."""
        setup = self.setup
        log = setup.log.url if isinstance(setup.log, LogClient) else None
        return Client(
            url,
            setup.policy,
            service=service,
            log_url=log,
            memory=setup.memory,
            clock=setup.clock,
            ratls=True,
            caller=caller,
        )

    def judge_other(self, document: AttestationDocument, nonce: bytes) -> Verdict:
        """Judge another enclave under this one's policy, by a bundle fetched now, or raise."""
        setup, named = self.setup, Keyset.parse(document.keyset).service
        bundle = setup.log.bundle(named, _measurement(setup.policy, document.evidence))
        return judge(document, nonce, bundle, setup.policy, setup.memory, setup.clock)

    def evidence(self, keyset: bytes, nonce_root: bytes) -> AttestationDocument:
        """Have a keyset (canonical bytes) and the root of some nonces bound into evidence, devices too."""
        return _document(self.setup, keyset, _devices(self.setup, keyset), nonce_root)

    def show(self, believed: SelfCheck, report_data: bytes, nonce: bytes) -> Shown:
        """Ask for evidence over 64 bytes that a door laid out, and GPUs for theirs over its nonce."""
        setup, verdict = self.setup, believed.verdict
        (row,) = (row for row in verdict.predicate.rows if row.measurement == verdict.measurement_id)
        gpus = [rule for rule in row.require.devices if rule.drivers != (NO_DRIVER,)]
        devices = setup.device.devices([nonce] * setup.devices).devices if setup.devices else None
        return Shown(
            verdict.facts.platform,
            verdict.facts.registers,
            believed.document.keyset,
            setup.device.quote(report_data).quote,
            devices,
            sum(rule.count for rule in gpus),
            gpus[0].architecture if gpus else "",
        )

    def _placed(self, document: AttestationDocument) -> AttestationDocument:
        """Add the statement that says where this machine is, where the policy wants one."""
        setup = self.setup
        if setup.policy.location is None:
            return document
        if not isinstance(setup.log, LogClient):
            raise Refused("location", "a bundle in place of a log", "a log that says where machines are")
        now = evidence_time(setup.policy, setup.memory, setup.clock)
        chips = verify_evidence(document, setup.policy, now, Trail()).chips
        return replace(document, location=find_location(setup.log, setup.policy, chips, now))

    def _shown(self, believed: SelfCheck, nonce_root: bytes) -> AttestationDocument:
        shown, devices = believed.document, None
        if shown.devices is not None:
            devices = DeviceEvidence(shown.devices, shown.device_collateral)
        made = _document(self.setup, shown.keyset, devices, nonce_root)
        return replace(made, bundle=believed.bundle, location=shown.location)

    def _check(self, keyset: bytes, trail: Trail) -> SelfCheck:
        setup, started = self.setup, time.monotonic()
        document = self.evidence(keyset, UNCHALLENGED)
        document = self._placed(document)
        quoted = time.monotonic()
        bundle = setup.log.bundle(setup.service, _measurement(setup.policy, document.evidence))
        fetched = time.monotonic()
        try:
            found = _judged(setup, document, bundle, trail)
        except NotInLog as error:
            raise NotInLog(str(error), next_command=_nearest(setup, document.evidence)) from error
        emit(BootChecked(quoted - started, fetched - quoted, time.monotonic() - fetched))
        return found


def consequence(error: QuotaryError) -> Consequence:
    """Decide what a failed renewal means: final where the log says so, stale where it could not be asked.

    Only a verified statement of the log is final, and the word of the machine's own driver that its host can
    look into a GPU. Bytes that do not verify come from whoever is on the path, and must not be able to end a
    process.
    """
    if isinstance(error, Refused):
        if error.check == "status" and error.found.startswith("revoked"):
            return Consequence("measurement_revoked", final=True)
        if error.check == "status" and error.found.startswith("suspended"):
            return Consequence("measurement_suspended", final=False)
        if error.check == "state" and error.found.startswith("a log that ended"):
            return Consequence("log_ended", final=True)
        if is_below_floor(error):
            return Consequence("tcb_refused", final=True)
        if error.check in (MODE, "confidential mode"):
            return Consequence("gpu_refused", final=True)
        if error.check == GPU:
            return Consequence("gpu_lost", final=False)
    return Consequence("log_stale", final=False)


def is_below_floor(error: Refused) -> bool:
    """Tell a machine below a floor in force from a floor that is missing or has ended."""
    return error.check in ("tcb floor", "devices") and error.found.partition(":")[0] in TCB_CHECKS


def report(found: SelfCheck) -> str:
    """Lay out the checks for people."""
    return f"{found.verdict.headline}\n{table(found.checks)}\n{summary(found.checks)}"


def report_refusal(trail: Trail) -> str:
    """Lay out the checks up to the one that did not hold."""
    return table(trail.checks)


def _judged(setup: Setup, document: AttestationDocument, bundle: bytes, trail: Trail) -> SelfCheck:
    verdict = judge(document, None, bundle, setup.policy, setup.memory, setup.clock, trail)
    if verdict.service != setup.service:
        raise Refused("service", verdict.service, setup.service)
    release = verdict.predicate
    if release.policy_sha256 != setup.policy.digest:
        raise Refused(
            "policy", setup.policy.digest.hex(), f"{release.policy_sha256.hex()}, which the release names"
        )
    _require_demanded(setup, verdict)
    digest = setup.policy.digest.hex()
    own = Check("policy", "ok", digest, digest, f"release {verdict.release}", HERE)
    return SelfCheck(document, bundle, verdict, release, (*verdict.checks, own))


def _require_demanded(setup: Setup, verdict: Verdict) -> None:
    """Refuse devices that nobody verified: whoever shows some may compute on them (``enclave.serve``)."""
    (row,) = (row for row in verdict.predicate.rows if row.measurement == verdict.measurement_id)
    demanded = sum(rule.count for rule in row.require.devices)
    if setup.devices != demanded:
        raise Refused("devices", f"{setup.devices} to be shown", f"{demanded}, which the release demands")


def _devices(setup: Setup, keyset: bytes) -> DeviceEvidence | None:
    if not setup.devices:
        return None
    digest = keyset_digest(keyset)
    return setup.device.devices([gpu_nonce(digest, index) for index in range(setup.devices)])


def _document(
    setup: Setup, keyset: bytes, devices: DeviceEvidence | None, nonce_root: bytes
) -> AttestationDocument:
    newest = setup.memory.newest(setup.policy.origin)
    size, root = (0, EMPTY_ROOT) if newest is None else (newest.size, newest.root)
    shown = None if devices is None else devices.devices
    bound = None if shown is None else devices_digest(shown)
    binding = Binding(keyset_digest(keyset), setup.policy.origin, size, root, bound).encode()
    evidence: Evidence = setup.device.quote(report_data(binding, nonce_root))
    return AttestationDocument(
        binding,
        keyset,
        evidence.quote,
        evidence.collateral,
        shown,
        NonceProof(0, 0, ()),
        None,
        evidence.event_log,
        {} if devices is None else devices.collateral,
    )


def _measurement(policy: Policy, evidence: bytes) -> bytes:
    return measurement_id(*claimed_registers(evidence, policy.platforms))


def _nearest(setup: Setup, evidence: bytes) -> str | None:
    """Say which logged release comes nearest, for people; the log's word, on which nothing rests."""
    if not isinstance(setup.log, LogClient):
        return None
    platform, registers = claimed_registers(evidence, setup.policy.platforms)
    found = nearest(setup.log, (setup.service,), platform, registers)
    return None if found is None else str(found)
