"""The keyset: all public keys of one enclave, for at most an hour, in one document (design section 7).

Its SHA-256 is bound into the hardware's evidence, so a key that is not in it is not the enclave's. No
key has two roles.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec

from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical, time_text
from quotary.ed25519 import check_public_key
from quotary.errors import InvalidSignature, Malformed, Refused
from quotary.statements.predicates import MAX_SERVICE, ascending, parse_service, strings

MAX_KEYSET = 1 << 16
MAX_LIFETIME = timedelta(hours=1)

CHANNEL = "channel"
RECEIPT = "receipt"
GATEWAY = "gateway"
DOOR = "door"
RATLS = "ratls"
CALLER = "caller"

# Length of a public key in bytes.
_ALGORITHMS = {
    (CALLER, "ed25519"): 32,
    (CHANNEL, "x-wing"): 1216,
    (DOOR, "ed25519"): 32,
    (DOOR, "p-256"): 65,
    (DOOR, "secp256k1"): 65,
    (GATEWAY, "x25519"): 32,
    (GATEWAY, "x-wing"): 1216,
    (RATLS, "p-256"): 65,
    (RECEIPT, "ed25519"): 32,
    (RECEIPT, "ml-dsa-44"): 1312,
}
_CURVES: dict[str, ec.EllipticCurve] = {"p-256": ec.SECP256R1(), "secp256k1": ec.SECP256K1()}


@dataclass(frozen=True, slots=True)
class KeysetKey:
    """One public key: what it is called here, what it is for, and its bytes as its algorithm defines them."""

    id: str
    role: str
    alg: str
    public: bytes


@dataclass(frozen=True, slots=True)
class TLSKey:
    """A key that TLS for a domain ends with: SHA-256 of its SPKI (32 bytes)."""

    domain: str
    spki_sha256: bytes


@dataclass(frozen=True, slots=True)
class Keyset:
    """The public keys of one enclave.

    instance:              a random name that the enclave gave itself at start
    not_before, not_after: at most an hour apart
    keys:                  ascending by id, at least one
    capabilities:          what the enclave offers, ascending
    """

    service: str
    instance: str
    not_before: datetime
    not_after: datetime
    keys: tuple[KeysetKey, ...]
    tls: tuple[TLSKey, ...] = ()
    capabilities: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> "Keyset":
        """Read a keyset's canonical bytes."""
        fields = Fields(parse_canonical(data, MAX_KEYSET), "keyset")
        fields.integer("v", 1, 1)
        keys = tuple(_key(item) for item in fields.items("keys", 16, low=1))
        tls = tuple(_tls(item) for item in fields.items("tls", 16))
        found = cls(
            parse_service(fields.text("service", MAX_SERVICE)),
            fields.name("instance", 64),
            fields.time("not_before"),
            fields.time("not_after"),
            ascending(keys, "keys", lambda key: key.id),
            ascending(tls, "tls keys", lambda key: f"{key.domain} {key.spki_sha256.hex()}"),
            strings(fields, "capabilities", 32, length=64),
        )
        fields.done()
        if not found.not_before < found.not_after <= found.not_before + MAX_LIFETIME:
            raise Malformed("a keyset is valid for at most an hour")
        if len({key.public for key in keys}) != len(keys):
            raise Malformed("a key has two roles")
        return found

    def encode(self) -> bytes:
        """Write the keyset, or raise ``Malformed`` if nobody would read it."""
        document = {
            "v": 1,
            "service": self.service,
            "instance": self.instance,
            "not_before": time_text(self.not_before),
            "not_after": time_text(self.not_after),
            "keys": [
                {"id": key.id, "role": key.role, "alg": key.alg, "pub": b64(key.public)} for key in self.keys
            ],
            "tls": [{"domain": key.domain, "spki_sha256": key.spki_sha256.hex()} for key in self.tls],
            "capabilities": list(self.capabilities),
        }
        data = canonical(document)
        Keyset.parse(data)
        return data

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes (32 bytes): what evidence binds."""
        return hashlib.sha256(self.encode()).digest()

    def of_role(self, role: str) -> tuple[KeysetKey, ...]:
        """Give the keys of a role, perhaps none."""
        return tuple(key for key in self.keys if key.role == role)

    def check_valid_at(self, now: datetime) -> None:
        """Refuse a keyset outside its hour."""
        if not self.not_before <= now < self.not_after:
            wanted = f"{time_text(self.not_before)} to {time_text(self.not_after)}"
            raise Refused("keyset", now.isoformat(timespec="seconds"), wanted)


def _key(value: object) -> KeysetKey:
    fields = Fields(value, "key")
    name, role, alg = fields.name("id", 128), fields.name("role", 32), fields.name("alg", 32)
    length = _ALGORITHMS.get((role, alg))
    if length is None:
        raise Malformed(f"a key of the role {role} cannot have the algorithm {alg}")
    found = KeysetKey(name, role, alg, fields.base64("pub", length=length))
    fields.done()
    if alg == "ed25519":
        try:
            check_public_key(found.public)
        except InvalidSignature as error:
            raise Malformed(f"the key {name} is degenerate") from error
    if alg in _CURVES:
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[alg], found.public)
        except ValueError as error:
            raise Malformed(f"the key {name} is no uncompressed point of {alg}") from error
    return found


def _tls(value: object) -> TLSKey:
    fields = Fields(value, "tls key")
    found = TLSKey(fields.name("domain", 253), hexbytes(fields.text("spki_sha256", 64), 32))
    fields.done()
    return found
