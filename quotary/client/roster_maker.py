"""Making a roster: which keysets a service's instances have, as the statement that logs them.

It is the service's word, made by whoever operates it; an enclave that is away is left out, and comes back
with the next one (docs/formats/roster.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quotary.attestation.document import MAX_DOCUMENT, AttestationDocument
from quotary.canonical import time_text
from quotary.client.clock import Clock
from quotary.client.roster import KIND
from quotary.errors import CannotTell, QuotaryError, Refused
from quotary.net.transport import Limits, Request, Transport
from quotary.statements.keyset import Keyset
from quotary.statements.schema import statement_payload


@dataclass(frozen=True, slots=True)
class MadeRoster:
    """An unsigned statement and what it names: the digest of each instance's keyset, by name."""

    payload: bytes
    keysets: Mapping[str, bytes]

    @property
    def names(self) -> list[str]:
        return sorted(self.keysets)


@dataclass(slots=True)
class RosterMaker:
    """Asks instances (address by name) for their keysets, and says when there is something new to log."""

    instances: Mapping[str, str]
    service: str
    origin: str
    transport: Transport
    clock: Clock
    _newest: Mapping[str, bytes] = field(default_factory=dict)

    def made(self) -> MadeRoster | None:
        """Make the next roster; None where the log has it already. Raises where no instance answers."""
        found, errors = dict[str, Keyset](), list[QuotaryError]()
        for name, url in self.instances.items():
            try:
                found[name] = self._keyset(url)
            except QuotaryError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        digests = {name: keyset.digest for name, keyset in found.items()}
        if digests == self._newest:
            return None
        items = [{"name": name, "sha256": digests[name].hex()} for name in sorted(found)]
        now = self.clock.now().replace(microsecond=0)
        predicate = {
            "log": self.origin,
            "service": self.service,
            # A log does not look at the numbers of notices; seconds never go back.
            "sequence": int(now.timestamp()),
            "issued": time_text(now),
            "items": items,
            "data": {name: time_text(keyset.not_after) for name, keyset in found.items()},
        }
        return MadeRoster(statement_payload(KIND, predicate), digests)

    def logged(self, made: MadeRoster) -> None:
        """Remember what the log has now."""
        self._newest = made.keysets

    def _keyset(self, url: str) -> Keyset:
        reply = self.transport.send(Request(f"{url}/v1/attestation", limits=Limits(length=2 * MAX_DOCUMENT)))
        if reply.status != 200:
            raise CannotTell(f"{url} answered {reply.status}")
        keyset = Keyset.parse(AttestationDocument.parse(reply.body).keyset)
        if keyset.service != self.service:
            raise Refused("roster", f"an instance of {keyset.service} at {url}", self.service)
        return keyset
