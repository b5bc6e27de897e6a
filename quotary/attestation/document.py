"""The attestation document: everything that one machine shows about itself, in one canonical JSON object.

Signed bytes always travel as base64 of exactly those bytes. Nothing in here is believed: ``cpu`` goes through
``tdx.parse`` and ``tdx.verify``, ``binding`` and ``keyset`` through ``binding``, ``bundle`` through the
verification order of design section 5. Format page: ``docs/formats/attestation.md``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quotary.canonical import MAX_INTEGER, Fields, b64, canonical, parse_canonical, unb64
from quotary.errors import Malformed

MAX_DOCUMENT = 4 << 20
MAX_PATH = 32
MAX_STATEMENT = 1 << 17

_MAX_TEXT = 2 << 20
_COLLATERAL_MEMBERS = 16
# Manifests of every version, and an answer about every certificate.
_DEVICE_COLLATERAL_MEMBERS = 256


@dataclass(frozen=True, slots=True)
class NonceProof:
    """Where the client's nonce stands in the batch that the CPU evidence answers (RFC 6962 inclusion).

    index, size: position among the batch's nonces and their number; size 0 means unchallenged
    path:        32-byte hashes from leaf to root
    """

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoggedStatement:
    """An entry of the log and the proof that it stands there."""

    entry: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class AttestationDocument:
    """The document's parts as bytes.

    binding:    canonical bytes of ``binding.Binding``
    keyset:     canonical bytes of the keyset
    evidence:   the CPU's evidence as the hardware gave it (a TDX quote)
    collateral: the vendor's documents by name, as text; binary ones in hex, PEM or base64 as the vendor's
                tools write
    devices:    exact device-evidence bytes, or None
    nonce:      the client's place in the batch
    bundle:     a bundle of the log, or None
    event_log:  the guest's event log of its boot (the area of ACPI's CCEL table), or None
    location:   the statement that says where the machine is, or None
    device_collateral: what NVIDIA publishes about the devices, by name; empty where there are none
    """

    binding: bytes
    keyset: bytes
    evidence: bytes
    collateral: Mapping[str, str]
    devices: bytes | None
    nonce: NonceProof
    bundle: bytes | None
    event_log: bytes | None = None
    device_collateral: Mapping[str, str] = field(default_factory=dict)
    location: LoggedStatement | None = None

    @classmethod
    def parse(cls, data: bytes) -> "AttestationDocument":
        """Read at most ``MAX_DOCUMENT`` canonical bytes; raises ``Malformed`` for anything else."""
        document = Fields(parse_canonical(data, MAX_DOCUMENT, multiline=True), "attestation document")
        document.integer("v", 1, 1)
        cpu = document.fields("cpu")
        devices = document.text("devices", MAX_DOCUMENT)
        found = cls(
            binding=document.base64("binding", limit=_MAX_TEXT),
            keyset=document.base64("keyset", limit=_MAX_TEXT),
            evidence=cpu.base64("evidence", limit=_MAX_TEXT),
            collateral=_collateral(cpu.mapping("collateral", _COLLATERAL_MEMBERS)),
            devices=None if devices == "none" else unb64(devices),
            nonce=_nonce(document.fields("nonce")),
            bundle=document.optional("bundle", lambda name: document.base64(name, limit=_MAX_TEXT)),
            event_log=cpu.optional("event_log", lambda name: cpu.base64(name, limit=_MAX_TEXT)),
            device_collateral=_device_collateral(document),
            location=document.optional("location", lambda name: _statement(document.fields(name))),
        )
        cpu.done()
        document.done()
        if found.device_collateral and found.devices is None:
            raise Malformed("attestation document.device_collateral is about devices, and there are none")
        return found

    def encode(self) -> bytes:
        """Write the canonical bytes; ``parse`` reads them back to an equal document."""
        cpu: dict[str, object] = {"evidence": b64(self.evidence), "collateral": dict(self.collateral)}
        if self.event_log is not None:
            cpu["event_log"] = b64(self.event_log)
        document: dict[str, object] = {
            "v": 1,
            "binding": b64(self.binding),
            "keyset": b64(self.keyset),
            "cpu": cpu,
            "devices": "none" if self.devices is None else b64(self.devices),
            "nonce": {
                "index": self.nonce.index,
                "size": self.nonce.size,
                "path": [b64(item) for item in self.nonce.path],
            },
        }
        if self.device_collateral:
            # In base64 because manifests hold tabs.
            found = {name: b64(text.encode()) for name, text in self.device_collateral.items()}
            document["device_collateral"] = found
        if self.location is not None:
            document["location"] = {"entry": b64(self.location.entry), "proof": b64(self.location.proof)}
        if self.bundle is not None:
            document["bundle"] = b64(self.bundle)
        return canonical(document, multiline=True)


def _collateral(members: Mapping[str, object]) -> dict[str, str]:
    found = {}
    for name, value in members.items():
        if not isinstance(value, str):
            raise Malformed(f"attestation document.cpu.collateral.{name} is not a string")
        found[name] = value
    return found


def _device_collateral(document: Fields) -> dict[str, str]:
    if not document.has("device_collateral"):
        return {}
    members = document.mapping("device_collateral", _DEVICE_COLLATERAL_MEMBERS)
    if not members:
        raise Malformed("attestation document.device_collateral is empty: leave it out")
    fields = Fields(members, "attestation document.device_collateral")
    try:
        return {name: fields.base64(name, limit=_MAX_TEXT).decode("utf-8") for name in members}
    except UnicodeDecodeError as error:
        raise Malformed("attestation document.device_collateral holds something that is not text") from error


def _statement(fields: Fields) -> LoggedStatement:
    found = LoggedStatement(
        fields.base64("entry", limit=MAX_STATEMENT), fields.base64("proof", limit=MAX_STATEMENT)
    )
    fields.done()
    return found


def _nonce(fields: Fields) -> NonceProof:
    path = []
    for item in fields.items("path", MAX_PATH):
        if not isinstance(item, str):
            raise Malformed("attestation document.nonce.path holds something that is not a string")
        path.append(unb64(item, length=32))
    found = NonceProof(fields.integer("index"), fields.integer("size", 0, MAX_INTEGER), tuple(path))
    fields.done()
    if found.index >= found.size and found != NonceProof(0, 0, ()):
        raise Malformed(f"nonce index {found.index} is not below the batch size {found.size}")
    return found
