"""Carrying a ceremony from node to node: whoever does it sees no share and can only stop it.

Every step can be repeated: nodes answer the same again. So a ceremony that a crash broke off goes on by being
conducted again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from private.kms.app import CEREMONIES, STATUS
from private.kms.ceremonies import Round
from private.kms.steps import MAX_STEP, Status, Step, said
from quotary import ed25519
from quotary.client.key_epoch import epoch_payload
from quotary.client.log import problem
from quotary.errors import CannotTell, QuotaryError, Refused, Rejected
from quotary.net.transport import Limits, Request, Transport
from quotary.statements.envelope import Envelope, Signature, key_id, pae
from quotary.threshold.ceremony import Before, check_deal, outcome
from quotary.threshold.group import Ceremony
from quotary.threshold.messages import CheckedDeals, Deal, Message, open_message

_LIMITS = Limits(read_seconds=60, total_seconds=120, length=MAX_STEP)


@dataclass(frozen=True, slots=True)
class Conductor:
    """One ceremony and the addresses of its group's nodes, by number. say: told what was found out."""

    ceremony: Ceremony
    urls: Mapping[int, str]
    transport: Transport
    say: Callable[[str], None]

    def hold(
        self, logged: tuple[bytes, bytes] | None, before: Before | None, without: Sequence[int] = ()
    ) -> bytes:
        """Carry a ceremony to the entry that all nodes signed; it is not in the log yet.

        logged:  entry and proof of the shares before these, for the nodes; before: what they say
        without: nodes that do not deal
        """
        dealers = [number for number in self.urls if number not in without]
        shown = Round(logged)
        deals = [self._dealt(number, shown, before) for number in dealers]
        shown = replace(shown, deals=[message.data for message in deals])
        checks = [self._message("check", number, shown) for number in self.urls]
        shown = replace(shown, checks=[message.data for message in checks])
        answers = [message for number in _accused(checks) for message in self._answered(number, shown)]
        shown = replace(shown, answers=[message.data for message in answers])
        found = outcome(self.ceremony, deals, checks, answers, before)
        for fault in found.faults:
            self.say(fault)
        payload = epoch_payload(self.ceremony, found)
        signatures = [self._signed(number, shown, payload) for number in self.urls]
        return Envelope(payload, tuple(sorted(signatures, key=lambda item: item.keyid))).encode()

    def activate(self, entry: bytes, proof: bytes) -> None:
        """Have every node take its new share into use, or raise ``CannotTell`` naming those that did not."""
        failed = []
        for number, url in self.urls.items():
            step = Step(self.ceremony.digest, Round(None), (entry, proof))
            try:
                _post(self.transport, f"{url}{CEREMONIES}/activate", step.encode())
            except QuotaryError as error:
                failed.append(number)
                self.say(f"node {number}: {error}")
        if failed:
            raise CannotTell(
                f"nodes {', '.join(map(str, failed))} have not taken their new shares into use",
                next_command="repeat the command: the others answer the same again",
            )

    def _dealt(self, number: int, shown: Round, before: Before | None) -> Message:
        message = self._message("deal", number, shown)
        if not isinstance(message.body, Deal):
            raise Rejected("dealing", f"another message of node {number}", "a dealing")
        check_deal(self.ceremony, message.body, before)
        return message

    def _answered(self, number: int, shown: Round) -> Sequence[Message]:
        try:
            return [self._message("answer", number, shown)]
        except CannotTell:
            raise
        except QuotaryError as error:
            self.say(f"node {number} does not answer the complaints about it: {error}")
            return []

    def _signed(self, number: int, shown: Round, payload: bytes) -> Signature:
        signature, key = self._said("finish", number, shown), self.ceremony.group.node(number).key
        try:
            ed25519.verify(key, signature, pae(payload))
        except QuotaryError as error:
            found = f"another outcome, or no signature, of node {number}"
            raise Rejected("ceremony", found, "what everybody computes") from error
        return Signature(key_id(key), signature)

    def _message(self, step: str, number: int, shown: Round) -> Message:
        return open_message(self.ceremony, self._said(step, number, shown))

    def _said(self, step: str, number: int, shown: Round) -> bytes:
        url = f"{self.urls[number]}{CEREMONIES}/{step}"
        return said(_post(self.transport, url, Step(self.ceremony.digest, shown).encode()))


def find_nodes(ceremony: Ceremony, urls: Sequence[str], transport: Transport) -> Mapping[int, str]:
    """Ask which node is at which address; every node of the group must be at one."""
    group, found = ceremony.group, {}
    for url in urls:
        found[group.number_of(status_of(url, transport).key)] = url
    missing = [node.number for node in group.nodes if node.number not in found]
    if missing:
        raise Refused("ceremony", f"no address of nodes {', '.join(map(str, missing))}", "one of every node")
    return dict(sorted(found.items()))


def status_of(url: str, transport: Transport) -> Status:
    """Fetch what a node says of itself."""
    reply = transport.send(Request(url + STATUS, limits=_LIMITS))
    if reply.status != 200:
        raise problem(reply, url)
    return Status.parse(reply.body)


def _accused(checks: Sequence[Message]) -> Sequence[int]:
    bodies = [message.body for message in checks]
    return sorted({number for body in bodies if isinstance(body, CheckedDeals) for number in body.complaints})


def _post(transport: Transport, url: str, body: bytes) -> bytes:
    reply = transport.send(Request(url, "POST", body, {"Content-Type": "application/json"}, _LIMITS))
    if reply.status != 200:
        raise problem(reply, url)
    return reply.body
