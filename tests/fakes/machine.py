"""A machine with simulated hardware and a log that knows it: everything a judgement needs, all signatures real."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from quotary.attestation.binding import UNCHALLENGED, Binding, keyset_digest, report_data
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.client.sealed import PrivateKey
from quotary.statements.keyset import CHANNEL, RECEIPT, Keyset, KeysetKey
from quotary.tlog.merkle import leaf_hash
from simulator.pki import FMSPC, PKI, open_pki
from simulator.tcb import CURRENT, LATEST, TCB, Publication
from simulator.tdx import Platform, Registers
from tests.fakes import authority
from tests.fakes.log import FakeLog, policy_document

PRODUCT = FMSPC.hex()
NONCE = bytes(range(32))
SEED = "machine"

FLOOR: Mapping[str, object] = {
    "minimum": {
        "tee_tcb_svn": CURRENT.tee_tcb_svn.hex(),
        "sgx_tcb_svn": CURRENT.sgx_tcb_svn.hex(),
        "pce_svn": CURRENT.pce_svn,
    },
    "evaluation_number": 20,
    "accepted_status": ["UpToDate"],
    "grace_seconds": 0,
    "denied_advisories": [],
    "denied_families": [],
    "denied_chips": [],
}


def hardware(
    folder: Path, tcb: TCB = CURRENT, publication: Publication = LATEST, now: datetime = authority.NOW
) -> tuple[PKI, Platform]:
    """A vendor in a folder and one of its machines."""
    pki = open_pki(folder / "vendor", now)
    return pki, Platform(pki, tcb, publication, now)


def registers(seed: str = SEED, **changes: bytes) -> Registers:
    """The registers of ``authority.row(seed)``; RTMR0, RTMR3 and the configuration are zero."""
    found = {name: bytes.fromhex(text) for name, text in authority.registers(seed).items()}
    return Registers(**{**found, "rtmr0": bytes(48), "rtmr3": bytes(48), **changes})


def keyset(channel: bytes, service: str = authority.SERVICE, at: datetime = authority.NOW) -> Keyset:
    key = authority.key("receipt").public_key().public_bytes_raw()
    return Keyset(
        service,
        "instance-1",
        at - timedelta(minutes=5),
        at + timedelta(minutes=50),
        (
            KeysetKey("channel-1", CHANNEL, "x-wing", channel),
            KeysetKey("receipt-1", RECEIPT, "ed25519", key),
        ),
    )


@dataclass(slots=True)
class World:
    """A log with one released, rebuilt and floored service, and the machine that runs the release."""

    pki: PKI
    platform: Platform
    log: FakeLog = field(default_factory=FakeLog)
    channel: PrivateKey = field(default_factory=PrivateKey)
    now: datetime = authority.NOW
    release: bytes = b""

    @property
    def ts(self) -> int:
        return int(self.now.astimezone(UTC).timestamp())

    @property
    def measurement(self) -> bytes:
        return authority.measurement(SEED)

    def publish(self, **require: object) -> "World":
        """Genesis, service, builder, floor, release and rebuild, closed into one state."""
        maker = self.log.maker
        self.log.append(
            maker.genesis(),
            maker.allocation(),
            maker.delegation(),
            maker.floor(product=PRODUCT, floor=FLOOR),
        )
        row = authority.row(SEED)
        rows = [{**row, "require": {"configuration": "none", **require}}]
        self.release = maker.release(rows=rows)
        self.log.append(self.release, maker.rebuild(self.release, {SEED: True}))
        self.log.close(self.ts)
        return self

    def policy(self) -> dict[str, object]:
        document = policy_document(
            genesis=self.log.genesis, root=hashlib.sha256(self.pki.root_der).hexdigest()
        )
        rules = document["platforms"]["sim-tdx"]  # type: ignore[index]  # a document that was just made
        rules["floors"] = {PRODUCT: dict(FLOOR)}
        return document

    def document(
        self,
        nonce: bytes | None = NONCE,
        found: Registers | None = None,
        keys: Keyset | None = None,
        origin: str | None = None,
        devices: bytes | None = None,
    ) -> AttestationDocument:
        """What the machine shows for a nonce."""
        keys = keys or keyset(self.channel.public, at=self.now)
        checkpoint = self.log.checkpoint
        bound = hashlib.sha256(devices).digest() if devices is not None else None
        binding = Binding(
            keyset_digest(keys.encode()), origin or self.log.origin, checkpoint.size, checkpoint.root, bound
        ).encode()
        root = UNCHALLENGED if nonce is None else leaf_hash(nonce)
        quote = self.platform.quote(found or registers(), report_data(binding, root))
        place = NonceProof(0, 0 if nonce is None else 1, ())
        return AttestationDocument(
            binding, keys.encode(), quote, dict(self.platform.collateral), devices, place, None
        )

    def bundle(self) -> bytes:
        return self.log.bundle(self.measurement, ts=self.ts).encode()
