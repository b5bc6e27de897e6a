"""A node's part in a ceremony: what its operator approved, each step once, on disk before it is said.

Whoever carries the messages may ask again after a crash of either side and gets the same answer. Shares in
use change only by ``activate``, whose entry carries the signature of every node of the group: none of them
can be without its new share then.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from private.kms.folder import Held, NodeFolder
from quotary.canonical import b64, unb64
from quotary.client.key_epoch import KeyEpoch, epoch_payload, read_epoch
from quotary.client.policy import Policy
from quotary.errors import Refused, Rejected
from quotary.statements.envelope import Envelope, key_id, pae
from quotary.threshold.ceremony import (
    Before,
    Random,
    answer,
    check_deals,
    deal,
    draw,
    outcome,
    own_share,
)
from quotary.threshold.group import RESHARE, Ceremony
from quotary.threshold.messages import Body, Message, open_message, sign_message
from quotary.threshold.ristretto import Bytes, wipe


@dataclass(frozen=True, slots=True)
class Round:
    """What a node is shown: the messages so far, and the entry and proof of the shares before these."""

    before: tuple[bytes, bytes] | None
    deals: Sequence[bytes] = ()
    checks: Sequence[bytes] = ()
    answers: Sequence[bytes] = ()


class Ceremonies:
    """One node in whatever ceremony its operator approved last."""

    def __init__(self, folder: NodeFolder, policy: Policy, random: Random = os.urandom) -> None:
        self._folder, self._policy, self._random = folder, policy, random
        self._keys = folder.keys()
        self._lock = threading.Lock()

    def deal(self, digest: bytes, shown: Round) -> bytes:
        """Round 1: deal a new secret, or the old share anew; the same dealing each time it is asked for."""
        with self._lock:
            ceremony = self._approved(digest)
            self._before(ceremony, shown)
            told = self._folder.pending(ceremony)
            if "deal" in told:
                return unb64(told["deal"])
            coefficients = draw(ceremony, self._random, self._old(ceremony))
            body = deal(ceremony, self._number(ceremony), coefficients, self._random)
            message = self._sign(ceremony, body)
            secrets = "".join(item.hex() for item in coefficients)
            self._folder.note(ceremony, coefficients=secrets, deal=b64(message.data))
            return message.data

    def check(self, digest: bytes, shown: Round) -> bytes:
        """Round 2: say which dealings this node saw and whose share is wrong, once and for all."""
        with self._lock:
            ceremony = self._approved(digest)
            told = self._folder.pending(ceremony)
            deals = _opened(ceremony, shown.deals)
            body, shares = check_deals(
                ceremony, self._number(ceremony), self._keys.box, deals, self._before(ceremony, shown)
            )
            message = self._sign(ceremony, body)
            for share in shares.values():
                wipe(share)
            if unb64(told.get("check", "")) not in (b"", message.data):
                raise Refused("ceremony", "other dealings", "the dealings that this node has checked")
            self._folder.note(ceremony, check=b64(message.data))
            return message.data

    def answer(self, digest: bytes, shown: Round) -> bytes:
        """Round 3, for a dealer somebody complained about: show the shares of those who did."""
        with self._lock:
            ceremony = self._approved(digest)
            told = self._folder.pending(ceremony)
            if "coefficients" not in told:
                raise Refused(
                    "ceremony", "complaints about no dealing", "a ceremony in which this node dealt"
                )
            checks = _opened(ceremony, shown.checks)
            return self._sign(ceremony, answer(self._number(ceremony), _coefficients(told), checks)).data

    def finish(self, digest: bytes, shown: Round) -> bytes:
        """Compute the outcome and this node's share, keep both, and sign what came of it (64 bytes)."""
        with self._lock:
            ceremony = self._approved(digest)
            told, number = self._folder.pending(ceremony), self._number(ceremony)
            if "check" not in told or unb64(told["check"]) not in shown.checks:
                raise Refused("ceremony", "checks without this node's own", "the one that it gave")
            before = self._before(ceremony, shown)
            deals, checks = _opened(ceremony, shown.deals), _opened(ceremony, shown.checks)
            answers = _opened(ceremony, shown.answers)
            found = outcome(ceremony, deals, checks, answers, before)
            payload = epoch_payload(ceremony, found)
            if unb64(told.get("payload", "")) not in (b"", payload):
                raise Refused("ceremony", "another outcome", "the one that this node has signed")
            _, shares = check_deals(ceremony, number, self._keys.box, deals, before)
            share = own_share(ceremony, number, shares, answers, found)
            self._folder.note(ceremony, payload=b64(payload), share=share.hex())
            for secret in (*shares.values(), share):
                wipe(secret)
            return self._keys.signing.sign(pae(payload))

    def activate(self, digest: bytes, entry: bytes, proof: bytes) -> KeyEpoch:
        """Take the new share into use and destroy the old one, once the log has what every node signed."""
        with self._lock:
            ceremony = self._approved(digest)
            found = read_epoch(entry, proof, self._policy)
            held = self._folder.held(ceremony.epoch)
            if held is not None and held.entry == entry:
                return found
            told, envelope = self._folder.pending(ceremony), Envelope.parse(entry)
            if unb64(told.get("payload", "")) != envelope.payload:
                raise Rejected("key epoch", found.statement_id, "the outcome that this node has signed")
            names = {key_id(node.key) for node in ceremony.group.nodes}
            if not names <= found.signers:
                missing = len(names - found.signers)
                raise Refused("key epoch", f"{missing} nodes' signatures missing", "one by every node")
            share = bytearray.fromhex(told["share"])
            number = self._number(ceremony)
            self._folder.hold(Held(found.epoch, found.generation, number, share, entry, proof))
            self._folder.forget()
            wipe(share)
            return found

    def _approved(self, digest: bytes) -> Ceremony:
        ceremony = self._folder.approved()
        if ceremony.digest != digest:
            wanted = f"{ceremony.digest.hex()}, which its operator approved"
            raise Refused("ceremony", digest.hex(), wanted)
        return ceremony

    def _old(self, ceremony: Ceremony) -> Bytes | None:
        """Give the share that is dealt anew, or None for a new key; refuse what does not follow."""
        held = self._folder.held(ceremony.epoch)
        if ceremony.kind != RESHARE:
            if held is not None:
                raise Refused("ceremony", f"a new key for epoch {ceremony.epoch}", "an epoch that has none")
            return None
        if held is None or held.generation + 1 != ceremony.generation:
            has = "no share" if held is None else f"a share of generation {held.generation}"
            raise Refused("ceremony", has, f"one of generation {ceremony.generation - 1}, to deal anew")
        return held.share

    def _before(self, ceremony: Ceremony, shown: Round) -> Before | None:
        """Verify the shares before these as the log has them; for a new key there are none."""
        if ceremony.kind != RESHARE:
            return None
        if shown.before is None:
            raise Refused("ceremony", "no entry of the shares before these", ceremony.previous)
        found = read_epoch(*shown.before, self._policy)
        if found.statement_id != ceremony.previous:
            raise Rejected("ceremony", f"shares of {found.statement_id}", ceremony.previous)
        if (found.epoch, found.generation + 1) != (ceremony.epoch, ceremony.generation):
            has = f"shares of epoch {found.epoch}, generation {found.generation}"
            raise Rejected("ceremony", has, "those before these")
        return found.before

    def _number(self, ceremony: Ceremony) -> int:
        return ceremony.group.number_of(self._keys.card(1).key)

    def _sign(self, ceremony: Ceremony, body: Body) -> Message:
        return sign_message(ceremony, self._number(ceremony), body, self._keys.signing)


def _opened(ceremony: Ceremony, messages: Sequence[bytes]) -> Sequence[Message]:
    return [open_message(ceremony, data) for data in messages]


def _coefficients(told: dict[str, str]) -> list[bytes]:
    data = bytes.fromhex(told["coefficients"])
    return [data[at : at + 32] for at in range(0, len(data), 32)]
