"""SGX quotes: the real ones at their times, and every check failing alone."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import dcap, sgx, tdx
from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Facts
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.attestation.sgx import SGXQuote
from quotary.attestation.sgx_appraisal import appraise, meet_requirements
from quotary.errors import Judged, Malformed, Refused, Rejected, Unsupported
from tests.attestation.rules import ANYTHING, Floor, Row
from tests.attestation.test_tdx_verify import CRYPTOGRAPHY, spoiled_certificates
from tests.conftest import ROOT
from tests.fakes import sgx as fake
from tests.fakes import vendor
from tests.fakes.vendor import NOW, Recipe

ICE_LAKE = ("sgx-00606a000000-eval17-2025-08-15.json", 1755240086)
COMET_LAKE = ("sgx-00a067110000-eval17-2025-06-19.json", 1750334171)
REAL = {
    "v3-00606a-automata-swhardening": (ICE_LAKE, "SWHardeningNeeded"),
    "v3-00606a-oasis-outofdate": (ICE_LAKE, "OutOfDate"),
    "v3-00606a-occlum-debug": (ICE_LAKE, "debug"),
    "v3-00a06711-automata-debug": (COMET_LAKE, "debug"),
    "v3-00a06711-dcapqvl-config-and-swhardening": (COMET_LAKE, "ConfigurationAndSWHardeningNeeded"),
}
ANY_CONFIGURATION = Row()
# What is about TDX's module has no meaning for an enclave.
SHARED = [(check, recipe) for check, recipe in CRYPTOGRAPHY if not check.startswith("tdx module")]


def read(vectors: Path, name: str) -> bytes:
    return (vectors / "sgx" / f"{name}.quote").read_bytes()


def judged(data: bytes, members: dict[str, str], at: int, roots: tuple[Root, ...] = VENDOR_ROOTS) -> Facts:
    now = datetime.fromtimestamp(at, UTC)
    return sgx.verify(SGXQuote.parse(data), Collateral.parse(members), now, roots)


def members_of(vectors: Path, name: str) -> dict[str, str]:
    found = json.loads((vectors / "collateral" / name).read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", REAL)
def test_every_real_quote_gets_its_expected_verdict_at_its_time(vectors: Path, name: str) -> None:
    (bundle, at), expected = REAL[name]
    facts = judged(read(vectors, name), members_of(vectors, bundle), at)
    assert (facts.platform, facts.simulated) == ("sgx", False)
    if expected == "debug":
        with pytest.raises(Refused, match=r"^debug"):
            appraise(facts, ANYTHING, ANY_CONFIGURATION)
    else:
        assert facts.tcb.status == expected
        assert appraise(facts, ANYTHING, ANY_CONFIGURATION)


def test_a_quote_without_a_certificate_of_its_machine_is_malformed(vectors: Path) -> None:
    with pytest.raises(Malformed, match="type 3, 5 is needed"):
        SGXQuote.parse(read(vectors, "v3-oasis-eppid-certtype3"))


def test_bytes_all_over_a_real_quote_matter(vectors: Path) -> None:
    name = "v3-00606a-automata-swhardening"
    data, members = read(vectors, name), members_of(vectors, ICE_LAKE[0])
    signed = 48 + 384
    for at in (*range(0, signed, 5), *range(signed, signed + 4 + 128 + 450 + 38)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises((Malformed, Unsupported, Judged)):
            judged(bytes(changed), members, ICE_LAKE[1])


# From here on with keys of our own.


def verify(recipe: Recipe, platform: str = "sgx", **body: bytes) -> Facts:
    evidence = fake.make(recipe, body)
    quote = SGXQuote.parse(evidence.quote)
    return sgx.verify(quote, Collateral.parse(evidence.collateral), NOW, evidence.roots(platform))


def test_good_evidence_gives_facts() -> None:
    facts = verify(Recipe())
    assert (facts.platform, facts.product, facts.simulated) == ("sgx", vendor.FMSPC.hex(), False)
    assert facts.registers == {"mrenclave": b"\x77" * 32}
    assert (facts.tcb.status, facts.tcb.evaluation_number) == ("UpToDate", 20)
    assert facts.tcb.components == {"sgx_tcb_svn": vendor.SGX_SVN, "pce_svn": 13}
    assert facts.chips == (vendor.PPID.hex(), vendor.INSTANCE.hex())
    assert facts.attributes["mr_signer"] == b"\x66" * 32
    assert verify(Recipe(extension_parts={6: None})).chips == (vendor.PPID.hex(),)


def test_the_header_leaves_no_byte_unnamed() -> None:
    for layout in (sgx.HEADER, dcap.SIGNATURE_HEAD_3):
        assert layout.gaps_and_overlaps() == ()


@pytest.mark.parametrize(
    ("changes", "check"),
    [(changes, check) for _, changes, check in spoiled_certificates()],
    ids=[name for name, _, _ in spoiled_certificates()],
)
def test_a_spoiled_certificate_is_rejected(changes, check: str) -> None:
    with pytest.raises(Rejected) as refused:
        verify(Recipe(certificate=changes))
    assert refused.value.check == check


@pytest.mark.parametrize(
    ("check", "recipe"), SHARED, ids=[f"{number}-{check}" for number, (check, _) in enumerate(SHARED)]
)
def test_one_spoiled_part_is_rejected_by_its_own_check(check: str, recipe: Recipe) -> None:
    with pytest.raises(Rejected) as refused:
        verify(recipe)
    assert refused.value.check == check


@pytest.mark.parametrize(
    ("check", "recipe"),
    [
        (
            "tcb level",
            Recipe(tcb_info=lambda d: [level["tcb"].update(pcesvn=14) for level in d["tcbLevels"]]),
        ),
        ("qe tcb level", Recipe(qe={"isv_svn": b"\1\0"})),
    ],
)
def test_a_machine_below_every_level_is_refused(check: str, recipe: Recipe) -> None:
    with pytest.raises(Refused) as refused:
        verify(recipe)
    assert refused.value.check == check


def test_the_worse_word_of_platform_and_quoting_enclave_counts() -> None:
    old = verify(Recipe(qe={"isv_svn": b"\3\0"}))
    assert (old.tcb.status, old.tcb.advisories) == ("OutOfDate", ("INTEL-SA-00002",))
    assert old.tcb.superseded_at == datetime(2026, 8, 12, tzinfo=UTC)
    raised = Recipe(tcb_info=lambda d: d["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0].update(svn=5))
    assert (verify(raised).tcb.status, verify(raised).tcb.advisories) == ("OutOfDate", ("INTEL-SA-00001",))


def test_documents_for_tdx_do_not_judge_an_enclave_and_the_other_way_round() -> None:
    for recipe, said in (
        (Recipe(tcb_info=lambda d: d.update(id="TDX")), "tcb info"),
        (Recipe(qe_identity=lambda d: d.update(id="TD_QE")), "qe identity"),
    ):
        with pytest.raises(Malformed, match=said):
            verify(recipe)
    domain = vendor.make(Recipe(tcb_info=fake.as_tcb_info))
    with pytest.raises(Malformed, match="tcb info"):
        tdx.verify(tdx.TDXQuote.parse(domain.quote), Collateral.parse(domain.collateral), NOW, domain.roots())


def test_a_root_for_another_platform_admits_no_enclave() -> None:
    with pytest.raises(Rejected, match=r"^root"):
        verify(Recipe(), "tdx")
    evidence = fake.make(Recipe())
    facts = sgx.verify(
        SGXQuote.parse(evidence.quote),
        Collateral.parse(evidence.collateral),
        NOW,
        (simulator_root("sgx", evidence.root),),
    )
    assert (facts.platform, facts.simulated) == ("sim-sgx", True)


def test_a_simulators_mark_is_refused_in_production() -> None:
    evidence = fake.make(Recipe(certificate={"pck": {"marked": True}}))
    with pytest.raises(Refused, match="simulated evidence"):
        sgx.verify(SGXQuote.parse(evidence.quote), Collateral.parse(evidence.collateral), NOW, VENDOR_ROOTS)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"version": b"\4\0"}, Unsupported, "version 4"),
        ({"tee_type": b"\x81\0\0\0"}, Unsupported, "TEE 0x81"),
        ({"attestation_key_type": b"\3\0"}, Unsupported, "another kind"),
        ({"qe_vendor_id": bytes(16)}, Malformed, "vendor"),
    ],
)
def test_a_header_of_another_kind_is_refused(changes, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        SGXQuote.parse(fake.make(Recipe(), header=changes).quote)


def test_a_quote_ends_where_it_says() -> None:
    data = fake.make(Recipe()).quote
    assert SGXQuote.parse(data + bytes(100)) == SGXQuote.parse(data)
    for length in (*range(0, len(data), 97), 48 + 384, 48 + 384 + 3, len(data) - 1):
        with pytest.raises(Malformed):
            SGXQuote.parse(data[:length])
    longer = (
        data[: 48 + 384] + (int.from_bytes(data[432:436], "little") + 1).to_bytes(4, "little") + data[436:]
    )
    for odd in (data + b"\0\1", data + bytes(sgx.MAX_QUOTE), longer):
        with pytest.raises(Malformed):
            SGXQuote.parse(odd)


@given(st.binary(max_size=1200))
def test_bytes_from_anywhere_are_malformed(data: bytes) -> None:
    head = fake.make(Recipe()).quote[: 48 + 384]
    for start in (b"", head):
        with pytest.raises((Malformed, Unsupported)):
            SGXQuote.parse(start + data)


# What MRENCLAVE does not cover


def attributes(flags: int = 5, xfrm: int = 0xE7) -> bytes:
    return flags.to_bytes(8, "little") + xfrm.to_bytes(8, "little")


def test_an_enclave_in_order_is_admitted_and_every_check_is_named() -> None:
    floor = Floor(minimum={"sgx_tcb_svn": vendor.SGX_SVN, "pce_svn": 13})
    checks = appraise(verify(Recipe()), floor, Row()).checks
    assert [check.name for check in checks][:4] == ["debug", "xfrm", "configuration", "tcb minimum"]
    for flags in (0x85, 0x45, 0x405, 0x4C5):
        assert meet_requirements(verify(Recipe(), attributes=attributes(flags)), Row())
    for xfrm in (3, 0xE7, 0x2FF):
        assert meet_requirements(verify(Recipe(), attributes=attributes(xfrm=xfrm)), Row())


@pytest.mark.parametrize(
    ("body", "check"),
    [
        ({"attributes": attributes(0x07)}, "debug"),
        ({"attributes": attributes(0x15)}, "sgx keys"),
        ({"attributes": attributes(0x25)}, "sgx keys"),
        ({"attributes": attributes(0x01)}, "sgx attributes"),
        ({"attributes": attributes(0x04)}, "sgx attributes"),
        ({"attributes": attributes(0x0D)}, "sgx attributes"),
        ({"attributes": attributes(0x105)}, "sgx attributes"),
        ({"attributes": attributes(1 << 63 | 5)}, "sgx attributes"),
        ({"attributes": attributes(xfrm=0x1E7)}, "xfrm"),
        ({"attributes": attributes(xfrm=1 << 15 | 7)}, "xfrm"),
        ({"misc_select": b"\1\0\0\0"}, "misc select"),
    ],
)
def test_what_whoever_starts_the_enclave_chose_is_refused_by_name(body, check: str) -> None:
    with pytest.raises(Refused) as refused:
        meet_requirements(verify(Recipe(), **body), Row())
    assert refused.value.check == check


def test_a_configuration_is_listed_or_zero() -> None:
    one, other = b"\1" * 64, b"\2" * 64
    configured = verify(Recipe(), config_id=one)
    assert meet_requirements(configured, Row(configuration=(other, one)))
    for facts, row in (
        (configured, Row()),
        (configured, Row(configuration=(other,))),
        (verify(Recipe()), Row(configuration=(one,))),
    ):
        with pytest.raises(Rejected, match=r"^configuration"):
            meet_requirements(facts, row)
    with pytest.raises(Rejected, match=r"^config svn"):
        meet_requirements(verify(Recipe(), config_svn=b"\1\0"), Row())


def test_facts_of_another_platform_are_not_appraised() -> None:
    with pytest.raises(Unsupported, match="no SGX appraisal"):
        meet_requirements(dataclasses.replace(verify(Recipe()), platform="tdx"), Row())


def test_firmware_below_the_floor_is_refused() -> None:
    for minimum in ({"sgx_tcb_svn": bytes([5]) + bytes(15)}, {"pce_svn": 14}):
        with pytest.raises(Refused, match=r"^tcb minimum"):
            appraise(verify(Recipe()), Floor(minimum=minimum), Row())


def test_every_check_of_an_enclave_stands_in_the_page_on_evidence() -> None:
    page = (ROOT / "docs" / "evidence.md").read_text()
    for name in ("debug", "sgx keys", "sgx attributes", "xfrm", "misc select", "config svn", "configuration"):
        assert f"`{name}`" in page, name
