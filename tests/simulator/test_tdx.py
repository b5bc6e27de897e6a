"""The simulated vendor's quotes and collateral, before our verifier and before dcap-qvl."""

import hashlib
import json
from datetime import timedelta

import dcap_qvl
import pytest

from quotary.attestation.collateral import MEMBERS, Collateral
from quotary.attestation.roots import SIMULATOR_OID as VERIFIERS_OID
from quotary.attestation.roots import VENDOR_ROOTS, simulator_root
from quotary.attestation.tdx import HEADER, TD_BODY_10, TDXQuote, verify
from quotary.errors import CannotTell, Malformed, NotAuthorised, Refused, Rejected, Usage
from simulator.pki import FMSPC, ORGANISATION, SIMULATOR_OID, issue_pck, open_pki
from simulator.tcb import CURRENT, LATEST, TCB, Publication
from simulator.tdx import Platform, Registers
from tests.simulator.conftest import NOW

REGISTERS = Registers(*(bytes([n]) * 48 for n in range(1, 6)))
REPORT_DATA = bytes(range(64))
OLD_MODULE = TCB(bytes.fromhex("05010300") + bytes(12), CURRENT.sgx_tcb_svn, CURRENT.pce_svn)
OLD_PROCESSOR = TCB(CURRENT.tee_tcb_svn, bytes(16), 3)


def second_opinion(quote, collateral, root, now=NOW):
    parsed = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(dict(collateral)))
    return dcap_qvl.verify_with_root_ca(quote, parsed, root, int(now.timestamp()))


def test_the_verifier_believes_a_quote_under_the_simulators_root_and_says_so(platform, believe) -> None:
    facts = believe(platform.quote(REGISTERS, REPORT_DATA), platform.collateral)
    assert (facts.platform, facts.simulated, facts.product) == ("sim-tdx", True, FMSPC.hex())
    assert dict(facts.registers) == {
        name: getattr(REGISTERS, name) for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    }
    assert facts.report_data == REPORT_DATA
    assert (facts.tcb.status, facts.tcb.evaluation_number) == ("UpToDate", LATEST.evaluation_number)
    assert facts.tcb.components == {
        "tee_tcb_svn": CURRENT.tee_tcb_svn,
        "sgx_tcb_svn": CURRENT.sgx_tcb_svn,
        "pce_svn": CURRENT.pce_svn,
    }


@pytest.mark.parametrize(
    ("tcb", "status"), [(CURRENT, "UpToDate"), (OLD_MODULE, "OutOfDate"), (OLD_PROCESSOR, "OutOfDate")]
)
def test_both_verifiers_give_the_same_status_and_advisories(pki, believe, tcb, status) -> None:
    platform = Platform(pki, tcb, LATEST, NOW)
    quote = platform.quote(REGISTERS, REPORT_DATA)
    ours = believe(quote, platform.collateral)
    theirs = second_opinion(quote, platform.collateral, pki.root_der)
    assert ours.tcb.status == theirs.status == status
    assert list(ours.tcb.advisories) == sorted(theirs.advisory_ids)


def test_a_vendor_that_publishes_a_newer_level_leaves_the_machine_behind(pki, believe) -> None:
    newer = TCB(bytes.fromhex("07010300") + bytes(12), CURRENT.sgx_tcb_svn, CURRENT.pce_svn)
    platform = Platform(pki, CURRENT, Publication(newer, 21, ("SIM-SA-00002",)), NOW)
    facts = believe(platform.quote(REGISTERS, REPORT_DATA), platform.collateral)
    assert (facts.tcb.status, facts.tcb.evaluation_number) == ("OutOfDate", 21)
    assert facts.tcb.advisories == ("SIM-SA-00002",)


def test_production_verifiers_refuse_on_sight(platform) -> None:
    quote = bytearray(platform.quote(REGISTERS, REPORT_DATA))
    with pytest.raises(Refused) as refused:
        verify(TDXQuote.parse(bytes(quote)), Collateral.parse(platform.collateral), NOW, VENDOR_ROOTS)
    assert refused.value.check == "simulated evidence"
    quote[100] ^= 1  # no signature holds any more, and none is looked at
    with pytest.raises(Refused) as refused:
        verify(TDXQuote.parse(bytes(quote)), Collateral.parse(platform.collateral), NOW, VENDOR_ROOTS)
    assert refused.value.check == "simulated evidence"
    parsed = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(dict(platform.collateral)))
    with pytest.raises(ValueError, match="Verification failed"):
        dcap_qvl.verify(platform.quote(REGISTERS, REPORT_DATA), parsed, int(NOW.timestamp()))


def test_another_installation_is_another_vendor(tmp_path, platform) -> None:
    other = open_pki(tmp_path / "other", NOW)
    quote = platform.quote(REGISTERS, REPORT_DATA)
    with pytest.raises(Rejected) as rejected:
        verify(
            TDXQuote.parse(quote),
            Collateral.parse(platform.collateral),
            NOW,
            (simulator_root("tdx", other.root_sha256),),
        )
    assert rejected.value.check == "root"


def test_a_changed_register_or_report_data_is_rejected(platform, believe) -> None:
    quote = platform.quote(REGISTERS, REPORT_DATA)
    for field in TD_BODY_10.fields:
        position = HEADER.length + field.offset
        broken = quote[:position] + bytes([quote[position] ^ 1]) + quote[position + 1 :]
        with pytest.raises(Rejected) as rejected:
            believe(broken, platform.collateral)
        assert rejected.value.check == "quote signature", field.name


def test_collateral_lives_thirty_days(platform, pki) -> None:
    quote = platform.quote(REGISTERS, REPORT_DATA)
    root = (simulator_root("tdx", pki.root_sha256),)
    collateral = Collateral.parse(platform.collateral)
    verify(TDXQuote.parse(quote), collateral, NOW + timedelta(days=29), root)
    with pytest.raises(Rejected):
        verify(TDXQuote.parse(quote), collateral, NOW + timedelta(days=31), root)
    with pytest.raises(Rejected):
        verify(TDXQuote.parse(quote), collateral, NOW - timedelta(seconds=1), root)


def test_a_revoked_platform_is_rejected_by_both_verifiers(pki, platform, believe) -> None:
    quote = platform.quote(REGISTERS, REPORT_DATA)
    serial = TDXQuote.parse(quote).section.pck_chain[0].serial
    revoked = Platform(pki, CURRENT, Publication(CURRENT, 20, revoked=(serial,)), NOW).collateral
    with pytest.raises(Rejected) as rejected:
        believe(quote, revoked)
    assert rejected.value.check == "pck revocation"
    with pytest.raises(ValueError, match="Verification failed"):
        second_opinion(quote, revoked, pki.root_der)


def test_the_collateral_has_exactly_the_vendors_members(platform, vectors) -> None:
    real = json.loads((vectors / "collateral" / "tdx-90c06f000000-eval19-2026-06-08.json").read_bytes())
    assert set(platform.collateral) == set(MEMBERS) == set(real)
    for name in ("tcb_info", "qe_identity"):
        ours, theirs = json.loads(platform.collateral[name]), json.loads(real[name])
        assert set(ours) == set(theirs)
        assert set(ours["tcbLevels"][0]) == set(theirs["tcbLevels"][0])


def test_a_quote_has_the_same_layout_as_the_vector_of_another_simulator(platform, vectors) -> None:
    other = TDXQuote.parse((vectors / "measure" / "sim" / "tdx-quote.bin").read_bytes())
    ours = TDXQuote.parse(platform.quote(REGISTERS, REPORT_DATA))
    assert ours.body.keys() == other.body.keys()
    assert (ours.version, len(ours.signed)) == (other.version, len(other.signed))


def test_every_certificate_says_what_it_is(pki) -> None:
    leaf = issue_pck(pki, CURRENT.sgx_tcb_svn, CURRENT.pce_svn, NOW)
    for certificate in (
        leaf,
        pki.root.certificate,
        pki.platform_ca.certificate,
        pki.tcb_signing.certificate,
    ):
        assert certificate.extensions.get_extension_for_oid(SIMULATOR_OID)
        assert f"O={ORGANISATION}" in certificate.subject.rfc4514_string()
    assert SIMULATOR_OID.dotted_string == VERIFIERS_OID


def test_keys_are_for_their_owner_alone_and_stay_the_same(tmp_path) -> None:
    first = open_pki(tmp_path / "pki", NOW)
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "pki").glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    again = open_pki(tmp_path / "pki", NOW + timedelta(days=1))
    assert (again.root_der, again.ppid) == (first.root_der, first.ppid)
    assert first.root_sha256 == hashlib.sha256(first.root_der).digest()
    (tmp_path / "pki" / "pck.key").chmod(0o644)
    with pytest.raises(NotAuthorised):
        open_pki(tmp_path / "pki", NOW)


def test_a_level_of_another_length_is_refused() -> None:
    with pytest.raises(Usage):
        TCB(bytes(15), bytes(16), 0)
    with pytest.raises(Usage):
        TCB(bytes(16), bytes(16), 1 << 16)
    with pytest.raises(Usage):
        Publication(CURRENT, 0)


def test_a_directory_that_is_not_a_vendors_is_refused(tmp_path) -> None:
    open_pki(tmp_path / "pki", NOW)
    (tmp_path / "pki" / "ppid").write_text("00" * 16)
    with pytest.raises(Malformed, match="reserved pattern"):
        open_pki(tmp_path / "pki", NOW)
    (tmp_path / "pki" / "ppid").write_text("no hex")
    with pytest.raises(Malformed, match="not a simulated vendor"):
        open_pki(tmp_path / "pki", NOW)
    (tmp_path / "pki" / "root.key").unlink()
    with pytest.raises(CannotTell, match="cannot read"):
        open_pki(tmp_path / "pki", NOW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CannotTell):
        open_pki(tmp_path / "empty", NOW)
