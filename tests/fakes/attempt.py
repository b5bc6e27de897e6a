"""One judgement whose inputs a test changes, one at a time."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from quotary.attestation.document import AttestationDocument
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.trust import Memory, ProcessMemory
from quotary.client.verdict import Trail, Verdict
from quotary.client.verify import judge
from quotary.statements.bundle import AbsenceBundle, Bundle
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, World


@dataclass(slots=True)
class Attempt:
    """The inputs of ``judge``, good until a test changes them."""

    world: World
    document: AttestationDocument
    bundle: Bundle | AbsenceBundle
    policy: Any
    now: datetime
    nonce: bytes | None = NONCE
    memory: Memory = field(default_factory=ProcessMemory)
    trail: Trail = field(default_factory=Trail)

    @classmethod
    def of(cls, world: World) -> "Attempt":
        bundle = world.shown()
        return cls(world, world.document(), bundle, world.policy(), world.now)

    def judge(self) -> Verdict:
        policy = Policy.parse(policy_bytes(self.policy))
        clock = FixedClock(self.now)
        return judge(self.document, self.nonce, self.bundle.encode(), policy, self.memory, clock, self.trail)

    def change_document(self, **changes: Any) -> None:
        self.document = replace(self.document, **changes)

    def change_bundle(self, **changes: Any) -> None:
        assert isinstance(self.bundle, Bundle)
        self.bundle = replace(self.bundle, **changes)

    def renew(self) -> None:
        """Close the log's interval and fetch the bundle again."""
        self.world.log.close(self.world.ts)
        self.bundle = self.world.shown()
