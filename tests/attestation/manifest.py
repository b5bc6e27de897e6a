"""Every file of real evidence, judged at its time by what kind of file it is; one word says how that ended.

``accepted``, a vendor's status, the name of the check that refused, ``malformed`` or ``unsupported``. The
facts beside the files (times, collateral, origins) are those of the collection's own manifest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import (
    amd,
    hcl,
    nitro,
    nras,
    nvidia,
    rim,
    sgx,
    sgx_appraisal,
    snp,
    snp_appraisal,
    tdx,
)
from quotary.attestation.appraise import appraise
from quotary.attestation.certificates import (
    Certificate,
    RevocationList,
    parse_certificate,
    parse_chain,
    verify_chain,
    verify_p256,
)
from quotary.attestation.collateral import Collateral, verify_collateral
from quotary.attestation.devices import parse_evidence, verify_devices
from quotary.attestation.facts import Facts
from quotary.attestation.measure import ccel
from quotary.attestation.measure.events import verify_replay
from quotary.attestation.roots import (
    INTEL_ENCLAVE_ROOT,
    INTEL_SGX_ROOT,
    NVIDIA_DEVICE_ROOT,
    VENDOR_ROOTS,
    select_root,
)
from quotary.attestation.spdm import DeviceReport
from quotary.errors import Judged, Malformed, Unsupported
from tests.attestation.rules import ANYTHING, EVERYTHING, ROW, Mask, Row

FOLDERS = ("tdx/", "sgx/", "snp/", "nitro/", "nvidia/", "collateral/", "roots/")
ACCEPTED, MALFORMED, UNSUPPORTED = "accepted", "malformed", "unsupported"
# For files that have no time of their own: every certificate beside them is in force.
NOW = datetime(2026, 7, 1, tzinfo=UTC)

_PADDED_TWIN = "tdx/v4-00806f05-gcp-cos113-uptodate-then-outofdate.quote"
_SMT = Mask((1 << 16).to_bytes(8, "little"), (1 << 16).to_bytes(8, "little"))


@dataclass(frozen=True)
class Entry:
    """One file of the collection, what the manifest says of it, and other bytes that it is to have."""

    vectors: Path
    said: Mapping[str, Any]
    changed: bytes | None = None

    @property
    def file(self) -> str:
        return str(self.said["file"])

    @property
    def data(self) -> bytes:
        return (self.vectors / self.file).read_bytes() if self.changed is None else self.changed

    @property
    def origin(self) -> "Entry":
        """The real file that a derived one was made from, or the file itself."""
        return entries(self.vectors)[self.said.get("derived_from", self.file)]

    @property
    def inside(self) -> datetime:
        """A time at which everything in the file is in force."""
        found = self.origin.said
        return datetime.fromisoformat(found["valid_from"]) if "valid_from" in found else NOW


@dataclass(frozen=True)
class Run:
    """One time at which a quote is judged, under which collateral."""

    collateral: Collateral
    at: datetime


def entries(vectors: Path) -> dict[str, Entry]:
    found = json.loads((vectors / "manifest.json").read_text())["files"]
    return {item["file"]: Entry(vectors, item) for item in found if item["file"].startswith(FOLDERS)}


def outcomes(entry: Entry) -> tuple[str, ...]:
    """Judge a file at each of its times."""
    return tuple(outcome(entry, run) for run in runs(entry))


def outcome(entry: Entry, run: Run | None) -> str:
    """Judge a file at one of its times."""
    return _word(lambda: _JUDGES[entry.said["kind"]](entry, run))


def runs(entry: Entry) -> tuple[Run | None, ...]:
    """Give the times of a quote; of other files there is one, which is their own."""
    found = entry.origin.said.get("runs", ())
    if entry.file.endswith("-padded-8000.quote"):
        found = entries(entry.vectors)[_PADDED_TWIN].said["runs"]
    return tuple(
        Run(
            Collateral.parse(json.loads((entry.vectors / run["collateral"]).read_text())),
            datetime.fromtimestamp(run["at"], UTC),
        )
        for run in found
        if "collateral" in run
    ) or (None,)


def chain_of(entry: Entry) -> tuple[Certificate, ...]:
    """Give the certificates of a SEV-SNP report or certificate: its own, its issuer, the root."""
    leaf = entry.origin.file.removesuffix(".report").removesuffix(".vcek.der").removesuffix(".vlek.der")
    kind, product = ("vlek" if "vlek" in leaf else "vcek"), leaf.split("/")[1].split("-")[0]
    der = (entry.vectors / f"{leaf}.{kind}.der").read_bytes()
    above = [
        (entry.vectors / "roots" / f"amd-{which}-{product}.pem").read_bytes()
        for which in ("asvk" if kind == "vlek" else "ask", "ark")
    ]
    return parse_certificate(der), *(parse_chain(pem, 1)[0] for pem in above)


def _word(judge: Callable[[], str]) -> str:
    try:
        return judge()
    except Judged as error:
        return error.check
    except Malformed:
        return MALFORMED
    except Unsupported:
        return UNSUPPORTED


def _quote(entry: Entry, run: Run | None) -> str:
    if entry.file.startswith("sgx/"):
        enclave = sgx.SGXQuote.parse(entry.data)
        assert run is not None
        facts = sgx.verify(enclave, run.collateral, run.at, VENDOR_ROOTS)
        sgx_appraisal.appraise(facts, ANYTHING, Row())
        return facts.tcb.status
    quote = tdx.TDXQuote.parse(entry.data)
    assert run is not None
    facts = tdx.verify(quote, run.collateral, run.at, VENDOR_ROOTS)
    # RTMR3 is the guest's own, and ours to want as zero.
    appraise(replace(facts, registers={**facts.registers, "rtmr3": bytes(48)}), ANYTHING, ROW)
    return facts.tcb.status


def snp_facts(entry: Entry) -> Facts:
    collateral = amd.Collateral(chain_of(entry), None)
    when = min(NOW, *(c.not_after for c in collateral.chain))
    return snp.verify(snp.SNPReport.parse(entry.data), collateral, when, VENDOR_ROOTS)


def _snp_report(entry: Entry, run: Run | None) -> str:
    report = snp.SNPReport.parse(entry.data)
    if entry.file == "snp/milan-v4-gcp-nocert.report":
        return f"{report.signing_key} of {report.product.title if report.product else 'nothing'}, unverified"
    snp_appraisal.meet_requirements(snp_facts(entry), _SNPRow())
    return ACCEPTED


@dataclass(frozen=True)
class _SNPRow:
    configuration: tuple[bytes, ...] = EVERYTHING
    guest_policy: Mask = _SMT


def _endorsement(entry: Entry, run: Run | None) -> str:
    if entry.file.startswith("snp/bad-"):
        good = chain_of(entries(entry.vectors)["snp/milan-v2-trustee-vcek.report"])
        collateral = amd.Collateral((parse_certificate(entry.data), *good[1:]), None)
        amd.verify_endorsement(collateral, VENDOR_ROOTS[2], NOW)
        return ACCEPTED
    chain = chain_of(entry)
    root = next(root for root in VENDOR_ROOTS if root.fingerprint == chain[-1].fingerprint)
    amd.verify_endorsement(amd.Collateral(chain, None), root, min(NOW, chain[0].not_after))
    assert chain[0].fingerprint == parse_certificate(entry.data).fingerprint
    return ACCEPTED


def _nitro(entry: Entry, run: Run | None) -> str:
    document = nitro.NitroDocument.parse(entry.data)
    facts = nitro.verify(document, document.at, timedelta(0), VENDOR_ROOTS)
    nitro.meet_demands(facts, nitro.Demands({}, ""))
    return ACCEPTED


def _azure(entry: Entry, run: Run | None) -> str:
    wrapper, others = hcl.HCLReport.parse(entry.data), entries(entry.vectors)
    if wrapper.platform == "snp":
        hcl.require_bound(snp_facts(others["snp/milan-v2-azure-hcl-vcek.report"]), wrapper)
        return ACCEPTED
    quote = others["tdx/v4-00806f05-azure-no-sept-ve-disable.quote"]
    when = runs(quote)[0]
    assert when is not None
    facts = tdx.verify(tdx.TDXQuote.parse(quote.data), when.collateral, when.at, VENDOR_ROOTS)
    hcl.require_bound(facts, wrapper)
    return ACCEPTED


def _event_log(entry: Entry, run: Run | None) -> str:
    quote = tdx.TDXQuote.parse(entries(entry.vectors)[_PADDED_TWIN].data)
    verify_replay(ccel.parse(entry.data), quote.body)
    return ACCEPTED


def device_chain(entry: Entry) -> tuple[Certificate, ...]:
    name = entry.origin.file.removesuffix(".report").removesuffix(".chain.pem")
    return nvidia.parse_device_chain((entry.vectors / f"{name}.chain.pem").read_bytes())


def _device_report(entry: Entry, run: Run | None) -> str:
    report = DeviceReport.parse(entry.data)
    asked = (
        report.nonce if entry.changed is None else DeviceReport.parse(replace(entry, changed=None).data).nonce
    )
    nvidia.verify(report, device_chain(entry), asked, (), NOW, VENDOR_ROOTS)
    return ACCEPTED


def _device_chain(entry: Entry, run: Run | None) -> str:
    verify_chain("device chain", device_chain(entry), NVIDIA_DEVICE_ROOT.fingerprint, NOW)
    return ACCEPTED


def _device_list(entry: Entry, run: Run | None) -> str:
    found = parse_evidence(entry.data)
    verify_devices(found, [item.report.nonce for item in found], (), NOW, VENDOR_ROOTS)
    return ACCEPTED


def _manifest(entry: Entry, run: Run | None) -> str:
    document = rim.RIMDocument.parse(entry.data)
    inside = max(certificate.not_before for certificate in document.chain)
    rim.verify(document, (), inside, VENDOR_ROOTS)
    return ACCEPTED


def _bundle(entry: Entry, run: Run | None) -> str:
    collateral = Collateral.parse(json.loads(entry.data))
    tee, root = (
        ("TDX", INTEL_SGX_ROOT) if entry.file.startswith("collateral/tdx") else ("SGX", INTEL_ENCLAVE_ROOT)
    )
    for at in (entry.said["valid_from"], entry.said["valid_to"]):
        verify_collateral(collateral, root, datetime.fromisoformat(at), tee)
    return ACCEPTED


def _evaluation_numbers(entry: Entry, run: Run | None) -> str:
    text = entry.data.decode()
    inner = text[text.index(":") + 1 : text.rindex(',"signature"')]
    signer = _pem(entry, "intel-sgx-tcb-signing-2025")
    verify_p256(
        "evaluation numbers", signer.key, bytes.fromhex(json.loads(text)["signature"]), inner.encode()
    )
    return ACCEPTED


def _amd_list(entry: Entry, run: Run | None) -> str:
    ark = _pem(entry, "amd-ark-genoa" if "genoa" in entry.file else "amd-ark-milan")
    RevocationList.parse(entry.data).verify("revocation list", ark, entry.inside)
    return ACCEPTED


def _root(entry: Entry, run: Run | None) -> str:
    """A pinned root, or what one of the pinned roots in the folder issued."""
    found = parse_chain(entry.data, 1)[0]
    if found.fingerprint in {root.fingerprint for root in VENDOR_ROOTS}:
        verify_chain("root", (found,), found.fingerprint, found.not_before)
        return ACCEPTED
    for path in (entry.vectors / "roots").glob("*.pem"):
        above = x509.load_pem_x509_certificates(path.read_bytes())
        issuer = parse_certificate(above[0].public_bytes(Encoding.DER))
        if issuer.parsed.subject == found.parsed.issuer:
            pinned = next(root for root in VENDOR_ROOTS if root.fingerprint == issuer.fingerprint)
            verify_chain("root", (found, issuer), pinned.fingerprint, found.not_before)
            return f"issued by {pinned.name}"
    return "no root above it"


def _intermediates(entry: Entry, run: Run | None) -> str:
    for certificate in x509.load_pem_x509_certificates(entry.data):
        found = parse_certificate(certificate.public_bytes(Encoding.DER))
        select_root(VENDOR_ROOTS, nras.PLATFORM, (found,))
    return ACCEPTED


def _service_chain(entry: Entry, run: Run | None) -> str:
    key_set = json.dumps({"keys": [{"kid": "this", **json.loads(entry.data)}]})
    chain = nras.signing_chain(key_set, "this")
    nras.require_certified(chain, chain[0].not_before, VENDOR_ROOTS)
    return ACCEPTED


def _service_token(entry: Entry, run: Run | None) -> str:
    nras.verify(nras.Bundle.parse(entry.data), '{"keys":[]}', None, NOW, VENDOR_ROOTS)
    return ACCEPTED


def _pem(entry: Entry, name: str) -> Certificate:
    return parse_chain((entry.vectors / "roots" / f"{name}.pem").read_bytes(), 1)[0]


_JUDGES: Mapping[str, Callable[[Entry, Run | None], str]] = {
    "amd-crl": _amd_list,
    "azure-hcl": _azure,
    "ccel": _event_log,
    "dcap-collateral": _bundle,
    "eval-numbers": _evaluation_numbers,
    "intermediate": _intermediates,
    "nitro": _nitro,
    "nras-chain": _service_chain,
    "nras-eat": _service_token,
    "nvidia-chain": _device_chain,
    "nvidia-evidence-json": _device_list,
    "nvidia-report": _device_report,
    "quote": _quote,
    "rim": _manifest,
    "root": _root,
    "snp-report": _snp_report,
    "vcek": _endorsement,
    "vlek": _endorsement,
}
