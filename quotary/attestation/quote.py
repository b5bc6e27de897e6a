"""Evidence by itself: which platform's it is, and what its vendor signed, without log, release or policy.

Which format some bytes have is read from the bytes; whose they are is decided by the root that verified them.
Collateral is a JSON object of texts whose members depend on the format (``docs/evidence.md`` and
``docs/evidence-snp-nitro-nvidia.md``): Intel's nine documents; AMD's ``chain`` and ``crl``; for NVIDIA any
number of reference manifests, of answers about certificates as ``ocsp:…`` in base64, and ``chain`` where the
report comes without its list; for a token of NVIDIA's service its key set ``jwks``; for Azure what the
hardware needs, and the ``quote`` in hex where that is TDX.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from quotary.attestation import amd, devices, hcl, nitro, nras, nvidia, rim, sgx, snp, tdx
from quotary.attestation.collateral import Collateral
from quotary.attestation.devices import DeviceEvidence
from quotary.attestation.facts import Check, Facts
from quotary.attestation.nvidia import DeviceFacts
from quotary.attestation.ocsp import Answer
from quotary.attestation.roots import Root
from quotary.attestation.spdm import DeviceReport
from quotary.canonical import hexbytes, unb64
from quotary.errors import CannotTell, Malformed

TDX, SGX, SNP, NITRO, AZURE = "tdx", "sgx", "snp", "nitro", "azure"
NVIDIA_REPORT, NVIDIA_LIST, NVIDIA_TOKEN = "nvidia report", "nvidia list", "nvidia token"
OCSP, QUOTE, KEY_SET = "ocsp:", "quote", "jwks"
NOT_CHECKED = "not checked"
_TOKEN = re.compile(rb'\s*\[\s*\[\s*"JWT"')
MANIFEST_WANTED = "the values of signed reference manifests"


@dataclass(frozen=True, slots=True)
class Terms:
    """What evidence is held against.

    roots:   whom it may be signed by
    now:     the time that certificates, lists and documents must be in force at
    max_age: how old a document may be that carries its own time (Nitro)
    nonces:  32 bytes for each NVIDIA device in order; empty leaves their freshness unchecked
    """

    roots: Sequence[Root]
    now: datetime
    max_age: timedelta
    nonces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What the vendor signed.

    facts:   None for NVIDIA evidence, which has ``devices`` or ``claims`` instead
    claims:  what NVIDIA's service says that it found; no device's evidence was verified
    """

    kind: str
    facts: Facts | None
    devices: tuple[DeviceFacts, ...]
    checks: tuple[Check, ...]
    claims: nras.Claims | None = None

    @property
    def simulated(self) -> bool:
        """Say whether any of it was signed under a simulator's root."""
        parts = (self.facts, *self.devices, self.claims)
        return any(part.simulated for part in parts if part is not None)


def recognise(data: bytes) -> str:
    """Name the format of some evidence by its first bytes, or raise ``Malformed``."""
    if data.startswith(b"HCLA"):
        return AZURE
    if data.startswith(b"\x11\xe0"):
        return NVIDIA_REPORT
    if _TOKEN.match(data[:64]):
        return NVIDIA_TOKEN
    if data[:64].lstrip().startswith(b"["):
        return NVIDIA_LIST
    if data.startswith((b"\x84\x44", b"\xd2\x84")):
        return NITRO
    version, key, tee = (int.from_bytes(data[at:end], "little") for at, end in ((0, 2), (2, 4), (4, 8)))
    if key == 0 and 2 <= version <= 5:
        return SNP
    if tee == sgx.TEE_SGX and key in (2, 3) and version in (3, 4, 5):
        return SGX
    if tee == tdx.TEE_TDX or key in (2, 3):
        return TDX
    raise Malformed("no evidence of a known kind (TDX, SGX, SEV-SNP, Nitro, NVIDIA, Azure HCL)")


def verify_quote(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    """Believe evidence of whatever format, or raise what its platform's ``verify`` raises."""
    kind = recognise(data)
    if kind in (TDX, SGX, SNP, AZURE) and not members:
        raise CannotTell(f"{kind} evidence needs its vendor's documents", next_command="add --fetch")
    return _VERIFIERS[kind](data, members, terms)


def device_evidence(data: bytes, members: Mapping[str, str]) -> tuple[DeviceEvidence, ...]:
    """Read NVIDIA evidence: a list, or one bare report whose chain is the collateral's ``chain``."""
    if recognise(data) == NVIDIA_LIST:
        return devices.parse_evidence(data)
    if "chain" not in members:
        raise CannotTell("a bare NVIDIA report needs collateral with its chain")
    report = DeviceReport.parse(data)
    return (DeviceEvidence(report, nvidia.parse_device_chain(members["chain"].encode())),)


def manifests_of(members: Mapping[str, str]) -> tuple[rim.RIMDocument, ...]:
    """Read the reference manifests among NVIDIA's collateral."""
    texts = (text for name, text in sorted(members.items()) if name != "chain" and not name.startswith(OCSP))
    return tuple(rim.RIMDocument.parse(text.encode()) for text in texts)


def find_manifest(manifests: Sequence[rim.RIM], device: DeviceFacts, version: str) -> rim.RIM | None:
    """Give the manifest that is for a device's driver or VBIOS version, or None."""
    wanted = device.architecture, version.upper()
    return next((found for found in manifests if (found.product, found.version.upper()) == wanted), None)


def _tdx(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    quote = tdx.TDXQuote.parse(data)
    facts = tdx.verify(quote, Collateral.parse(members), terms.now, terms.roots)
    return Verified(TDX, facts, (), facts.checks)


def _sgx(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    facts = sgx.verify(sgx.SGXQuote.parse(data), Collateral.parse(members), terms.now, terms.roots)
    return Verified(SGX, facts, (), facts.checks)


def _snp(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    report = snp.SNPReport.parse(data)
    facts = snp.verify(report, amd.Collateral.parse(members), terms.now, terms.roots)
    return Verified(SNP, facts, (), facts.checks)


def _nitro(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    document = nitro.NitroDocument.parse(data)
    if members:
        raise Malformed("a Nitro document carries its certificates; it takes no collateral")
    facts = nitro.verify(document, terms.now, terms.max_age, terms.roots)
    return Verified(NITRO, facts, (), facts.checks)


def _azure(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    report = hcl.HCLReport.parse(data)
    rest = dict(members)
    if report.platform == SNP:
        inner = _snp(report.hardware, rest, terms)
    else:
        text = rest.pop(QUOTE, None)
        if text is None:
            raise CannotTell("Azure's report holds a TD report; collateral needs the quote made of it")
        inner = _tdx(hexbytes(text, len(text) // 2), rest, terms)
    assert inner.facts is not None
    bound = hcl.require_bound(inner.facts, report)
    return Verified(AZURE, inner.facts, (), (*inner.checks, bound))


def _nvidia(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    evidence = device_evidence(data, members)
    nonces = terms.nonces or tuple(item.report.nonce for item in evidence)
    answers = tuple(Answer.parse(unb64(text)) for name, text in members.items() if name.startswith(OCSP))
    found = devices.verify_devices(evidence, nonces, answers, terms.now, terms.roots)
    manifests = [rim.verify(document, answers, terms.now, terms.roots) for document in manifests_of(members)]
    checks: list[Check] = []
    for device in found:
        signed = [_fresh(check) if not terms.nonces else check for check in device.checks]
        checks += [*signed, *_reference(device, manifests)]
    return Verified(recognise(data), None, found, tuple(checks))


def _nvidia_token(data: bytes, members: Mapping[str, str], terms: Terms) -> Verified:
    if members.keys() != {KEY_SET}:
        raise CannotTell("NVIDIA's token needs its service's key set", next_command="add --fetch")
    if len(terms.nonces) > 1:
        raise Malformed("a token of NVIDIA's service answers one nonce for all its devices")
    nonce = terms.nonces[0] if terms.nonces else None
    claims = nras.verify(nras.Bundle.parse(data), members[KEY_SET], nonce, terms.now, terms.roots)
    return Verified(NVIDIA_TOKEN, None, (), claims.checks, claims)


def _fresh(check: Check) -> Check:
    if check.name != "device nonce":
        return check
    return replace(check, found=f"{NOT_CHECKED}: {check.found}", wanted="a nonce of this verifier")


def _reference(device: DeviceFacts, manifests: Sequence[rim.RIM]) -> tuple[Check, ...]:
    """Hold a device against the manifests that are for its versions; a missing one is no check."""
    driver = find_manifest(manifests, device, device.driver) if device.kind == "gpu" else None
    vbios = find_manifest(manifests, device, device.vbios)
    if vbios is None or (driver is None and device.kind == "gpu"):
        ids = [nvidia.vbios_rim_id(device)]
        ids += [nvidia.driver_rim_id(device)] if device.kind == "gpu" else []
        return (Check("golden values", f"{NOT_CHECKED}: needs {', '.join(ids)}", MANIFEST_WANTED, "none"),)
    return rim.match(device, driver, vbios)


_VERIFIERS: Mapping[str, Callable[[bytes, Mapping[str, str], Terms], Verified]] = MappingProxyType(
    {
        TDX: _tdx,
        SGX: _sgx,
        SNP: _snp,
        NITRO: _nitro,
        AZURE: _azure,
        NVIDIA_REPORT: _nvidia,
        NVIDIA_LIST: _nvidia,
        NVIDIA_TOKEN: _nvidia_token,
    }
)
