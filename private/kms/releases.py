"""A node's decision about one question: this very enclave, under this node's own view of the log, or nothing.

The node believes nobody but its policy: it fetches the bundle itself, remembers the newest checkpoint that it
accepted, and judges as any client does.
"""

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from private.kms.folder import Held, NodeFolder
from private.kms.ledger import Ledger, Release
from quotary.attestation.document import AttestationDocument
from quotary.client.clock import Clock
from quotary.client.key_question import (
    CAPABILITY,
    CHALLENGE_LENGTH,
    Answered,
    Asked,
    Partial,
    Question,
    sealed_for,
)
from quotary.client.key_service import NEWEST, Shown
from quotary.client.platforms import claimed_registers
from quotary.client.policy import Policy
from quotary.client.trust import Memory
from quotary.client.verdict import Verdict
from quotary.client.verify import judge
from quotary.errors import Refused
from quotary.statements.keyset import CHANNEL, Keyset
from quotary.statements.measurement import measurement_id
from quotary.threshold.box import seal
from quotary.threshold.ceremony import Random
from quotary.threshold.oprf import evaluate
from quotary.threshold.ristretto import WIDE_LENGTH, base_multiply, wipe

CHALLENGE_SECONDS = 60
MAX_CHALLENGES = 4096
PER_MINUTE = 120


class TooMany(Refused):
    """A service asked for more keys in a minute than a node gives."""


class Bundles(Protocol):
    """Where bundles come from; nothing about it is trusted."""

    def bundle(self, service: str, measurement_id: bytes) -> bytes: ...


@dataclass(slots=True)
class Challenges:
    """Challenges that were given and not used, each for a minute; the oldest go when there are too many."""

    elapsed: Callable[[], float] = time.monotonic
    random: Random = os.urandom
    _given: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def give(self) -> bytes:
        challenge = self.random(CHALLENGE_LENGTH)
        with self._lock:
            self._given[challenge] = self.elapsed()
            while len(self._given) > MAX_CHALLENGES:
                self._given.popitem(last=False)
        return challenge

    def take(self, challenge: bytes) -> None:
        """Use a challenge up, or refuse one that was never given, was used, or is older than a minute."""
        with self._lock:
            given = self._given.pop(challenge, None)
        if given is None:
            raise Refused("challenge", "one that this node did not give, or that was used", "a new one")
        if self.elapsed() - given > CHALLENGE_SECONDS:
            found = f"one of {self.elapsed() - given:.0f} seconds ago"
            raise Refused("challenge", found, f"one of the last {CHALLENGE_SECONDS} seconds")


@dataclass(slots=True)
class Releases:
    """One node's releases. limit: answers a minute for one service; folder: has this node's shares."""

    policy: Policy
    folder: NodeFolder
    log: Bundles
    memory: Memory
    ledger: Ledger
    clock: Clock
    challenges: Challenges = field(default_factory=Challenges)
    random: Random = os.urandom
    limit: int = PER_MINUTE
    _recent: dict[str, deque[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, epoch: int) -> Shown:
        """Give a challenge, and what the log has of the shares of an epoch, or of the newest."""
        wanted = max(self.folder.epochs(), default=0) if epoch == NEWEST else epoch
        held = self.folder.held(wanted)
        if held is None:
            found = f"epoch {wanted}" if wanted else "no share"
            raise Refused("key epoch", found, "an epoch that this node has")
        wipe(held.share)
        return Shown(self.challenges.give(), held.entry, held.proof)

    def release(self, asked: Asked) -> Answered:
        """Answer one question, or raise what speaks against it.

        1. The challenge is this node's, of the last minute, and was not used.
        2. The question is about the very shares that this node holds.
        3. The evidence holds in the whole verification order (design section 5), over this question, under
           this node's own newest checkpoint: logged, not revoked, firmware as the floor demands.
        4. Its keyset was made for one question, so that no serving enclave's evidence can be borrowed.
        5. What is blinded is this label of the service that the evidence proves.
        6. The service has not asked too often.
        7. The ledger has it; only then is the answer computed, and sealed to the key in the evidence.
        """
        question = asked.question
        self.challenges.take(asked.challenge)
        held = self._require_held(question.epoch, question.generation)
        try:
            nonce = question.nonce(asked.challenge)
            verdict = self._judge(AttestationDocument.parse(asked.document), nonce)
            one_time = _one_time_key(verdict.keyset)
            question.check_input(verdict.service)
            self._count(verdict.service)
            self.ledger.append(_line(question, nonce, verdict, self.clock.now()))
            public, wide = base_multiply(held.share), self.random(WIDE_LENGTH)
            value, proof = evaluate(held.share, public, question.blinded, wide)
        finally:
            wipe(held.share)
        sealed = seal(one_time, Partial(value, proof).encode(), sealed_for(nonce, held.number))
        return Answered(held.number, sealed)

    def _require_held(self, epoch: int, generation: int) -> Held:
        held = self.folder.held(epoch)
        if held is None:
            raise Refused("key epoch", f"a question about epoch {epoch}", "an epoch that this node has")
        if held.generation != generation:
            found = f"a question about shares of generation {generation}"
            raise Refused("key epoch", found, f"generation {held.generation}")
        return held

    def _judge(self, document: AttestationDocument, nonce: bytes) -> Verdict:
        # What the document claims decides only which bundle is fetched; the judgement proves it or refuses.
        service = Keyset.parse(document.keyset).service
        if service not in self.policy.services:
            raise Refused("service", service, f"one of {', '.join(sorted(self.policy.services))}")
        claimed = measurement_id(*claimed_registers(document.evidence, self.policy.platforms))
        bundle = self.log.bundle(service, claimed)
        return judge(document, nonce, bundle, self.policy, self.memory, self.clock)

    def _count(self, service: str) -> None:
        now = self.clock.elapsed()
        with self._lock:
            recent = self._recent.setdefault(service, deque())
            while recent and now - recent[0] > 60:
                recent.popleft()
            if len(recent) >= self.limit:
                found = f"{len(recent) + 1} questions of {service} in a minute"
                raise TooMany("rate", found, f"at most {self.limit}")
            recent.append(now)


def _line(question: Question, nonce: bytes, verdict: Verdict, now: datetime) -> Release:
    return Release(
        now,
        verdict.service,
        verdict.release,
        verdict.measurement_id,
        question.label,
        question.epoch,
        question.generation,
        nonce,
    )


def _one_time_key(keyset: Keyset) -> bytes:
    if keyset.capabilities != (CAPABILITY,):
        found = f"a keyset with the capabilities {', '.join(keyset.capabilities) or 'none'}"
        raise Refused("keyset", found, f"one made for one question, with {CAPABILITY} alone")
    keys = keyset.of_role(CHANNEL)
    if len(keyset.keys) != 1 or len(keys) != 1:
        raise Refused("keyset", f"{len(keyset.keys)} keys", "the one key to which the answer is sealed")
    return keys[0].public
