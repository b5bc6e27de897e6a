"""NVIDIA's driver library as ctypes shows it: GPUs that all give one report, in a mode of the test's choice."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Library:
    """Functions by name, as ``enclave.nvml.load`` gives them.

    settings: environment, feature, devtools and multi-GPU mode, as NVML numbers them
    failing:  code by the function that fails; missing: a function that this driver does not have
    nonces:   what was asked, in order; running: how many times it was started and not stopped
    """

    report: bytes = b""
    chain: bytes = b""
    count: int = 2
    settings: tuple[int, int, int, int] = (2, 1, 0, 0)
    ready: int = 1
    name: bytes = b"NVIDIA H100 80GB HBM3"
    version: bytes = b"580.159.03"
    failing: dict[str, int] = field(default_factory=dict)
    missing: str = ""
    nonces: list[bytes] = field(default_factory=list)
    running: int = 0

    def __call__(self, name: str) -> Callable[..., int]:
        if name == self.missing:
            raise AttributeError(name)
        return lambda *arguments: self.failing.get(name) or self._act(name, *arguments)

    def _act(self, name: str, *arguments) -> int:  # type: ignore[no-untyped-def]
        if name in ("nvmlInit_v2", "nvmlShutdown"):
            self.running += 1 if name == "nvmlInit_v2" else -1
        elif name == "nvmlSystemSetConfComputeGpusReadyState":
            (self.ready,) = (state.value for state in arguments)
        elif name in ("nvmlDeviceGetName", "nvmlSystemGetDriverVersion"):
            *_, text, room = arguments
            text.value = self.name if name == "nvmlDeviceGetName" else self.version
            assert len(text) == room.value
        else:
            self._fill(name, arguments[-1]._obj)
        return 0

    def _fill(self, name: str, found) -> None:  # type: ignore[no-untyped-def]
        if name == "nvmlDeviceGetCount_v2":
            found.value = self.count
        elif name == "nvmlSystemGetConfComputeGpusReadyState":
            found.value = self.ready
        elif name == "nvmlSystemGetConfComputeSettings":
            assert found.version == 0x1000014
            found.environment, found.feature, found.devtools, found.multi_gpu = self.settings
        elif name.endswith("AttestationReport"):
            self.nonces.append(bytes(found.nonce))
            ctypes.memmove(found.report, self.report, len(self.report))
            found.length = len(self.report)
        elif name.endswith("Certificate"):
            ctypes.memmove(found.attestation_chain, self.chain, len(self.chain))
            found.attestation_length = len(self.chain) + 1
