"""NVIDIA's reference integrity manifests: signed XML with the measurements that firmware must have.

TCG Reference Integrity Manifest (SWID tag, ISO 19770-2) under an enveloped XML signature (W3C xmldsig-core1):
digest SHA-384, ECDSA P-384, canonical XML 1.1. Only what the signature covers is read. Reference value i is
block i of a device's report.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.attestation import c14n, spdm
from quotary.attestation.certificates import Certificate, parse_certificate, verify_chain
from quotary.attestation.facts import Check
from quotary.attestation.nvidia import DeviceFacts, driver_rim_id, revocation_check, vbios_rim_id
from quotary.attestation.ocsp import Answer, good_until
from quotary.attestation.p384 import verify_p384
from quotary.attestation.roots import Root, select_root
from quotary.errors import Malformed, Rejected, Unsupported

PLATFORM = "nvidia-rim"
MAX_RIM = 256 * 1024
NVDEC0_OFF = b"\x55"
# The measurement of the video decoder means nothing while the decoder is off.
NVDEC0_INDEX = 35

_SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_DS = "http://www.w3.org/2000/09/xmldsig#"
_SHA384 = "http://www.w3.org/2001/04/xmlenc#sha384"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED = f"{_DS}enveloped-signature"
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_DIGEST_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_MAX_INDEX = 255
_MAX_ALTERNATIVES = 64
_REMEDY = "stop the machine fully, start it again, and ask for evidence once more"


@dataclass(frozen=True, slots=True)
class RIMDocument:
    """A well-formed manifest that nobody believes yet.

    sha256:      32 bytes over the file: what a log keeps beside its id, because editions are re-issued
    signed_info: the exact canonical bytes under the signature
    digest:      48 bytes that the signature commits to; content: the canonical bytes that must have it
    chain:       signer to root
    product, version: what the manifest says it is for
    golden:      the admitted values of 48 bytes of each active index
    """

    sha256: bytes
    signed_info: bytes
    signature: bytes
    digest: bytes
    content: bytes
    chain: tuple[Certificate, ...]
    product: str
    version: str
    golden: Mapping[int, tuple[bytes, ...]]

    @classmethod
    def parse(cls, data: bytes) -> "RIMDocument":
        """Read a manifest of at most ``MAX_RIM`` bytes; raises ``Malformed`` or ``Unsupported``."""
        root = c14n.parse(data, MAX_RIM)
        if (root.namespace, root.local) != (_SWID, "SoftwareIdentity"):
            raise Malformed("not a SoftwareIdentity")
        # One signature, a child of the root: anything else could be read and signed in different places.
        if sum((element.namespace, element.local) == (_DS, "Signature") for element in root.all()) != 1:
            raise Malformed("a manifest has exactly one signature")
        signature = root.only(_DS, "Signature")
        info = signature.only(_DS, "SignedInfo")
        meta = root.only(_SWID, "Meta")
        return cls(
            hashlib.sha256(data).digest(),
            c14n.canonical(info),
            _base64(signature.only(_DS, "SignatureValue")),
            _reference(info),
            c14n.canonical(root, without=signature),
            _chain(signature),
            meta.value("product"),
            meta.value("colloquialVersion"),
            _golden(root.only(_SWID, "Payload")),
        )


@dataclass(frozen=True, slots=True)
class RIM:
    """A manifest after verification; members as in ``RIMDocument``.

    good_until: until when NVIDIA's answers say that it took no certificate back; None where none were there
    """

    platform: str
    sha256: bytes
    product: str
    version: str
    golden: Mapping[int, tuple[bytes, ...]]
    signer: str
    good_until: datetime | None


def verify(document: RIMDocument, answers: Sequence[Answer], now: datetime, roots: Sequence[Root]) -> RIM:
    """Believe a manifest at this time, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; its chain ends in one of ``roots``, in force.
    2. The signer signed the reference (check ``rim signature``).
    3. The reference is the digest of the manifest without its signature (``rim digest``).
    4. The vendor took no certificate back, as far as there are ``answers`` of its OCSP responder.
    """
    root = select_root(roots, PLATFORM, document.chain)
    verify_chain("rim chain", document.chain, root.fingerprint, now)
    signer = document.chain[0]
    if signer.is_ca:
        raise Rejected("rim chain", f"signer {signer.subject_text} is a CA", "an end certificate")
    verify_p384("rim signature", signer.key, document.signature, document.signed_info)
    found = hashlib.sha384(document.content).digest()
    if not hmac.compare_digest(found, document.digest):
        raise Rejected("rim digest", found.hex(), f"{document.digest.hex()} of the signature")
    return RIM(
        root.platform,
        document.sha256,
        document.product,
        document.version,
        document.golden,
        signer.subject_text,
        good_until("rim revocation", document.chain, answers, now),
    )


def match(device: DeviceFacts, driver: RIM | None, vbios: RIM) -> tuple[Check, ...]:
    """Hold a device's measurements against its manifests, or raise ``Rejected``.

    driver: the GPU driver's manifest; None for a switch, which has one manifest only
    1. Each manifest is for this architecture and version (check ``rim meta``): NVIDIA signs many.
    2. No index is active in both (``rim overlap``).
    3. Every active index has one of its admitted values (``golden values``).
    """
    if (driver is None) != (device.kind == "switch"):
        raise Malformed("a GPU is held against two manifests, a switch against one")
    rows = [(vbios, vbios_rim_id(device), device.vbios)]
    if driver is not None:
        rows.append((driver, driver_rim_id(device), device.driver))
    golden: dict[int, tuple[bytes, ...]] = {}
    for rim, name, version in rows:
        _require_meta(rim, device, name, version)
        twice = sorted(golden.keys() & rim.golden.keys())
        if twice:
            raise Rejected("rim overlap", f"index {twice[0]} active in both", "each index in one manifest")
        golden |= rim.golden
    held = _require_golden(device, golden)
    anchors = ", ".join(f"{name} {rim.sha256.hex()}" for rim, name, _ in rows)
    names = ", ".join(name for _, name, _ in rows)
    return (
        Check("rim meta", f"{device.architecture} {device.driver} {device.vbios}".strip(), names, anchors),
        *(revocation_check("rim revocation", rim.good_until, name) for rim, name, _ in rows),
        Check("golden values", f"{held} match", "every active index", anchors),
    )


def mismatches(device: DeviceFacts, golden: Mapping[int, tuple[bytes, ...]]) -> tuple[int, ...]:
    """Name the active indexes whose value is none of the admitted ones; a missing block is one of them."""
    found = []
    for index, values in sorted(golden.items()):
        if index == NVDEC0_INDEX and device.opaque.get(spdm.NVDEC0) == NVDEC0_OFF:
            continue
        if index >= len(device.blocks) or device.blocks[index] not in values:
            found.append(index)
    return tuple(found)


def _require_meta(rim: RIM, device: DeviceFacts, name: str, version: str) -> None:
    simulated = rim.platform.startswith("sim-")
    found, wanted = (rim.product, rim.version.upper()), (device.architecture, version.upper())
    if found != wanted or simulated != device.simulated:
        kind = "simulated " if simulated else ""
        raise Rejected("rim meta", f"{kind}{rim.product} {rim.version}", f"{' '.join(wanted)} ({name})")


def _require_golden(device: DeviceFacts, golden: Mapping[int, tuple[bytes, ...]]) -> int:
    bad = mismatches(device, golden)
    if bad:
        indexes = ", ".join(str(index) for index in bad)
        raise Rejected(
            "golden values",
            f"another value at index {indexes}",
            "the manifests' values",
            next_command=_REMEDY,
        )
    if not golden:
        raise Rejected("golden values", "no active index", "reference values")
    return len(golden)


def _reference(info: c14n.Element) -> bytes:
    reference = info.only(_DS, "Reference")
    transforms = reference.only(_DS, "Transforms").elements
    methods = [
        info.only(_DS, "CanonicalizationMethod"),
        info.only(_DS, "SignatureMethod"),
        *transforms,
        reference.only(_DS, "DigestMethod"),
    ]
    found = [method.value("Algorithm") for method in methods]
    if found != [_C14N, _ECDSA_SHA384, _ENVELOPED, _C14N, _DIGEST_SHA384] or reference.value("URI"):
        raise Unsupported(f"the manifest is signed in another way: {', '.join(found)}"[:300])
    if any(method.elements for method in methods) or len(info.elements) != 3 or len(reference.elements) != 3:
        raise Unsupported("the manifest's signature has parts that are not known")
    return _base64(reference.only(_DS, "DigestValue"))


def _chain(signature: c14n.Element) -> tuple[Certificate, ...]:
    data = signature.only(_DS, "KeyInfo").only(_DS, "X509Data")
    found = data.named(_DS, "X509Certificate")
    if not 2 <= len(found) <= 6:
        raise Malformed(f"the manifest has {len(found)} certificates, 2 to 6 are allowed")
    return tuple(parse_certificate(_base64(element)) for element in found)


def _base64(element: c14n.Element) -> bytes:
    if element.elements:
        raise Malformed(f"element {element.written} has children")
    try:
        return base64.b64decode("".join(element.text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"element {element.written} is not base64") from error


def _golden(payload: c14n.Element) -> dict[int, tuple[bytes, ...]]:
    found: dict[int, tuple[bytes, ...]] = {}
    seen = set()
    for resource in payload.named(_SWID, "Resource"):
        index = _number(resource.value("index"), _MAX_INDEX)
        if index in seen or resource.value("type") != "Measurement" or resource.value("size") != "48":
            raise Malformed(f"reference value {index} is there twice or is no digest of 48 bytes")
        seen.add(index)
        count = _number(resource.value("alternatives"), _MAX_ALTERNATIVES)
        values = tuple(_hash(resource.value(f"Hash{number}", _SHA384)) for number in range(count))
        active = resource.value("active")
        if active not in ("True", "False") or not values:
            raise Malformed(f"reference value {index} is neither active nor inactive, or has no value")
        if active == "True":
            found[index] = values
    return found


def _number(text: str, high: int) -> int:
    if re.fullmatch(r"0|[1-9][0-9]{0,3}", text, re.ASCII) is None or int(text) > high:
        raise Malformed(f"{text[:20]!r} is not a number up to {high}")
    return int(text)


def _hash(text: str) -> bytes:
    if re.fullmatch(r"[0-9a-fA-F]{96}", text) is None:
        raise Malformed("a reference value is not 48 bytes in hex")
    return bytes.fromhex(text)
