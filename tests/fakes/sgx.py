"""Quotes of SGX enclaves by the vendor of ``vendor.py``: the same recipes, in the form that enclaves have."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from quotary.attestation import dcap, sgx
from tests.fakes import vendor
from tests.fakes.vendor import Evidence, Recipe, raw_signature, signature_tail

ATTRIBUTES = bytes.fromhex("0500000000000000e700000000000000")
_OUTER_CERTIFICATION = slice(64, 70)


def as_tcb_info(document: dict) -> None:
    document["id"] = "SGX"
    for name in ("tdxModule", "tdxModuleIdentities"):
        del document[name]
    for level in document["tcbLevels"]:
        del level["tcb"]["tdxtcbcomponents"]


Chain = Mapping[str, x509.Certificate]


def make(
    recipe: Recipe,
    body: Mapping[str, bytes] | None = None,
    header: Mapping[str, bytes] | None = None,
    chain: Chain | None = None,
) -> Evidence:
    """Follow a recipe as far as it is about what TDX and SGX share; body, header: fields that are otherwise."""
    recipe = _for_enclaves(recipe)
    chain = chain or vendor.certificates(recipe)
    signed = sgx.HEADER.write(
        {
            "version": b"\3\0",
            "attestation_key_type": b"\2\0",
            "tee_type": bytes(4),
            "qe_svn": b"\x09\0",
            "pce_svn": b"\x0d\0",
            "qe_vendor_id": dcap.INTEL_QE_VENDOR,
            "user_data": bytes(20),
            **(header or {}),
        }
    )
    report = {part.name: bytes(part.length) for part in dcap.SGX_REPORT.fields if not part.reserved}
    report |= {"attributes": ATTRIBUTES, "mr_enclave": b"\x77" * 32, "mr_signer": b"\x66" * 32}
    signed += dcap.SGX_REPORT.write(report | dict(body or {}))
    tail = signature_tail(recipe, chain)
    section = (
        raw_signature(recipe.quote_key, signed)
        + tail[: _OUTER_CERTIFICATION.start]
        + tail[_OUTER_CERTIFICATION.stop :]
    )
    root = hashlib.sha256(chain["root"].public_bytes(serialization.Encoding.DER)).digest()
    quote = signed + struct.pack("<I", len(section)) + section
    return Evidence(quote, vendor.make_collateral(recipe, chain), root)


def _for_enclaves(recipe: Recipe) -> Recipe:
    def info(document: dict) -> None:
        as_tcb_info(document)
        recipe.tcb_info(document)

    def identity(document: dict) -> None:
        document["id"] = "QE"
        recipe.qe_identity(document)

    return replace(recipe, tcb_info=info, qe_identity=identity)


@dataclass(slots=True)
class SGXMachine:
    """One machine and its vendor, as a world needs them; body: fields that are otherwise."""

    body: Mapping[str, bytes] = field(default_factory=dict)
    chain: Chain = field(default_factory=lambda: vendor.certificates(Recipe()))

    @property
    def root_sha256(self) -> bytes:
        return make(Recipe(), chain=self.chain).root

    @property
    def collateral(self) -> Mapping[str, str]:
        return make(Recipe(), chain=self.chain).collateral

    def quote(self, registers: Mapping[str, bytes], report_data: bytes) -> bytes:
        fields = {"mr_enclave": registers["mrenclave"], "report_data": report_data, **self.body}
        return make(Recipe(), fields, chain=self.chain).quote
