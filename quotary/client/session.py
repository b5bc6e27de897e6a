"""Talking to an enclave: verify, then seal the prompt to the attested key, then check the receipt.

    from quotary import Client

    client = Client("https://chat.example.org", policy="policy.json")
    answer = client.chat("What is in the log?")
    print(answer.text)
    answer.save("answer.evidence.json")

Nothing leaves this process before ``judge`` has accepted the machine, under a nonce of this client, this
client's clock and this client's policy.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quotary.attestation.document import MAX_DOCUMENT, AttestationDocument
from quotary.client.answers import (
    ANSWERS,
    CHAT,
    EVENT_LENGTH,
    TEXT_LENGTH,
    Answer,
    Attested,
    Reply,
    Session,
    body_of,
    error_text,
    parse_answer,
    refused_outside,
    text_of,
    until_head,
)
from quotary.client.caller import PATH as CALLERS
from quotary.client.caller import Caller
from quotary.client.clock import Clock, SystemClock
from quotary.client.files import verdict_with
from quotary.client.frames import bucket_for
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.ratchet import PATH as SESSION_PATH
from quotary.client.ratchet import Offer, Opening, SessionClient
from quotary.client.receipt import Exchange
from quotary.client.sealed import MEDIA_TYPE, Head, ResponseOpener, seal_request
from quotary.client.trust import Memory, ProcessMemory
from quotary.client.verdict import Trail
from quotary.client.verify import judge
from quotary.client.ways import KeysetChanged, door, read_policy, relayed, the_service
from quotary.errors import CannotTell, Refused, Usage
from quotary.net.transport import HTTP, Limits, Request, Stream, Transport
from quotary.statements.measurement import measurement_id

if TYPE_CHECKING:
    from quotary.client.purse import Purse
    from quotary.client.roster import Picked

NONCE_LENGTH = 32
REFRESH_SECONDS = 60.0
_ANSWER = Limits(read_seconds=300, total_seconds=3600, length=256 << 20)


@dataclass(frozen=True, slots=True)
class TokenSource:
    """An issuer of anonymous tokens and an account there.

    url:  of the issuer; secret: of the account, shown to the issuer alone
    tier: of the tokens; batch: how many are fetched at a time
    """

    url: str
    secret: str
    tier: str = "standard"
    batch: int = 8


class Client:
    """A verifying client of one enclave (or of several behind one address).

    url:     address of the enclave's API
    policy:  a policy file, or a parsed policy: what a machine must prove
    service: whose machine it must be; may be left out where the policy names only one
    log_url: address of the log, if not the one in the policy; without either, the bundle that the enclave
             shows is judged, which is as good as long as it is fresh
    sessions: seal each request under a key that is gone when it was used; costs one more request at first,
             and requests start one after the other
    relay:   address of this enclave at a relay of another operator: everything for the enclave goes there,
             in capsules that the relay cannot open, and nothing to ``url``
    issuer:  where the tokens come from that answers cost under a policy with an ``issuer``
    ratls:   ``url`` is the enclave's second door (docs/formats/ratls.md)
    caller:  for an enclave that asks another one: what it calls with now
    picked:  which instance it must be (``quotary.client.roster``)
    """

    def __init__(
        self,
        url: str,
        policy: str | Path | Policy,
        *,
        service: str | None = None,
        log_url: str | None = None,
        memory: Memory | None = None,
        clock: Clock | None = None,
        transport: Transport | None = None,
        sessions: bool = False,
        relay: str | None = None,
        issuer: TokenSource | None = None,
        ratls: bool = False,
        caller: Callable[[], Caller] | None = None,
        picked: "Picked | None" = None,
    ) -> None:
        self._picked = picked
        self.url = url.rstrip("/")
        self._sessions = sessions
        self.policy = policy if isinstance(policy, Policy) else read_policy(Path(policy))
        self.service = the_service(self.policy, service)
        self._transport = transport or HTTP(plain_http=self.policy.simulation)
        self._relayed = None if relay is None else relayed(self._transport, self.url, relay)
        self._door = door(self._transport, self.url, relay) if ratls else None
        self._transport = self._relayed or self._door or self._transport
        address = log_url or self.policy.log_url
        self._log = LogClient(self._transport, address) if address else None
        self._purse = None if issuer is None else self._open_purse(issuer)
        self._memory = memory or ProcessMemory()
        self._clock = clock or SystemClock()
        self._attested: Attested | None = None
        self._caller, self._introduced = caller, (b"", b"")
        self._lock = threading.Lock()

    def verify(self, trail: Trail | None = None) -> Attested:
        """Ask the machine for evidence over a new nonce and judge it, or raise what speaks against it."""
        nonce, trail = os.urandom(NONCE_LENGTH), Trail() if trail is None else trail
        data = self.document(nonce)
        document = AttestationDocument.parse(data)
        bundle = self._bundle(document)
        verdict = judge(document, nonce, bundle, self.policy, self._memory, self._clock, trail)
        if verdict.service != self.service:
            raise Refused("service", verdict.service, self.service)
        if self._picked is not None:
            self._picked.check(verdict, bundle)
        if self._relayed is not None:
            self._relayed.believe(verdict.keyset)
        if self._door is not None:
            self._door.believe(document, verdict, self.policy, self._memory, self._clock, trail)
            verdict = verdict_with(verdict, trail)
        found = Attested(data, bundle, nonce, verdict, self._clock.elapsed(), Session())
        with self._lock:
            self._attested = found
        return found

    def document(self, nonce: bytes) -> bytes:
        """Fetch what the machine shows for a nonce (32 bytes); nobody has judged it yet."""
        return self._get(f"/v1/attestation?nonce={nonce.hex()}", MAX_DOCUMENT)

    def attested(self) -> Attested:
        """Give the newest judgement, made anew when it is older than ``REFRESH_SECONDS`` or its keys end."""
        with self._lock:
            found = self._attested
        if found is None or self._clock.elapsed() - found.elapsed > REFRESH_SECONDS:
            return self.verify()
        try:
            found.verdict.keyset.check_valid_at(self._clock.now())
        except Refused:
            return self.verify()
        return found

    @property
    def newest(self) -> Attested | None:
        """The newest judgement, however old; None before the first."""
        with self._lock:
            return self._attested

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        follows: bool = False,
    ) -> Iterator[Reply]:
        """Send a request through the sealed channel of a verified machine; its answer comes as it arrives.

        follows: whether the body dictates the answer (``quotary.client.provers``); its receipt has to say so
        """
        attested = self.attested()
        try:
            with self._sealed(attested, method, path, body, headers, follows) as reply:
                yield reply
                return
        except KeysetChanged:
            attested = self.verify()
        with self._sealed(attested, method, path, body, headers, follows) as reply:
            yield reply

    def chat(
        self,
        prompt: str | Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Answer:
        """Send a prompt (a text, or messages) and return the whole answer with its verified receipt."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        request: dict[str, object] = {"model": model or self.attested().verdict.service, "messages": messages}
        if max_tokens is not None:
            request["max_tokens"] = max_tokens
        if temperature is not None:
            request["temperature"] = temperature
        with self.open("POST", CHAT, json.dumps(request).encode("utf-8")) as reply:
            data = b"".join(reply.chunks)
        if reply.status != 200 or reply.receipt is None or reply.file is None:
            raise CannotTell(f"the enclave answered {reply.status}: {error_text(data)}")
        body = parse_answer(data)
        return Answer(text_of(body), body, reply.receipt, reply.verdict, reply.file)

    @contextmanager
    def _sealed(
        self,
        attested: Attested,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        follows: bool,
    ) -> Iterator[Reply]:
        verdict = attested.verdict
        with self._posted(attested, method, path, body, headers) as (opener, stream):
            if stream.status != 200:
                refused_outside(stream.status, b"".join(stream.chunks))
            first = until_head(opener, stream.chunks)
            assert opener.head is not None, "the loop above ends with a head or an exception"
            reply = Reply(opener.head.status, opener.head.headers, iter(()), verdict)
            sent = Exchange(opener.wire_digest, body, b"", opener.chains, verdict.size, follows)
            reply.chunks = body_of(reply, opener, first, stream.chunks, attested, sent, path)
            yield reply

    @contextmanager
    def _posted(
        self, attested: Attested, method: str, path: str, body: bytes, headers: Mapping[str, str] | None
    ) -> Iterator[tuple[ResponseOpener, Stream]]:
        """Seal a request, by itself or as the session's next one, and send it."""
        head = Head.new(
            method,
            path,
            at=int(self._clock.now().timestamp()),
            min_log_size=attested.verdict.size,
            headers=self._paid(attested, path, headers),
            pad=bucket_for(EVENT_LENGTH + len(self.service) + TEXT_LENGTH),
        )
        if self._caller is not None:
            caller = self._introduce(attested, self._caller(), path)
            head = caller.signed(head, body, attested.verdict.keyset.digest)
        with ExitStack() as sent:
            if self._sessions and path != SESSION_PATH:
                # A session's requests must arrive in order, so the next one waits until this one is answered.
                with attested.session.lock:
                    wire, opener = self._session_of(attested).seal(head, body)
                    stream = sent.enter_context(self._transport.open(self._request(wire)))
            else:
                wire, opener = seal_request(head, body, attested.channel, attested.verdict.keyset.digest)
                stream = sent.enter_context(self._transport.open(self._request(wire)))
            yield opener, stream

    def _introduce(self, attested: Attested, caller: Caller, path: str) -> Caller:
        """Show who calls to a machine that was just judged, or with keys that are new."""
        pair = (attested.nonce, caller.keyset)
        if self._introduced != pair and not path.startswith(CALLERS):
            caller.introduce(lambda path, body: self._whole(attested, path, body, "takes no call")[1])
            self._introduced = pair
        return caller

    def _whole(
        self, attested: Attested, path: str, body: bytes, refusal: str
    ) -> tuple[ResponseOpener, bytes]:
        """Send what the channel itself needs, and give the whole answer."""
        with self._posted(attested, "POST", path, body, None) as (opener, stream):
            if stream.status != 200:
                refused_outside(stream.status, b"".join(stream.chunks))
            data = b"".join(map(opener.feed, stream.chunks))
            opener.close()
        if opener.head is None or opener.head.status != 200:
            raise CannotTell(f"the enclave {refusal}: {error_text(data)}")
        return opener, data

    def _session_of(self, attested: Attested) -> SessionClient:
        """Give the open session, or open one by a request of its own."""
        if attested.session.open is None:
            opener, data = self._whole(attested, SESSION_PATH, b"", "opened no session")
            opening = Opening(
                opener.request.response_secret, opener.transcript, attested.verdict.keyset.digest
            )
            attested.session.open = SessionClient(Offer.parse(data), opening)
        return attested.session.open

    def _request(self, wire: bytes) -> Request:
        return Request(f"{self.url}/v1/sealed", "POST", wire, {"Content-Type": MEDIA_TYPE}, _ANSWER)

    def _paid(
        self, attested: Attested, path: str, headers: Mapping[str, str] | None
    ) -> Mapping[str, str] | None:
        """Add a token to what asks for an answer."""
        if self._purse is None or path not in ANSWERS:
            return headers
        token = self._purse.token(attested.verdict.keyset.digest, self._clock.now)
        return {**(headers or {}), "authorization": token.header()}

    def _open_purse(self, source: TokenSource) -> "Purse":
        # Imported here, because it needs a package that other clients do not.
        from quotary.client.purse import Purse

        if self._log is None:
            raise Usage(
                "tokens need a log that says which keys the issuer has", next_command="add its address"
            )
        return Purse(self._transport, source, self._log, self.policy)

    def _bundle(self, document: AttestationDocument) -> bytes:
        if self._log is not None:
            try:
                return self._log.bundle(*self._hint(document))
            except CannotTell:
                # The log is out of reach. What the enclave shows must be as fresh, or it is refused.
                if document.bundle is None:
                    raise
        if document.bundle is None:
            raise CannotTell("the enclave shows no bundle and the policy lists no address of the log")
        return document.bundle

    def _hint(self, document: AttestationDocument) -> tuple[str, bytes]:
        """Read which bundle to ask for out of evidence that nobody has verified; judging comes next."""
        from quotary.client.platforms import claimed_registers
        from quotary.statements.keyset import Keyset

        platform, registers = claimed_registers(document.evidence, self.policy.platforms)
        return Keyset.parse(document.keyset).service, measurement_id(platform, registers)

    def _get(self, path: str, length: int) -> bytes:
        reply = self._transport.send(Request(self.url + path, limits=Limits(length=2 * length)))
        if reply.status != 200:
            raise CannotTell(f"{self.url} answered {reply.status}: {error_text(reply.body)}")
        return reply.body
