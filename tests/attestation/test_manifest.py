"""Every file of real evidence is judged, and ends as the page on checks and the vendors' own verdicts say."""

import hashlib
from pathlib import Path

import pytest

from tests.attestation.manifest import ACCEPTED, FOLDERS, MALFORMED, UNSUPPORTED, entries, outcomes
from tests.attestation.test_tdx_vectors import REFUSALS

pytestmark = pytest.mark.filterwarnings(
    "ignore:Parsed a serial number which wasn't positive", "ignore:Attribute's length must"
)

# How a file ends that is neither accepted nor a quote with verdicts of its own in the manifest.
EXPECTED = {
    "tdx/derived-attestation-key-bit.quote": "qe report data",
    "tdx/derived-cert-type-5-at-outer-level.quote": MALFORMED,
    "tdx/derived-debug-bit-forged.quote": "quote signature",
    "tdx/derived-header-user-data-bit.quote": "quote signature",
    "tdx/derived-qe-auth-bit.quote": "qe report data",
    "tdx/derived-qe-report-bit.quote": "qe report signature",
    "tdx/derived-report-data-bit.quote": "quote signature",
    "tdx/derived-truncated.quote": MALFORMED,
    "sgx/v3-oasis-eppid-certtype3.quote": MALFORMED,
    "snp/bad-test-vcek-invalid-legacy.der": "endorsement chain",
    "snp/bad-test-vcek-invalid-new.der": "endorsement chain",
    "snp/derived-genoa-v3-measurement-bit.report": "report signature",
    "snp/derived-genoa-v3-policy-debug-forged.report": "report signature",
    "snp/derived-genoa-v3-reported-tcb-raised.report": "reported tcb",
    "snp/derived-genoa-v3-sig-tail-nonzero.report": MALFORMED,
    "snp/derived-genoa-v3-signature-bit.report": "report signature",
    "snp/derived-genoa-v3-truncated.report": MALFORMED,
    "snp/milan-v2-gosevguest-debug.report": "debug",
    "snp/milan-v4-gcp-nocert.report": "vcek of Milan, unverified",
    "nitro/derived-alg-es256.cose": UNSUPPORTED,
    "nitro/derived-leaf-cert-bit.cose": "nitro chain",
    "nitro/derived-pcr0-bit.cose": "document signature",
    "nitro/derived-signature-bit.cose": "document signature",
    "nitro/derived-trailing-byte.cose": MALFORMED,
    "nitro/derived-truncated.cose": MALFORMED,
    "nitro/dstack-2025-12-debug-indefinite.cose": "debug",
    "nitro/evervault-2022-10-debug.cose": "debug",
    "nitro/evervault-2023-09-debug.cose": "debug",
    "nitro/sparsity-2024-08-debug.cose": "debug",
    "nvidia/derived-switch-measurement-bit.report": "device signature",
    "nvidia/derived-switch-nonce-bit.report": "device signature",
    "nvidia/derived-switch-trailing-byte.report": MALFORMED,
    "nvidia/derived-switch-truncated.report": MALFORMED,
    "nvidia/hopper-560.00-sdk-bad-signature.report": "device signature",
    # NVIDIA's tools tolerate the byte behind the signature; nothing signs it.
    "nvidia/hopper-580.95.05-trustee-trailing-byte.report": MALFORMED,
    # Its key has left the service's key set long ago.
    "nvidia/nras-detached-eat-hopper-v3.json": "nras key",
    "nvidia/rim/bad-debug-root-gb100-97.00.83.00.09.xml": "root",
    "nvidia/rim/bad-digest-driver-535.86.09.xml": "rim digest",
    "nvidia/rim/bad-digest-switch-96.10.55.00.01.xml": "rim digest",
    "nvidia/rim/bad-expired-driver-570.124.03.xml": "rim digest",
    "nvidia/rim/bad-signature-driver-550.144.03.xml": "rim signature",
    "nvidia/switch-ls10-96.10.55-sdk-bad-signature.report": "device signature",
    # Each of the four is genuine, and they are one switch.
    "nvidia/switch-ls10-multi-sdk.json": "device identity",
    "roots/intel-sgx-pck-platform-ca.pem": "issued by Intel SGX Root CA",
    "roots/intel-sgx-pck-processor-ca.pem": "issued by Intel SGX Root CA",
    "roots/intel-sgx-tcb-signing-2018.pem": "issued by Intel SGX Root CA",
    "roots/intel-sgx-tcb-signing-2025.pem": "issued by Intel SGX Root CA",
    "roots/nvidia-nras-gpu-intermediates-002-003.pem": "root",
} | {
    f"roots/amd-{issuer}-{product.lower()}.pem": f"issued by AMD ARK-{product}"
    for issuer in ("ask", "asvk")
    for product in ("Milan", "Genoa", "Turin")
}


def test_every_file_of_evidence_ends_as_expected(vectors: Path) -> None:
    found = entries(vectors)
    assert set(EXPECTED) <= set(found)
    for file, entry in found.items():
        assert hashlib.sha256(entry.data).hexdigest() == entry.said["sha256"], file
        if file in EXPECTED or not entry.said.get("runs"):
            wanted = EXPECTED.get(file, ACCEPTED)
            assert "padded" in file or set(outcomes(entry)) == {wanted}, file


def test_every_quote_ends_as_a_second_verifier_ended_it(vectors: Path) -> None:
    judged = 0
    for file, entry in entries(vectors).items():
        said = [run["dcap_qvl"] for run in entry.said.get("runs", ()) if "collateral" in run]
        wanted = tuple(each.get("status") or REFUSALS[each["error"]] for each in said)
        if wanted:
            assert outcomes(entry) == wanted, file
            judged += len(wanted)
    assert judged == 38


def test_a_quote_with_padding_ends_as_the_one_without(vectors: Path) -> None:
    found = entries(vectors)
    words = outcomes(found["tdx/v4-00806f05-gcp-cos113-padded-8000.quote"])
    assert words == ("UpToDate", "UpToDate", "OutOfDate", "OutOfDate")
    assert words == outcomes(found["tdx/v4-00806f05-gcp-cos113-uptodate-then-outofdate.quote"])


def test_no_file_lies_in_the_folders_that_the_manifest_does_not_name(vectors: Path) -> None:
    lying = {
        str(path.relative_to(vectors))
        for folder in FOLDERS
        for path in (vectors / folder).rglob("*")
        if path.is_file()
    }
    assert lying == set(entries(vectors))
