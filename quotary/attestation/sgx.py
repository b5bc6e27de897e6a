"""Intel SGX quotes, version 3: parse, then verify (appraisal is ``sgx_appraisal.py``).

Layouts: Intel SGX ECDSA Quoting Library API, appendix A.4 ("Quote Format"); the body is a REPORT of the Intel
SDM, volume 3D. What a quote of an enclave shares with one of a TD is in ``dcap.py``. Integers are little
endian, offsets and lengths in bytes. ``docs/evidence.md`` explains each field and check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.attestation import dcap, tcb
from quotary.attestation.certificates import verify_p256
from quotary.attestation.collateral import Collateral, VerifiedCollateral, verify_collateral
from quotary.attestation.facts import TCB, Check, Facts
from quotary.attestation.intel_json import SGX
from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.roots import Root, select_root
from quotary.errors import Malformed, Unsupported

PLATFORM = "sgx"
VERSION, TEE_SGX = 3, 0
MAX_QUOTE = 64 * 1024

HEADER = Layout(
    "SGX quote header",
    48,
    fields(
        ("version", 0, 2),
        ("attestation_key_type", 2, 2),
        ("tee_type", 4, 4),
        ("qe_svn", 8, 2),
        ("pce_svn", 10, 2),
        ("qe_vendor_id", 12, 16),
        ("user_data", 28, 20),
    ),
)
_SIGNED = HEADER.length + dcap.SGX_REPORT.length
# What an appraisal or a person wants of the report besides its registers.
_ATTRIBUTES = (
    "attributes",
    "misc_select",
    "mr_signer",
    "isv_prod_id",
    "isv_svn",
    "isv_ext_prod_id",
    "isv_family_id",
    "cpu_svn",
)


@dataclass(frozen=True, slots=True)
class SGXQuote:
    """A well-formed quote that nobody believes yet.

    body:    fields of ``dcap.SGX_REPORT`` by name
    signed:  the exact bytes under the quote's signature: header and body
    section: signature, quoting enclave and PCK chain
    """

    body: Mapping[str, bytes]
    signed: bytes
    section: dcap.SignatureSection

    @classmethod
    def parse(cls, data: bytes) -> "SGXQuote":
        """Read a quote; behind it only zeros may follow.

        Raises ``Malformed``, or ``Unsupported`` for another TEE, version or key type.
        """
        if len(data) > MAX_QUOTE:
            raise Malformed(f"quote has {len(data)} bytes, at most {MAX_QUOTE} are allowed")
        _header(data[: HEADER.length])
        body = dcap.SGX_REPORT.read(data[HEADER.length : _SIGNED])
        behind = _SIGNED + 4 + little(data[_SIGNED : _SIGNED + 4])
        if len(data) < behind or any(data[behind:]):
            raise Malformed(f"quote has {len(data)} bytes, {behind} and zeros are needed")
        return cls(body, data[:_SIGNED], dcap.SignatureSection.parse_3(data[_SIGNED + 4 : behind]))


def verify(quote: SGXQuote, collateral: Collateral, now: datetime, roots: Sequence[Root]) -> Facts:
    """Believe a quote under this collateral at this time, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; its last certificate is one of ``roots``.
    2. The root's owner signed TCB info, QE identity and revocation lists, and they are in date.
    3. The PCK certificate's chain ends in that root, is in date and not revoked.
    4. The PCK key signed the quoting enclave's report, which is the enclave of the QE identity and names
       the attestation key.
    5. The attestation key signed the quote.
    6. The TCB info is for this machine.
    7. Platform and quoting enclave reach a level each; the worse word is the status.
    """
    chain = quote.section.pck_chain
    root = select_root(roots, PLATFORM, (*collateral.certificates, *chain))
    documents = verify_collateral(collateral, root, now, SGX)
    dcap.verify_pck(quote.section, documents, root, now)
    qe_report = dcap.verify_qe_report(quote.section, documents.qe_identity)
    key = dcap.attestation_public_key(quote.section)
    verify_p256("quote signature", key, quote.section.signature, quote.signed)
    machine = dcap.PCKExtension.parse(chain[0])
    dcap.require_machine(machine, documents)
    level = _judge(machine, little(qe_report["isv_svn"]), documents)
    return _facts(quote, machine, level, root, now)


def _header(data: bytes) -> None:
    header = HEADER.read(data)
    version, tee = little(header["version"]), little(header["tee_type"])
    if version != VERSION or tee != TEE_SGX:
        raise Unsupported(f"quote version {version} for TEE {tee:#x}; version 3 for SGX is known")
    if little(header["attestation_key_type"]) != dcap.ECDSA_P256:
        raise Unsupported("attestation key is of another kind than ECDSA P-256")
    if header["qe_vendor_id"] != dcap.INTEL_QE_VENDOR:
        raise Malformed("the quoting enclave's vendor id is not Intel's")


def _judge(machine: dcap.PCKExtension, qe_svn: int, documents: VerifiedCollateral) -> TCB:
    qe = tcb.judge_enclave("qe tcb level", documents.qe_identity.levels, qe_svn)
    platform = tcb.judge_platform(documents.tcb_info, machine.components, machine.pce_svn, bytes(16))
    missed = [at for at in (platform.superseded_at, qe.superseded_at) if at is not None]
    return TCB(
        tcb.converge(platform, qe),
        tuple(sorted({*platform.advisories, *qe.advisories})),
        min(platform.level_at, qe.level_at),
        min(missed, default=None),
        documents.evaluation_number,
        {"sgx_tcb_svn": machine.components, "pce_svn": machine.pce_svn},
    )


def _facts(quote: SGXQuote, machine: dcap.PCKExtension, level: TCB, root: Root, now: datetime) -> Facts:
    body, when = quote.body, f"at {now.isoformat()}"
    chips = [machine.ppid.hex()] + ([machine.instance_id.hex()] if machine.instance_id else [])
    leaf = quote.section.pck_chain[0].subject_text
    checks = (
        Check("root", root.fingerprint.hex(), root.fingerprint.hex(), root.name),
        Check("collateral", f"evaluation {level.evaluation_number}", f"signed and in date {when}", root.name),
        Check("pck chain", leaf, f"in force and not revoked {when}", root.name),
        Check("quoting enclave", "report signed, identity equal", "Intel's quoting enclave", "QE identity"),
        Check("quote signature", "holds over header and body", "by the attestation key", "QE report"),
        Check("machine", machine.fmspc.hex(), "the FMSPC of the TCB info", "PCK certificate"),
        Check("tcb level", level.status, f"a level of {level.level_at.date()}", "TCB info, QE identity"),
    )
    return Facts(
        platform=root.platform,
        product=machine.fmspc.hex(),
        registers={"mrenclave": body["mr_enclave"]},
        configuration={name: body[name] for name in ("config_id", "config_svn")},
        report_data=body["report_data"],
        tcb=level,
        attributes={name: body[name] for name in _ATTRIBUTES},
        chips=tuple(chips),
        checks=checks,
        simulated=root.simulated,
        judged_at=now,
    )
