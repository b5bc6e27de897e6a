"""Manifests of reference values: every real one, every way to forge one, and what they say of real devices."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import rim, spdm
from quotary.attestation.nvidia import DeviceFacts
from quotary.attestation.rim import RIM, RIMDocument, match, mismatches
from quotary.attestation.roots import INTEL_SGX_ROOT, VENDOR_ROOTS, simulator_root
from quotary.errors import Malformed, Refused, Rejected, Unsupported
from tests.attestation.test_nvidia import judge, read
from tests.fakes import nvidia as fake

GENUINE = {
    # name: product, version, active indexes
    "driver-gh100-545.00": ("GH100", "545.00", 21),
    "driver-gh100-550.144.03": ("GH100", "550.144.03", 21),
    "switch-5612_0002_890-96.10.55.00.01": ("LS10", "96.10.55.00.01", 31),
    "vbios-1010_0200_882-96.00.5E.00.01-2023-06": ("GH100", "96.00.5E.00.01", 12),
    "vbios-1010_0200_882-96.00.5E.00.01-2023-12": ("GH100", "96.00.5E.00.01", 12),
    "vbios-1010_0200_882-96.00.74.00.1A": ("GH100", "96.00.74.00.1A", 12),
    "vbios-1010_0205_862-96.00.5E.00.04": ("GH100", "96.00.5E.00.04", 12),
    "vbios-1010_0205_862-96.00.74.00.20": ("GH100", "96.00.74.00.20", 12),
    "vbios-g520_0200_885-96.00.74.00.01": ("GH100", "96.00.74.00.01", 12),
}
BROKEN = {
    "bad-debug-root-gb100-97.00.83.00.09": "root",
    "bad-digest-driver-535.86.09": "rim digest",
    "bad-digest-switch-96.10.55.00.01": "rim digest",
    "bad-expired-driver-570.124.03": "rim digest",
    "bad-signature-driver-550.144.03": "rim signature",
}
MISMATCHES = {
    # report, manifest: indexes that differ
    ("hopper-545.00-gonvtrust", "driver-gh100-545.00"): (),
    ("hopper-545.00-gonvtrust", "vbios-1010_0200_882-96.00.5E.00.01-2023-06"): (1, 2, 3, 9),
    ("hopper-545.00-gonvtrust", "vbios-1010_0200_882-96.00.5E.00.01-2023-12"): (1, 2, 3, 9),
    ("hopper-535.86.09-sdk", "vbios-1010_0200_882-96.00.5E.00.01-2023-06"): (),
    ("hopper-570.124.03-sdk", "vbios-1010_0205_862-96.00.5E.00.04"): (9,),
    ("hopper-580.159.03-sdk", "vbios-1010_0205_862-96.00.74.00.20"): (9,),
    ("switch-ls10-96.10.55-sdk", "switch-5612_0002_890-96.10.55.00.01"): (),
}
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def data_of(vectors: Path, name: str) -> bytes:
    return (vectors / "nvidia" / "rim" / f"{name}.xml").read_bytes()


def inside(document: RIMDocument) -> datetime:
    return max(certificate.not_before for certificate in document.chain)


def real(vectors: Path, name: str) -> RIM:
    document = RIMDocument.parse(data_of(vectors, name))
    return rim.verify(document, (), inside(document), VENDOR_ROOTS)


@pytest.mark.parametrize("name", GENUINE)
def test_a_genuine_manifest_is_believed(vectors: Path, name: str) -> None:
    found = real(vectors, name)
    assert (found.platform, found.product, found.version, len(found.golden)) == ("nvidia-rim", *GENUINE[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused_by_its_check(vectors: Path, name: str) -> None:
    document = RIMDocument.parse(data_of(vectors, name))
    with pytest.raises(Rejected) as caught:
        rim.verify(document, (), inside(document), VENDOR_ROOTS)
    assert caught.value.check == BROKEN[name]


@pytest.mark.parametrize("name", ["driver-gh100-545.00", "bad-expired-driver-570.124.03"])
def test_a_manifest_is_judged_inside_its_signers_time(vectors: Path, name: str) -> None:
    document = RIMDocument.parse(data_of(vectors, name))
    end = min(certificate.not_after for certificate in document.chain)
    for now in (inside(document) - timedelta(seconds=1), end + timedelta(seconds=1), NOW):
        with pytest.raises(Rejected, match="rim chain"):
            rim.verify(document, (), now, VENDOR_ROOTS)


@pytest.mark.parametrize(("report", "manifest"), MISMATCHES)
def test_real_devices_differ_where_they_are_known_to(vectors: Path, report: str, manifest: str) -> None:
    device, found = judge(*read(vectors, report)), real(vectors, manifest)
    assert mismatches(device, found.golden) == MISMATCHES[report, manifest]


def test_a_real_switch_matches_its_manifest(vectors: Path) -> None:
    checks = match(
        judge(*read(vectors, "switch-ls10-96.10.55-sdk")),
        None,
        real(vectors, "switch-5612_0002_890-96.10.55.00.01"),
    )
    assert [(check.name, check.found) for check in checks][-1] == ("golden values", "31 match")


def test_a_real_gpu_with_another_vbios_state_is_refused_with_a_remedy(vectors: Path) -> None:
    device = judge(*read(vectors, "hopper-545.00-gonvtrust"))
    driver, vbios = (
        real(vectors, name) for name in ("driver-gh100-545.00", "vbios-1010_0200_882-96.00.5E.00.01-2023-12")
    )
    with pytest.raises(Rejected, match="index 1, 2, 3, 9") as caught:
        match(device, driver, vbios)
    assert caught.value.next_command is not None


def test_a_genuine_manifest_for_something_else_is_refused(vectors: Path) -> None:
    device = judge(*read(vectors, "hopper-545.00-gonvtrust"))
    driver, vbios = (
        real(vectors, name) for name in ("driver-gh100-545.00", "vbios-1010_0200_882-96.00.5E.00.01-2023-12")
    )
    rows = (
        (real(vectors, "driver-gh100-550.144.03"), vbios),
        (driver, real(vectors, "vbios-1010_0205_862-96.00.5E.00.04")),
        (driver, real(vectors, "switch-5612_0002_890-96.10.55.00.01")),
        (vbios, driver),
        (vbios, vbios),
        (driver, driver),
    )
    for pair in rows:
        with pytest.raises(Rejected, match="rim meta"):
            match(device, *pair)
    blackwell = judge(*read(vectors, "blackwell-575.32-sdk"))
    with pytest.raises(Rejected, match="rim meta"):
        match(blackwell, driver, vbios)


def test_a_root_that_was_not_named_is_refused(vectors: Path) -> None:
    document = RIMDocument.parse(data_of(vectors, "driver-gh100-545.00"))
    with pytest.raises(Rejected, match=r"^root"):
        rim.verify(document, (), inside(document), (INTEL_SGX_ROOT,))


# Broken certificates bring out every warning of the library that parses them.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "step"),
    [
        *((name, 23 if name == "driver-gh100-545.00" else 499) for name in GENUINE),
        *(pytest.param(name, 3, marks=pytest.mark.soak) for name in GENUINE),
    ],
)
def test_bytes_all_over_a_manifest_matter_unless_nothing_signs_them(
    vectors: Path, name: str, step: int
) -> None:
    data = data_of(vectors, name)
    good = RIMDocument.parse(data)
    facts = rim.verify(good, (), inside(good), VENDOR_ROOTS)
    seen = set()
    for at in range(0, len(data), step):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 7)
        try:
            found = rim.verify(RIMDocument.parse(bytes(changed)), (), inside(good), VENDOR_ROOTS)
        except (Malformed, Unsupported, Rejected) as error:
            seen.add(getattr(error, "check", type(error).__name__))
            continue
        assert replace(found, sha256=facts.sha256) == facts, f"byte {at} changed what was read"
    assert {"Malformed", "rim digest", "rim chain"} <= seen


@given(st.integers(0, 25_000))
def test_a_manifest_cut_anywhere_is_malformed(vectors: Path, length: int) -> None:
    data = data_of(vectors, "switch-5612_0002_890-96.10.55.00.01")
    with pytest.raises(Malformed):
        RIMDocument.parse(data[: min(length, len(data) - 2)])


# From here on with keys of our own.


@pytest.fixture(scope="module")
def signer() -> fake.RIMSigner:
    return fake.rim_signer()


ONE = [fake.resource(0, [b"\1" * 48])]


def believe(data: bytes, signer: fake.RIMSigner) -> RIM:
    roots = (simulator_root("nvidia-rim", fake.fingerprint(signer.root)),)
    return rim.verify(RIMDocument.parse(data), (), fake.NOW, roots)


def test_a_simulators_manifest_is_simulated_by_its_root(signer: fake.RIMSigner) -> None:
    data = fake.rim(signer, "GH100", "1.2", [*ONE, fake.resource(5, [b"\2" * 48, b"\3" * 48])])
    found = believe(data, signer)
    assert (found.platform, found.golden) == (
        "sim-nvidia-rim",
        {0: (b"\1" * 48,), 5: (b"\2" * 48, b"\3" * 48)},
    )
    with pytest.raises(Rejected, match=r"^root"):
        rim.verify(RIMDocument.parse(data), (), fake.NOW, VENDOR_ROOTS)


def test_a_simulators_mark_is_refused_in_production() -> None:
    marked = fake.rim_signer("SIMULATED EVIDENCE")
    with pytest.raises(Refused, match="simulated evidence"):
        rim.verify(RIMDocument.parse(fake.rim(marked, "GH100", "1", ONE)), (), fake.NOW, VENDOR_ROOTS)


def test_white_space_and_quotes_that_mean_nothing_do_not_matter(signer: fake.RIMSigner) -> None:
    data = fake.rim(signer, "GH100", "1.2", ONE)
    same = data.replace(
        b'<Meta colloquialVersion="1.2" product="GH100"/>',
        b"<Meta\n product='GH100'  colloquialVersion='1.2' ></Meta>",
    )
    assert same != data
    assert replace(believe(same, signer), sha256=b"") == replace(believe(data, signer), sha256=b"")


def test_what_the_signature_does_not_cover_is_not_read(signer: fake.RIMSigner) -> None:
    swapped = f'<Meta xmlns="{fake.SWID}" colloquialVersion="9" product="GB100"/>'
    data = fake.rim(signer, "GH100", "1.2", ONE, inside=swapped)
    assert believe(data, signer).version == "1.2"


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        (b'product="GH100"', b'product="GB100"', "rim digest"),
        (b'active="True"', b'active="False"', "rim digest"),
        (b"01" * 48, b"02" * 48, "rim digest"),
        (b'name="x"', b'name="y"', "rim digest"),
        (b"<Payload>", b"<Payload> ", "rim digest"),
    ],
)
def test_changed_content_is_refused(signer: fake.RIMSigner, old: bytes, new: bytes, check: str) -> None:
    data = fake.rim(signer, "GH100", "1.2", ONE)
    assert old in data
    with pytest.raises(Rejected) as caught:
        believe(data.replace(old, new), signer)
    assert caught.value.check == check


def test_a_changed_digest_is_refused_by_the_signature(signer: fake.RIMSigner) -> None:
    data = fake.rim(signer, "GH100", "1.2", ONE)
    found = RIMDocument.parse(data).digest
    changed = data.replace(base64.b64encode(found), base64.b64encode(b"\0" * 48))
    with pytest.raises(Rejected, match="rim signature"):
        believe(changed, signer)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_chain_that_is_not_in_force_is_rejected(signer: fake.RIMSigner, days: int) -> None:
    document = RIMDocument.parse(fake.rim(signer, "GH100", "1", ONE))
    roots = (simulator_root("nvidia-rim", fake.fingerprint(signer.root)),)
    with pytest.raises(Rejected, match="rim chain"):
        rim.verify(document, (), fake.NOW + timedelta(days=days), roots)


def test_a_manifest_by_a_ca_is_refused() -> None:
    wrong = fake.rim_signer(leaf_ca=True)
    with pytest.raises(Rejected, match="is a CA"):
        believe(fake.rim(wrong, "GH100", "1", ONE), wrong)


def test_a_second_signature_anywhere_is_malformed(signer: fake.RIMSigner) -> None:
    more = '<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>'
    for data in (
        fake.rim(signer, "GH100", "1", ONE, inside=more),
        fake.rim(signer, "GH100", "1", ONE).replace(b"</Payload>", more.encode() + b"</Payload>"),
    ):
        with pytest.raises(Malformed, match="exactly one signature"):
            RIMDocument.parse(data)
    data = fake.rim(signer, "GH100", "1", ONE)
    wrapped = data.replace(b"<ds:Signature ", b"<w><ds:Signature ").replace(
        b"</ds:Signature>", b"</ds:Signature></w>"
    )
    with pytest.raises(Malformed, match="children Signature"):
        RIMDocument.parse(wrapped)


C14N = "http://www.w3.org/2006/12/xml-c14n11"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ecdsa-sha384", "hmac-sha384"),
        ("xmldsig-more#sha384", "xmldsig#sha1"),
        (f'<ds:CanonicalizationMethod Algorithm="{C14N}"/>', '<ds:CanonicalizationMethod Algorithm="x"/>'),
        (
            f'<ds:Transform Algorithm="{C14N}"/>',
            '<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>',
        ),
        (f'<ds:Transform Algorithm="{C14N}"/>', ""),
        (f'<ds:Transform Algorithm="{C14N}"/>', f'<ds:Transform Algorithm="{C14N}"/>' * 2),
        (f'<ds:Transform Algorithm="{C14N}"/>', f'<ds:Transform Algorithm="{C14N}"><x/></ds:Transform>'),
        ('URI=""', 'URI="#part"'),
        ("</ds:Reference>", "<x/></ds:Reference>"),
        ("</ds:SignedInfo>", "<x/></ds:SignedInfo>"),
    ],
)
def test_another_way_of_signing_is_unsupported(signer: fake.RIMSigner, old: str, new: str) -> None:
    assert old in fake.INFO
    with pytest.raises(Unsupported):
        RIMDocument.parse(fake.rim(signer, "GH100", "1", ONE, info=fake.INFO.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("</ds:SignedInfo>", "</ds:SignedInfo><ds:SignatureValue>AA==</ds:SignatureValue>"),
        ("{digest}", "not base64!"),
        ("{digest}", "é"),
        ("{digest}", "<x/>"),
        ("</ds:Reference>", '</ds:Reference><ds:Reference URI=""/>'),
    ],
)
def test_a_signature_of_another_shape_is_malformed(signer: fake.RIMSigner, old: str, new: str) -> None:
    with pytest.raises(Malformed):
        RIMDocument.parse(fake.rim(signer, "GH100", "1", ONE, info=fake.INFO.replace(old, new)))


def test_a_chain_has_two_to_six_certificates(signer: fake.RIMSigner) -> None:
    for chain in (signer.chain[:1], signer.chain * 3, ()):
        with pytest.raises(Malformed, match="certificates"):
            RIMDocument.parse(fake.rim(signer, "GH100", "1", ONE, chain=chain))


@pytest.mark.parametrize(
    "resources",
    [
        [*ONE, *ONE],
        [fake.resource(0, [])],
        [fake.resource(256, [b"\1" * 48])],
        [fake.resource(0, [b"\1" * 32])],
        [fake.resource(0, [b"\1" * 48], alternatives="2")],
        [fake.resource(0, [b"\1" * 48], alternatives="65")],
        [fake.resource(0, [b"\1" * 48], index="00")],
        [fake.resource(0, [b"\1" * 48], index="-1")],
        [fake.resource(0, [b"\1" * 48], index="١")],
        [fake.resource(0, [b"\1" * 48], active="true")],
        [fake.resource(0, [b"\1" * 48], size="32")],
        [fake.resource(0, [b"\1" * 48], type="File")],
    ],
)
def test_an_odd_reference_value_is_malformed(signer: fake.RIMSigner, resources: list[str]) -> None:
    with pytest.raises(Malformed):
        RIMDocument.parse(fake.rim(signer, "GH100", "1", resources))


@pytest.mark.parametrize(
    "body",
    [
        "<Payload/>",
        '<Meta product="GH100"/><Payload/>',
        '<Meta product="GH100" colloquialVersion="1"/>',
        '<Meta product="GH100" colloquialVersion="1"/>' * 2 + "<Payload/>",
        '<Meta product="GH100" colloquialVersion="1"/><Payload/><Payload/>',
    ],
)
def test_a_manifest_without_its_parts_is_malformed(signer: fake.RIMSigner, body: str) -> None:
    with pytest.raises(Malformed):
        RIMDocument.parse(fake.rim(signer, "", "", [], body=body))


def test_another_document_is_malformed() -> None:
    with pytest.raises(Malformed, match="SoftwareIdentity"):
        RIMDocument.parse(b"<SoftwareIdentity/>")


# Matching, with facts of our own.


@pytest.fixture
def device() -> DeviceFacts:
    authority = fake.authority()
    return replace(
        judge_own(authority),
        simulated=False,
        platform="nvidia",
    )


def judge_own(authority: fake.Authority) -> DeviceFacts:
    found = fake.device(authority, b"\1\2\3\4\5\6\7\x08")
    roots = (simulator_root("nvidia", fake.fingerprint(authority.root)),)
    return judge(found.report(), found.pem, now=fake.NOW, roots=roots)


def manifest(
    version: str, golden: dict[int, tuple[bytes, ...]], platform: str = "nvidia-rim", product: str = "GH100"
) -> RIM:
    return RIM(platform, bytes(32), product, version, golden, "signer", None)


def value(index: int) -> bytes:
    return bytes([index]) * 48


DRIVER = manifest("580.159.03", {7: (value(99), value(7)), 21: (value(21),)})
VBIOS = manifest("96.00.74.00.20", {0: (value(0),), 9: (value(9),)})


def test_a_gpu_that_matches_both_manifests_passes(device: DeviceFacts) -> None:
    checks = match(device, DRIVER, VBIOS)
    assert [(check.name, check.found) for check in checks] == [
        ("rim meta", "GH100 580.159.03 96.00.74.00.20"),
        ("rim revocation", "not checked"),
        ("rim revocation", "not checked"),
        ("golden values", "4 match"),
    ]
    assert "NV_GPU_DRIVER_GH100_580.159.03" in checks[0].wanted


@pytest.mark.parametrize("changes", [{"product": "GB100"}, {"version": "580.159.04"}])
def test_a_manifest_of_another_product_or_version_is_rejected(device: DeviceFacts, changes) -> None:
    for driver, vbios in ((replace(DRIVER, **changes), VBIOS), (DRIVER, replace(VBIOS, **changes))):
        with pytest.raises(Rejected, match=r"^rim meta"):
            match(device, driver, vbios)


def test_versions_compare_without_regard_to_case(device: DeviceFacts) -> None:
    assert match(replace(device, vbios="96.00.74.00.1A"), DRIVER, replace(VBIOS, version="96.00.74.00.1a"))


@pytest.mark.parametrize("index", [0, 7, 9, 21])
def test_each_value_alone_is_refused_by_its_index(device: DeviceFacts, index: int) -> None:
    blocks = list(device.blocks)
    blocks[index] = value(200)
    with pytest.raises(Rejected, match=f"at index {index},"):
        match(replace(device, blocks=tuple(blocks)), DRIVER, VBIOS)


def test_a_value_that_no_manifest_names_does_not_matter(device: DeviceFacts) -> None:
    blocks = list(device.blocks)
    blocks[1] = value(200)
    assert match(replace(device, blocks=tuple(blocks)), DRIVER, VBIOS)


def test_a_block_that_is_missing_does_not_match(device: DeviceFacts) -> None:
    with pytest.raises(Rejected, match="index 21,"):
        match(replace(device, blocks=device.blocks[:21]), DRIVER, VBIOS)


def test_an_index_active_in_both_manifests_is_refused(device: DeviceFacts) -> None:
    both = replace(DRIVER, golden={9: (value(9),)})
    with pytest.raises(Rejected, match="rim overlap"):
        match(device, both, VBIOS)


def test_manifests_without_active_values_prove_nothing(device: DeviceFacts) -> None:
    with pytest.raises(Rejected, match="no active index"):
        match(device, replace(DRIVER, golden={}), replace(VBIOS, golden={}))


def test_the_decoder_counts_only_while_it_is_on(device: DeviceFacts) -> None:
    wrong = replace(DRIVER, golden={35: (value(200),), 7: (value(7),)})
    assert match(device, wrong, VBIOS)
    on = replace(device, opaque={**device.opaque, spdm.NVDEC0: b"\xaa"})
    with pytest.raises(Rejected, match="index 35,"):
        match(on, wrong, VBIOS)
    silent = replace(device, opaque={kind: v for kind, v in device.opaque.items() if kind != spdm.NVDEC0})
    with pytest.raises(Rejected, match="index 35,"):
        match(silent, wrong, VBIOS)


def test_simulated_manifests_are_for_simulated_devices(device: DeviceFacts) -> None:
    simulated = replace(VBIOS, platform="sim-nvidia-rim")
    with pytest.raises(Rejected, match="rim meta: found simulated"):
        match(device, DRIVER, simulated)
    with pytest.raises(Rejected, match="rim meta"):
        match(replace(device, simulated=True), DRIVER, VBIOS)


def test_a_switch_has_one_manifest_and_a_gpu_two(device: DeviceFacts) -> None:
    with pytest.raises(Malformed):
        match(device, None, VBIOS)
    with pytest.raises(Malformed):
        match(replace(device, kind="switch"), DRIVER, VBIOS)


def test_the_published_comparison_of_a_real_gpu_is_repeated(vectors: Path) -> None:
    folder = vectors / "measure" / "nvidia"
    expected = json.loads((folder / "expected.json").read_text())["gh100_driver_and_vbios"]
    chain = (folder / "gh100-535-certchain.b64").read_bytes()
    device = judge((folder / "gh100-535-report.bin").read_bytes(), chain)
    golden: dict[int, tuple[bytes, ...]] = {}
    for name in ("NV_GPU_DRIVER_GH100_535.86.09_mismatch.xml", "NV_GPU_VBIOS_1010_0200_882_96005E0001.xml"):
        # The driver's manifest was altered on purpose: its values are compared here without believing it.
        golden |= RIMDocument.parse((folder / name).read_bytes()).golden
    assert len(golden) == expected["active"]
    assert mismatches(device, golden) == tuple(expected["mismatch"])
    assert expected["skipped"] == [rim.NVDEC0_INDEX]
