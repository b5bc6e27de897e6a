"""Asking a key service from inside an enclave: t nodes' answers make a key that no node ever has.

Nothing that a node says is believed: which shares there are stands in the log, and each answer proves that it
was computed with its node's share. A node that answers anything else is named and the next one asked.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.client.key_epoch import KeyEpoch, read_epoch
from quotary.client.key_question import (
    CHALLENGE_LENGTH,
    CHALLENGES,
    RELEASES,
    Answered,
    Asked,
    Partial,
    ask,
    sealed_for,
)
from quotary.client.log import problem
from quotary.client.policy import Policy
from quotary.errors import CannotTell, QuotaryError, Refused, Rejected
from quotary.net.transport import Limits, Request, Transport
from quotary.threshold.group import MAX_EPOCH
from quotary.threshold.oprf import GENERATOR, verify
from quotary.threshold.sharing import combine_at_zero

NEWEST = 0
MAX_SHOWN = 1 << 18
_LIMITS = Limits(read_seconds=20, total_seconds=30, length=MAX_SHOWN)


class OneTime(Protocol):
    """Evidence with a key that is used for one question and forgotten."""

    def documents(self, nonces: Sequence[bytes]) -> Sequence[bytes]:
        """Give an attestation document for each nonce (32 bytes), all of one quote."""
        ...

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open what was sealed to the one-time key, or raise ``Rejected``."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What a node shows before it is asked: a challenge, and the entry and proof of the shares it holds."""

    challenge: bytes
    entry: bytes
    proof: bytes

    def encode(self) -> bytes:
        shown = {"challenge": self.challenge.hex(), "entry": b64(self.entry), "proof": b64(self.proof)}
        return canonical({"v": 1, **shown})

    @classmethod
    def parse(cls, data: bytes) -> "Shown":
        fields = Fields(parse_canonical(data, MAX_SHOWN), "challenge")
        fields.integer("v", 1, 1)
        found = cls(
            fields.hexbytes("challenge", CHALLENGE_LENGTH),
            fields.base64("entry", limit=MAX_SHOWN),
            fields.base64("proof", limit=MAX_SHOWN),
        )
        fields.done()
        return found


def encode_wish(epoch: int) -> bytes:
    """Write which epoch's shares a node is asked to show; ``NEWEST`` leaves it to the node."""
    return canonical({"v": 1, "epoch": epoch})


def parse_wish(data: bytes) -> int:
    """Read which epoch is asked for."""
    fields = Fields(parse_canonical(data, 256), "challenge request")
    fields.integer("v", 1, 1)
    found = fields.integer("epoch", 0, MAX_EPOCH)
    fields.done()
    return found


@dataclass(frozen=True, slots=True)
class Key:
    """A released key (32 bytes), of which epoch it is, and what was found out about nodes on the way."""

    key: bytes
    epoch: int
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyService:
    """The nodes at some addresses, asked for the keys of one service.

    service: whose enclave asks; attest: makes one-time evidence; random: gives secret bytes
    """

    urls: Sequence[str]
    policy: Policy
    service: str
    attest: Callable[[], OneTime]
    transport: Transport
    random: Callable[[int], bytes] = os.urandom

    def key(self, label: str, epoch: int = NEWEST) -> bytes:
        """Give the key (32 bytes) of a label: the same for every enclave of this service, and nobody else."""
        return self.release(label, epoch).key

    def release(self, label: str, epoch: int = NEWEST) -> Key:
        """Have a key released, or raise ``Refused`` or ``CannotTell`` with what every node said.

        1. The newest shares that the log has and enough nodes hold are those that count.
        2. One quote answers the challenges of all nodes that hold them, and binds the question.
        3. As many answers as are needed prove that they were computed with the share of their node.
        """
        errors: dict[str, QuotaryError] = {}
        shown = self._shown(epoch, errors)
        shares = _newest(shown, errors)
        asking = ask(self.service, label, shares.epoch, shares.generation, self.random)
        asked = {url: said.challenge for url, (found, said) in shown.items() if found == shares}
        nonces = [asking.question.nonce(challenge) for challenge in asked.values()]
        one_time = self.attest()
        values: dict[int, bytes] = {}
        for (url, challenge), document in zip(asked.items(), one_time.documents(nonces), strict=True):
            try:
                values |= self._ask(url, Asked(challenge, asking.question, document), one_time, shares)
            except QuotaryError as error:
                errors[url] = error
            if len(values) == shares.threshold:
                return Key(asking.key(combine_at_zero(values)), shares.epoch, _lines(errors))
        raise _failed(f"{len(values)} answers", f"{shares.threshold} are needed", errors)

    def _shown(self, epoch: int, errors: dict[str, QuotaryError]) -> Mapping[str, tuple[KeyEpoch, Shown]]:
        found = {}
        for url in self.urls:
            try:
                said = Shown.parse(self._post(url + CHALLENGES, encode_wish(epoch)))
                found[url] = (_epoch(said, self.policy, epoch), said)
            except QuotaryError as error:
                errors[url] = error
        return found

    def _ask(self, url: str, asked: Asked, one_time: OneTime, shares: KeyEpoch) -> dict[int, bytes]:
        nonce = asked.question.nonce(asked.challenge)
        answered = Answered.parse(self._post(url + RELEASES, asked.encode()))
        partial = Partial.parse(one_time.open(answered.sealed, sealed_for(nonce, answered.node)))
        public = shares.public_shares.get(answered.node)
        if public is None:
            raise Rejected(
                "answer", f"one of node {answered.node}", f"nodes 1 to {len(shares.public_shares)}"
            )
        blinded = asked.question.blinded
        verify(partial.proof, GENERATOR, public, blinded, partial.value, f"answer of node {answered.node}")
        return {answered.node: partial.value}

    def _post(self, url: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        reply = self.transport.send(Request(url, "POST", body, headers, _LIMITS))
        if reply.status != 200:
            raise problem(reply, url)
        return reply.body


def _epoch(said: Shown, policy: Policy, wish: int) -> KeyEpoch:
    found = read_epoch(said.entry, said.proof, policy)
    if wish not in (NEWEST, found.epoch):
        raise Rejected("key epoch", f"the shares of epoch {found.epoch}", f"those of epoch {wish}")
    return found


def _newest(shown: Mapping[str, tuple[KeyEpoch, Shown]], errors: Mapping[str, QuotaryError]) -> KeyEpoch:
    """Choose the newest shares that enough nodes hold; the old ones while a ceremony ends."""
    found = sorted((shares for shares, _ in shown.values()), key=lambda item: (item.epoch, item.generation))
    enough = [shares for shares in found if found.count(shares) >= shares.threshold]
    if enough:
        return enough[-1]
    if not found:
        raise _failed("no node with shares", "one is needed", errors)
    count = f"{found.count(found[-1])} nodes with the newest shares"
    raise _failed(count, f"{found[-1].threshold} are needed", errors)


def _lines(errors: Mapping[str, QuotaryError]) -> tuple[str, ...]:
    return tuple(f"{url}: {error}" for url, error in errors.items())


def _failed(found: str, needed: str, errors: Mapping[str, QuotaryError]) -> QuotaryError:
    said = f"{found}, {needed}: {'; '.join(_lines(errors)) or 'no node said why'}"
    if any(not isinstance(error, CannotTell) for error in errors.values()):
        return Refused("key service", said, "answers that can be believed")
    return CannotTell(f"key service: {said}")
