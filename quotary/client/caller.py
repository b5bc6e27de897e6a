"""Enclaves that ask enclaves (docs/formats/ratls.md, "Callers"): a quoted key proves who sealed a request.

The one that is asked challenges the caller once, judges its evidence as a client would judge its own, and
remembers the keyset. From then on the caller signs each request that it seals with a key of that keyset, and
the signature covers the secrets in the sealed head: nobody else can use it, and not for another request.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary import ed25519
from quotary.attestation.document import AttestationDocument
from quotary.canonical import Fields, b64, canonical, parse_canonical, unb64
from quotary.client.clock import Clock
from quotary.client.sealed import Head
from quotary.client.verdict import Verdict
from quotary.errors import InvalidSignature, Malformed, Refused, Rejected
from quotary.statements.keyset import CALLER

PATH = "/v1/callers"
HEADER = "quotary-caller"
CONTEXT = b"quotary-caller/v1\n"
CHALLENGE_SECONDS = 300.0
# As often as a client judges the machine that it asks.
REFRESH_SECONDS = 60.0
MOST = 1024
_MAX_HEADER = 1024

Judge = Callable[[AttestationDocument, bytes], Verdict]
"""Judges a document over a nonce (32 bytes) under one's own policy, with a fresh bundle, or raises."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What an enclave calls others with.

    keyset: digest of its keyset, 32 bytes; key: private half of that keyset's caller key
    attest: gives the document of that keyset over a nonce
    """

    keyset: bytes
    key: Ed25519PrivateKey
    attest: Callable[[bytes], bytes]

    def signed(self, head: Head, body: bytes, asked: bytes) -> Head:
        """Add the header to a request for the enclave whose keyset has the digest ``asked``."""
        signature = self.key.sign(signed_bytes(head, body, self.keyset, asked))
        shown = b64(canonical({"v": 1, "keyset": self.keyset.hex(), "sig": b64(signature)}))
        return replace(head, headers={**head.headers, HEADER: shown})

    def introduce(self, post: Callable[[str, bytes], bytes]) -> None:
        """Show the evidence to the enclave to be asked.

        post: sends a body to a path through its sealed channel and gives what it answered with 200
        """
        fields = Fields(parse_canonical(post(PATH, b""), _MAX_HEADER), "challenge")
        nonce = fields.hexbytes("nonce", 32)
        fields.done()
        post(f"{PATH}/{nonce.hex()}", self.attest(nonce))


def signed_bytes(head: Head, body: bytes, caller: bytes, asked: bytes) -> bytes:
    """What a caller signs: who asks whom what, under which secrets."""
    secrets = hashlib.sha256(head.request_key + head.response_secret + head.client_nonce).hexdigest()
    document = {
        "caller": caller.hex(),
        "asked": asked.hex(),
        "method": head.method,
        "path": head.path,
        "body": hashlib.sha256(body).hexdigest(),
        "secrets": secrets,
    }
    return CONTEXT + canonical(document)


@dataclass(frozen=True, slots=True)
class _Known:
    verdict: Verdict
    judged: float


class Callers:
    """The callers that were judged, by the digest of their keyset; each is judged again after a minute."""

    def __init__(self, judge: Judge, clock: Clock) -> None:
        self._judge, self._clock = judge, clock
        self._lock = threading.Lock()
        self._challenges: OrderedDict[bytes, float] = OrderedDict()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def challenge(self) -> bytes:
        """Make a nonce (32 bytes) that one document may answer."""
        nonce = os.urandom(32)
        with self._lock:
            self._challenges[nonce] = self._clock.elapsed()
            while len(self._challenges) > MOST:
                self._challenges.popitem(last=False)
        return nonce

    def admit(self, nonce: bytes, data: bytes) -> Verdict:
        """Judge a document over a challenge, or raise what speaks against it; then its keyset may call."""
        with self._lock:
            made = self._challenges.pop(nonce, None)
        if made is None or self._clock.elapsed() - made > CHALLENGE_SECONDS:
            wanted = f"one of the last {CHALLENGE_SECONDS:g} s"
            raise Refused("challenge", "a nonce that is not open here", wanted)
        verdict = self._judge(AttestationDocument.parse(data), nonce)
        with self._lock:
            self._known[verdict.keyset.digest] = _Known(verdict, self._clock.elapsed())
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return verdict

    def verify(self, head: Head, body: bytes, asked: bytes) -> Verdict | None:
        """Say which judged caller sealed this request, or None where nobody says so.

        Raises ``Unknown`` for one that has to be judged first.

        asked: digest of the own keyset that the request was sealed to
        """
        text = head.headers.get(HEADER)
        if text is None:
            return None
        keyset, signature = _parse(text)
        with self._lock:
            known = self._known.get(keyset)
        if known is None or self._clock.elapsed() - known.judged > REFRESH_SECONDS:
            raise Unknown("caller", f"keyset {keyset.hex()}", "one that was judged within the minute")
        known.verdict.keyset.check_valid_at(self._clock.now())
        message = signed_bytes(head, body, keyset, asked)
        keys = [key.public for key in known.verdict.keyset.of_role(CALLER)]
        if not keys:
            raise Rejected("caller", "a keyset without a caller key", "one with it")
        try:
            ed25519.verify(keys[0], signature, message)
        except InvalidSignature as error:
            raise Rejected("caller signature", "one that does not hold", "of the caller's keyset") from error
        return known.verdict


class Unknown(Refused):
    """A caller that has to show its evidence first, or again."""


def _parse(text: str) -> tuple[bytes, bytes]:
    if len(text) > _MAX_HEADER:
        raise Malformed(f"{HEADER} has {len(text)} letters, at most {_MAX_HEADER} are read")
    fields = Fields(parse_canonical(unb64(text), _MAX_HEADER), HEADER)
    fields.integer("v", 1, 1)
    found = fields.hexbytes("keyset", 32), fields.base64("sig", length=64)
    fields.done()
    return found
