"""What evidence says, field by field, for ``quotary quote inspect``: parsed, and believed by nobody."""

import json
from collections.abc import Mapping

from quotary.attestation.hcl import HCLReport
from quotary.attestation.nitro import NitroDocument
from quotary.attestation.nras import Bundle
from quotary.attestation.quote import (
    AZURE,
    NITRO,
    NVIDIA_REPORT,
    NVIDIA_TOKEN,
    SGX,
    SNP,
    TDX,
    device_evidence,
    recognise,
)
from quotary.attestation.sgx import SGXQuote
from quotary.attestation.snp import SNPReport
from quotary.attestation.spdm import DeviceReport
from quotary.attestation.tdx import TDXQuote
from quotary.cli.output import word

Fields = Mapping[str, str]


def fields_of(data: bytes) -> tuple[str, Fields]:
    """Name the evidence in a line, and give its fields as text, bytes in hex; raises as its parser does."""
    kind = recognise(data)
    if kind == TDX:
        quote = TDXQuote.parse(data)
        return f"TDX quote, version {quote.version}", _hex(quote.body)
    if kind == SGX:
        return "SGX quote, version 3", _hex(SGXQuote.parse(data).body)
    if kind == SNP:
        return _snp(data)
    if kind == NITRO:
        return _nitro(data)
    if kind == AZURE:
        report = HCLReport.parse(data)
        rest = {"hardware": report.hardware.hex(), "runtime": report.runtime.decode()}
        return f"Azure HCL report over {report.platform}", rest
    if kind == NVIDIA_REPORT:
        return "NVIDIA report", _device(DeviceReport.parse(data))
    if kind == NVIDIA_TOKEN:
        return _token(Bundle.parse(data))
    evidence = device_evidence(data, {})
    found = {}
    for index, item in enumerate(evidence):
        found[f"{index} certificate"] = item.chain[0].subject_text
        found |= {f"{index} {name}": value for name, value in _device(item.report).items()}
    return f"NVIDIA evidence, {len(evidence)} devices", found


def _token(bundle: Bundle) -> tuple[str, Fields]:
    tokens = {"overall": bundle.overall} | {name: token for name, (token, _) in bundle.devices.items()}
    found = {
        f"{name} {claim}": word(json.dumps(value))
        for name, token in tokens.items()
        for claim, value in sorted({"kid": token.key_id, **token.claims}.items())
    }
    return f"token of NVIDIA's attestation service, {len(bundle.devices)} devices", found


def _snp(data: bytes) -> tuple[str, Fields]:
    report = SNPReport.parse(data)
    shown = {name: value for name, value in report.fields.items() if not name.startswith("reserved")}
    return f"SEV-SNP report, version {report.version}, signed by a {report.signing_key}", _hex(shown)


def _nitro(data: bytes) -> tuple[str, Fields]:
    document = NitroDocument.parse(data)
    found = {"module_id": document.module_id, "timestamp": document.at.isoformat()}
    found |= {f"pcr{number}": value.hex() for number, value in sorted(document.pcrs.items())}
    return "Nitro document", found | _hex(document.chosen)


def _device(report: DeviceReport) -> dict[str, str]:
    found = {"nonce": report.nonce.hex()}
    found |= {f"measurement {index}": value.hex() for index, value in enumerate(report.blocks)}
    return found | {f"opaque {kind}": value.hex() for kind, value in sorted(report.opaque.items())}


def _hex(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.hex() for name, value in values.items()}
