"""Asking real hardware for evidence over 64 bytes: what is written to and read from each kernel interface.

Linux: Documentation/ABI/testing/configfs-tsm-report; include/uapi/linux/{tdx-guest,sev-guest,nsm}.h. The
kernel itself is a ``Kernel``; ``enclave.device`` has the real one. What comes back is believed by nobody.
"""

import ctypes
import errno
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from quotary.attestation import cbor
from quotary.attestation.measure.ccel import MAX_LOG
from quotary.errors import CannotTell, Malformed

T = TypeVar("T")

REPORT_DATA_LENGTH = 64
TSM = Path("/sys/kernel/config/tsm/report")
CCEL = Path("/sys/firmware/acpi/tables/data/CCEL")
TDX_GUEST, SEV_GUEST, NSM = (Path("/dev") / name for name in ("tdx_guest", "sev-guest", "nsm"))
PROVIDERS = {"tdx_guest": "tdx", "sev_guest": "snp"}
TD_REPORT_LENGTH = 1024
SNP_REPORT_LENGTH = 1184

# _IOWR of each header: direction, size, letter and number.
TDX_GET_REPORT = 0xC4405401
SNP_GET_REPORT = 0xC0205300
SNP_GET_DERIVED_KEY = 0xC0205301
NSM_RAW = 0xC0200A00

_MAX_BLOB = 64 * 1024
_NSM_ANSWER = 0x3000
_SNP_ANSWER = 4000
_ATTEMPTS = 3


class Kernel(Protocol):
    """What is asked of the operating system; every call may raise ``OSError``."""

    def create(self, folder: Path) -> None: ...
    def remove(self, folder: Path) -> None: ...
    def write(self, file: Path, data: bytes) -> None: ...
    def read(self, file: Path, limit: int) -> bytes: ...
    def control(self, device: Path, request: int, argument: bytearray) -> None:
        """Open the device, do one ioctl that may rewrite ``argument``, close it."""
        ...


def tsm_report(kernel: Kernel, name: str, report_data: bytes) -> tuple[str, bytes]:
    """Give the platform (``tdx``, ``snp``) and its quote or report, through configfs-tsm.

    name: of the folder that is made and removed again; two callers need two names
    The kernel counts changes of the folder: an answer is taken only if nobody changed it meanwhile.
    """
    _require_length(report_data)
    folder = TSM / name
    return _asked(TSM, lambda: _tsm(kernel, folder, report_data))


def event_log(kernel: Kernel) -> bytes | None:
    """Give the guest's event log of its boot, padding included, or None where its firmware left none."""
    try:
        return kernel.read(CCEL, MAX_LOG)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotTell(f"{CCEL}: {error.strerror}") from error


def td_report(kernel: Kernel, report_data: bytes) -> bytes:
    """Give a TD report of 1024 bytes, which only this machine's quoting enclave can check."""
    _require_length(report_data)
    argument = bytearray(report_data + bytes(TD_REPORT_LENGTH))
    _asked(TDX_GUEST, lambda: kernel.control(TDX_GUEST, TDX_GET_REPORT, argument))
    return bytes(argument[REPORT_DATA_LENGTH:])


def snp_report(kernel: Kernel, report_data: bytes, vmpl: int) -> bytes:
    """Give a report of 1184 bytes for a privilege level of 0 to 3, straight from the driver."""
    _require_length(report_data)
    answer = _snp(kernel, SNP_GET_REPORT, report_data + struct.pack("<I28x", vmpl))
    status, length = struct.unpack_from("<II", answer)
    if status != 0 or length != SNP_REPORT_LENGTH:
        raise CannotTell(f"{SEV_GUEST} answered with status {status:#x} and {length} bytes")
    return answer[32 : 32 + length]


def snp_derived_key(kernel: Kernel, fields: int, vmpl: int) -> bytes:
    """Give 32 bytes that only this guest on this chip gets.

    fields: bits of what is mixed in: 0 policy, 1 image id, 2 family id, 3 measurement, 4 guest SVN, 5 TCB
    """
    request = struct.pack("<IIQIIQ", 0, 0, fields, vmpl, 0, 0)
    answer = _snp(kernel, SNP_GET_DERIVED_KEY, request)
    (status,) = struct.unpack_from("<I", answer)
    if status != 0:
        raise CannotTell(f"{SEV_GUEST} gives no key, status {status:#x}")
    return answer[32:64]


def nitro_document(kernel: Kernel, user_data: bytes) -> bytes:
    """Give an attestation document whose ``user_data`` are the 64 bytes."""
    _require_length(user_data)
    request = b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40" + user_data + b"\x65nonce\xf6\x6apublic_key\xf6"
    question = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(_NSM_ANSWER)
    addresses = ctypes.addressof(question), len(request), ctypes.addressof(answer), _NSM_ANSWER
    argument = bytearray(struct.pack("<4Q", *addresses))
    _asked(NSM, lambda: kernel.control(NSM, NSM_RAW, argument))
    length = struct.unpack("<4Q", argument)[3]
    found = cbor.decode(answer.raw[: min(length, _NSM_ANSWER)], _NSM_ANSWER)
    inner = found.get("Attestation") if isinstance(found, dict) else None
    document = inner.get("document") if isinstance(inner, dict) else None
    if not isinstance(document, bytes):
        said = found.get("Error") if isinstance(found, dict) else "another answer"
        raise CannotTell(f"{NSM} gives no document: {said!r}")
    return document


def _tsm(kernel: Kernel, folder: Path, report_data: bytes) -> tuple[str, bytes]:
    kernel.create(folder)
    try:
        for _ in range(_ATTEMPTS):
            before = _generation(kernel, folder)
            kernel.write(folder / "inblob", report_data)
            data = kernel.read(folder / "outblob", _MAX_BLOB)
            provider = kernel.read(folder / "provider", 64).decode("ascii", "replace").strip()
            if _generation(kernel, folder) == before + 1:
                break
        else:
            raise CannotTell(f"{folder} was changed by somebody else {_ATTEMPTS} times")
    finally:
        kernel.remove(folder)
    if provider not in PROVIDERS or not data:
        raise CannotTell(f"{folder} gave {len(data)} bytes of the provider {provider!r}")
    return PROVIDERS[provider], data


def _generation(kernel: Kernel, folder: Path) -> int:
    text = kernel.read(folder / "generation", 32).decode("ascii", "replace").strip()
    if not text.isdecimal():
        raise CannotTell(f"{folder}/generation is {text!r}, no number")
    return int(text)


def _snp(kernel: Kernel, request: int, question: bytes) -> bytes:
    asked = ctypes.create_string_buffer(question, len(question))
    answer = ctypes.create_string_buffer(_SNP_ANSWER)
    addresses = 1, ctypes.addressof(asked), ctypes.addressof(answer), 0
    argument = bytearray(struct.pack("<4Q", *addresses))
    _asked(SEV_GUEST, lambda: kernel.control(SEV_GUEST, request, argument))
    failed = struct.unpack("<4Q", argument)[3]
    if failed:
        raise CannotTell(f"{SEV_GUEST} failed with {failed:#x}")
    return answer.raw


def _asked(where: Path, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
        raise CannotTell(
            f"{where}: {error.strerror}{': this machine has no such hardware' if missing else ''}",
            next_command="quotary quote detect" if missing else None,
        ) from error


def _require_length(report_data: bytes) -> None:
    if len(report_data) != REPORT_DATA_LENGTH:
        raise Malformed(f"report data has {len(report_data)} bytes, {REPORT_DATA_LENGTH} are needed")
