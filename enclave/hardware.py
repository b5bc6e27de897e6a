"""This machine's own hardware as a ``Device``: evidence from kernel and driver, documents from their vendors.

``--tee tdx``, ``snp`` or ``nitro`` demands one kind of guest, ``auto`` takes the one that is there. Which
kernel interface is asked is what ``quotary quote detect`` shows. What a vendor publishes beside evidence is
taken from the registry, where it keeps that, and else from the vendor; it is signed, and believed by nobody.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from enclave import nvml
from enclave.collect import Kernel, event_log, nitro_document, snp_report, tsm_report
from enclave.device import (
    Device,
    DeviceEvidence,
    Evidence,
    LinuxKernel,
    open_device,
    require_confidential,
)
from enclave.events import CollateralNotInRegistry, emit
from quotary.attestation.quote import Terms
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.client.clock import Clock
from quotary.client.collateral import FRESH, Fetcher, gather
from quotary.client.detect import TSM, USABLE, Found, detect
from quotary.errors import CannotTell
from quotary.net.transport import Transport
from quotary.net.vendors import Answer, Services
from quotary.statements.keyset import MAX_LIFETIME

AUTO = "auto"
PLATFORMS = ("tdx", "snp", "nitro")
# What a registry keeps documents of; the rest is of one machine and asked of its vendor.
KEPT_BY_REGISTRY = ("tdx", "snp")
# The privilege level that we run at, and ask a report for.
VMPL = 0


@dataclass(slots=True)
class MemoryCache:
    """Vendors' answers by address, for the life of the process: an enclave has no disk to keep them on.

    registry_at: when the registry was asked last for what it keeps
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    registry_at: datetime | None = None

    def find(self, url: str) -> Answer | None:
        return self.answers.get(url)

    def keep(self, url: str, answer: Answer) -> None:
        self.answers[url] = answer


@dataclass(frozen=True, slots=True)
class Documents:
    """Where the vendors' documents come from; nothing about it is trusted."""

    transport: Transport
    registry: str
    clock: Clock
    services: Services = field(default_factory=Services)
    cache: MemoryCache = field(default_factory=MemoryCache)

    def beside(self, evidence: bytes, nonces: Sequence[bytes]) -> Mapping[str, str]:
        """Give what verifying some evidence needs; ``CannotTell`` where it cannot be had."""
        now = self.clock.now()
        source = Fetcher(self.transport, self.cache, self.services, now)
        return gather(evidence, {}, Terms(VENDOR_ROOTS, now, MAX_LIFETIME, tuple(nonces)), source)

    def take_from_registry(self, evidence: bytes) -> None:
        """Take what the registry keeps of a product, once an hour; one that keeps nothing is no failure."""
        now, last = self.clock.now(), self.cache.registry_at
        if last is not None and now - last < FRESH:
            return
        self.cache.registry_at = now
        source = Fetcher(self.transport, self.cache, self.services, now, self.registry)
        try:
            source.take_from_registry(evidence)
        except CannotTell as error:
            emit(CollateralNotInRegistry(type(error)))


class Hardware:
    """The machine that this process runs on; one question at a time, from any thread."""

    def __init__(
        self,
        found: Found,
        kernel: Kernel,
        documents: Documents,
        driver: Callable[[], Callable[[str], nvml.Call]] = nvml.load,
    ) -> None:
        """found: what is asked, through which interface; driver: loads NVIDIA's library when it is needed."""
        self._found, self._kernel, self._documents, self._driver = found, kernel, documents, driver
        self._lock = threading.Lock()

    @property
    def platform(self) -> str:
        """Name what was opened: ``tdx``, ``snp`` or ``nitro``."""
        return self._found.platform

    def quote(self, report_data: bytes) -> Evidence:
        platform = self._found.platform
        with self._lock:
            quote = self._collect(report_data)
            events = event_log(self._kernel) if platform == "tdx" else None
        if platform in KEPT_BY_REGISTRY:
            self._documents.take_from_registry(quote)
        return Evidence(quote, self._documents.beside(quote, ()), events)

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        function = self._driver()
        driver = nvml.ask_driver(function)
        require_confidential(driver.mode)
        if len(driver.gpus) != len(nonces):
            raise CannotTell(
                f"the driver has {len(driver.gpus)} GPUs, evidence of {len(nonces)} devices is to be shown; "
                "that of switches is not collected (docs/gpu.md)"
            )
        evidence = nvml.gpu_evidence(function, nonces)
        return DeviceEvidence(evidence, self._documents.beside(evidence, nonces))

    def _collect(self, report_data: bytes) -> bytes:
        platform, interface = self._found.platform, self._found.interface
        if interface == f"/{TSM}":
            found, quote = tsm_report(self._kernel, f"quotary-{os.getpid()}", report_data)
            if found != platform:
                raise CannotTell(f"/{TSM} gives evidence of {found}, wanted {platform}")
            return quote
        return _DIRECT[platform](self._kernel, report_data)


def open_tee(name: str, documents: Documents, root: Path = Path("/")) -> Device:
    """Open what the command line names: real hardware by its kind or ``auto``, or a simulator's stream."""
    if name != AUTO and name not in PLATFORMS:
        return open_device(name)
    return Hardware(_usable(name, detect(root)), LinuxKernel(), documents)


def _usable(name: str, seen: Sequence[Found]) -> Found:
    wanted = [each for each in seen if each.platform in PLATFORMS and name in (AUTO, each.platform)]
    usable = [each for each in wanted if each.state == USABLE]
    if len(usable) != 1:
        reasons = "; ".join(f"{each.platform}: {each.reason}" for each in wanted)
        raise CannotTell(f"--tee {name}: {reasons}", next_command="quotary quote detect")
    return usable[0]


_DIRECT: Mapping[str, Callable[[Kernel, bytes], bytes]] = MappingProxyType(
    {
        "snp": lambda kernel, report_data: snp_report(kernel, report_data, VMPL),
        "nitro": nitro_document,
    }
)
