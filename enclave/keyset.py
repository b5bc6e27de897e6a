"""Keys born inside, in keysets of at most an hour that overlap; destroying one is forgetting it.

Each keyset has one X-Wing key for the channel and one Ed25519 key for receipts; no key has two roles and
none is ever written anywhere. When the private half of a channel key is gone, nobody can open what was
sealed to it: that is the forward secrecy of the one-shot channel.
"""

import hashlib
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary.client.receipt import Signature
from quotary.client.sealed import PrivateKey, key_id
from quotary.statements.keyset import CALLER, CHANNEL, GATEWAY, RATLS, RECEIPT, Keyset, KeysetKey

if TYPE_CHECKING:
    from enclave.gateway import Gateway

# A client's clock may be behind ours, so a keyset begins a little in the past; an hour is the most it may
# span.
SKEW_SECONDS = 300
LIFE_SECONDS = 3600 - SKEW_SECONDS
ROTATE_SECONDS = 2700


@dataclass(frozen=True, slots=True)
class LiveKeyset:
    """A keyset with its private halves.

    document:          canonical bytes of the public keyset; digest: SHA-256 over them
    born_at, not_after: seconds since 1970
    evidence:          SHA-256 of the evidence by which the enclave judged itself with this keyset; empty
                       until then
    ratls:             of the second door's certificate, where there is one
    caller:            of requests to other enclaves, where it sends any
    """

    document: bytes
    digest: bytes
    born_at: int
    not_after: int
    channel: PrivateKey
    receipt: Ed25519PrivateKey
    receipt_key_id: str
    gateway: "Gateway | None" = None
    evidence: bytes = b""
    ratls: ec.EllipticCurvePrivateKey | None = None
    caller: Ed25519PrivateKey | None = None

    @classmethod
    def born(
        cls,
        service: str,
        instance: str,
        now: int,
        doors: tuple[KeysetKey, ...] = (),
        *,
        oblivious: bool = False,
        ratls: bool = False,
        calls: bool = False,
    ) -> "LiveKeyset":
        """Make new keys and the keyset of their public halves and of ``doors``, in use from ``now``.

        oblivious: with a key for capsules that come through a relay
        ratls:     with a key for the second door's certificate
        calls:     with a key for requests to other enclaves
        """
        channel, receipt = PrivateKey(), Ed25519PrivateKey.generate()
        gateway = _gateway() if oblivious else None
        public = receipt.public_key().public_bytes_raw()
        name = f"receipt-{hashlib.sha256(public).hexdigest()[:16]}"
        gateways = () if gateway is None else (_public(gateway),)
        tls = ec.generate_private_key(ec.SECP256R1()) if ratls else None
        caller = Ed25519PrivateKey.generate() if calls else None
        keyset = Keyset(
            service,
            instance,
            datetime.fromtimestamp(now - SKEW_SECONDS, UTC),
            datetime.fromtimestamp(now + LIFE_SECONDS, UTC),
            (
                *(() if caller is None else (_caller(caller),)),
                KeysetKey(f"channel-{key_id(channel.public).hex()}", CHANNEL, "x-wing", channel.public),
                *doors,
                *gateways,
                *(() if tls is None else (_ratls(tls),)),
                KeysetKey(name, RECEIPT, "ed25519", public),
            ),
        )
        end = now + LIFE_SECONDS
        return cls(
            keyset.encode(), keyset.digest, now, end, channel, receipt, name, gateway, b"", tls, caller
        )

    def with_evidence(self, digest: bytes) -> "LiveKeyset":
        """Add the digest (32 bytes) of the evidence that was judged."""
        return replace(self, evidence=digest)

    def sign(self, message: bytes) -> Signature:
        """Sign a receipt."""
        return Signature(self.receipt_key_id, self.receipt.sign(message))


class Keyring:
    """The keysets in use: the newest, and those before it until they expire."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: tuple[LiveKeyset, ...] = ()
        self._destroyed = False

    def add(self, keyset: LiveKeyset) -> None:
        """Make a keyset the current one; after ``destroy`` there is none any more."""
        assert keyset.evidence
        with self._lock:
            if not self._destroyed:
                live = (old for old in self._live if old.not_after > keyset.born_at)
                self._live = (keyset, *live)

    def current(self) -> LiveKeyset | None:
        """The keyset that new clients are given."""
        with self._lock:
            return self._live[0] if self._live else None

    def find(self, named: bytes, now: int) -> LiveKeyset | None:
        """The unexpired keyset whose channel key has this id (8 bytes); expired ones are forgotten here."""
        with self._lock:
            self._live = tuple(keyset for keyset in self._live if now < keyset.not_after)
            return next((keyset for keyset in self._live if key_id(keyset.channel.public) == named), None)

    def with_gateway(self, number: int, now: int) -> tuple[LiveKeyset, ...]:
        """The unexpired keysets whose gateway key has this number, as capsules have it; the newest first."""
        with self._lock:
            return tuple(
                keyset
                for keyset in self._live
                if now < keyset.not_after
                and keyset.gateway is not None
                and keyset.gateway.public[0] == number
            )

    def due(self, now: int) -> bool:
        """Say whether it is time for a new keyset."""
        with self._lock:
            return not self._live or now >= self._live[0].born_at + ROTATE_SECONDS

    def destroy(self) -> None:
        """Forget every private key, for good."""
        with self._lock:
            self._live, self._destroyed = (), True


def _public(gateway: "Gateway") -> KeysetKey:
    name = f"gateway-{hashlib.sha256(gateway.public).hexdigest()[:16]}"
    return KeysetKey(name, GATEWAY, "x25519", gateway.public)


def _ratls(key: ec.EllipticCurvePrivateKey) -> KeysetKey:
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return KeysetKey(f"ratls-{hashlib.sha256(public).hexdigest()[:16]}", RATLS, "p-256", public)


def _caller(key: Ed25519PrivateKey) -> KeysetKey:
    public = key.public_key().public_bytes_raw()
    return KeysetKey(f"caller-{hashlib.sha256(public).hexdigest()[:16]}", CALLER, "ed25519", public)


def _gateway() -> "Gateway":
    # Imported here, because without this door nothing of it is needed.
    from enclave.gateway import Gateway

    return Gateway()
