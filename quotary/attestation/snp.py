"""AMD SEV-SNP attestation reports, versions 2 to 5: parse, then verify (appraisal is ``snp_appraisal.py``).

AMD 56860 (SEV-SNP ABI), table "ATTESTATION_REPORT". Integers are little endian, offsets and lengths in bytes.
Signed are the first 672 bytes; everything behind is the signature and zeros.
``docs/evidence-snp-nitro-nvidia.md`` explains each field and check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from quotary.attestation import amd
from quotary.attestation.facts import TCB, Check, Facts
from quotary.attestation.layout import Layout, fields, join, little
from quotary.attestation.p384 import verify_p384
from quotary.attestation.roots import Root, select_root
from quotary.errors import Malformed, Rejected, Unsupported

PLATFORM = "snp"
REPORT_LENGTH = 1184
SIGNED_LENGTH = 672
ECDSA_P384 = 1
NO_STATUS = "none"
TCBS = ("reported", "committed", "launch", "current")
# Reported keys the VCEK, committed is what the host cannot roll back below, launch measured the guest.
HELD_TO_FLOOR = TCBS[:3]

_HEAD = fields(
    ("version", 0x000, 4),
    ("guest_svn", 0x004, 4),
    ("policy", 0x008, 8),
    ("family_id", 0x010, 16),
    ("image_id", 0x020, 16),
    ("vmpl", 0x030, 4),
    ("signature_algorithm", 0x034, 4),
    ("current_tcb", 0x038, 8),
    ("platform_info", 0x040, 8),
    ("flags", 0x048, 4),
    ("reserved1", 0x04C, 4),
    ("report_data", 0x050, 64),
    ("measurement", 0x090, 48),
    ("host_data", 0x0C0, 32),
    ("id_key_digest", 0x0E0, 48),
    ("author_key_digest", 0x110, 48),
    ("report_id", 0x140, 32),
    ("report_id_ma", 0x160, 32),
    ("reported_tcb", 0x180, 8),
)
_CPUID = fields(
    ("cpuid_family", 0x188, 1),
    ("cpuid_model", 0x189, 1),
    ("cpuid_stepping", 0x18A, 1),
    ("reserved2", 0x18B, 21),
)
_TAIL = fields(
    ("chip_id", 0x1A0, 64),
    ("committed_tcb", 0x1E0, 8),
    ("current_version", 0x1E8, 3),
    ("reserved3", 0x1EB, 1),
    ("committed_version", 0x1EC, 3),
    ("reserved4", 0x1EF, 1),
    ("launch_tcb", 0x1F0, 8),
)
_MITIGATIONS = fields(
    ("launch_mitigations", 0x1F8, 8), ("current_mitigations", 0x200, 8), ("reserved5", 0x208, 152)
)
_SIGNATURE = fields(
    ("signature_r", 0x2A0, 48),
    ("reserved6", 0x2D0, 24),
    ("signature_s", 0x2E8, 48),
    ("reserved7", 0x318, 24),
    ("reserved8", 0x330, 368),
)
_OLD_END = fields(("reserved5", 0x1F8, 168))
REPORT_V2 = Layout(
    "report version 2",
    REPORT_LENGTH,
    join(_HEAD, fields(("reserved2", 0x188, 24)), _TAIL, _OLD_END, _SIGNATURE),
)
REPORT_V3 = Layout("report version 3", REPORT_LENGTH, join(_HEAD, _CPUID, _TAIL, _OLD_END, _SIGNATURE))
REPORT_V5 = Layout("report version 5", REPORT_LENGTH, join(_HEAD, _CPUID, _TAIL, _MITIGATIONS, _SIGNATURE))
LAYOUTS = {2: REPORT_V2, 3: REPORT_V3, 4: REPORT_V3, 5: REPORT_V5}

_SIGNING_KEYS = {0: amd.VCEK, 1: amd.VLEK, 7: "no key"}


@dataclass(frozen=True, slots=True)
class SNPReport:
    """A well-formed report that nobody believes yet.

    version:     2 to 5
    fields:      the layout's fields by name
    signing_key: ``vcek``, ``vlek`` or ``no key``
    product:     by CPUID; None in version 2, which does not say
    signed:      the exact 672 bytes under the signature
    signature:   96 bytes r || s, big endian (the report has them little endian)
    """

    version: int
    fields: Mapping[str, bytes]
    signing_key: str
    product: amd.Product | None
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> "SNPReport":
        """Read exactly 1184 bytes.

        Raises ``Malformed``, or ``Unsupported`` for another version, signature algorithm or product.
        """
        if len(data) != REPORT_LENGTH:
            raise Malformed(f"report has {len(data)} bytes, {REPORT_LENGTH} are needed")
        version = little(data[:4])
        if version not in LAYOUTS:
            raise Unsupported(f"report version {version}; versions 2 to 5 are known")
        found = LAYOUTS[version].read(data)
        if little(found["signature_algorithm"]) != ECDSA_P384:
            raise Unsupported("the report's signature is of another kind than ECDSA P-384")
        signature = found["signature_r"][::-1] + found["signature_s"][::-1]
        product = None
        if version > 2:
            product = amd.product_of_cpuid(found["cpuid_family"][0], found["cpuid_model"][0])
        return cls(version, found, _signing_key(found), product, data[:SIGNED_LENGTH], signature)


def verify(report: SNPReport, collateral: amd.Collateral, now: datetime, roots: Sequence[Root]) -> Facts:
    """Believe a report under these certificates at this time, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; its last certificate is one of ``roots``.
    2. Endorsement key, issuer and the root of its product are a chain in force; no list revokes the issuer.
    3. The report says that a key of this kind signed it.
    4. Certificate and report name the same product.
    5. The certificate's TCB version is the reported one.
    6. Its hardware id is the report's chip id; a cloud's key has no chip.
    7. The endorsement key signed the report.
    """
    root = select_root(roots, PLATFORM, collateral.chain)
    key = amd.verify_endorsement(collateral, root, now)
    if report.signing_key != key.kind:
        raise Rejected("signing key", report.signing_key, f"{key.kind} of the certificate")
    _require_product(report, key.product)
    if report.fields["reported_tcb"] != key.tcb:
        raise Rejected(
            "reported tcb", report.fields["reported_tcb"].hex(), f"{key.tcb.hex()} of the certificate"
        )
    chip = key.hwid.ljust(64, b"\0")
    if report.fields["chip_id"] != chip:
        raise Rejected("chip id", report.fields["chip_id"].hex(), f"{chip.hex()} of the certificate")
    verify_p384("report signature", collateral.chain[0].key, report.signature, report.signed)
    return _facts(report, key, collateral, root, now)


def _signing_key(found: Mapping[str, bytes]) -> str:
    flags = little(found["flags"])
    key = flags >> 2 & 7
    if flags >> 5 or key not in _SIGNING_KEYS:
        raise Malformed(f"report has the flags {flags:#x}, bits 0 and 1 and signing keys 0, 1, 7 are known")
    return _SIGNING_KEYS[key]


def _require_product(report: SNPReport, product: amd.Product) -> None:
    # Version 2 has no CPUID; firmware that writes it was never released for Turin.
    found = report.product or (product if product is not amd.TURIN else None)
    if found is not product:
        name = found.title if found else "a version 2 report"
        raise Rejected("product", name, f"{product.title} of the certificate")


def _product_name(report: SNPReport, product: amd.Product) -> str:
    if report.product is None:
        return product.name
    names = ("cpuid_family", "cpuid_model", "cpuid_stepping")
    return "-".join([product.name, *(report.fields[name].hex() for name in names)])


def _facts(
    report: SNPReport, key: amd.EndorsementKey, collateral: amd.Collateral, root: Root, now: datetime
) -> Facts:
    found = report.fields
    when = f"at {now.isoformat()}"
    revocation = "not checked: no list given" if collateral.crl is None else f"not revoked {when}"
    checks = (
        Check("root", root.fingerprint.hex(), root.fingerprint.hex(), root.name),
        Check("endorsement chain", collateral.chain[0].subject_text, f"in force {when}", root.name),
        Check("revocation", revocation, "issuer not on the root's list", root.name),
        Check("product", key.product.title, "the same in report and certificate", "endorsement certificate"),
        Check("reported tcb", found["reported_tcb"].hex(), key.tcb.hex(), "endorsement certificate"),
        Check(
            "chip id",
            key.hwid.hex() or f"none, key of {key.csp_id}",
            "the certificate's",
            "endorsement certificate",
        ),
        Check("report signature", "holds over 672 bytes", f"by the {key.kind}", "endorsement certificate"),
    )
    configuration = ("host_data", "family_id", "image_id", "guest_svn", "id_key_digest", "author_key_digest")
    return Facts(
        platform=root.platform,
        product=_product_name(report, key.product),
        registers={"measurement": found["measurement"]},
        configuration={name: found[name] for name in configuration},
        report_data=found["report_data"],
        tcb=_tcb(report, key.product),
        attributes=_attributes(report, key, collateral),
        chips=(key.hwid.hex(),) if key.hwid else (),
        checks=checks,
        simulated=root.simulated,
        judged_at=now,
    )


def _tcb(report: SNPReport, product: amd.Product) -> TCB:
    versions = {name: product.components(report.fields[f"{name}_tcb"]) for name in TCBS}
    # A floor's plain name holds all versions that count: the least of them.
    held = [versions[name] for name in HELD_TO_FLOOR]
    components: dict[str, bytes | int] = {name: min(v[name] for v in held) for name in amd.COMPONENTS}
    for name, version in versions.items():
        components |= {f"{name} {component}": value for component, value in version.items()}
    # AMD publishes no levels, dates or words: nothing is promised to be fixed.
    return TCB(NO_STATUS, (), datetime.min.replace(tzinfo=UTC), None, 0, components)


def _attributes(report: SNPReport, key: amd.EndorsementKey, collateral: amd.Collateral) -> dict[str, bytes]:
    names = ["policy", "platform_info", "vmpl", "flags", "report_id", "report_id_ma"]
    names += ["current_version", "committed_version"]
    if report.version == 5:
        names += ["launch_mitigations", "current_mitigations"]
    found = {name: report.fields[name] for name in names}
    found["signing_key"] = key.kind.encode()
    found["csp_id"] = key.csp_id.encode()
    found["revocation"] = b"none" if collateral.crl is None else b"checked"
    return found
