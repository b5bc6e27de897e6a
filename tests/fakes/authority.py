"""Authorities with real keys from fixed seeds and fixed times, and the entries they sign.

``Authority()`` is a log with four roles and one service; each method returns an entry's bytes. Sequences
are counted per service and kind, in the order of the calls; say ``sequence=`` to be wrong on purpose.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.canonical import b64, time_text
from quotary.statements.envelope import Envelope, key_id, raw_public_key, sign, spki
from quotary.statements.measurement import REGISTERS, measurement_id, register_length
from quotary.statements.schema import statement_payload

ORIGIN = "log.example.org/simulation"
SERVICE = "chat"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
TS = int(NOW.timestamp())
DAY = timedelta(days=1)

FLOOR: Mapping[str, object] = {
    "minimum": {"tee_tcb_svn": "05" * 16, "sgx_tcb_svn": "07" * 16, "pce_svn": 13},
    "evaluation_number": 17,
    "accepted_status": ["SWHardeningNeeded", "UpToDate"],
    "grace_seconds": 86_400,
    "denied_advisories": ["INTEL-SA-00001"],
    "denied_families": [],
    "denied_chips": [],
}


def key(name: str) -> Ed25519PrivateKey:
    """The private key that belongs to a name, the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"quotary test key {name}".encode()).digest())


def keyid(name: str) -> str:
    return key_id(raw_public_key(key(name)))


def public(name: str) -> str:
    """The SPKI of a named key in base64."""
    return b64(spki(raw_public_key(key(name))))


def role(names: Iterable[str], threshold: int) -> dict[str, object]:
    return {"keys": sorted(keyid(name) for name in names), "threshold": threshold}


def keys(*names: str) -> dict[str, object]:
    return {keyid(name): public(name) for name in names}


def registers(seed: str, platform: str = "sim-tdx") -> dict[str, str]:
    """Registers of a platform that differ with the seed, in hex."""
    length = register_length(platform)
    names = REGISTERS[platform.removeprefix("sim-")]
    return {name: hashlib.sha512(f"{seed} {name}".encode()).hexdigest()[: 2 * length] for name in names}


def measurement(seed: str, platform: str = "sim-tdx") -> bytes:
    """The measurement id of ``registers(seed)``."""
    found = registers(seed, platform)
    return measurement_id(platform, {name: bytes.fromhex(text) for name, text in found.items()})


def row(seed: str, platform: str = "sim-tdx", **require: object) -> dict[str, object]:
    """A release's row for ``registers(seed)``."""
    return {
        "platform": platform,
        "profile": "process/v1",
        "profile_sha256": hashlib.sha256(b"process/v1").hexdigest(),
        "registers": registers(seed, platform),
        "require": {"configuration": "none", **require},
    }


def statement_id_of(entry: bytes) -> str:
    return Envelope.parse(entry).statement_id


@dataclass(slots=True)
class Authority:
    """Makes entries; ``signers`` are names of keys, and may be anybody's."""

    origin: str = ORIGIN
    now: datetime = NOW
    sequences: dict[tuple[str, str], int] = field(default_factory=dict)
    last_delegation: dict[str, str] = field(default_factory=dict)

    def entry(self, kind: str, predicate: Mapping[str, object], signers: Iterable[str]) -> bytes:
        return sign(statement_payload(kind, predicate), [key(name) for name in signers])

    def head(self, kind: str, service: str, sequence: int | None) -> dict[str, object]:
        if sequence is None:
            sequence = self.sequences.get((service, kind), 0) + 1
            self.sequences[service, kind] = sequence
        return {
            "log": self.origin,
            "service": service,
            "sequence": sequence,
            "issued": time_text(self.now),
        }

    def genesis(self, **changes: object) -> bytes:
        """Two of three roots, two of two for tcb, one security key, two rebuilders (threshold 1)."""
        predicate = {
            **self.head("delegation", "log", 1),
            "expires": time_text(self.now + 3650 * DAY),
            "keys": keys("root1", "root2", "root3", "tcb1", "tcb2", "security1", "rebuilder1", "rebuilder2"),
            "roles": {
                "root": role(["root1", "root2", "root3"], 2),
                "tcb": role(["tcb1", "tcb2"], 2),
                "security": role(["security1"], 1),
                "rebuilder": role(["rebuilder1", "rebuilder2"], 1),
            },
            **changes,
        }
        entry = self.entry("delegation", predicate, ["root1", "root2"])
        self.sequences["log", "delegation"] = 1
        self.last_delegation["log"] = statement_id_of(entry)
        return entry

    def allocation(
        self, service: str = SERVICE, signers: Iterable[str] = ("root1", "root2"), **changes: object
    ) -> bytes:
        """Two of three owners get the name."""
        predicate = {
            **self.head("delegation", service, 1),
            "expires": time_text(self.now + 365 * DAY),
            "keys": keys("owner1", "owner2", "owner3"),
            "roles": {"owner": role(["owner1", "owner2", "owner3"], 2)},
            **changes,
        }
        entry = self.entry("delegation", predicate, signers)
        self.sequences[service, "delegation"] = 1
        self.last_delegation[service] = statement_id_of(entry)
        return entry

    def delegation(
        self,
        service: str = SERVICE,
        signers: Iterable[str] = ("owner1", "owner2"),
        builders: tuple[str, ...] = ("builder1",),
        threshold: int = 1,
        sequence: int | None = None,
        notices: tuple[str, ...] = (),
        **changes: object,
    ) -> bytes:
        """The owners name the builders, who may also make notices of the named kinds."""
        predicate = {
            **self.head("delegation", service, sequence),
            "previous": self.last_delegation.get(service, "sha256:" + "00" * 32),
            "expires": time_text(self.now + 365 * DAY),
            "keys": keys("owner1", "owner2", "owner3", *builders),
            "roles": {
                "owner": role(["owner1", "owner2", "owner3"], 2),
                "builder": role(builders, threshold),
                **{kind: role(builders, threshold) for kind in notices},
            },
            **changes,
        }
        entry = self.entry("delegation", predicate, signers)
        if sequence is None:
            self.last_delegation[service] = statement_id_of(entry)
        return entry

    def release(
        self,
        *seeds: str,
        service: str = SERVICE,
        signers: Iterable[str] = ("builder1",),
        sequence: int | None = None,
        **changes: object,
    ) -> bytes:
        """One row per seed (``"a"`` if none is given)."""
        predicate = {
            **self.head("release", service, sequence),
            "not_after": time_text(self.now + 90 * DAY),
            "source": {"uri": "git+https://git.example.org/chat", "revision": "01" * 20},
            "lock_sha256": "02" * 32,
            "outputs": [{"name": "image.raw", "sha256": "03" * 32, "size": 4096}],
            "weights_sha256": "04" * 32,
            "policy_sha256": "05" * 32,
            "rows": [row(seed) for seed in seeds or ("a",)],
            "material": {},
            **changes,
        }
        return self.entry("release", predicate, signers)

    def rebuild(
        self,
        release: bytes,
        matches: Mapping[str, bool],
        service: str = SERVICE,
        signers: Iterable[str] = ("rebuilder1",),
        sequence: int | None = None,
        **changes: object,
    ) -> bytes:
        """What a rebuilder found for the row of each seed; no rows says that the build failed."""
        verdict = "failed" if not matches else "match" if all(matches.values()) else "mismatch"
        rows = [{"measurement": measurement(seed).hex(), "match": same} for seed, same in matches.items()]
        predicate = {
            **self.head("rebuild", service, sequence),
            "release": statement_id_of(release),
            "organisation": "Example Rebuilders",
            "tool": "nix 2.31",
            "verdict": verdict,
            "rows": sorted(rows, key=lambda found: str(found["measurement"])),
            **changes,
        }
        return self.entry("rebuild", predicate, signers)

    def revocation(
        self,
        target: bytes | Iterable[str],
        service: str = SERVICE,
        signers: Iterable[str] = ("builder1",),
        suspend: timedelta | None = None,
        sequence: int | None = None,
        **changes: object,
    ) -> bytes:
        """Revoke a release's entry, or the ids of seeds; ``suspend`` for so long instead."""
        named: dict[str, object] = (
            {"release": statement_id_of(target)}
            if isinstance(target, bytes)
            else {"measurements": sorted(measurement(seed).hex() for seed in target)}
        )
        action: dict[str, object] = (
            {"action": "revoke"}
            if suspend is None
            else {"action": "suspend", "until": time_text(self.now + suspend)}
        )
        predicate = {
            **self.head("revocation", service, sequence),
            **action,
            **named,
            "reason": "CVE-2026-0001",
            **changes,
        }
        return self.entry("revocation", predicate, signers)

    def floor(
        self,
        signers: Iterable[str] = ("tcb1", "tcb2"),
        platform: str = "sim-tdx",
        product: str = "50806f000000",
        sequence: int | None = None,
        floor: Mapping[str, object] = FLOOR,
        **changes: object,
    ) -> bytes:
        predicate = {
            **self.head("tcb-floor", "log", sequence),
            "expires": time_text(self.now + 30 * DAY),
            "platform": platform,
            "product": product,
            "floor": dict(floor),
            **changes,
        }
        return self.entry("tcb-floor", predicate, signers)

    def notice(
        self,
        kind: str = "artefact",
        service: str = SERVICE,
        signers: Iterable[str] = ("builder1",),
        sequence: int | None = None,
        **changes: object,
    ) -> bytes:
        predicate = {
            **self.head(kind, service, sequence),
            "items": [{"name": "weights.safetensors", "sha256": "06" * 32, "size": 1}],
            **changes,
        }
        return self.entry(kind, predicate, signers)
