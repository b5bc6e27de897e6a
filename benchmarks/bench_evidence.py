"""How long one piece of evidence takes, parse and verify, nothing kept between runs (median, milliseconds).

python benchmarks/bench_evidence.py [folder of vectors]
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import amd, nitro, nvidia, rim, snp, spdm
from quotary.attestation.roots import VENDOR_ROOTS

ROUNDS = 100
NOW = datetime(2026, 6, 20, tzinfo=UTC)


def snp_case(vectors: Path) -> Callable[[], object]:
    """A Turin report of version 5 with its chain of three."""
    name = vectors / "snp" / "turin-v5-microsoft-vcek"
    leaf = x509.load_der_x509_certificate(name.with_suffix(".vcek.der").read_bytes())
    above = [(vectors / "roots" / f"amd-{which}-turin.pem").read_text() for which in ("ask", "ark")]
    members = {"chain": leaf.public_bytes(Encoding.PEM).decode() + "".join(above), "crl": amd.NO_CRL}
    data = name.with_suffix(".report").read_bytes()
    return lambda: snp.verify(snp.SNPReport.parse(data), amd.Collateral.parse(members), NOW, VENDOR_ROOTS)


def nitro_case(vectors: Path) -> Callable[[], object]:
    """A document with a chain of five."""
    data = (vectors / "nitro" / "evervault-2022-10-valid.cose").read_bytes()

    def run() -> object:
        document = nitro.NitroDocument.parse(data)
        return nitro.verify(document, document.at, timedelta(0), VENDOR_ROOTS)

    return run


def gpu_case(vectors: Path) -> Callable[[], object]:
    """A Hopper report with its chain of five."""
    folder = vectors / "nvidia"
    data = (folder / "hopper-580.159.03-sdk.report").read_bytes()
    pem = (folder / "hopper-580.159.03-sdk.chain.pem").read_bytes()

    def run() -> object:
        report = spdm.DeviceReport.parse(data)
        return nvidia.verify(report, nvidia.parse_device_chain(pem), report.nonce, (), NOW, VENDOR_ROOTS)

    return run


def rim_case(vectors: Path) -> Callable[[], object]:
    """A driver's manifest with its chain of four."""
    data = (vectors / "nvidia" / "rim" / "driver-gh100-550.144.03.xml").read_bytes()
    return lambda: rim.verify(rim.RIMDocument.parse(data), (), NOW, VENDOR_ROOTS)


def main() -> None:
    """Print a line for each kind of evidence."""
    warnings.simplefilter("ignore")  # AMD's certificates have the serial number 0.
    default = Path("../shared/vectors")
    vectors = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    cases = {
        "snp report": snp_case,
        "nitro document": nitro_case,
        "gpu report": gpu_case,
        "manifest": rim_case,
    }
    for name, case in cases.items():
        run = case(vectors)
        took = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            run()
            took.append((time.perf_counter() - start) * 1000)
        print(f"{name:16} median {statistics.median(took):6.2f} ms   fastest {min(took):6.2f} ms")


if __name__ == "__main__":
    main()
