"""Reports of a simulated SEV-SNP machine: version 5, byte for byte what a Genoa processor would send.

AMD 56860, table "ATTESTATION_REPORT"; AMD 57230 for the certificates. Two things differ from AMD on purpose:
every certificate is marked as simulated, and serial numbers are not zero, which the signing library refuses.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from quotary.attestation import snp
from quotary.attestation.amd import GENOA
from simulator.keys import Signer, Wish, issue, open_signers, pss, sign_p384

VERSION = 5
CPUID = (0x19, 0x11, 0x01)
CHIP_PREFIX = bytes.fromhex("ff53494d534e5043")  # 0xff "SIMSNPC": reserved for simulators
CA_LIFE, VCEK_LIFE, CRL_LIFE = timedelta(days=3650), timedelta(days=365), timedelta(days=30)
GUEST_POLICY = 0x30000  # SMT allowed, and the bit that is always one: what clouds launch
ALIAS_CHECK = 1 << 5

_OID = "1.3.6.1.4.1.3704.1"
_RSA_BITS = 4096


@dataclass(frozen=True, slots=True)
class SNPTCB:
    """The firmware level that the machine says it has; 0 to 255 each."""

    bootloader: int = 10
    tee: int = 0
    snp: int = 27
    microcode: int = 84

    @property
    def version(self) -> bytes:
        return bytes([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode])


@dataclass(frozen=True, slots=True)
class SNPVendor:
    """One installation's AMD: root, intermediate, and one chip with its identity of 64 bytes."""

    ark: Signer
    ask: Signer
    chip: ec.EllipticCurvePrivateKey
    hwid: bytes

    @property
    def root_sha256(self) -> bytes:
        """What a simulation policy pins as ``simulator_root_sha256``."""
        return hashlib.sha256(self.ark.der).digest()


def open_snp_vendor(directory: Path, now: datetime) -> SNPVendor:
    """Load the vendor of this directory, or make it: two RSA keys of 4096 bits take seconds, once."""
    found = open_signers(directory, lambda: _create(now))
    chip = found["vcek"]
    assert isinstance(chip.key, ec.EllipticCurvePrivateKey)
    hwid = chip.certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(f"{_OID}.4")).value
    assert isinstance(hwid, x509.UnrecognizedExtension)
    return SNPVendor(found["ark"], found["ask"], chip.key, hwid.value)


class SNPPlatform:
    """One simulated machine between two starts: its TCB level and the VCEK certificate of that level."""

    def __init__(self, vendor: SNPVendor, tcb: SNPTCB, now: datetime) -> None:
        self._vendor = vendor
        self._tcb = tcb
        vcek = issue(_wish(tcb, vendor.hwid), vendor.chip, vendor.ask, now)
        crl = _revocation_list(vendor.ark, now)
        self.collateral: Mapping[str, str] = {
            "chain": vcek.pem + vendor.ask.pem + vendor.ark.pem,
            "crl": crl.hex(),
        }

    def report(
        self, measurement: bytes, host_data: bytes, report_data: bytes, policy: int = GUEST_POLICY
    ) -> bytes:
        """Sign 48 bytes that were measured, 32 of the host's and 64 of the guest's."""
        layout = snp.LAYOUTS[VERSION]
        values = {field.name: bytes(field.length) for field in layout.fields if not field.reserved}
        values |= {f"{name}_tcb": self._tcb.version for name in snp.TCBS}
        values |= {
            "version": VERSION.to_bytes(4, "little"),
            "signature_algorithm": snp.ECDSA_P384.to_bytes(4, "little"),
            "policy": policy.to_bytes(8, "little"),
            "platform_info": ALIAS_CHECK.to_bytes(8, "little"),
            "measurement": measurement,
            "host_data": host_data,
            "report_data": report_data,
            "chip_id": self._vendor.hwid,
        }
        names = ("cpuid_family", "cpuid_model", "cpuid_stepping")
        values |= {name: bytes([value]) for name, value in zip(names, CPUID, strict=True)}
        signed = layout.write(values)[: snp.SIGNED_LENGTH]
        r, s = sign_p384(self._vendor.chip, signed)
        signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return (signed + signature).ljust(snp.REPORT_LENGTH, b"\0")


def _create(now: datetime) -> dict[str, Signer]:
    def key() -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(65537, _RSA_BITS)

    ark = issue(Wish("ARK-Genoa", CA_LIFE), key(), None, now)
    ask = issue(Wish("SEV-Genoa", CA_LIFE, path_length=0), key(), ark, now)
    chip = CHIP_PREFIX + secrets.token_bytes(56)
    vcek = issue(_wish(SNPTCB(), chip), ec.generate_private_key(ec.SECP384R1()), ask, now)
    return {"ark": ark, "ask": ask, "vcek": vcek}


def _wish(tcb: SNPTCB, hwid: bytes) -> Wish:
    return Wish("SEV-VCEK", VCEK_LIFE, ca=False, extensions=_endorsement(tcb, hwid), bare=True)


def _endorsement(tcb: SNPTCB, hwid: bytes) -> dict[str, bytes]:
    found = {f"{_OID}.1": b"\x02\x01\x00", f"{_OID}.2": b"\x16\x05Genoa", f"{_OID}.4": hwid}
    for number, value in zip(GENOA.extensions, tcb.version, strict=True):
        content = value.to_bytes(value.bit_length() // 8 + 1, "big")
        found[f"{_OID}.3.{number}"] = bytes([2, len(content)]) + content
    return found


def _revocation_list(ark: Signer, now: datetime) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ark.certificate.subject)
        .last_update(now)
        .next_update(now + CRL_LIFE)
    )
    assert isinstance(ark.key, rsa.RSAPrivateKey)
    signed = builder.sign(ark.key, hashes.SHA384(), rsa_padding=pss())
    return signed.public_bytes(serialization.Encoding.DER)
