"""A machine with simulated hardware and a log that knows it: everything a judgement needs, all signatures real."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from quotary.attestation.binding import UNCHALLENGED, Binding, keyset_digest, report_data
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.client.sealed import PrivateKey
from quotary.statements.bundle import Bundle
from quotary.statements.keyset import CHANNEL, RECEIPT, Keyset, KeysetKey
from quotary.statements.measurement import measurement_id
from quotary.tlog.merkle import leaf_hash
from simulator.pki import FMSPC, PKI, open_pki
from simulator.tcb import CURRENT, LATEST, TCB, Publication
from simulator.tdx import Platform, Registers
from tests.fakes import authority
from tests.fakes.gpus import PLATFORM, GPUs
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


class Vendor(Protocol):
    """Whose root a policy pins."""

    @property
    def root_sha256(self) -> bytes: ...


class Hardware(Protocol):
    """What makes evidence over registers in its own terms and 64 bytes of ours."""

    @property
    def collateral(self) -> Mapping[str, str]: ...
    def quote(self, registers: Any, report_data: bytes) -> bytes: ...


@dataclass(slots=True)
class World:
    """A log with one released, rebuilt and floored service, and the machine that runs the release.

    kind:    the platform's name
    product: what its floor is for; floor: that floor, or None where the platform has none
    gpus:    the devices that the release demands and the machine shows, or None
    """

    pki: Vendor
    platform: Hardware
    log: FakeLog = field(default_factory=FakeLog)
    channel: PrivateKey = field(default_factory=PrivateKey)
    now: datetime = authority.NOW
    release: bytes = b""
    kind: str = "sim-tdx"
    product: str = PRODUCT
    floor: Mapping[str, object] | None = field(default_factory=lambda: FLOOR)
    gpus: GPUs | None = None

    @property
    def ts(self) -> int:
        return int(self.now.astimezone(UTC).timestamp())

    @property
    def measurement(self) -> bytes:
        return authority.measurement(SEED, self.kind)

    def registers(self, seed: str = SEED) -> Any:
        """What the machine measures when it runs the row of a seed, in its hardware's own terms."""
        if self.kind == "sim-tdx":
            return registers(seed)
        return {name: bytes.fromhex(text) for name, text in authority.registers(seed, self.kind).items()}

    def publish(self, **require: object) -> "World":
        """Genesis, service, builder, floor, release and rebuild, closed into one state."""
        maker = self.log.maker
        self.log.append(
            maker.genesis(),
            maker.allocation(),
            maker.delegation(),
        )
        if self.floor is not None:
            self.log.append(maker.floor(platform=self.kind, product=self.product, floor=self.floor))
        if self.gpus is not None:
            require["devices"] = self.gpus.demands()
            for name, floor in self.gpus.floors.items():
                self.log.append(maker.floor(platform=PLATFORM, product=name, floor=floor))
        self.run(authority.row(SEED, self.kind, **require))
        return self

    def run(self, row: dict[str, object]) -> None:
        """Release, rebuild and close: one row."""
        maker = self.log.maker
        self.release = maker.release(rows=[row])
        measured = {name: bytes.fromhex(text) for name, text in _texts(row["registers"])}
        same = {"measurement": measurement_id(self.kind, measured).hex(), "match": True}
        self.log.append(self.release, maker.rebuild(self.release, {SEED: True}, rows=[same]))
        self.log.close(self.ts)

    def policy(self) -> dict[str, object]:
        document = policy_document(genesis=self.log.genesis, root=self.pki.root_sha256.hex())
        rules = document["platforms"].pop("sim-tdx")  # type: ignore[attr-defined]  # it was just made
        rules["floors"] = "log" if self.floor is None else {self.product: dict(self.floor)}
        document["platforms"] = {self.kind: rules}
        if self.gpus is not None:
            document["devices"] = self.gpus.rules()
        return document

    def document(
        self,
        nonce: bytes | None = NONCE,
        found: Any = None,
        keys: Keyset | None = None,
        origin: str | None = None,
        devices: bytes | None = None,
    ) -> AttestationDocument:
        """What the machine shows for a nonce."""
        keys = keys or keyset(self.channel.public, at=self.now)
        checkpoint = self.log.checkpoint
        collateral = {}
        if self.gpus is not None and devices is None:
            devices = self.gpus.evidence(keyset_digest(keys.encode()))
            collateral = self.gpus.collateral(self.now)
        bound = hashlib.sha256(devices).digest() if devices is not None else None
        binding = Binding(
            keyset_digest(keys.encode()), origin or self.log.origin, checkpoint.size, checkpoint.root, bound
        ).encode()
        root = UNCHALLENGED if nonce is None else leaf_hash(nonce)
        quote = self.platform.quote(found or self.registers(), report_data(binding, root))
        place = NonceProof(0, 0 if nonce is None else 1, ())
        return AttestationDocument(
            binding,
            keys.encode(),
            quote,
            dict(self.platform.collateral),
            devices,
            place,
            None,
            device_collateral=collateral,
        )

    def shown(self, measurement: bytes | None = None) -> Bundle:
        """What the log would show of the machine's measurement, or of another."""
        return self.log.bundle(
            measurement or self.measurement,
            product=self.product,
            ts=self.ts,
            platform=self.kind,
            floors=self.gpus.floor_keys() if self.gpus is not None else (),
        )

    def bundle(self) -> bytes:
        return self.shown().encode()


def _texts(members: object) -> Sequence[tuple[str, str]]:
    assert isinstance(members, dict)
    return list(members.items())
