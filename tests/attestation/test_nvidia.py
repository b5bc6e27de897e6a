"""NVIDIA devices: every real report, every byte broken, every check failing alone."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import nvidia, spdm
from quotary.attestation.nvidia import DeviceFacts, driver_rim_id, parse_device_chain, vbios_rim_id
from quotary.attestation.roots import (
    INTEL_SGX_ROOT,
    NVIDIA_DEVICE_ROOT,
    VENDOR_ROOTS,
    Root,
    simulator_root,
)
from quotary.attestation.spdm import DeviceReport
from quotary.errors import Malformed, Refused, Rejected, Unsupported
from tests.fakes import nvidia as fake

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SWITCH = "switch-ls10-96.10.55-sdk"
GENUINE = {
    # name: driver, VBIOS, id of the VBIOS's manifest
    "blackwell-575.32-sdk": ("575.32", "97.00.88.00.0F", "NV_GPU_VBIOS_G525_0220_886_970088000F"),
    "hopper-535.86.09-sdk": ("535.86.09", "96.00.5E.00.01", "NV_GPU_VBIOS_1010_0200_882_96005E0001"),
    "hopper-545.00-gonvtrust": ("545.00", "96.00.5E.00.01", "NV_GPU_VBIOS_1010_0200_882_96005E0001"),
    "hopper-550.90.07-nvtrust": ("550.90.07", "96.00.9F.00.01", "NV_GPU_VBIOS_1010_0200_882_96009F0001"),
    "hopper-570.124.03-sdk": ("570.124.03", "96.00.5E.00.04", "NV_GPU_VBIOS_1010_0205_862_96005E0004"),
    "hopper-580.159.03-sdk": ("580.159.03", "96.00.74.00.20", "NV_GPU_VBIOS_1010_0205_862_9600740020"),
    "switch-ls10-96.10.55-sdk": ("", "96.10.55.00.01", "NV_SWITCH_BIOS_5612_0002_890_9610550001"),
}
NO_FWID = {"hopper-535.86.09-sdk", "hopper-545.00-gonvtrust", SWITCH}
LISTS = {
    "hopper-570.86.10-cert-hold-sdk": 1,
    "hopper-590.12-ppcie-sdk": 1,
    "switch-ls10-multi-sdk": 4,
    "switch-ls10-single-sdk": 1,
}
BROKEN = {
    "derived-switch-measurement-bit": (Rejected, "device signature"),
    "derived-switch-nonce-bit": (Rejected, "device signature"),
    "derived-switch-trailing-byte": (Malformed, "2169 bytes, it says 2168"),
    "derived-switch-truncated": (Malformed, "2167 bytes, it says 2168"),
    "hopper-560.00-sdk-bad-signature": (Rejected, "device signature"),
    "switch-ls10-96.10.55-sdk-bad-signature": (Rejected, "device signature"),
    "hopper-580.95.05-trustee-trailing-byte": (Malformed, "4130 bytes, it says 4129"),
}


def read(vectors: Path, name: str) -> tuple[bytes, bytes]:
    folder = vectors / "nvidia"
    chain = SWITCH if name.startswith("derived") else name
    return (folder / f"{name}.report").read_bytes(), (folder / f"{chain}.chain.pem").read_bytes()


def judge(
    data: bytes, pem: bytes, nonce: bytes | None = None, now: datetime = NOW, roots=VENDOR_ROOTS, answers=()
) -> DeviceFacts:
    report = DeviceReport.parse(data)
    return nvidia.verify(report, parse_device_chain(pem), nonce or report.nonce, answers, now, roots)


@pytest.mark.parametrize("layout", [spdm.REQUEST, spdm.RESPONSE, spdm.BLOCK], ids=lambda layout: layout.what)
def test_a_message_layout_leaves_no_byte_unnamed(layout) -> None:
    assert layout.gaps_and_overlaps() == ()


@pytest.mark.parametrize("name", GENUINE)
def test_a_genuine_report_gives_facts(vectors: Path, name: str) -> None:
    found = judge(*read(vectors, name))
    assert (found.driver, found.vbios, vbios_rim_id(found)) == GENUINE[name]
    assert (found.platform, found.simulated) == ("nvidia", False)
    assert len(found.blocks) == (31 if found.kind == "switch" else 64)
    assert found.checks[-1].found.startswith("not in the report") == (name in NO_FWID)
    assert ("device revocation", "not checked") in [(check.name, check.found) for check in found.checks]


@pytest.mark.parametrize("name", LISTS)
def test_the_reports_of_sdk_lists_are_genuine(vectors: Path, name: str) -> None:
    members = json.loads((vectors / "nvidia" / f"{name}.json").read_text())
    assert len(members) == LISTS[name]
    for member in members:
        data, pem = base64.b64decode(member["evidence"]), base64.b64decode(member["certificate"])
        assert judge(data, pem, bytes.fromhex(member["nonce"])).simulated is False


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_report_is_refused_by_its_check(vectors: Path, name: str) -> None:
    kind, said = BROKEN[name]
    with pytest.raises(kind, match=said):
        judge(*read(vectors, name))


def test_the_report_with_a_trailing_byte_is_genuine_without_it(vectors: Path) -> None:
    data, pem = read(vectors, "hopper-580.95.05-trustee-trailing-byte")
    assert judge(data[:-1], pem).driver == "580.95.05"


def test_manifests_are_named_by_architecture(vectors: Path) -> None:
    hopper, blackwell = (
        judge(*read(vectors, name)) for name in ("hopper-535.86.09-sdk", "blackwell-575.32-sdk")
    )
    assert driver_rim_id(hopper) == "NV_GPU_DRIVER_GH100_535.86.09"
    assert driver_rim_id(blackwell) == "NV_GPU_CC_DRIVER_GB100_575.32"


def test_a_device_is_known_by_its_boot_rom(vectors: Path) -> None:
    switch = judge(*read(vectors, SWITCH))
    assert switch.pdi == switch.opaque[spdm.SWITCH_PDI] == bytes.fromhex("203eb31ad9ed0008")
    linked = judge(*real(vectors, "hopper-590.12-ppcie-sdk"))
    assert len(linked.links) == 18
    assert len(set(linked.links)) == 4


def real(vectors: Path, name: str) -> tuple[bytes, bytes]:
    member = json.loads((vectors / "nvidia" / f"{name}.json").read_text())[0]
    return base64.b64decode(member["evidence"]), base64.b64decode(member["certificate"])


def test_bytes_all_over_a_report_matter(vectors: Path) -> None:
    data, pem = read(vectors, SWITCH)
    chain, nonce = parse_device_chain(pem), DeviceReport.parse(data).nonce
    seen: dict[str, int] = {}
    # Every byte around the measurements, each fifth of theirs.
    for at in (*range(100), *range(100, 1700, 5), *range(1700, len(data))):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises((Malformed, Rejected)) as caught:
            nvidia.verify(DeviceReport.parse(bytes(changed)), chain, nonce, (), NOW, VENDOR_ROOTS)
        check = getattr(caught.value, "check", "malformed")
        seen[check] = seen.get(check, 0) + 1
    assert seen.keys() == {"malformed", "device nonce", "device signature"}
    assert seen["device nonce"] == 32


def test_every_truncation_is_malformed(vectors: Path) -> None:
    data, _ = read(vectors, "hopper-580.159.03-sdk")
    for length in (*range(0, len(data), 11), len(data) - 1):
        with pytest.raises(Malformed):
            DeviceReport.parse(data[:length])


@given(st.binary(max_size=400))
def test_bytes_from_anywhere_are_malformed(data: bytes) -> None:
    for start in (b"", b"\x11\xe0\x01\xff" + bytes(33) + b"\x11\x60\0\0"):
        with pytest.raises(Malformed):
            DeviceReport.parse(start + data)


def test_a_report_that_is_too_long_is_malformed() -> None:
    with pytest.raises(Malformed, match="at most"):
        DeviceReport.parse(bytes(spdm.MAX_REPORT + 1))


def test_a_root_that_was_not_named_is_refused(vectors: Path) -> None:
    with pytest.raises(Rejected, match=r"^root"):
        judge(*read(vectors, SWITCH), roots=(INTEL_SGX_ROOT,))
    assert judge(*read(vectors, SWITCH), roots=(NVIDIA_DEVICE_ROOT,))


def test_the_chain_must_be_in_force(vectors: Path) -> None:
    data, pem = read(vectors, SWITCH)
    begin = max(certificate.not_before for certificate in parse_device_chain(pem))
    judge(data, pem, now=begin)
    with pytest.raises(Rejected, match="device chain"):
        judge(data, pem, now=begin - timedelta(seconds=1))


def test_another_devices_chain_does_not_fit(vectors: Path) -> None:
    data, _ = read(vectors, "hopper-580.159.03-sdk")
    _, other = read(vectors, "hopper-550.90.07-nvtrust")
    with pytest.raises(Rejected, match="device signature"):
        judge(data, other)


def test_certificates_in_another_order_are_refused(vectors: Path) -> None:
    data, pem = read(vectors, SWITCH)
    end = b"-----END CERTIFICATE-----"
    parts = [part + end for part in pem.split(end) if part.strip()]
    assert len(parts) == 5
    for swapped in ([1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 3, 2, 4]):
        with pytest.raises(Rejected, match="device chain"):
            judge(data, b"".join(parts[index] for index in swapped))
    with pytest.raises(Rejected, match=r"^root"):
        judge(data, b"".join(parts[index] for index in [4, 3, 2, 1, 0]))
    with pytest.raises(Malformed, match="5 are needed"):
        judge(data, b"".join(parts[:4]))


# From here on with keys of our own.


@pytest.fixture(scope="module")
def found() -> fake.Authority:
    return fake.authority()


def roots(authority: fake.Authority) -> tuple[Root, ...]:
    return (simulator_root("nvidia", fake.fingerprint(authority.root)),)


def own(device: fake.Device, authority: fake.Authority, **changes) -> DeviceFacts:
    data = changes.pop("data", None) or device.report()
    return judge(data, device.pem, now=fake.NOW, roots=roots(authority), **changes)


PDI = b"\1\2\3\4\5\6\7\x08"


def test_a_simulators_device_is_simulated_by_its_root(found: fake.Authority) -> None:
    facts = own(fake.device(found, PDI), found)
    assert (facts.platform, facts.simulated, facts.pdi) == ("sim-nvidia", True, PDI)
    with pytest.raises(Rejected, match=r"^root"):
        judge(fake.device(found, PDI).report(), fake.device(found, PDI).pem, now=fake.NOW)


def test_a_simulators_mark_is_refused_in_production(found: fake.Authority) -> None:
    device = fake.device(found, PDI, extensions={"1.3.6.1.4.1.99999.7411.1": b"\5\0"})
    with pytest.raises(Refused, match="simulated evidence"):
        judge(device.report(), device.pem, now=fake.NOW)


def test_a_nonce_that_is_not_ours_is_refused(found: fake.Authority) -> None:
    with pytest.raises(Rejected, match="device nonce"):
        own(fake.device(found, PDI), found, nonce=b"\4" * 32)


def test_a_report_that_the_leaf_did_not_sign_is_rejected(found: fake.Authority) -> None:
    device = fake.device(found, PDI)
    data = bytearray(device.report())
    data[-1] ^= 1
    with pytest.raises(Rejected, match=r"^device signature"):
        own(device, found, data=bytes(data))


@pytest.mark.parametrize("days", [-1, 1])
def test_a_chain_that_is_not_in_force_is_rejected(found: fake.Authority, days: int) -> None:
    device = fake.device(found, PDI)
    with pytest.raises(Rejected, match=r"^device chain"):
        judge(device.report(), device.pem, now=fake.NOW + timedelta(days=days), roots=roots(found))


def test_a_firmware_id_that_the_leaf_does_not_have_is_refused(found: fake.Authority) -> None:
    device = fake.device(found, PDI)
    data = device.report(opaque={**fake.GPU, spdm.FWID: b"\7" * 48})
    with pytest.raises(Rejected, match="firmware id"):
        own(device, found, data=data)


@pytest.mark.parametrize(
    "extensions",
    [
        {},
        {"2.23.133.5.4.1": b""},
        {"2.23.133.5.4.1": b"\4\0"},
        {"2.23.133.5.4.1": b"\x30\0"},
        fake.hopper(b"\4\0"),
        fake.hopper(fake.digest(bytes(32))),
        fake.hopper(fake.digest(oid=b"\6\1\1")),
        fake.hopper(fake.seq(0x30, b"\4\0")),
        fake.hopper(fake.digest() + b"\5\0"),
        {"2.23.133.5.4.1.1": fake.seq(0x30, fake.seq(0x80, b"NVDA"))},
        {"2.23.133.5.4.1.1": fake.seq(0x30, fake.seq(0xA6))},
        {"2.23.133.5.4.1.1": fake.seq(0x30, fake.seq(0xA6, fake.digest()), fake.seq(0xA6, fake.digest()))},
    ],
)
def test_a_leaf_without_a_firmware_id_is_malformed(found: fake.Authority, extensions) -> None:
    with pytest.raises(Malformed):
        own(fake.device(found, PDI, extensions=extensions), found)


def test_blackwell_keeps_its_firmware_id_elsewhere() -> None:
    authority = fake.authority("GB100")
    assert own(fake.device(authority, PDI), authority).architecture == "GB100"


@pytest.mark.parametrize("name", ["", "GH100 A01 GSP", "TU102 A01 GSP BROM", "GH100 A01 GSP BROM x"])
def test_an_unknown_boot_rom_is_unsupported(found: fake.Authority, name: str) -> None:
    with pytest.raises(Unsupported, match="architecture"):
        own(fake.device(found, PDI, brom_name=name or "x"), found)


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf_name": "GB100 A01 GSP FMC LF"},
        {"leaf_name": "GH100 A01 GSP FMC LF", "leaf_ca": True},
        {"leaf_name": "LS_10 A01 FSP FMC LF"},
        {"brom_name": "GB100 A01 GSP BROM", "leaf_name": "GB100 A01 GSP FMC LF"},
    ],
)
def test_a_chain_names_one_architecture_throughout(found: fake.Authority, changes) -> None:
    with pytest.raises(Rejected, match="device chain"):
        own(fake.device(found, PDI, **changes), found)


@pytest.mark.parametrize("serial", [1, 1 << 63, 1 << 72])
def test_a_boot_rom_without_a_pdi_is_malformed(found: fake.Authority, serial: int) -> None:
    with pytest.raises(Malformed, match="9 bytes"):
        own(fake.device(found, PDI, serial=serial), found)


@pytest.mark.parametrize(
    "opaque",
    [
        {**fake.GPU, spdm.FWID: b"\6" * 32},
        {**fake.GPU, spdm.NVDEC0: b""},
        {**fake.GPU, spdm.SWITCH_PDI: b"\1" * 7},
        {**fake.GPU, spdm.FEATURE_FLAG: b"\0"},
        {**fake.GPU, spdm.DRIVER_VERSION: b""},
        {**fake.GPU, spdm.DRIVER_VERSION: b"\0" * 8},
        {**fake.GPU, spdm.DRIVER_VERSION: b"5 80"},
        {**fake.GPU, spdm.DRIVER_VERSION: b"5\n"},
        {**fake.GPU, spdm.DRIVER_VERSION: b"5" * 65},
        {**fake.GPU, spdm.VBIOS_VERSION: b"\xff" * 9},
        {kind: value for kind, value in fake.GPU.items() if kind != spdm.DRIVER_VERSION},
        {kind: value for kind, value in fake.GPU.items() if kind != spdm.VBIOS_VERSION},
    ],
)
def test_an_opaque_field_of_another_kind_is_malformed(found: fake.Authority, opaque) -> None:
    device = fake.device(found, PDI)
    with pytest.raises(Malformed):
        own(device, found, data=device.report(opaque=opaque))


def test_an_unknown_opaque_field_is_kept(found: fake.Authority) -> None:
    device = fake.device(found, PDI)
    assert own(device, found, data=device.report(opaque={**fake.GPU, 900: b"new"})).opaque[900] == b"new"


@pytest.mark.parametrize(
    ("blocks", "count", "opaque"),
    [
        (b"\1\1\x33\0\1\x30\0" + bytes(48), 2, b""),
        (b"\2\1\x33\0\1\x30\0" + bytes(48), 1, b""),
        (b"\1\2\x33\0\1\x30\0" + bytes(48), 1, b""),
        (b"\1\1\x32\0\1\x30\0" + bytes(48), 1, b""),
        (b"\1\1\x33\0\1\x2f\0" + bytes(48), 1, b""),
        (b"", 0, b"\1"),
        (b"", 0, b"\1\0\1\0"),
        (b"", 0, b"\1\0\0\0\1\0\0\0"),
    ],
)
def test_blocks_and_fields_out_of_order_are_malformed(found: fake.Authority, blocks, count, opaque) -> None:
    with pytest.raises(Malformed):
        DeviceReport.parse(fake.device(found, PDI).raw(fake.NONCE, blocks, count, opaque))


@pytest.mark.parametrize("at", [0, 1, 3, 36, 37, 38])
def test_another_request_or_answer_is_malformed(found: fake.Authority, at: int) -> None:
    data = bytearray(fake.device(found, PDI).report())
    data[at] ^= 0x10
    with pytest.raises(Malformed, match="request for all measurements"):
        DeviceReport.parse(bytes(data))


def test_a_report_ends_with_its_signature(found: fake.Authority) -> None:
    data = fake.device(found, PDI).report()
    for odd in (data[:-1], data + b"\0"):
        with pytest.raises(Malformed, match=f"it says {len(data)}"):
            DeviceReport.parse(odd)


def test_a_record_holds_the_blocks_that_it_counts_and_no_more(found: fake.Authority) -> None:
    device = fake.device(found, PDI)
    blocks = b"".join(bytes([index, 1, 51, 0, 1, 48, 0]) + bytes(48) for index in (1, 2))
    assert DeviceReport.parse(device.raw(fake.NONCE, blocks, 2, b"")).blocks == (bytes(48), bytes(48))
    for count in (1, 3):
        with pytest.raises(Malformed, match="measurement record has 110 bytes"):
            DeviceReport.parse(device.raw(fake.NONCE, blocks, count, b""))


def test_a_switch_reports_its_own_pdi() -> None:
    authority = fake.authority("LS_10")
    plain = {
        spdm.VBIOS_VERSION: b"96.10.55.00.01",
        spdm.SWITCH_PDI: PDI,
        spdm.SWITCH_GPUS: b"\1" * 8 + bytes(120),
    }
    device = fake.device(authority, PDI, plain)
    facts = own(device, authority)
    assert (facts.kind, facts.gpus, facts.driver) == ("switch", (b"\1" * 8,), "")
    for opaque in ({**plain, spdm.SWITCH_PDI: b"\2" * 8}, {spdm.VBIOS_VERSION: b"96.10.55.00.01"}):
        with pytest.raises(Rejected, match="switch pdi"):
            own(device, authority, data=device.report(opaque=opaque))


def test_links_of_zeros_are_no_links(found: fake.Authority) -> None:
    device = fake.device(found, PDI)
    links = (PDI[::-1] + bytes(8)).ljust(144, b"\0")
    assert own(device, found, data=device.report(opaque={**fake.GPU, spdm.SWITCH_PDI: links})).links == (PDI,)
