"""What one piece of evidence costs, parse and verify, nothing kept between runs, each beside a reference.

Processor time, not wall time: on a busy machine the other tells about the neighbours. The reference beside a
TDX or SGX quote is dcap-qvl (Rust); beside the others, the bare signatures that there are to verify.

python benchmarks/bench_evidence.py [folder of vectors]
"""

import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import amd, nitro, nvidia, rim, sgx, snp, spdm, tdx
from quotary.attestation.certificates import Certificate
from quotary.attestation.collateral import Collateral
from quotary.attestation.p384 import verify_p384
from quotary.attestation.roots import VENDOR_ROOTS

ROUNDS, WARM = 100, 3
NOW = datetime(2026, 6, 20, tzinfo=UTC)
MODULES = "tdx, sgx, snp, nitro, devices, rim, hcl, appraise, sgx_appraisal, snp_appraisal"

Work = Callable[[], object]


def dcap_case(vectors: Path, quote: str, collateral: str, at: int) -> tuple[Work, Work]:
    """A quote with its nine documents, and the same judgement by dcap-qvl."""
    data, text = (vectors / quote).read_bytes(), (vectors / "collateral" / collateral).read_text()
    members, now = json.loads(text), datetime.fromtimestamp(at, UTC)
    module, parse = (sgx, sgx.SGXQuote.parse) if quote.startswith("sgx") else (tdx, tdx.TDXQuote.parse)
    return (
        lambda: module.verify(parse(data), Collateral.parse(members), now, VENDOR_ROOTS),
        lambda: dcap_qvl.verify(data, dcap_qvl.QuoteCollateralV3.from_json(text), at),
    )


def tdx_case(vectors: Path) -> tuple[Work, Work]:
    """A version 4 quote of a machine that was up to date."""
    collateral = "tdx-b0c06f000000-eval17-2025-06-19.json"
    return dcap_case(vectors, "tdx/v4-b0c06f-dcapqvl-uptodate.quote", collateral, 1750332747)


def sgx_case(vectors: Path) -> tuple[Work, Work]:
    """A version 3 quote of a production enclave."""
    collateral = "sgx-00606a000000-eval17-2025-08-15.json"
    return dcap_case(vectors, "sgx/v3-00606a-automata-swhardening.quote", collateral, 1755240086)


def snp_case(vectors: Path) -> tuple[Work, Work]:
    """A Turin report of version 5 with its chain of three."""
    name = vectors / "snp" / "turin-v5-microsoft-vcek"
    leaf = x509.load_der_x509_certificate(name.with_suffix(".vcek.der").read_bytes())
    above = [(vectors / "roots" / f"amd-{which}-turin.pem").read_text() for which in ("ask", "ark")]
    members = {"chain": leaf.public_bytes(Encoding.PEM).decode() + "".join(above), "crl": amd.NO_CRL}
    data = name.with_suffix(".report").read_bytes()
    report = snp.SNPReport.parse(data)
    return (
        lambda: snp.verify(snp.SNPReport.parse(data), amd.Collateral.parse(members), NOW, VENDOR_ROOTS),
        bare(amd.Collateral.parse(members).chain, report.signature, report.signed),
    )


def nitro_case(vectors: Path) -> tuple[Work, Work]:
    """A document with a chain of five."""
    data = (vectors / "nitro" / "evervault-2022-10-valid.cose").read_bytes()
    found = nitro.NitroDocument.parse(data)

    def run() -> object:
        document = nitro.NitroDocument.parse(data)
        return nitro.verify(document, document.at, timedelta(0), VENDOR_ROOTS)

    return run, bare(found.chain, found.signature, found.signed)


def device_case(vectors: Path, name: str) -> tuple[Work, Work]:
    """A device's report with its chain of five."""
    data = (vectors / "nvidia" / f"{name}.report").read_bytes()
    pem = (vectors / "nvidia" / f"{name}.chain.pem").read_bytes()
    found = spdm.DeviceReport.parse(data)

    def run() -> object:
        report = spdm.DeviceReport.parse(data)
        return nvidia.verify(report, nvidia.parse_device_chain(pem), report.nonce, (), NOW, VENDOR_ROOTS)

    return run, bare(nvidia.parse_device_chain(pem), found.signature, found.signed)


def rim_case(vectors: Path, name: str) -> tuple[Work, Work]:
    """A manifest with its chain of four, at a time when its signer's certificate was in force."""
    data = (vectors / "nvidia" / "rim" / f"{name}.xml").read_bytes()
    found = rim.RIMDocument.parse(data)
    at = max(certificate.not_before for certificate in found.chain)
    return (
        lambda: rim.verify(rim.RIMDocument.parse(data), (), at, VENDOR_ROOTS),
        bare(found.chain, found.signature, found.signed_info),
    )


def real_machine_case(vectors: Path) -> tuple[Work, Work]:
    """The quote, eight times one GPU, four times one switch, three manifests: real files, one by one."""
    cases = [
        tdx_case(vectors),
        *[device_case(vectors, "hopper-580.159.03-sdk")] * 8,
        *[device_case(vectors, "switch-ls10-96.10.55-sdk")] * 4,
        rim_case(vectors, "driver-gh100-550.144.03"),
        rim_case(vectors, "vbios-1010_0205_862-96.00.74.00.20"),
        rim_case(vectors, "switch-5612_0002_890-96.10.55.00.01"),
    ]
    return (lambda: [ours() for ours, _ in cases]), (lambda: [theirs() for _, theirs in cases])


def bare(chain: Sequence[Certificate], signature: bytes, signed: bytes) -> Work:
    """The signatures alone: each link, the root's own, and the evidence's."""

    def run() -> None:
        for child, issuer in (*pairwise(chain), (chain[-1], chain[-1])):
            child.parsed.verify_directly_issued_by(issuer.parsed)
        verify_p384("evidence", chain[0].key, signature, signed)

    return run


def median_ms(work: Work, rounds: int = ROUNDS) -> float:
    """Median processor time in milliseconds."""
    took = []
    for number in range(rounds + WARM):
        start = time.process_time()
        work()
        if number >= WARM:
            took.append((time.process_time() - start) * 1000)
    return statistics.median(took)


def imported_ms(line: str) -> float:
    """Processor time of one line of imports in a Python that has just started."""
    code = f"import time; start = time.process_time(); {line}; print(time.process_time() - start)"
    command = [sys.executable, "-c", code]
    took = [float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(9)]
    return statistics.median(took) * 1000


def show(what: str, found: float, other: float, reference: str, bar: str) -> None:
    print(f"{what:<34} {found:8.2f} ms   {found / other:6.2f} x {reference} ({other:.2f} ms)   bar {bar}")


def main() -> None:
    """Print a line for each kind of evidence."""
    warnings.simplefilter("ignore")  # AMD's certificates have the serial number 0.
    vectors = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("../shared/vectors")
    cases: dict[str, tuple[tuple[Work, Work], str, str]] = {
        "tdx quote": (tdx_case(vectors), "dcap-qvl", "20 ms and 5 x"),
        "sgx quote": (sgx_case(vectors), "dcap-qvl", "5 x"),
        "snp report": (snp_case(vectors), "its bare signatures", "4 ms"),
        "nitro document": (nitro_case(vectors), "its bare signatures", "6 ms"),
        "gpu report": (device_case(vectors, "hopper-580.159.03-sdk"), "its bare signatures", "8 ms"),
        "switch report": (device_case(vectors, "switch-ls10-96.10.55-sdk"), "its bare signatures", "8 ms"),
        "manifest": (rim_case(vectors, "driver-gh100-550.144.03"), "its bare signatures", "none"),
        "tdx, 8 gpus, 4 switches, manifests": (real_machine_case(vectors), "bare", "150 ms"),
    }
    for name, ((ours, theirs), reference, bar) in cases.items():
        rounds = 10 if "switches" in name else ROUNDS
        show(name, median_ms(ours, rounds), median_ms(theirs, rounds), reference, bar)
    imports = f"from quotary.attestation import {MODULES}"
    show(
        "import", imported_ms(imports), imported_ms("import cryptography.x509"), "cryptography.x509", "150 ms"
    )


if __name__ == "__main__":
    main()
