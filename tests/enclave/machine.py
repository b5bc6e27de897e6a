"""A machine for tests of the API: it replaces the device and the log, and says what it is told to say."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from enclave.boot import SelfCheck, Shown
from quotary.attestation.binding import Binding, keyset_digest
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.attestation.facts import TCB, Facts
from quotary.client.caller import Caller
from quotary.client.session import Client
from quotary.client.verdict import Verdict
from quotary.statements.keyset import Keyset
from quotary.statements.predicates import Header
from quotary.statements.release import Release
from tests.fakes.authority import NOW
from tests.fakes.clock import SteppedClock

ORIGIN, SERVICE = "log.example.org/simulation", "example.org/chat"


@dataclass(slots=True)
class ToldMachine:
    """Judges itself as the test decides.

    error: what the next check finds instead; platform: what its evidence is of; quote: over 64 bytes, for doors
    others: what asks other enclaves, by service
    """

    clock: SteppedClock
    weights: bytes
    size: int = 10
    error: Exception | None = None
    checked: list[bytes] = field(default_factory=list)
    platform: str = "sim-tdx"
    quote: Callable[[bytes], bytes] = bytes
    others: dict[str, Client] = field(default_factory=dict)

    def check(self, keyset: bytes) -> SelfCheck:
        self.checked.append(keyset)
        binding = Binding(keyset_digest(keyset), ORIGIN, self.size, bytes(32), None).encode()
        document = AttestationDocument(binding, keyset, b"evidence", {}, None, NonceProof(0, 0, ()), None)
        return self._found(document)

    def renew(self, believed: SelfCheck) -> SelfCheck:
        return self._found(believed.document)

    def attest(self, believed: SelfCheck, nonce: bytes | None) -> bytes:
        place = NonceProof(0, 0 if nonce is None else 1, ())
        return replace(believed.document, nonce=place).encode()

    def ask(self, service: str, url: str, caller: Callable[[], Caller]) -> Client:
        return self.others[service]

    def judge_other(self, document: AttestationDocument, nonce: bytes) -> Verdict:
        return self._found(document).verdict

    def show(self, believed: SelfCheck, report_data: bytes, nonce: bytes) -> Shown:
        registers = believed.verdict.facts.registers
        return Shown(self.platform, registers, believed.document.keyset, self.quote(report_data), None)

    def _found(self, document: AttestationDocument) -> SelfCheck:
        if self.error is not None:
            raise self.error
        return SelfCheck(document, b"bundle", self._verdict(document), self._release(), ())

    def _verdict(self, document: AttestationDocument) -> Verdict:
        now = self.clock.now()
        tcb = TCB("UpToDate", (), now, None, 1, {})
        facts = Facts(self.platform, "00", {"mrtd": b"R" * 48}, {}, bytes(64), tcb, {}, (), (), True, now)
        return Verdict(
            service=SERVICE,
            release="sha256:" + "ab" * 32,
            release_index=4,
            predicate=self._release(),
            measurement_id=b"M" * 32,
            origin=ORIGIN,
            size=self.size,
            root=bytes(32),
            quorum_at=now,
            judged_at=now,
            not_after=now + timedelta(days=9),
            map_auditor=True,
            simulated=True,
            facts=facts,
            keyset=Keyset.parse(document.keyset),
            checks=(),
        )

    def _release(self) -> Release:
        header = Header(ORIGIN, SERVICE, 1, NOW)
        return Release(header, NOW, "u", "r", bytes(32), (), self.weights, bytes(32), (), {})
