"""Asking NVIDIA GPUs for their evidence through the driver's library (nvml.h, "Confidential Computing").

Structures are NVML's, in the machine's own byte order. What comes back is believed by nobody.
"""

import ctypes
import json
from collections.abc import Callable, Sequence

from quotary.canonical import b64
from quotary.errors import CannotTell, Malformed

LIBRARY = "libnvidia-ml.so.1"
NONCE_LENGTH = 32

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


def load() -> Callable[[str], Call]:
    """Give the library's functions by name; ``CannotTell`` where there is no NVIDIA driver."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CannotTell(
            f"{LIBRARY} cannot be loaded: this machine has no NVIDIA driver",
            next_command="quotary quote detect",
        ) from error
    return lambda name: getattr(library, name)


def gpu_evidence(function: Callable[[str], Call], nonces: Sequence[bytes]) -> bytes:
    """Give the evidence list of all GPUs (NVIDIA's SDK format), one nonce of 32 bytes for each in order."""
    if any(len(nonce) != NONCE_LENGTH for nonce in nonces):
        raise Malformed(f"a device's nonce has {NONCE_LENGTH} bytes")
    _ask(function, "nvmlInit_v2")
    try:
        count = ctypes.c_uint()
        _ask(function, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        if count.value != len(nonces) or not nonces:
            raise CannotTell(f"this machine has {count.value} GPUs, {len(nonces)} nonces were given")
        found = [_device(function, index, nonce) for index, nonce in enumerate(nonces)]
    finally:
        function("nvmlShutdown")()
    return json.dumps(found, separators=(",", ":")).encode()


def _device(function: Callable[[str], Call], index: int, nonce: bytes) -> dict[str, str]:
    handle, report, certificate = ctypes.c_void_p(), Report(), Certificate()
    ctypes.memmove(report.nonce, nonce, NONCE_LENGTH)
    _ask(function, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
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
    if code != 0:
        raise CannotTell(f"{name} failed with {code}: is the GPU in confidential mode?")
