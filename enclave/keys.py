"""Keys that outlive this machine: asked for from a key service with evidence made for the one question.

The evidence is over a keyset of one fresh key, under which nothing but these answers is sealed, and over the
digests of the questions: one quote for all nodes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from enclave.boot import Machine
from enclave.keyset import LIFE_SECONDS, SKEW_SECONDS
from quotary.attestation.document import NonceProof
from quotary.client.key_question import CAPABILITY
from quotary.client.key_service import NEWEST, KeyService
from quotary.net.transport import Transport
from quotary.statements.keyset import CHANNEL, Keyset, KeysetKey
from quotary.threshold.box import SEED_LENGTH, Box
from quotary.tlog.merkle import leaf_hash, path_in, root_of

SEALING, DOORS = "sealing", "doors"
"""Labels: of the key under which an enclave seals what the next one must read, and of the doors' seed."""


@dataclass(frozen=True, slots=True)
class OneTimeEvidence:
    """This machine's evidence with a key that is made here, used for one question, and dropped."""

    machine: Machine
    box: Box = field(default_factory=lambda: Box(os.urandom(SEED_LENGTH)))

    def documents(self, nonces: Sequence[bytes]) -> Sequence[bytes]:
        """Give a document for each nonce; one quote covers them all."""
        leaves = [leaf_hash(nonce) for nonce in nonces]
        shown = self.machine.evidence(self._keyset().encode(), root_of(leaves))
        places = (NonceProof(at, len(leaves), path_in(leaves, at)) for at in range(len(leaves)))
        return [replace(shown, nonce=place).encode() for place in places]

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open an answer, or raise ``Rejected``."""
        return self.box.open(sealed, info)

    def _keyset(self) -> Keyset:
        setup = self.machine.setup
        now = datetime.fromtimestamp(int(setup.clock.now().timestamp()), UTC)
        return Keyset(
            setup.service,
            "one-question",
            now - timedelta(seconds=SKEW_SECONDS),
            now + timedelta(seconds=LIFE_SECONDS),
            (KeysetKey("answer", CHANNEL, "x-wing", self.box.public),),
            capabilities=(CAPABILITY,),
        )


@dataclass(frozen=True, slots=True)
class ServiceKeySource:
    """A sealing key (``enclave.seal.KeySource``) that every enclave of the service gets on any machine."""

    service: KeyService
    epoch: int = NEWEST

    @property
    def vendor(self) -> str:
        return "kms"

    def secret(self) -> bytes:
        return self.service.key(SEALING, self.epoch)


def key_service(machine: Machine, urls: Sequence[str], transport: Transport) -> KeyService:
    """Give the key service of this machine's policy, asked at these addresses as this machine."""
    setup = machine.setup
    urls = [url.rstrip("/") for url in urls]
    return KeyService(urls, setup.policy, setup.service, lambda: OneTimeEvidence(machine), transport)
