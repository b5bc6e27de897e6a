"""Asking NVIDIA's driver what it drives, and GPUs for their evidence (nvml.h, "Confidential Computing").

Structures are NVML's, in the machine's own byte order; a test holds them against NVIDIA's own binding. What
comes back is believed by nobody. ``docs/gpu.md`` says what the errors mean.
"""

import ctypes
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from enclave.nvml_errors import DRIVER_NOT_LOADED, NAMES, NOT_SUPPORTED, REMEDIES
from quotary.canonical import b64
from quotary.errors import CannotTell, Malformed

LIBRARY = "libnvidia-ml.so.1"
NONCE_LENGTH = 32
NAME_LENGTH = 96
VERSION_LENGTH = 80

# Modes that a driver can be in, as we call them. Only the first two keep a GPU's memory from its host.
ON, PROTECTED_PCIE = "on", "protected PCIe"
OFF, DEVTOOLS, NOT_PRODUCTION = "off", "devtools", "not in production"
CONFIDENTIAL = frozenset({ON, PROTECTED_PCIE})

_PRODUCTION = 2
_PROTECTED_PCIE = 1

Call = Callable[..., int]


class Report(ctypes.Structure):
    """``nvmlConfComputeGpuAttestationReport_t``: the nonce goes in, the report comes out."""

    _fields_ = (
        ("has_cec", ctypes.c_uint),
        ("length", ctypes.c_uint),
        ("cec_length", ctypes.c_uint),
        ("nonce", ctypes.c_ubyte * NONCE_LENGTH),
        ("report", ctypes.c_ubyte * 0x2000),
        ("cec_report", ctypes.c_ubyte * 0x1000),
    )


class Certificate(ctypes.Structure):
    """``nvmlConfComputeGpuCertificate_t``: the second chain is the one that reports are signed under."""

    _fields_ = (
        ("length", ctypes.c_uint),
        ("attestation_length", ctypes.c_uint),
        ("chain", ctypes.c_ubyte * 0x1000),
        ("attestation_chain", ctypes.c_ubyte * 0x1400),
    )


class Settings(ctypes.Structure):
    """``nvmlSystemConfComputeSettings_v1_t``.

    environment: 1 is a simulation, 2 production; multi_gpu: 1 is protected PCIe, 2 encrypted NVLink
    """

    _fields_ = (
        ("version", ctypes.c_uint),
        ("environment", ctypes.c_uint),
        ("feature", ctypes.c_uint),
        ("devtools", ctypes.c_uint),
        ("multi_gpu", ctypes.c_uint),
    )


# NVML_STRUCT_VERSION: the size in the low three bytes, the version in the highest.
SETTINGS_VERSION = ctypes.sizeof(Settings) | 1 << 24


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says of this machine; it proves nothing to anybody else.

    version: of the driver, e.g. ``580.159.03``
    mode:    one of the words above
    ready:   whether the GPUs take work; in confidential mode somebody has to say so first
    gpus:    their names, in the order in which evidence is asked for
    """

    version: str
    mode: str
    ready: bool
    gpus: tuple[str, ...]


class NoDriver(CannotTell):
    """This machine has no NVIDIA driver, or none that is loaded."""


class CallFailed(CannotTell):
    """A call of NVML failed. code: NVML's number."""

    def __init__(self, call: str, code: int) -> None:
        name, remedy = NAMES.get(code, "an unknown error"), REMEDIES.get(code, "see docs/gpu.md")
        super().__init__(f"{call}: {name} ({code}): {remedy}")
        self.code = code


def load() -> Callable[[str], Call]:
    """Give the library's functions by name; ``NoDriver`` where there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NoDriver(
            f"{LIBRARY} cannot be loaded: this machine has no NVIDIA driver",
            next_command="quotary quote detect",
        ) from error
    return lambda name: getattr(library, name)


def ask_driver(function: Callable[[str], Call]) -> Driver:
    """Ask for version, mode and GPUs."""
    with _running(function):
        names = tuple(_name(function, index) for index in range(_count(function)))
        mode = _mode(function)
        # Outside confidential mode nobody sets the ready state, and nobody waits for it.
        return Driver(_version(function), mode, mode == OFF or _ready(function), names)


def accept_work(function: Callable[[str], Call]) -> None:
    """Set the ready state: from now on GPUs in confidential mode take work. Their evidence comes first."""
    with _running(function):
        _ask(function, "nvmlSystemSetConfComputeGpusReadyState", ctypes.c_uint(1))


def gpu_evidence(function: Callable[[str], Call], nonces: Sequence[bytes]) -> bytes:
    """Give the evidence list of all GPUs (NVIDIA's SDK format), one nonce of 32 bytes for each in order."""
    if any(len(nonce) != NONCE_LENGTH for nonce in nonces):
        raise Malformed(f"a device's nonce has {NONCE_LENGTH} bytes")
    with _running(function):
        count = _count(function)
        if count != len(nonces) or not nonces:
            raise CannotTell(f"this machine has {count} GPUs, {len(nonces)} nonces were given")
        try:
            found = [_device(function, index, nonce) for index, nonce in enumerate(nonces)]
        except CallFailed as error:
            raise CannotTell(f"{error}; the driver says of confidential mode: {_mode(function)}") from error
    return json.dumps(found, separators=(",", ":")).encode()


@contextmanager
def _running(function: Callable[[str], Call]) -> Iterator[None]:
    _ask(function, "nvmlInit_v2")
    try:
        yield
    finally:
        function("nvmlShutdown")()


def _count(function: Callable[[str], Call]) -> int:
    count = ctypes.c_uint()
    _ask(function, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    return count.value


def _handle(function: Callable[[str], Call], index: int) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _ask(function, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    return handle


def _name(function: Callable[[str], Call], index: int) -> str:
    text = ctypes.create_string_buffer(NAME_LENGTH)
    _ask(function, "nvmlDeviceGetName", _handle(function, index), text, ctypes.c_uint(NAME_LENGTH))
    return text.value.decode("ascii", "replace")


def _version(function: Callable[[str], Call]) -> str:
    text = ctypes.create_string_buffer(VERSION_LENGTH)
    _ask(function, "nvmlSystemGetDriverVersion", text, ctypes.c_uint(VERSION_LENGTH))
    return text.value.decode("ascii", "replace")


def _mode(function: Callable[[str], Call]) -> str:
    found = Settings(version=SETTINGS_VERSION)
    try:
        _ask(function, "nvmlSystemGetConfComputeSettings", ctypes.byref(found))
    except CallFailed as error:
        # A GPU older than Hopper, or a driver without the feature: nothing is confidential.
        if error.code != NOT_SUPPORTED:
            raise
        return OFF
    if not found.feature and found.multi_gpu != _PROTECTED_PCIE:
        return OFF
    if found.devtools:
        return DEVTOOLS
    if found.environment != _PRODUCTION:
        return NOT_PRODUCTION
    return PROTECTED_PCIE if found.multi_gpu == _PROTECTED_PCIE else ON


def _ready(function: Callable[[str], Call]) -> bool:
    accepting = ctypes.c_uint()
    _ask(function, "nvmlSystemGetConfComputeGpusReadyState", ctypes.byref(accepting))
    return bool(accepting.value)


def _device(function: Callable[[str], Call], index: int, nonce: bytes) -> dict[str, str]:
    handle, report, certificate = _handle(function, index), Report(), Certificate()
    ctypes.memmove(report.nonce, nonce, NONCE_LENGTH)
    _ask(function, "nvmlDeviceGetConfComputeGpuAttestationReport", handle, ctypes.byref(report))
    _ask(function, "nvmlDeviceGetConfComputeGpuCertificate", handle, ctypes.byref(certificate))
    # A length that the library reports never reads past its own array.
    evidence = bytes(report.report)[: report.length]
    chain = bytes(certificate.attestation_chain)[: certificate.attestation_length].rstrip(b"\0")
    # Architecture and nonce are labels that no verifier believes.
    return {"arch": "GPU", "certificate": b64(chain), "evidence": b64(evidence), "nonce": nonce.hex()}


def _ask(function: Callable[[str], Call], name: str, *arguments: object) -> None:
    try:
        code = function(name)(*arguments)
    except AttributeError as error:
        raise CannotTell(f"{LIBRARY} has no {name}: the NVIDIA driver is too old") from error
    if code == DRIVER_NOT_LOADED:
        raise NoDriver(f"{name}: {NAMES[code]} ({code}): {REMEDIES[code]}")
    if code != 0:
        raise CallFailed(name, code)
