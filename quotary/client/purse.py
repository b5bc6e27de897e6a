"""A client's anonymous tokens: fetched in batches for the machine that was judged, spent one by one.

The issuer sees who fetches and when, never for which machine or what is asked. Tokens are fetched several at
a time, so that the time of a question says little; the first question of a keyset is the exception.
"""

import threading
from collections.abc import Callable
from datetime import datetime

from quotary.client.issuer import IssuerKey, challenge, issuer_keys, rules_of
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.session import TokenSource
from quotary.errors import CannotTell, NotAuthorised
from quotary.net.transport import Limits, Request, Transport
from quotary.oblivious.privacy_pass import REQUEST_TYPE, RESPONSE_TYPE, Token, request_token

_LIMITS = Limits(length=1 << 14)


class Purse:
    """Tokens of one account for one machine after the other."""

    def __init__(self, transport: Transport, source: TokenSource, log: LogClient, policy: Policy) -> None:
        self._transport, self._source, self._log, self._policy = transport, source, log, policy
        self._lock = threading.Lock()
        self._tokens: list[Token] = []
        self._keyset = b""

    def token(self, keyset_digest: bytes, now: Callable[[], datetime]) -> Token:
        """Give a token for the machine with this keyset, and fetch more when there is none."""
        with self._lock:
            if keyset_digest != self._keyset:
                self._keyset, self._tokens = keyset_digest, []
            if not self._tokens:
                key = self._key(now())
                self._tokens = [self._fetch(key, keyset_digest) for _ in range(self._source.batch)]
            return self._tokens.pop()

    def _key(self, now: datetime) -> IssuerKey:
        for key in issuer_keys(self._log, self._policy, now):
            if key.tier == self._source.tier:
                return key
        raise CannotTell(f"the log has no valid key of the issuer for the tier {self._source.tier}")

    def _fetch(self, key: IssuerKey, keyset_digest: bytes) -> Token:
        wanted = challenge(rules_of(self._policy), keyset_digest)
        pending = request_token(key.public, wanted)
        headers = {
            "Content-Type": REQUEST_TYPE,
            "Accept": RESPONSE_TYPE,
            "Authorization": f"Bearer {self._source.secret}",
        }
        address = f"{self._source.url.rstrip('/')}/token-request"
        reply = self._transport.send(Request(address, "POST", pending.request, headers, _LIMITS))
        if reply.status == 401:
            raise NotAuthorised(f"{self._source.url} knows no account with this secret")
        if reply.status != 200:
            raise CannotTell(f"{self._source.url} answered {reply.status} and no token")
        token = pending.finish(reply.body)
        token.verify(key.public, wanted)
        return token
