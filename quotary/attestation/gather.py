"""Collateral out of what a vendor's services answered: which documents evidence needs, and their members.

Pure: who calls brings the documents, by their paths as a registry names them (docs/formats/collateral.md).
Nothing here is believed; ``verify`` checks the vendor's signatures.
"""

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from quotary.attestation import amd
from quotary.attestation.dcap import PCKExtension
from quotary.attestation.quote import SGX, SNP, TDX, recognise
from quotary.attestation.sgx import SGXQuote
from quotary.attestation.snp import SNPReport
from quotary.attestation.tdx import TDXQuote
from quotary.errors import CannotTell

TCB_CHAIN, QE_CHAIN = "tcb-info-issuer-chain", "sgx-enclave-identity-issuer-chain"
CRL_CHAIN = "sgx-pck-crl-issuer-chain"

Document = tuple[Mapping[str, str], bytes]
"""Headers, by lower-case name, and body."""

_SIGNED = r'\{"%s":(\{.*\}),"signature":"([0-9a-f]{128})"\}'


def product_of(data: bytes) -> tuple[str, str]:
    """Give platform and product of some evidence as a registry names them."""
    kind = recognise(data)
    if kind == TDX:
        chain = TDXQuote.parse(data).section.pck_chain
        return "tdx", PCKExtension.parse(chain[0]).fmspc.hex()
    if kind == SGX:
        chain = SGXQuote.parse(data).section.pck_chain
        return "sgx", PCKExtension.parse(chain[0]).fmspc.hex()
    if kind == SNP:
        return "snp", endorsable(SNPReport.parse(data)).name
    raise CannotTell(f"a registry keeps no documents beside evidence of the kind {kind}")


def endorsable(report: SNPReport) -> amd.Product:
    """Give the product whose key server has the report's certificate, or raise ``CannotTell``."""
    if report.signing_key != amd.VCEK:
        raise CannotTell(f"AMD publishes no certificate of a {report.signing_key}; its cloud hands it out")
    if report.product is None:
        raise CannotTell("a report of version 2 does not say which product it is of; give its collateral")
    if not any(report.fields["chip_id"]):
        raise CannotTell("the report's chip id is masked; its certificate cannot be asked for")
    return report.product


def intel_members(quote: TDXQuote | SGXQuote, ask: Callable[[str], Document]) -> dict[str, str]:
    """Give the nine members of a quote's collateral, for its TEE, its machine and its PCK CA."""
    chain = quote.section.pck_chain
    base = f"intel/{'sgx' if isinstance(quote, SGXQuote) else 'tdx'}/certification/v4"
    fmspc = PCKExtension.parse(chain[0]).fmspc.hex()
    ca = "platform" if "Platform" in chain[1].common_name else "processor"
    tcb, qe = ask(f"{base}/tcb?fmspc={fmspc}"), ask(f"{base}/qe/identity")
    crl = ask(f"intel/sgx/certification/v4/pckcrl?ca={ca}&encoding=der")
    tcb_info, tcb_signature = _signed(tcb, "tcbInfo")
    identity, identity_signature = _signed(qe, "enclaveIdentity")
    return {
        "tcb_info": tcb_info,
        "tcb_info_signature": tcb_signature,
        "tcb_info_issuer_chain": _chain(tcb, TCB_CHAIN),
        "qe_identity": identity,
        "qe_identity_signature": identity_signature,
        "qe_identity_issuer_chain": _chain(qe, QE_CHAIN),
        "pck_crl": crl[1].hex(),
        "pck_crl_issuer_chain": _chain(crl, CRL_CHAIN),
        "root_ca_crl": ask("intel_crl")[1].hex(),
    }


def _signed(document: Document, name: str) -> tuple[str, str]:
    # The signature is over the exact bytes of the member, so that it is cut out and not parsed.
    try:
        match = re.fullmatch(_SIGNED % name, document[1].decode("utf-8").strip(), re.DOTALL)
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise CannotTell(f"the service answers with something else than a signed {name}")
    return match[1], match[2]


def _chain(document: Document, header: str) -> str:
    if header not in document[0]:
        raise CannotTell(f"the service sends no header {header}")
    return unquote(document[0][header])
