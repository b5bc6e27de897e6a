"""Intel TDX quotes, versions 4 and 5: parse, then verify (appraisal is ``appraise.py``).

Layouts: Intel TDX DCAP Quoting Library API, appendix 3; TD report fields: Intel TDX Module ABI,
TDREPORT_STRUCT. Integers are little endian, offsets and lengths in bytes. ``docs/evidence.md`` explains each
field and check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from quotary.attestation import dcap, tcb
from quotary.attestation.certificates import verify_p256
from quotary.attestation.collateral import Collateral, VerifiedCollateral, verify_collateral
from quotary.attestation.facts import TCB, Check, Facts
from quotary.attestation.intel_json import TDX, Standing, TCBInfo
from quotary.attestation.layout import Layout, fields, join, little
from quotary.attestation.roots import Root, select_root
from quotary.errors import Malformed, Rejected, Unsupported

PLATFORM = "tdx"
TEE_TDX = 0x81
MAX_QUOTE = 64 * 1024

# Quote header, versions 4 and 5.
HEADER = Layout(
    "quote header",
    48,
    fields(
        ("version", 0, 2),
        ("attestation_key_type", 2, 2),
        ("tee_type", 4, 4),
        ("reserved1", 8, 2),
        ("reserved2", 10, 2),
        ("qe_vendor_id", 12, 16),
        ("user_data", 28, 20),
    ),
)
# Version 5 only, between header and body.
BODY_HEAD = Layout("quote body descriptor", 6, fields(("type", 0, 2), ("length", 2, 4)))
_TD_10 = fields(
    ("tee_tcb_svn", 0, 16),
    ("mr_seam", 16, 48),
    ("mr_signer_seam", 64, 48),
    ("seam_attributes", 112, 8),
    ("td_attributes", 120, 8),
    ("xfam", 128, 8),
    ("mr_td", 136, 48),
    ("mr_config_id", 184, 48),
    ("mr_owner", 232, 48),
    ("mr_owner_config", 280, 48),
    ("rtmr0", 328, 48),
    ("rtmr1", 376, 48),
    ("rtmr2", 424, 48),
    ("rtmr3", 472, 48),
    ("report_data", 520, 64),
)
# Body types 2 (TD 1.0) and 3 (TD 1.5). Type 4 has no public example yet.
TD_BODY_10 = Layout("TD report 1.0", 584, _TD_10)
TD_BODY_15 = Layout(
    "TD report 1.5", 648, join(_TD_10, fields(("tee_tcb_svn2", 584, 16), ("mr_service_td", 600, 48)))
)
BODIES = {2: TD_BODY_10, 3: TD_BODY_15}


@dataclass(frozen=True, slots=True)
class TDXQuote:
    """A well-formed quote that nobody believes yet.

    version:   4 or 5
    body:      fields of ``TD_BODY_10`` or ``TD_BODY_15`` by name
    signed:    the exact bytes under the quote's signature: header, version 5's descriptor, body
    section:   signature, quoting enclave and PCK chain
    """

    version: int
    body: Mapping[str, bytes]
    signed: bytes
    section: dcap.SignatureSection

    @classmethod
    def parse(cls, data: bytes) -> "TDXQuote":
        """Read a quote; behind it only zeros may follow (configfs pads on some clouds).

        Raises ``Malformed``, or ``Unsupported`` for another TEE, version, key type or body type.
        """
        if len(data) > MAX_QUOTE:
            raise Malformed(f"quote has {len(data)} bytes, at most {MAX_QUOTE} are allowed")
        version = _header(data[: HEADER.length])
        layout, start = _body_layout(data, version)
        end = start + layout.length
        body = layout.read(data[start:end])
        behind = end + 4 + little(data[end : end + 4])
        if len(data) < behind or any(data[behind:]):
            raise Malformed(f"quote has {len(data)} bytes, {behind} and zeros are needed")
        return cls(version, body, data[:end], dcap.SignatureSection.parse(data[end + 4 : behind]))


def verify(quote: TDXQuote, collateral: Collateral, now: datetime, roots: Sequence[Root]) -> Facts:
    """Believe a quote under this collateral at this time, or raise ``Rejected`` or ``Refused``.

    1. Nothing in it is a simulator's, unless the roots are; its last certificate is one of ``roots``.
    2. The root's owner signed TCB info, QE identity and revocation lists, and they are in date.
    3. The PCK certificate's chain ends in that root, is in date and not revoked.
    4. The PCK key signed the quoting enclave's report, which is the enclave of the QE identity and names
       the attestation key.
    5. The attestation key signed the quote.
    6. The TCB info is for this machine; the TDX module is Intel's.
    7. Platform, module and quoting enclave reach a level each; the worst word is the status.
    """
    chain = quote.section.pck_chain
    root = select_root(roots, PLATFORM, (*collateral.certificates, *chain))
    documents = verify_collateral(collateral, root, now, TDX)
    dcap.verify_pck(quote.section, documents, root, now)
    qe_report = dcap.verify_qe_report(quote.section, documents.qe_identity)
    key = dcap.attestation_public_key(quote.section)
    verify_p256("quote signature", key, quote.section.signature, quote.signed)
    machine = dcap.PCKExtension.parse(chain[0])
    dcap.require_machine(machine, documents)
    _require_module(quote.body, documents)
    found = _judge(quote.body, machine, little(qe_report["isv_svn"]), documents)
    return _facts(quote, machine, found, root, now)


def _header(data: bytes) -> int:
    header = HEADER.read(data)
    version, tee = little(header["version"]), little(header["tee_type"])
    if version not in (4, 5) or tee != TEE_TDX:
        raise Unsupported(f"quote version {version} for TEE {tee:#x}; versions 4 and 5 for TDX are known")
    if little(header["attestation_key_type"]) != dcap.ECDSA_P256:
        raise Unsupported("attestation key is of another kind than ECDSA P-256")
    if header["qe_vendor_id"] != dcap.INTEL_QE_VENDOR:
        raise Malformed("the quoting enclave's vendor id is not Intel's")
    return version


def _body_layout(data: bytes, version: int) -> tuple[Layout, int]:
    if version == 4:
        return TD_BODY_10, HEADER.length
    start = HEADER.length + BODY_HEAD.length
    descriptor = BODY_HEAD.read(data[HEADER.length : start])
    kind, length = little(descriptor["type"]), little(descriptor["length"])
    if kind not in BODIES:
        raise Unsupported(f"quote body of type {kind}; types 2 and 3 are known")
    if length != BODIES[kind].length:
        raise Malformed(f"quote body says {length} bytes, its type has {BODIES[kind].length}")
    return BODIES[kind], start


def _require_module(body: Mapping[str, bytes], documents: VerifiedCollateral) -> None:
    module = tcb.find_module(documents.tcb_info, body["tee_tcb_svn"])
    if body["mr_signer_seam"] != module.signer:
        raise Rejected("tdx module signer", body["mr_signer_seam"].hex(), module.signer.hex())
    attributes = dcap.masked(body["seam_attributes"], module.mask)
    if attributes != module.attributes:
        raise Rejected("tdx module attributes", attributes.hex(), module.attributes.hex())


def _judge(
    body: Mapping[str, bytes], machine: dcap.PCKExtension, qe_svn: int, documents: VerifiedCollateral
) -> TCB:
    info = documents.tcb_info
    qe = tcb.judge_enclave("qe tcb level", documents.qe_identity.levels, qe_svn)
    started = body["tee_tcb_svn"]
    standings = [tcb.judge_platform(info, machine.components, machine.pce_svn, started), qe]
    standings += _module_standing(info, started)
    status = tcb.converge(*standings)
    running = body.get("tee_tcb_svn2", started)
    if running != started and status.startswith("OutOfDate"):
        now = [tcb.judge_platform(info, machine.components, machine.pce_svn, running), qe]
        status = tcb.relaunched(status, tcb.converge(*now, *_module_standing(info, running)))
    return TCB(
        status,
        tuple(sorted({advisory for standing in standings for advisory in standing.advisories})),
        min(standing.level_at for standing in standings),
        min((at for standing in standings if (at := standing.superseded_at)), default=None),
        documents.evaluation_number,
        {"tee_tcb_svn": started, "sgx_tcb_svn": machine.components, "pce_svn": machine.pce_svn},
    )


def _module_standing(info: TCBInfo, svn: bytes) -> list[Standing]:
    levels = tcb.find_module(info, svn).levels
    return [tcb.judge_enclave("tdx module tcb level", levels, svn[0])] if svn[1] else []


def _facts(quote: TDXQuote, machine: dcap.PCKExtension, level: TCB, root: Root, now: datetime) -> Facts:
    body = quote.body
    names = ["td_attributes", "xfam", "mr_seam", "mr_signer_seam", "seam_attributes"]
    names += [name for name in ("tee_tcb_svn2", "mr_service_td") if name in body]
    chips = [machine.ppid.hex()] + ([machine.instance_id.hex()] if machine.instance_id else [])
    when = f"at {now.isoformat()}"
    checks = (
        Check("root", root.fingerprint.hex(), root.fingerprint.hex(), root.name),
        Check("collateral", f"evaluation {level.evaluation_number}", f"signed and in date {when}", root.name),
        Check(
            "pck chain",
            quote.section.pck_chain[0].subject_text,
            f"in force and not revoked {when}",
            root.name,
        ),
        Check(
            "quoting enclave", "report signed, identity equal", "Intel's TD quoting enclave", "QE identity"
        ),
        Check("quote signature", "holds over header and body", "by the attestation key", "QE report"),
        Check("machine", machine.fmspc.hex(), "the FMSPC of the TCB info", "PCK certificate"),
        Check("tdx module", body["mr_seam"].hex(), "signer and attributes of the TCB info", "TCB info"),
        Check("tcb level", level.status, f"a level of {level.level_at.date()}", "TCB info, QE identity"),
    )
    return Facts(
        platform=root.platform,
        product=machine.fmspc.hex(),
        registers={"mrtd": body["mr_td"]}
        | {name: body[name] for name in ("rtmr0", "rtmr1", "rtmr2", "rtmr3")},
        configuration={name: body[name] for name in ("mr_config_id", "mr_owner", "mr_owner_config")},
        report_data=body["report_data"],
        tcb=level,
        attributes={name: body[name] for name in names},
        chips=tuple(chips),
        checks=checks,
        simulated=root.simulated,
        judged_at=now,
    )
