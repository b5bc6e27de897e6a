"""AWS Nitro attestation documents: parse, verify, appraise.

AWS "Nitro Enclaves Attestation Process", sections 2.2.1 (format), 3.1 (COSE) and 3.2 (validation); RFC 9052,
COSE_Sign1. A document carries its own certificates, whose leaf lives three hours: the chain is judged at the
document's own time, after that time was found fresh. ``docs/evidence-snp-nitro-nvidia.md`` explains each
field and check.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from quotary.attestation import cbor
from quotary.attestation.appraise import Floor, meet_floor
from quotary.attestation.certificates import Certificate, parse_certificate, verify_chain
from quotary.attestation.facts import TCB, Appraised, Check, Facts
from quotary.attestation.p384 import SIGNATURE_LENGTH, verify_p384
from quotary.attestation.roots import Root, select_root
from quotary.errors import Malformed, Refused, Rejected, Unsupported

PLATFORM = PRODUCT = "nitro"
MAX_DOCUMENT = 32 * 1024
MAX_AHEAD = timedelta(seconds=300)
PCR_LENGTH = 48
IMAGE_PCRS = (0, 1, 2)

# {1: -35}: ES384, in the one form that AWS writes.
PROTECTED = bytes.fromhex("a1013822")
_TAG_18 = b"\xd2"
_MEMBERS = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
# Members that may be absent or null, and the bytes that AWS allows each.
_OPTIONAL = {"public_key": 1024, "user_data": 512, "nonce": 512}
_MAX_CERTIFICATE = 2048
_MAX_CHAIN = 8
_MAX_TIMESTAMP = 253_402_300_799_000


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """A well-formed document that nobody believes yet.

    module_id: the enclave's instance, for people
    at:        the time that the Nitro hypervisor gives
    pcrs:      48 bytes each, by number 0 to 31; 0 to 2 are always there
    chain:     leaf, intermediates, root (the document has the root first)
    chosen:    what the enclave put in: ``public_key``, ``user_data``, ``nonce``; absent and null are empty
    signed:    the exact bytes under the signature (COSE Sig_structure)
    signature: 96 bytes r || s, big endian
    """

    module_id: str
    at: datetime
    pcrs: Mapping[int, bytes]
    chain: tuple[Certificate, ...]
    chosen: Mapping[str, bytes]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> "NitroDocument":
        """Read a COSE_Sign1, untagged or with the tag 18; raises ``Malformed`` or ``Unsupported``."""
        outer = cbor.decode(data.removeprefix(_TAG_18), MAX_DOCUMENT)
        if not isinstance(outer, tuple) or len(outer) != 4:
            raise Malformed("not a COSE_Sign1: an array of four is needed")
        protected, unprotected, payload, signature = outer
        if unprotected != {} or not isinstance(payload, bytes) or not isinstance(signature, bytes):
            raise Malformed("not a COSE_Sign1: headers, payload or signature are of another kind")
        if protected != PROTECTED:
            raise Unsupported("the protected header is not {1: -35}, ES384")
        if len(signature) != SIGNATURE_LENGTH:
            raise Malformed(f"signature has {len(signature)} bytes, {SIGNATURE_LENGTH} are needed")
        members = _members(payload)
        return cls(
            _text(members, "module_id"),
            _time(members),
            _pcrs(members["pcrs"]),
            _chain(members),
            {name: _chosen(members.get(name), name) for name in _OPTIONAL},
            _signed(payload),
            signature,
        )


def verify(document: NitroDocument, now: datetime, max_age: timedelta, roots: Sequence[Root]) -> Facts:
    """Believe a document that is at most ``max_age`` old at ``now``, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; the first of its bundle is one of ``roots``.
    2. Its time is not older than ``max_age`` and at most five minutes ahead.
    3. Its chain ends in that root, every certificate in force at the document's time; the leaf is no CA.
    4. The leaf's key signed it.
    """
    root = select_root(roots, PLATFORM, document.chain)
    if not now - max_age <= document.at <= now + MAX_AHEAD:
        wanted = f"from {(now - max_age).isoformat()} to {(now + MAX_AHEAD).isoformat()}"
        raise Refused("timestamp", document.at.isoformat(), wanted)
    verify_chain("nitro chain", document.chain, root.fingerprint, document.at)
    leaf = document.chain[0]
    if leaf.is_ca:
        raise Rejected("nitro chain", f"leaf {leaf.subject_text} is a CA", "an end certificate")
    verify_p384("document signature", leaf.key, document.signature, document.signed)
    return _facts(document, root, now)


@dataclass(frozen=True, slots=True)
class Demands:
    """What a verifier demands of every Nitro enclave, whatever its release says.

    pcrs:      further PCRs and the values that each may have, such as 8 (signing certificate), 3 (role) or
               4 (instance); one that is missing from a document does not match
    module_id: what the module id must begin with; empty admits any
    """

    pcrs: Mapping[int, tuple[bytes, ...]]
    module_id: str


def appraise(facts: Facts, floor: Floor, demands: Demands) -> Appraised:
    """Admit an enclave under a floor and demands, or raise naming the check that failed.

    AWS attests no firmware version: a floor that names one admits nothing.
    """
    return Appraised(facts, (*meet_demands(facts, demands), *meet_floor(facts, floor)))


def meet_demands(facts: Facts, demands: Demands) -> tuple[Check, ...]:
    """Hold an enclave's PCRs and identity against a verifier's demands.

    1. PCR0, PCR1 and PCR2 are measured: all zero is AWS's mark of a debug enclave (``debug``).
    2. Each demanded PCR is there and has a listed value (``pcr``).
    3. The module id begins as demanded.
    """
    if facts.platform.removeprefix("sim-") != PLATFORM:
        raise Unsupported(f"no Nitro appraisal for the platform {facts.platform}")
    for number in IMAGE_PCRS:
        if not any(facts.registers[f"pcr{number}"]):
            raise Refused("debug", f"PCR{number} is zero: a debug enclave", "a measured enclave")
    for number, values in demands.pcrs.items():
        found = facts.registers.get(f"pcr{number}")
        if found not in values:
            text = "missing" if found is None else found.hex()
            raise Rejected("pcr", f"PCR{number} {text}", ", ".join(value.hex() for value in values) or "none")
    module = facts.attributes["module_id"].decode()
    if not module.startswith(demands.module_id):
        raise Refused("module id", module, f"{demands.module_id}…")
    pcrs = ", ".join(f"PCR{number}" for number in sorted(demands.pcrs)) or "none demanded"
    return (
        Check("debug", "PCR0 to PCR2 measured", "not zero", "attestation document"),
        Check("pcr", pcrs, "a listed value each", "verifier's demands"),
        Check("module id", module, demands.module_id or "any", "verifier's demands"),
    )


def require_bound(facts: Facts, user_data: bytes, nonce: bytes, public_key: bytes) -> tuple[Check, ...]:
    """Require that the enclave put exactly these bytes in; empty ones must be absent, null or empty."""
    rows = (("user_data", user_data), ("nonce", nonce), ("public_key", public_key))
    for name, wanted in rows:
        found = facts.attributes[name]
        if not hmac.compare_digest(found, wanted):
            raise Rejected(name.replace("_", " "), found.hex() or "nothing", wanted.hex() or "nothing")
    return tuple(
        Check(name.replace("_", " "), wanted.hex() or "nothing", "the same", "attestation document")
        for name, wanted in rows
    )


def _members(payload: bytes) -> dict[str, cbor.Value]:
    found = cbor.decode(payload, MAX_DOCUMENT)
    if not isinstance(found, dict) or not _MEMBERS <= set(found) <= _MEMBERS | set(_OPTIONAL):
        raise Malformed("the document has not exactly the members that AWS names")
    members = {str(name): value for name, value in found.items()}
    if members["digest"] != "SHA384":
        raise Unsupported("the document's PCRs are of another digest than SHA384")
    return members


def _text(members: Mapping[str, cbor.Value], name: str) -> str:
    found = members[name]
    if (
        not isinstance(found, str)
        or not 1 <= len(found) <= 128
        or not found.isascii()
        or not found.isprintable()
    ):
        raise Malformed(f"{name} is not a short text")
    return found


def _time(members: Mapping[str, cbor.Value]) -> datetime:
    found = members["timestamp"]
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found <= _MAX_TIMESTAMP:
        raise Malformed("timestamp is not a number of milliseconds since 1970")
    return datetime.fromtimestamp(found // 1000, UTC) + timedelta(milliseconds=found % 1000)


def _pcrs(found: cbor.Value) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    for number, value in found.items() if isinstance(found, dict) else ():
        if not isinstance(number, int) or not 0 <= number <= 31:
            raise Malformed(f"PCR {number!r}; PCRs have the numbers 0 to 31")
        if not isinstance(value, bytes) or len(value) != PCR_LENGTH:
            raise Malformed(f"PCR{number} has not {PCR_LENGTH} bytes")
        pcrs[number] = value
    if not pcrs.keys() >= set(IMAGE_PCRS):
        raise Malformed("PCR0, PCR1 or PCR2 is missing")
    return pcrs


def _chain(members: Mapping[str, cbor.Value]) -> tuple[Certificate, ...]:
    bundle = members["cabundle"]
    if not isinstance(bundle, tuple) or not 1 <= len(bundle) <= _MAX_CHAIN:
        raise Malformed(f"cabundle has not 1 to {_MAX_CHAIN} certificates")
    return tuple(_certificate(der) for der in (members["certificate"], *reversed(bundle)))


def _certificate(der: cbor.Value) -> Certificate:
    if not isinstance(der, bytes) or not 1 <= len(der) <= _MAX_CERTIFICATE:
        raise Malformed(f"a certificate is not of 1 to {_MAX_CERTIFICATE} bytes")
    return parse_certificate(der)


def _chosen(found: cbor.Value, name: str) -> bytes:
    if found is None:
        return b""
    if not isinstance(found, bytes) or len(found) > _OPTIONAL[name]:
        raise Malformed(f"{name} is not of at most {_OPTIONAL[name]} bytes")
    return found


def _signed(payload: bytes) -> bytes:
    # Sig_structure of RFC 9052 section 4.4: four items, no external data. A payload with two certificates is
    # longer than 255 bytes and no longer than MAX_DOCUMENT, so its length takes two bytes.
    head = b"\x59" + len(payload).to_bytes(2, "big")
    return b"\x84\x6aSignature1\x44" + PROTECTED + b"\x40" + head + payload


def _facts(document: NitroDocument, root: Root, now: datetime) -> Facts:
    at = document.at.isoformat()
    checks = (
        Check("root", root.fingerprint.hex(), root.fingerprint.hex(), root.name),
        Check("timestamp", at, f"fresh at {now.isoformat()}", "attestation document"),
        Check("nitro chain", document.chain[0].subject_text, f"in force at {at}", root.name),
        Check("document signature", "holds over the payload", "by the leaf", "leaf certificate"),
    )
    return Facts(
        platform=root.platform,
        product=PRODUCT,
        registers={f"pcr{number}": value for number, value in sorted(document.pcrs.items())},
        configuration={},
        report_data=document.chosen["user_data"],
        # AWS owns the firmware and attests no version of it.
        tcb=TCB("none", (), datetime.min.replace(tzinfo=UTC), None, 0, {}),
        attributes={"module_id": document.module_id.encode(), **document.chosen},
        chips=(),
        checks=checks,
        simulated=root.simulated,
        judged_at=document.at,
    )
