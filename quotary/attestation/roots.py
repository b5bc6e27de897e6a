"""Whom evidence may be signed by: vendors' roots as constants, and how a simulator is told from a vendor.

A root is known by the SHA-256 of its DER certificate and is never taken from evidence. Production passes
``VENDOR_ROOTS``; a policy for simulation carries the digest of one simulator's root and passes
``(simulator_root("tdx", digest),)``. The two never mix: the root decides the platform's name, ``tdx`` or
``sim-tdx``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from quotary.attestation.certificates import Certificate
from quotary.errors import Malformed, Refused, Rejected

# Marks every certificate of a simulator. A placeholder under the arc for examples, not a registered number.
SIMULATOR_OID = "1.3.6.1.4.1.99999.7411.1"
SIMULATOR_ORGANISATION = "SIMULATED EVIDENCE"


@dataclass(frozen=True, slots=True)
class Root:
    """One certificate that evidence may end in.

    platform:    what facts under it are called, e.g. ``tdx``
    fingerprint: 32 bytes, SHA-256 over the DER certificate
    name:        for people and verdicts
    """

    platform: str
    fingerprint: bytes
    name: str

    @property
    def simulated(self) -> bool:
        return self.platform.startswith("sim-")


# Intel SGX Root CA, P-256, until 2049 (attested identically by 21 public repositories); for TDX and for SGX.
INTEL_SGX_ROOT = Root(
    "tdx",
    bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
    "Intel SGX Root CA",
)
INTEL_ENCLAVE_ROOT = replace(INTEL_SGX_ROOT, platform="sgx")
# AMD root keys, RSA-4096 with PSS; one for each product, Genoa's also for Bergamo and Siena.
AMD_ARK_MILAN = Root(
    "snp",
    bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    "AMD ARK-Milan",
)
AMD_ARK_GENOA = Root(
    "snp",
    bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    "AMD ARK-Genoa",
)
AMD_ARK_TURIN = Root(
    "snp",
    bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
    "AMD ARK-Turin",
)
# AWS Nitro Enclaves Root-G1, P-384, until 2049.
AWS_NITRO_ROOT = Root(
    "nitro",
    bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"),
    "AWS Nitro Enclaves Root-G1",
)
# NVIDIA: one root for devices, another for the manifests of reference values; both P-384.
NVIDIA_DEVICE_ROOT = Root(
    "nvidia",
    bytes.fromhex("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"),
    "NVIDIA Device Identity CA",
)
NVIDIA_RIM_ROOT = Root(
    "nvidia-rim",
    bytes.fromhex("12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"),
    "NVIDIA CoRIM signing Root CA",
)
# NVIDIA's attestation service: the CA of its signing keys, RSA-2048, until December 2029. It is no root: its
# own issuer, "Attestation Service CA 001", is published nowhere, so this certificate itself is pinned.
NVIDIA_NRAS_ISSUER = Root(
    "nvidia-nras",
    bytes.fromhex("2df8907cf4d6c277b855d407ec178a649930a8e73f7294e8fce66e6ee27c5175"),
    "NVIDIA Attestation Service GPU Intermediate 004",
)
VENDOR_ROOTS = (
    INTEL_SGX_ROOT,
    INTEL_ENCLAVE_ROOT,
    AMD_ARK_MILAN,
    AMD_ARK_GENOA,
    AMD_ARK_TURIN,
    AWS_NITRO_ROOT,
    NVIDIA_DEVICE_ROOT,
    NVIDIA_RIM_ROOT,
    NVIDIA_NRAS_ISSUER,
)


def simulator_root(platform: str, fingerprint: bytes) -> Root:
    """Admit one simulator's root for a vendor's ``platform`` such as ``tdx``; facts will say ``sim-tdx``."""
    if len(fingerprint) != 32:
        raise Malformed(f"a root's fingerprint has 32 bytes, not {len(fingerprint)}")
    if any(root.fingerprint == fingerprint for root in VENDOR_ROOTS):
        raise Malformed("a vendor's root cannot stand for a simulator")
    if platform not in {root.platform for root in VENDOR_ROOTS}:
        raise Malformed(f"no evidence format {platform!r} is known")
    return Root(f"sim-{platform}", fingerprint, f"simulator {fingerprint.hex()[:16]}")


def select_root(roots: Sequence[Root], platform: str, certificates: Sequence[Certificate]) -> Root:
    """Find the root that the last certificate is, after refusing simulated evidence on sight.

    certificates: every certificate that came with the evidence and its collateral, the evidence's own root
                  last
    Raises ``Refused`` (check ``simulated evidence``) before any signature is looked at, ``Rejected`` (check
    ``root``) for a root that the caller did not name.
    """
    kinds = {root.simulated for root in roots}
    if len(kinds) != 1:
        raise Malformed("roots are all vendors' or all simulators', and at least one")
    if kinds == {False}:
        refuse_simulated(certificates)
    found = certificates[-1].fingerprint
    admitted = [root for root in roots if root.platform in (platform, f"sim-{platform}")]
    for root in admitted:
        if root.fingerprint == found:
            return root
    wanted = ", ".join(root.fingerprint.hex() for root in admitted)
    raise Rejected("root", found.hex(), wanted or f"a root for {platform}")


def refuse_simulated(certificates: Iterable[Certificate]) -> None:
    """Refuse any certificate that a simulator marked as its own, by extension or by name."""
    for certificate in certificates:
        marked = SIMULATOR_OID in certificate.extensions
        if marked or any(name.startswith("SIMULATED") for name in certificate.organisations):
            raise Refused("simulated evidence", certificate.subject_text, "evidence of real hardware")
