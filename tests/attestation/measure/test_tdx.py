"""TDX registers: MRTD in both orders, the TD HOB, boot events, and real logs as the judge."""

import base64
import gzip
import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation.measure import pe, tdx
from quotary.attestation.measure.hob import td_hob
from quotary.attestation.measure.kernel import measured_kernel
from quotary.attestation.measure.pe import authenticode
from quotary.attestation.measure.profiles import names, profile, profile_sha256, tdx_profile
from quotary.attestation.measure.tdvf import Section, configuration_volume, mrtd, sections
from quotary.attestation.measure.tdx import TDXLaunch, event_digest, load_options
from quotary.attestation.measure.trace import extend
from quotary.canonical import parse_canonical
from quotary.errors import Malformed, Unsupported
from tests.fakes import firmware as fakes

SIMULATED = "tdx/simulated-direct-boot/v1"
EDK2_202502 = "tdx/qemu-direct-boot+edk2-202502/v1"
EDK2_202608 = "tdx/qemu-direct-boot+edk2-202608/v1"


def load(vectors: Path, name: str):
    return json.loads((vectors / "measure" / "tdx" / name).read_text())


@pytest.fixture
def firmware(vectors) -> bytes:
    return base64.b64decode(load(vectors, "synthetic.json")["tdvf_b64"])


@pytest.fixture
def image(vectors) -> bytes:
    return base64.b64decode(load(vectors, "synthetic.json")["pe_b64"])


def linux(image: bytes, flags: int = 0x7F, protocol: int = 0x20F) -> bytes:
    """A PE image with a Linux setup header, as far as the loader looks at it."""
    kernel = bytearray(image)
    kernel[0x202:0x208] = b"HdrS" + struct.pack("<H", protocol)
    struct.pack_into("<I", kernel, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<H", kernel, 0x236, flags)
    return bytes(kernel)


def launch(firmware: bytes, image: bytes, **change: object) -> TDXLaunch:
    start = TDXLaunch(firmware, linux(image), b"initrd", "console=ttyS0 a=b", 2 << 30, {})
    return replace(start, **change)


def test_mrtd_of_the_synthetic_firmware_is_the_published_one(vectors, firmware):
    expected = load(vectors, "synthetic.json")
    assert mrtd(firmware, "single-pass")[0].hex() == expected["mrtd_single_pass"]
    assert mrtd(firmware, "two-pass")[0].hex() == expected["mrtd_two_pass_own"]


def test_the_two_page_orders_differ_when_a_section_has_two_pages(firmware):
    longer = two_page_firmware(bytes(8192))
    assert mrtd(longer, "single-pass")[0] != mrtd(longer, "two-pass")[0]
    with pytest.raises(Malformed):
        mrtd(firmware, "three-pass")


def test_mrtd_is_the_record_stream_of_the_module(firmware):
    state = hashlib.sha384()
    for section in sections(firmware):
        data = firmware[section.offset : section.offset + section.raw]
        for page in range(0, section.memory if not section.attributes & 2 else 0, 4096):
            state.update(struct.pack("<16sQ104x", b"MEM.PAGE.ADD", section.gpa + page))
            for chunk in range(0, 4096 if section.attributes & 1 else 0, 256):
                state.update(struct.pack("<16sQ104x", b"MR.EXTEND", section.gpa + page + chunk))
                state.update(data[page + chunk : page + chunk + 256])
    assert mrtd(firmware, "single-pass")[0] == state.digest()


def section_row(offset: int, raw: int, gpa: int, memory: int, kind: int, attributes: int) -> bytes:
    return struct.pack("<IIQQII", offset, raw, gpa, memory, kind, attributes)


def two_page_firmware(data: bytes, *rows: bytes, version: int = 1, length: int | None = None) -> bytes:
    """td-shim style: data, then the metadata, its absolute offset 32 bytes before the end."""
    found = rows or (section_row(0, 8192, 0x1000, 8192, 0, 1), section_row(0, 0, 0x10000, 4096, 2, 0))
    table = struct.pack(
        "<4sIII", b"TDVF", 16 + 32 * len(found) if length is None else length, version, len(found)
    )
    table += b"".join(found)
    return data + table + struct.pack("<I", len(data)) + bytes(28)


@pytest.mark.parametrize(
    "row",
    [
        (0, 0, 0x1001, 4096, 3, 0),
        (0, 0, 0x1000, 4097, 3, 0),
        (0, 0, 0x1000, 0, 3, 0),
        (0, 8192, 0x1000, 4096, 3, 0),
        (8192, 4096, 0x1000, 4096, 3, 0),
        (0, 4096, 0x1000, 8192, 0, 1),
        (0, 0, 0x1000, 4096, 9, 0),
        (0, 0, 0x1000, 4096, 3, 4),
        (0, 0, 0x1000, 2 << 30, 3, 0),
    ],
)
def test_sections_that_no_vmm_may_follow_are_malformed(row):
    with pytest.raises(Malformed):
        sections(two_page_firmware(bytes(8192), section_row(*row)))


def test_broken_tables_are_malformed():
    one, hob = section_row(0, 0, 0x1000, 8192, 3, 0), section_row(0, 0, 0x9000, 4096, 2, 0)
    for bad in (
        two_page_firmware(bytes(8192), one, version=2),
        two_page_firmware(bytes(8192), one, length=16),
        two_page_firmware(bytes(8192), one, section_row(0, 0, 0x2000, 4096, 3, 0)),
        two_page_firmware(bytes(8192), hob, section_row(0, 0, 0x2000, 4096, 2, 0)),
        bytes(4096),
        b"",
        bytes((64 << 20) + 1),
    ):
        with pytest.raises(Malformed):
            sections(bad)
    assert len(sections(two_page_firmware(bytes(8192), one))) == 1
    with pytest.raises(Malformed):
        configuration_volume(two_page_firmware(bytes(8192), one))


def test_every_flipped_bit_of_the_guid_table_is_noticed_or_harmless(firmware):
    """A changed table gives other sections, no sections, or ``Malformed``; never another exception."""
    before = sections(firmware)
    changed = 0
    for bit in range((len(firmware) - 32 - 96) * 8, (len(firmware) - 32) * 8):
        bad = bytearray(firmware)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            changed += sections(bytes(bad)) != before
        except Malformed:
            changed += 1
    assert changed > 150


@settings(max_examples=100)
@given(bit=st.integers(0, 8192 * 8 - 1))
def test_a_flipped_bit_changes_mrtd_and_the_trace_names_its_page(vectors, bit):
    firmware = base64.b64decode(load(vectors, "synthetic.json")["tdvf_b64"])
    bad = bytearray(firmware)
    bad[bit // 8] ^= 1 << bit % 8
    try:
        value, steps = mrtd(bytes(bad), "single-pass")
    except Malformed:
        return
    good, good_steps = mrtd(firmware, "single-pass")
    first = next(step for step, other in zip(good_steps, steps, strict=True) if step.digest != other.digest)
    assert value != good
    assert first.name == ("page 0xfffff000" if bit < 4096 * 8 else "page 0xffffe000") or bit >= 4096 * 8


@settings(max_examples=40)
@given(at=st.integers(0, 4095))
def test_a_byte_of_the_variable_store_changes_rtmr0_and_no_other_register(at):
    """MRTD covers the measured sections alone: the store's bytes are the firmware's to measure."""
    whole = fakes.firmware()
    start = TDXLaunch(whole, fakes.kernel(), b"initrd", "quiet", 2 << 30, {})
    other = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    before, after = (
        tdx.measure(replace(start, firmware=one), tdx_profile(SIMULATED)) for one in (whole, other)
    )
    different = {name for name, value in before.registers.items() if value != after.registers[name]}
    assert different == {"rtmr0"}
    assert before.first_difference(after).startswith("rtmr0: cfv is ")


def test_td_hobs_are_those_that_firmware_computed(vectors):
    data = load(vectors, "td-hob.json")
    found = [Section(0, 0, int(gpa, 16), int(size, 16), kind, 0) for gpa, size, kind in data["sections"]]
    for vector in data["vectors"]:
        digest = hashlib.sha384(td_hob(vector["ram_mib"] << 20, found)).hexdigest()
        assert digest == vector["expected"], vector["ram_mib"]
    for memory in (0, 4097, 1 << 50, 4 << 20):
        with pytest.raises(Malformed):
            td_hob(memory, found)
    with pytest.raises(Malformed):
        td_hob(1 << 30, found[:2])


def test_a_hob_without_gaps_lists_only_what_is_taken():
    hob = td_hob(8192, [Section(0, 0, 0, 4096, 2, 0), Section(0, 0, 4096, 4096, 3, 0)])
    assert len(hob) == 56 + 2 * 48


def test_constants_are_recomputed_from_their_bytes(vectors, firmware, image):
    constants = load(vectors, "constants.json")
    given_launch, found = launch(firmware, image), tdx_profile(SIMULATED)
    named = {
        "boot0000_uiapp": "Boot0000",
        "boot_order_0000": "BootOrder",
        "calling_efi_application": "calling-efi-application",
        "exit_boot_services": "exit-boot-services",
        "exit_boot_services_ok": "exit-boot-services-ok",
        "separator": "separator",
    }
    for constant, name in named.items():
        assert event_digest(name, given_launch, found).hex() == constants[constant], name
    for name, digest in constants["empty_var"].items():
        assert event_digest(name, given_launch, found).hex() == digest, name
    for line in constants["cmdline_ucs2"]:
        options = load_options(launch(firmware, image, initrd=None, command_line=line["text"]), found)
        assert hashlib.sha384(options).hexdigest() == line["expected"]


def test_boot_events_of_later_firmware_are_recomputed(vectors, firmware, image):
    data = load(vectors, "rtmr0-edk2-202505.json")
    found = tdx_profile(EDK2_202608)
    given_launch = launch(firmware, image)
    for name, key in (
        ("Boot0000", "boot0000"),
        ("Boot0001", "boot0001"),
        ("BootOrder", "boot_order"),
        ("fw_cfg-BootMenu", "boot_menu"),
    ):
        assert event_digest(name, given_launch, found).hex() == data[key]["expected"]
    for name, key in (("fw_cfg-bootorder", "fw_cfg_bootorder"), ("variable-authority", "variable_authority")):
        assert event_digest(name, given_launch, found).hex() == data["captured_only"][key]
    assert [name.replace("fw_cfg-", "fw_cfg ") for name in found.rtmr0] == data["order"]


def test_digests_of_acpi_blobs_are_taken_as_given(vectors, firmware, image):
    vector = load(vectors, "acpi-oasis.json")["vectors"][0]
    blob = bytearray(gzip.decompress((vectors / "measure" / "tdx" / vector["file"]).read_bytes()))
    dsdt = blob.index(b"DSDT")
    (length,) = struct.unpack_from("<I", blob, dsdt + 4)
    ram = vector["ram_mib"] << 20
    struct.pack_into("<I", blob, length - 684, 0xE0000000 - ram)
    struct.pack_into("<I", blob, length - 684 - 12, ram)
    acpi = dict.fromkeys(tdx.ACPI_BLOBS, bytes(48)) | {"acpi-tables": tdx.sha384(bytes(blob))}
    given_launch = launch(firmware, image, acpi=acpi)
    assert event_digest("acpi-tables", given_launch, tdx_profile(EDK2_202502)).hex() == vector["tables"]
    with pytest.raises(Malformed):
        tdx.measure(given_launch, tdx_profile(SIMULATED))
    with pytest.raises(Malformed):
        tdx.measure(replace(given_launch, acpi={}), tdx_profile(EDK2_202502))


def test_the_events_of_a_real_launch_replay_to_its_quote(vectors):
    """The dstack log has profile A's order, and its fixed events have profile A's digests."""
    log = load(vectors, "dstack-eventlog.json")
    quote = (vectors / "measure" / "tdx" / "dstack-quote.bin").read_bytes()
    found = tdx_profile(EDK2_202502)
    for number, at in enumerate((48 + 328, 48 + 376, 48 + 424)):
        digests = [bytes.fromhex(event["digest"]) for event in log if event["imr"] == number]
        names_in_order = (found.rtmr0, found.rtmr1, found.rtmr2)[number]
        value, _ = extend(f"rtmr{number}", zip(names_in_order, digests, strict=True))
        assert value == quote[at : at + 48]
        for name, digest in zip(names_in_order, digests, strict=True):
            if name not in ("td-hob", "cfv", "kernel", "load-options", "initrd", *tdx.ACPI_BLOBS):
                blank = TDXLaunch(b"", b"", None, "", 0, {})
                assert event_digest(name, blank, found) == digest, name


def test_the_simulated_launch_is_profile_a_with_empty_acpi(firmware, image, vectors):
    with_volume = cfv_firmware()
    given_launch = launch(with_volume, image)
    measured = tdx.measure(given_launch, tdx_profile(SIMULATED))
    assert set(measured.registers) == {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}
    events = [step for step in measured.steps if step.register == "rtmr0"]
    assert [step.name for step in events] == list(tdx_profile(EDK2_202502).rtmr0)
    empty = hashlib.sha384(b"").digest()
    assert [step.digest for step in events if step.name in tdx.ACPI_BLOBS] == [empty] * 3
    assert measured.registers["rtmr3"] == bytes(48)
    assert {register: measured.registers[register] for register in ("rtmr0", "rtmr1", "rtmr2")} == {
        step.register: step.after for step in measured.steps if step.register != "mrtd"
    }


def cfv_firmware() -> bytes:
    rows = (
        section_row(0, 4096, 0xFFFFE000, 4096, 0, 1),
        section_row(4096, 4096, 0xFFFFF000, 4096, 1, 0),
        section_row(0, 0, 0x810000, 4096, 2, 0),
        section_row(0, 0, 0x900000, 4096, 3, 2),
    )
    return two_page_firmware(bytes(range(256)) * 32, *rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory": 1 << 30}, "rtmr0: td-hob"),
        ({"kernel": b""}, ""),
        ({"initrd": b"other!"}, "rtmr2: initrd"),
        ({"command_line": "x"}, "rtmr2: load-options"),
        ({"initrd": None}, "rtmr1: length of the initrd"),
    ],
)
def test_every_input_counts_and_the_first_difference_names_it(image, change, said):
    before = tdx.measure(launch(cfv_firmware(), image), tdx_profile(SIMULATED))
    if change == {"kernel": b""}:
        with pytest.raises(Malformed):
            tdx.measure(launch(cfv_firmware(), image, **change), tdx_profile(SIMULATED))
        return
    after = tdx.measure(launch(cfv_firmware(), image, **change), tdx_profile(SIMULATED))
    assert before.registers != after.registers
    assert before.first_difference(after).startswith(said)
    assert before.first_difference(before) == ""


def test_later_firmware_measures_the_raw_kernel_and_prepends_the_token(image):
    acpi = dict.fromkeys(tdx.ACPI_BLOBS, tdx.sha384(b"blob"))
    given_launch = launch(cfv_firmware(), image, acpi=acpi)
    measured = tdx.measure(given_launch, tdx_profile(EDK2_202608))
    by_name = {step.name: step.digest for step in measured.steps}
    assert by_name["kernel"] == authenticode(given_launch.kernel)
    options = "initrd=initrd console=ttyS0 a=b\0".encode("utf-16-le")
    assert by_name["load-options"] == hashlib.sha384(options).digest()


def test_the_patched_header_is_what_the_loader_writes(image):
    kernel = linux(image)
    patched = measured_kernel(kernel, 6, 2 << 30, "qemu-patched")
    assert patched[0x210] == 0xB0
    assert patched[0x211] == kernel[0x211] | 0x80
    assert struct.unpack_from("<II", patched, 0x218) == ((0x80000000 - 0x28001 - 6) & ~0xFFF, 6)
    assert patched[0x224:0x226] == b"\x00\xfe"
    assert struct.unpack_from("<I", patched, 0x228) == (0x20000,)
    assert patched[:0x210] == kernel[:0x210]
    assert patched[0x22C:] == kernel[0x22C:]
    without = measured_kernel(kernel, None, 2 << 30, "qemu-patched")
    assert without[0x218:0x220] == kernel[0x218:0x220]
    assert measured_kernel(kernel, 6, 2 << 30, "raw") is kernel


def test_an_old_kernels_own_limit_bounds_the_initrd(image):
    kernel = bytearray(linux(image, flags=0))
    struct.pack_into("<I", kernel, 0x22C, 0x37FFFFFF)
    patched = measured_kernel(bytes(kernel), 4096, 2 << 30, "qemu-patched")
    assert struct.unpack_from("<I", patched, 0x218) == (0x37FFEFFF & ~0xFFF,)


def test_memory_above_the_split_does_not_move_the_initrd(image):
    kernel = linux(image)
    at_two, at_four, small = (
        measured_kernel(kernel, 6, gib, "qemu-patched") for gib in (2 << 30, 4 << 30, 1 << 30)
    )
    assert at_two == at_four
    assert at_two != small


def test_kernels_that_the_loader_does_not_start_are_malformed(image):
    for kernel in (b"", image[:0x200], image, linux(image, protocol=0x20B)):
        with pytest.raises(Malformed):
            measured_kernel(kernel, None, 2 << 30, "qemu-patched")
    for length in (0, 2 << 30):
        with pytest.raises(Malformed):
            measured_kernel(linux(image), length, 2 << 30, "qemu-patched")
    with pytest.raises(Malformed):
        measured_kernel(linux(image), None, 2 << 30, "guessed")


def test_authenticode_is_the_published_hash(vectors, image):
    assert authenticode(image).hex() == load(vectors, "synthetic.json")["authenticode_sha384"]


CERTIFICATES = 32  # bytes of the synthetic image's certificate table, at its end


def test_authenticode_ignores_checksum_and_signature_and_nothing_else(image):
    before = authenticode(image)
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    free = {*range(optional + 64, optional + 68), *range(optional + 144, optional + 148)}
    free |= set(range(len(image) - CERTIFICATES, len(image)))
    length = range(optional + 148, optional + 152)
    for position in range(len(image)):
        bad = bytearray(image)
        bad[position] ^= 0x01
        try:
            same = authenticode(bytes(bad)) == before
        except Malformed:
            same = False
        assert same == (position in free) or position in length, position


def test_a_signed_image_hashes_like_the_unsigned_one(image):
    unsigned = bytearray(image[:-CERTIFICATES])
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    struct.pack_into("<II", unsigned, optional + 144, 0, 0)
    assert authenticode(bytes(unsigned)) == authenticode(image)
    struct.pack_into("<II", unsigned, optional + 144, len(image), 1 << 20)
    with pytest.raises(Malformed):
        authenticode(bytes(unsigned))


def test_images_that_are_no_images_are_malformed(image):
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    for offset, value in (
        (0, b"ZM"),
        (0x3C, b"\xff\xff\xff\x7f"),
        (optional - 24, b"EP"),
        (optional, b"\0\0"),
        (optional + 60, b"\xff\xff\xff\0"),
        (optional - 18, b"\xff\x00"),
    ):
        bad = bytearray(image)
        bad[offset : offset + len(value)] = value
        with pytest.raises(Malformed):
            authenticode(bytes(bad))
    for length in (0, 1, 0x3F, optional, optional + 100):
        with pytest.raises(Malformed):
            authenticode(image[:length])
    with pytest.raises(Malformed):
        authenticode(image[: -CERTIFICATES - 100])


def test_an_image_with_few_directories_is_hashed_up_to_its_headers(image):
    optional = struct.unpack_from("<I", image, 0x3C)[0] + 24
    few = bytearray(image)
    struct.pack_into("<I", few, optional + 108, 4)
    expected = hashlib.sha384(bytes(few[: optional + 64] + few[optional + 68 :])).digest()
    assert authenticode(bytes(few)) == expected


def test_profiles_are_canonical_documents_with_stable_digests():
    assert [parse_canonical(profile(name).document(), 1 << 16)["name"] for name in names()] == list(names())
    assert len({profile_sha256(name) for name in names()}) == len(names())
    # A profile that was published never changes; a new rule gets a new name.
    pinned = json.loads((Path(__file__).parent / "profiles.json").read_text())
    assert {name: profile_sha256(name).hex() for name in names()} == pinned
    for name in ("process/v1", "tdx/unknown/v1"):
        with pytest.raises(Unsupported):
            tdx_profile(name)


def test_odd_launches_are_malformed(image):
    found = tdx_profile(SIMULATED)
    for line in ("ümlaut", "two\nlines"):
        with pytest.raises(Malformed):
            load_options(launch(b"", image, command_line=line), found)
    with pytest.raises(Malformed):
        event_digest("no such event", launch(b"", image), found)


def test_an_image_beyond_the_limit_is_malformed(monkeypatch, image):
    monkeypatch.setattr(pe, "MAX_IMAGE", len(image) - 1)
    with pytest.raises(Malformed):
        authenticode(image)
