"""Good evidence of a vendor of our own is believed; spoiled in any one way it is refused by the check that says so."""

import dataclasses
import hashlib

import pytest

from quotary.attestation import tdx
from quotary.attestation.certificates import parse_chain
from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.attestation.roots import INTEL_SGX_ROOT, VENDOR_ROOTS, Root, simulator_root
from quotary.errors import Judged, Malformed, Refused, Rejected, Unsupported
from tests.fakes import vendor
from tests.fakes.vendor import DAY, NOW, Recipe, make

OLD_MODULE = bytes([3, 1, 3] + [0] * 13)


def verify(recipe: Recipe, platform: str = "tdx") -> Facts:
    evidence = make(recipe)
    return tdx.verify(
        tdx.TDXQuote.parse(evidence.quote),
        Collateral.parse(evidence.collateral),
        NOW,
        evidence.roots(platform),
    )


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(version=5), Recipe(version=5, body_type=2), Recipe(auth=b"")]
)
def test_good_evidence_gives_facts(recipe):
    facts = verify(recipe)
    assert (facts.platform, facts.product, facts.simulated) == ("tdx", vendor.FMSPC.hex(), False)
    assert facts.registers["mrtd"] == b"\x77" * 48
    assert facts.tcb.status == "UpToDate"
    assert facts.tcb.evaluation_number == 20
    assert facts.tcb.components == {
        "tee_tcb_svn": vendor.TDX_SVN,
        "sgx_tcb_svn": vendor.SGX_SVN,
        "pce_svn": 13,
    }
    assert facts.chips == (vendor.PPID.hex(), vendor.INSTANCE.hex())
    assert [check.name for check in facts.checks][-1] == "tcb level"
    assert facts.judged_at == NOW


def test_a_machine_without_a_platform_instance_has_one_identity():
    assert verify(Recipe(extension_parts={6: None})).chips == (vendor.PPID.hex(),)


def test_a_simulators_root_gives_the_simulated_platform():
    facts = verify(Recipe(certificate={"pck": {"marked": True}}), "sim-tdx")
    assert (facts.platform, facts.simulated) == ("sim-tdx", True)


def spoiled_certificates():
    for name, check in (
        ("root", "pck ca chain"),
        ("ca", "pck ca chain"),
        ("signing", "tcb info chain"),
        ("qe_signing", "qe identity chain"),
        ("pck", "pck chain"),
    ):
        yield f"{name} from tomorrow", {name: {"start": NOW + DAY}}, check
        yield f"{name} expired", {name: {"end": NOW - DAY}}, check
        yield f"{name} critical extension", {name: {"critical": "1.2.3.4"}}, check
    yield "pck signed by another", {"pck": {"signed_by": "stranger"}}, "pck chain"
    yield "ca signed by another", {"ca": {"signed_by": "stranger"}}, "pck ca chain"
    yield "signing signed by another", {"signing": {"signed_by": "stranger"}}, "tcb info chain"
    yield "qe signer signed by another", {"qe_signing": {"signed_by": "stranger"}}, "qe identity chain"
    yield "root not self-signed", {"root": {"signed_by": "stranger"}}, "pck ca chain"
    yield "ca is none", {"ca": {"ca": False}}, "pck chain"
    yield "ca without constraints", {"ca": {"constraints": False}}, "pck crl"
    yield "ca may not sign certificates", {"ca": {"usage_sign": False}}, "pck chain"
    yield "ca may not sign lists", {"ca": {"usage_crl": False}}, "pck crl"
    yield "root may not sign lists", {"root": {"usage_crl": False}}, "root crl"
    yield "root path too short", {"root": {"path": 0}}, "pck chain"
    yield "leaf is a ca", {"pck": {"ca": True}}, "pck chain"
    yield "signer is a ca", {"signing": {"ca": True}}, "tcb info signer"
    yield "signer of another use", {"signing": {"name": "Intel SGX PCK Platform CA"}}, "tcb info signer"
    yield "signer without a name", {"signing": {"name": ""}}, "tcb info signer"
    yield "qe signer is a ca", {"qe_signing": {"ca": True}}, "qe identity signer"
    yield (
        "qe signer of another use",
        {"qe_signing": {"name": "Intel SGX PCK Platform CA"}},
        "qe identity signer",
    )
    yield "pck key of another curve", {"pck": {"key": "p384"}}, "qe report signature"
    yield "pck key of another kind", {"pck": {"key": "rsa"}}, "qe report signature"


@pytest.mark.parametrize(
    ("changes", "check"),
    [(c, n) for _, c, n in spoiled_certificates()],
    ids=[name for name, _, _ in spoiled_certificates()],
)
def test_a_spoiled_certificate_is_rejected(changes, check):
    with pytest.raises(Rejected) as refused:
        verify(Recipe(certificate=changes))
    assert refused.value.check == check


def test_a_leaf_that_may_also_sign_certificates_is_rejected():
    with pytest.raises(Rejected) as refused:
        verify(Recipe(certificate={"pck": {"ca": True}, "root": {"path": None}, "ca": {"path": None}}))
    assert "is a CA" in refused.value.found


CRYPTOGRAPHY = [
    ("qe report signature", Recipe(qe_key="stranger")),
    ("qe report data", Recipe(qe_report_data=b"\1" * 64)),
    ("qe identity", Recipe(qe={"mr_signer": b"\1" * 32})),
    ("qe identity", Recipe(qe={"isv_prod_id": b"\1\0"})),
    ("qe identity", Recipe(qe={"misc_select": b"\1\0\0\0"})),
    ("qe identity", Recipe(qe={"attributes": b"\x13" + bytes(15)})),
    (
        "qe debug",
        Recipe(
            qe={"attributes": b"\x13" + bytes(15)},
            qe_identity=lambda d: d.update(attributesMask="F9" + "FF" * 7 + "00" * 8),
        ),
    ),
    ("attestation key", Recipe(attestation_point=b"\1" * 64)),
    ("quote signature", Recipe(quote_key="stranger")),
    ("tcb info signature", Recipe(tcb_info_key="stranger")),
    ("qe identity signature", Recipe(qe_identity_key="stranger")),
    ("fmspc", Recipe(tcb_info=lambda d: d.update(fmspc="00" * 6))),
    ("pce id", Recipe(tcb_info=lambda d: d.update(pceId="0100"))),
    ("tdx module signer", Recipe(body={"mr_signer_seam": b"\1" * 48})),
    ("tdx module attributes", Recipe(body={"seam_attributes": b"\1" + bytes(7)})),
    ("tdx module identity", Recipe(tcb_info=lambda d: d["tdxModuleIdentities"][0].update(id="TDX_02"))),
    ("tdx module identity", Recipe(tcb_info=lambda d: d.pop("tdxModuleIdentities"))),
    ("tcb info date", Recipe(tcb_info=lambda d: d.update(issueDate="2026-11-22T00:00:00Z"))),
    ("tcb info date", Recipe(tcb_info=lambda d: d.update(nextUpdate="2026-11-20T00:00:00Z"))),
    ("qe identity date", Recipe(qe_identity=lambda d: d.update(nextUpdate="2026-11-20T00:00:00Z"))),
    ("pck ca revocation", Recipe(revoked={"ca": "yes"})),
    ("tcb info signer revocation", Recipe(revoked={"signing": "yes"})),
    ("qe identity signer revocation", Recipe(revoked={"qe_signing": "yes"})),
    ("pck revocation", Recipe(revoked={"pck": "yes"})),
    ("root crl", Recipe(crl={"root": {"key": "stranger"}})),
    ("root crl", Recipe(crl={"root": {"end": NOW - DAY / 2}})),
    ("root crl", Recipe(crl={"root": {"start": NOW + DAY}})),
    ("root crl", Recipe(crl={"root": {"name": vendor.certificates(Recipe())["ca"].subject}})),
    ("pck crl", Recipe(crl={"ca": {"key": "stranger"}})),
    ("pck crl", Recipe(crl={"ca": {"key": "rsa"}})),
    ("pck crl", Recipe(crl={"ca": {"end": NOW - DAY / 2}})),
    ("pck crl", Recipe(crl={"ca": {"name": vendor.certificates(Recipe())["root"].subject}})),
]


@pytest.mark.parametrize(
    ("check", "recipe"), CRYPTOGRAPHY, ids=[f"{n}-{check}" for n, (check, _) in enumerate(CRYPTOGRAPHY)]
)
def test_one_spoiled_part_is_rejected_by_its_own_check(check, recipe):
    with pytest.raises(Rejected) as refused:
        verify(recipe)
    assert refused.value.check == check


@pytest.mark.parametrize("shown", ["quote", "collateral"])
def test_a_revoked_ca_is_rejected_wherever_it_is_shown(shown):
    # The same name and key under two serial numbers: only the certificate that is looked at tells them apart.
    chain = vendor.certificates(Recipe())
    renewed = chain | {"ca": vendor.certificates(Recipe(certificate={"ca": {"serial": 77}}))["ca"]}
    revoked = vendor.revocation_list(Recipe(revoked={"ca": "yes"}), "root", renewed, ("ca",))
    members = vendor.make_collateral(Recipe(), renewed if shown == "collateral" else chain)
    quote = tdx.TDXQuote.parse(vendor.make_quote(Recipe(), renewed if shown == "quote" else chain))
    root = parse_chain(vendor.text(chain["root"]).encode(), 1)[0].fingerprint
    roots = (Root("tdx", root, "a vendor of our own"),)
    assert tdx.verify(quote, Collateral.parse(members), NOW, roots)
    with pytest.raises(Rejected) as refused:
        tdx.verify(quote, Collateral.parse(members | {"root_ca_crl": revoked.hex()}), NOW, roots)
    assert refused.value.check == "pck ca revocation"


LEVELS = [
    ("tcb level", Recipe(body={"tee_tcb_svn": bytes([7, 1, 2] + [0] * 13)})),
    ("tcb level", Recipe(tcb_info=lambda d: [level["tcb"].update(pcesvn=14) for level in d["tcbLevels"]])),
    ("tdx module tcb level", Recipe(body={"tee_tcb_svn": bytes([2, 1, 4] + [0] * 13)})),
    ("qe tcb level", Recipe(qe={"isv_svn": b"\1\0"})),
]


@pytest.mark.parametrize(("check", "recipe"), LEVELS)
def test_a_machine_below_every_level_is_refused(check, recipe):
    with pytest.raises(Refused) as refused:
        verify(recipe)
    assert refused.value.check == check


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (LEVELS[0][1], "the oldest needs tdx component 2 of 3, not 2"),
        (LEVELS[1][1], "the oldest needs pce 14, not 13"),
        (
            Recipe(
                tcb_info=lambda d: [
                    each["tcb"]["sgxtcbcomponents"][0].update(svn=9) for each in d["tcbLevels"]
                ]
            ),
            "the oldest needs sgx component 0 of 9, not 4",
        ),
        (LEVELS[3][1], "isvsvn 2 or more"),
    ],
)
def test_a_machine_below_every_level_is_told_what_it_lacks(recipe, wanted):
    with pytest.raises(Refused) as refused:
        verify(recipe)
    assert refused.value.wanted.endswith(wanted)


def status(word: str):
    return lambda document: document["tcbLevels"][0].update(tcbStatus=word)


STATUSES = [
    ("UpToDate", Recipe()),
    ("OutOfDate", Recipe(qe={"isv_svn": b"\3\0"})),
    ("OutOfDate", Recipe(body={"tee_tcb_svn": bytes([4, 1, 4] + [0] * 13)})),
    ("OutOfDate", Recipe(body={"tee_tcb_svn": bytes([5, 1, 3] + [0] * 13)})),
    ("SWHardeningNeeded", Recipe(tcb_info=status("SWHardeningNeeded"))),
    ("ConfigurationNeeded", Recipe(tcb_info=status("ConfigurationNeeded"))),
    ("ConfigurationAndSWHardeningNeeded", Recipe(tcb_info=status("ConfigurationAndSWHardeningNeeded"))),
    ("OutOfDateConfigurationNeeded", Recipe(tcb_info=status("ConfigurationNeeded"), qe={"isv_svn": b"\3\0"})),
    (
        "OutOfDateConfigurationNeeded",
        Recipe(tcb_info=status("OutOfDateConfigurationNeeded"), qe={"isv_svn": b"\3\0"}),
    ),
    ("Revoked", Recipe(qe_identity=status("Revoked"))),
    ("Revoked", Recipe(tcb_info=status("Revoked"), qe={"isv_svn": b"\3\0"})),
    ("TDRelaunchAdvised", Recipe(version=5, body={"tee_tcb_svn": OLD_MODULE})),
    (
        "TDRelaunchAdvisedConfigurationNeeded",
        Recipe(version=5, body={"tee_tcb_svn": OLD_MODULE}, tcb_info=status("ConfigurationNeeded")),
    ),
    ("OutOfDate", Recipe(version=5, body={"tee_tcb_svn": OLD_MODULE}, qe={"isv_svn": b"\3\0"})),
    ("OutOfDate", Recipe(version=5, body={"tee_tcb_svn": OLD_MODULE, "tee_tcb_svn2": OLD_MODULE})),
    ("UpToDate", Recipe(version=5, body={"tee_tcb_svn2": bytes([9, 1, 9] + [0] * 13)})),
]


@pytest.mark.parametrize(("word", "recipe"), STATUSES)
def test_the_worst_word_is_the_status(word, recipe):
    assert verify(recipe).tcb.status == word


def test_a_module_of_version_zero_is_judged_by_the_platform_level_alone():
    body = {"tee_tcb_svn": bytes([5, 0, 4] + [0] * 13)}

    def levels(document):
        for row in document["tcbLevels"]:
            row["tcb"]["tdxtcbcomponents"][1] = {"svn": 0}

    assert verify(Recipe(body=body, tcb_info=levels)).tcb.status == "UpToDate"
    with pytest.raises(Refused) as refused:
        verify(Recipe(body={"tee_tcb_svn": bytes([4, 0, 4] + [0] * 13)}, tcb_info=levels))
    assert refused.value.check == "tcb level"


def test_an_outdated_machine_says_since_when_and_which_advisories():
    tcb = verify(Recipe(body={"tee_tcb_svn": bytes([5, 1, 3] + [0] * 13)}, qe={"isv_svn": b"\3\0"})).tcb
    assert tcb.advisories == ("INTEL-SA-00001", "INTEL-SA-00002")
    assert tcb.level_at.isoformat() == "2025-08-13T00:00:00+00:00"
    assert tcb.superseded_at.isoformat() == "2026-08-12T00:00:00+00:00"
    assert verify(Recipe()).tcb.superseded_at is None


@pytest.mark.parametrize("name", ["root", "ca", "signing", "pck"])
@pytest.mark.parametrize(
    "mark",
    [
        {"marked": True},
        {"organisation": "SIMULATED EVIDENCE"},
        {"organisation": "SIMULATED EVIDENCE - NOT A VENDOR"},
    ],
)
def test_a_marked_certificate_is_refused_before_any_signature_is_looked_at(name, mark):
    with pytest.raises(Refused) as refused:
        verify(
            Recipe(certificate={name: mark}, quote_key="stranger", qe_key="stranger", tcb_info_key="stranger")
        )
    assert refused.value.check == "simulated evidence"
    facts_under_simulator = verify(Recipe(certificate={name: mark}), "sim-tdx")
    assert facts_under_simulator.simulated


def test_a_root_that_nobody_named_is_rejected():
    evidence = make(Recipe())
    quote, collateral = tdx.TDXQuote.parse(evidence.quote), Collateral.parse(evidence.collateral)
    for roots in (
        VENDOR_ROOTS,
        (simulator_root("tdx", bytes(32)),),
        (Root("snp", evidence.root, "another platform's"),),
    ):
        with pytest.raises(Rejected) as refused:
            tdx.verify(quote, collateral, NOW, roots)
        assert refused.value.check == "root"


def test_roots_are_of_one_kind_and_never_none():
    evidence = make(Recipe())
    quote, collateral = tdx.TDXQuote.parse(evidence.quote), Collateral.parse(evidence.collateral)
    for roots in ((), (INTEL_SGX_ROOT, simulator_root("tdx", evidence.root))):
        with pytest.raises(Malformed):
            tdx.verify(quote, collateral, NOW, roots)


def test_a_vendors_root_cannot_be_called_a_simulators():
    for platform, fingerprint in (
        ("tdx", INTEL_SGX_ROOT.fingerprint),
        ("tdx", b"short"),
        ("sim-tdx", bytes(32)),
        ("abacus", bytes(32)),
    ):
        with pytest.raises(Malformed):
            simulator_root(platform, fingerprint)


def test_collateral_of_another_root_is_rejected_although_the_quote_is_good():
    ours = make(Recipe())
    theirs = make(
        Recipe(
            certificate={
                "root": {"key": "stranger", "signed_by": "stranger"},
                "ca": {"signed_by": "stranger"},
                "signing": {"signed_by": "stranger"},
            }
        )
    )
    with pytest.raises(Rejected) as refused:
        tdx.verify(tdx.TDXQuote.parse(ours.quote), Collateral.parse(theirs.collateral), NOW, ours.roots())
    assert refused.value.check == "pck ca chain"


def test_every_flipped_bit_of_the_signed_ranges_is_caught():
    """Each bit of header, body, signatures, keys, QE report and its data; the named checks and no other error."""
    evidence = make(Recipe(version=5))
    collateral, roots = Collateral.parse(evidence.collateral), evidence.roots()
    end = 54 + 648 + 4 + 134 + 384 + 64 + 2 + 32
    unsigned = {
        *range(54 + 648, 54 + 652),
        *range(54 + 652 + 128, 54 + 652 + 134),
        *range(end - 34, end - 32),
    }
    checks = set()
    for byte in range(0, end):
        for bit in (0, 7) if byte % 8 else range(8):
            bad = bytearray(evidence.quote)
            bad[byte] ^= 1 << bit
            with pytest.raises((Judged, Malformed, Unsupported)) as refused:
                tdx.verify(tdx.TDXQuote.parse(bytes(bad)), collateral, NOW, roots)
            if isinstance(refused.value, Judged):
                checks.add(refused.value.check)
                assert byte not in unsigned
    assert checks == {"quote signature", "qe report signature", "qe report data"}


@pytest.mark.filterwarnings("ignore")
def test_every_flipped_bit_of_collateral_is_caught():
    evidence = make(Recipe())
    quote, roots = tdx.TDXQuote.parse(evidence.quote), evidence.roots()
    for name, text in evidence.collateral.items():
        for position in range(0, len(text), 11):
            changed = text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]
            try:
                facts = tdx.verify(
                    quote, Collateral.parse({**evidence.collateral, name: changed}), NOW, roots
                )
            except (Judged, Malformed):
                continue
            # PEM armour is not part of a certificate: what was read must be the same bytes.
            assert facts.registers["mrtd"] == b"\x77" * 48
            assert "CERTIFICATE" in text
            before, after = (
                Collateral.parse({**evidence.collateral, name: t}).certificates for t in (text, changed)
            )
            assert [c.fingerprint for c in before] == [c.fingerprint for c in after]


def test_layout_tables_leave_no_byte_out_and_take_none_twice():
    from quotary.attestation import dcap

    tables = [
        tdx.HEADER,
        tdx.BODY_HEAD,
        tdx.TD_BODY_10,
        tdx.TD_BODY_15,
        dcap.SGX_REPORT,
        dcap.SIGNATURE_HEAD,
        dcap.QE_HEAD,
        dcap.CHAIN_HEAD,
    ]
    assert [table.gaps_and_overlaps() for table in tables] == [()] * len(tables)


def test_the_pinned_root_is_the_certificate_of_the_vendor(vectors):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    certificate = x509.load_pem_x509_certificate((vectors / "roots" / "intel-sgx-root-ca.pem").read_bytes())
    assert hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest() == INTEL_SGX_ROOT.fingerprint


def test_facts_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        verify(Recipe()).platform = "tdx"
