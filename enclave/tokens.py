"""What an answer costs: one anonymous token, where the measured policy names an issuer of them.

Tokens answer a challenge that names one keyset of this process (docs/formats/oblivious.md), so this memory of
spent ones is the only one that there needs to be, and it ends with the keyset. Which keys the issuer has is
what the log says, under the policy's signers.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence

from enclave.chat import APIError
from enclave.keyset import LiveKeyset
from quotary.client.clock import Clock
from quotary.client.issuer import IssuerKey, challenge, key_of
from quotary.client.policy import IssuerRules
from quotary.errors import QuotaryError
from quotary.oblivious.privacy_pass import Challenge, Token

LOOK_SECONDS = 5.0
MAX_AGE_SECONDS = 300.0
MAX_SPENT = 1 << 20

FetchKeys = Callable[[], Sequence[IssuerKey]]
"""Asks the log for the issuer's valid keys, each verified."""


class TokenRefused(APIError):
    """No answer without a token that is good here; ``headers`` say for which challenge."""

    def __init__(self, code: str, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(401, code, message, kind="authentication_error")
        self.headers = headers


class TokenGate:
    """Takes each token once."""

    def __init__(self, rules: IssuerRules, fetch: FetchKeys, clock: Clock) -> None:
        self._rules, self._fetch, self._clock = rules, fetch, clock
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._keys: Sequence[IssuerKey] = ()
        self._looked_at = float("-inf")
        self._spent: dict[bytes, tuple[int, set[bytes]]] = {}

    def pay(self, credential: bytes, keyset: LiveKeyset) -> None:
        """Spend the token of an ``Authorization`` header, or raise ``TokenRefused``."""
        wanted = challenge(self._rules, keyset.digest)
        if not credential:
            raise self._refused("token_required", "an answer costs a token", wanted)
        try:
            token = Token.from_header(credential.decode("latin-1"))
            key = self._key(token.key_id)
            token.verify(key.public, wanted)
        except QuotaryError as error:
            raise self._refused("token_refused", f"the token is not good here: {error}", wanted) from error
        self._spend(token, keyset, wanted)

    def _spend(self, token: Token, keyset: LiveKeyset, wanted: Challenge) -> None:
        mark = hashlib.sha256(token.nonce).digest()[:16]
        now = int(self._clock.now().timestamp())
        with self._lock:
            self._spent = {name: item for name, item in self._spent.items() if now < item[0]}
            _, spent = self._spent.setdefault(keyset.digest, (keyset.not_after, set()))
            if mark in spent:
                raise self._refused("token_spent", "the token was spent before", wanted)
            if len(spent) >= MAX_SPENT:
                raise APIError(503, "tokens_full", "this keyset takes no more tokens; attest again")
            spent.add(mark)

    def _key(self, named: bytes) -> IssuerKey:
        now = self._clock.now()
        with self._looking:
            elapsed = self._clock.elapsed() - self._looked_at
            known = any(key.id == named for key in self._keys)
            if elapsed > MAX_AGE_SECONDS or (not known and elapsed > LOOK_SECONDS):
                self._look()
            return key_of([key for key in self._keys if key.not_before <= now < key.not_after], named)

    def _look(self) -> None:
        self._looked_at = self._clock.elapsed()
        try:
            self._keys = self._fetch()
        except QuotaryError:
            # The log is out of reach or shows what does not hold: the keys that were verified end in days.
            return

    def _refused(self, code: str, message: str, wanted: Challenge) -> TokenRefused:
        keys = "".join(
            f', token-key="{base64.urlsafe_b64encode(key.public).decode()}"' for key in self._keys[:1]
        )
        text = base64.urlsafe_b64encode(wanted.encode()).decode()
        return TokenRefused(code, message, {"www-authenticate": f'PrivateToken challenge="{text}"{keys}'})
