"""Asking hardware for evidence, against a kernel of our own: what is asked, what comes back, what goes wrong."""

import ctypes
import errno
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from enclave import collect
from enclave.collect import NSM, SEV_GUEST, TDX_GUEST, TSM
from enclave.device import LinuxKernel
from quotary.attestation.nitro import NitroDocument
from quotary.attestation.snp import SNPReport
from quotary.attestation.tdx import TDXQuote
from quotary.errors import CannotTell, Malformed

DATA = bytes(range(64))


class Tree:
    """A configfs-tsm of our own: folders with files that count their changes."""

    def __init__(self, provider: str, answer: Callable[[bytes], bytes], disturbed: int = 0) -> None:
        self.provider, self.answer, self.disturbed = provider, answer, disturbed
        self.folders: dict[Path, dict[str, bytes]] = {}
        self.events: bytes | OSError = FileNotFoundError(errno.ENOENT, "No such file or directory")
        self.generation = 0

    def create(self, folder: Path) -> None:
        if folder in self.folders:
            raise FileExistsError(errno.EEXIST, "File exists")
        assert folder.parent == TSM
        self.folders[folder] = {"provider": self.provider.encode() + b"\n"}

    def remove(self, folder: Path) -> None:
        del self.folders[folder]

    def write(self, file: Path, data: bytes) -> None:
        assert file.name == "inblob"
        self.folders[file.parent]["inblob"] = data
        self.generation += 1

    def read(self, file: Path, limit: int) -> bytes:
        if file == collect.CCEL:
            if isinstance(self.events, OSError):
                raise self.events
            return self.events
        if file.name == "generation":
            return b"%d\n" % self.generation
        if file.name == "outblob":
            if self.disturbed:
                self.disturbed -= 1
                self.generation += 1
            return self.answer(self.folders[file.parent]["inblob"])
        return self.folders[file.parent][file.name]

    def control(self, device: Path, request: int, argument: bytearray) -> None:
        raise AssertionError("configfs needs no ioctl")


class Driver:
    """A character device of our own: one function in place of an ioctl."""

    def __init__(self, device: Path, request: int, act: Callable[[bytearray], None]) -> None:
        self.device, self.request, self.act = device, request, act

    def control(self, device: Path, request: int, argument: bytearray) -> None:
        assert (device, request) == (self.device, self.request)
        self.act(argument)

    def create(self, folder: Path) -> None: ...
    def remove(self, folder: Path) -> None: ...
    def write(self, file: Path, data: bytes) -> None: ...
    def read(self, file: Path, limit: int) -> bytes:
        raise AssertionError("a driver has no files")


def in_memory(address: int, length: int) -> bytes:
    return ctypes.string_at(address, length)


def test_a_quote_comes_through_configfs(vectors: Path) -> None:
    quote = (vectors / "tdx" / "v4-b0c06f-dcapqvl-uptodate.quote").read_bytes()
    asked: list[bytes] = []
    tree = Tree("tdx_guest", lambda data: asked.append(data) or quote)  # type: ignore[func-returns-value]
    assert collect.tsm_report(tree, "quotary-1", DATA) == ("tdx", quote)
    assert TDXQuote.parse(quote).version == 4
    assert asked == [DATA]
    assert tree.folders == {}


def test_a_disturbed_folder_is_asked_again_and_given_up_in_the_end() -> None:
    assert collect.tsm_report(Tree("sev_guest", bytes, disturbed=2), "a", DATA) == ("snp", DATA)
    tree = Tree("sev_guest", bytes, disturbed=9)
    with pytest.raises(CannotTell, match="changed by somebody else 3 times"):
        collect.tsm_report(tree, "a", DATA)
    assert tree.folders == {}


@pytest.mark.parametrize(("provider", "answer"), [("arm_cca_guest", b"x"), ("tdx_guest", b"")])
def test_another_provider_or_an_empty_answer_is_no_evidence(provider: str, answer: bytes) -> None:
    with pytest.raises(CannotTell, match=provider):
        collect.tsm_report(Tree(provider, lambda _: answer), "a", DATA)


def test_a_generation_that_is_no_number_is_not_believed() -> None:
    tree = Tree("tdx_guest", bytes)
    tree.generation = -1
    with pytest.raises(CannotTell, match="no number"):
        collect.tsm_report(tree, "a", DATA)


def test_a_folder_that_somebody_else_has_is_left_alone() -> None:
    tree = Tree("tdx_guest", bytes)
    tree.create(TSM / "a")
    with pytest.raises(CannotTell, match="File exists"):
        collect.tsm_report(tree, "a", DATA)
    assert TSM / "a" in tree.folders


def test_an_event_log_is_shown_where_firmware_left_one() -> None:
    tree = Tree("tdx_guest", bytes)
    assert collect.event_log(tree) is None
    tree.events = b"events and padding"
    assert collect.event_log(tree) == b"events and padding"
    tree.events = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(CannotTell, match="CCEL: Permission denied"):
        collect.event_log(tree)


def test_a_td_report_comes_from_its_driver() -> None:
    def act(argument: bytearray) -> None:
        assert (len(argument), bytes(argument[:64])) == (1088, DATA)
        argument[64:] = b"r" * 1024

    assert collect.td_report(Driver(TDX_GUEST, 0xC4405401, act), DATA) == b"r" * 1024


def snp_driver(request: int, answer: bytes, failed: int = 0, asked: list[bytes] | None = None) -> Driver:
    def act(argument: bytearray) -> None:
        version, question, place, _ = struct.unpack("<4Q", argument)
        assert version == 1
        if asked is not None:
            asked.append(in_memory(question, 96 if request == collect.SNP_GET_REPORT else 32))
        ctypes.memmove(place, answer, len(answer))
        argument[24:] = struct.pack("<Q", failed)

    return Driver(SEV_GUEST, request, act)


def test_a_report_comes_from_the_sev_driver(vectors: Path) -> None:
    report = (vectors / "snp" / "milan-v2-virtee-vcek.report").read_bytes()
    asked: list[bytes] = []
    answer = struct.pack("<II24x", 0, 1184) + report
    found = collect.snp_report(snp_driver(collect.SNP_GET_REPORT, answer, asked=asked), DATA, 1)
    assert SNPReport.parse(found) == SNPReport.parse(report)
    assert asked == [DATA + struct.pack("<I", 1) + bytes(28)]


@pytest.mark.parametrize(
    ("answer", "failed", "said"),
    [
        (struct.pack("<II", 0x16, 1184), 0, "status 0x16"),
        (struct.pack("<II", 0, 1183), 0, "1183 bytes"),
        (b"", 1 << 32, "failed with 0x100000000"),
    ],
)
def test_a_failure_of_the_sev_firmware_is_reported(answer: bytes, failed: int, said: str) -> None:
    with pytest.raises(CannotTell, match=said):
        collect.snp_report(snp_driver(collect.SNP_GET_REPORT, answer, failed), DATA, 0)


def test_a_derived_key_comes_from_the_sev_driver() -> None:
    asked: list[bytes] = []
    answer = bytes(32) + b"k" * 32
    driver = snp_driver(collect.SNP_GET_DERIVED_KEY, answer, asked=asked)
    assert collect.snp_derived_key(driver, 0b1001, 0) == b"k" * 32
    assert asked == [struct.pack("<IIQIIQ", 0, 0, 9, 0, 0, 0)]
    with pytest.raises(CannotTell, match="no key"):
        collect.snp_derived_key(snp_driver(collect.SNP_GET_DERIVED_KEY, b"\x16" + bytes(63)), 9, 0)


def nsm_driver(answer: bytes, asked: list[bytes] | None = None) -> Driver:
    def act(argument: bytearray) -> None:
        question, length, place, room = struct.unpack("<4Q", argument)
        if asked is not None:
            asked.append(in_memory(question, length))
        assert room >= len(answer)
        ctypes.memmove(place, answer, len(answer))
        argument[24:] = struct.pack("<Q", len(answer))

    return Driver(NSM, 0xC0200A00, act)


def test_a_document_comes_from_the_nitro_device(vectors: Path) -> None:
    document = (vectors / "nitro" / "evervault-2022-10-valid.cose").read_bytes()
    asked: list[bytes] = []
    head = b"\xa1\x6bAttestation\xa1\x68document\x59" + struct.pack(">H", len(document))
    found = collect.nitro_document(nsm_driver(head + document, asked), DATA)
    assert NitroDocument.parse(found).module_id
    assert DATA in asked[0]
    assert asked[0].startswith(b"\xa1\x6bAttestation\xa3")


@pytest.mark.parametrize("answer", [b"\xa1\x65Error\x6fInvalidArgument", b"\x80"])
def test_an_error_of_the_nitro_device_is_reported(answer: bytes) -> None:
    with pytest.raises(CannotTell, match=r"InvalidArgument|another answer"):
        collect.nitro_document(nsm_driver(answer), DATA)


def test_missing_hardware_is_said_to_be_missing() -> None:
    def act(argument: bytearray) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    with pytest.raises(CannotTell, match="this machine has no such hardware") as missing:
        collect.td_report(Driver(TDX_GUEST, collect.TDX_GET_REPORT, act), DATA)
    assert missing.value.next_command == "quotary quote detect"


@pytest.mark.parametrize("ask", [collect.td_report, collect.nitro_document])
def test_report_data_has_64_bytes(ask: Callable[[Driver, bytes], bytes]) -> None:
    with pytest.raises(Malformed, match="63 bytes"):
        ask(Driver(NSM, 0, lambda _: None), DATA[:63])


def test_the_real_kernel_makes_folders_and_writes_whole_values(tmp_path: Path) -> None:
    kernel, folder = LinuxKernel(), tmp_path / "report"
    kernel.create(folder)
    (folder / "inblob").touch()
    kernel.write(folder / "inblob", DATA)
    assert kernel.read(folder / "inblob", 64) == DATA
    with pytest.raises(OSError, match="at most 63"):
        kernel.read(folder / "inblob", 63)
    (folder / "inblob").unlink()
    kernel.remove(folder)
    assert not folder.exists()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        kernel.control(Path("/dev/null"), collect.TDX_GET_REPORT, bytearray(1088))
