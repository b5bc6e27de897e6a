"""Which hardware could give evidence here: looks at names and texts that the kernel shows, opens no device.

What is found says where evidence may be asked for, and proves nothing. Linux: Documentation/ABI/testing/
configfs-tsm-report, drivers/virt/coco (tdx-guest, sev-guest), drivers/misc/nsm.c.
"""

from dataclasses import dataclass
from pathlib import Path

USABLE, UNUSABLE, ABSENT = "usable", "unusable", "absent"
TSM = "sys/kernel/config/tsm/report"


@dataclass(frozen=True, slots=True)
class Found:
    """One kind of hardware.

    platform:  ``tdx``, ``snp``, ``nitro`` or ``nvidia``
    state:     ``usable``, ``unusable`` (it is there, and something is missing) or ``absent``
    interface: where evidence is asked for; empty unless usable
    reason:    what was seen, and what is missing
    """

    platform: str
    state: str
    interface: str
    reason: str


def detect(root: Path) -> tuple[Found, ...]:
    """Look for every kind of hardware below ``root``, which is ``/`` outside tests."""
    flags = _flags(root)
    return (
        _guest(root, "tdx", "tdx_guest" in flags, "dev/tdx_guest", direct=False),
        _guest(root, "snp", "sev_snp" in flags, "dev/sev-guest", direct=True),
        _nitro(root),
        _nvidia(root),
    )


def _guest(root: Path, platform: str, flag: bool, device: str, *, direct: bool) -> Found:
    has_device, has_tsm = (root / device).exists(), (root / TSM).is_dir()
    seen = f"/{device} is there" if has_device else f"the CPU says that this is a {platform} guest"
    if not has_device and not flag:
        return Found(platform, ABSENT, "", f"no /{device}, and no CPU flag of a {platform} guest")
    if not has_device:
        return Found(platform, UNUSABLE, "", f"{seen}; /{device} is missing: load the guest driver")
    if has_tsm:
        return Found(platform, USABLE, f"/{TSM}", f"{seen}, and configfs-tsm")
    if direct:
        return Found(platform, USABLE, f"/{device}", f"{seen}; no /{TSM}")
    # The driver alone gives a report that only this machine can check; a quote comes through configfs.
    return Found(platform, UNUSABLE, "", f"{seen}; no /{TSM}: mount configfs, or use Linux 6.7 or later")


def _nitro(root: Path) -> Found:
    if (root / "dev/nsm").exists():
        return Found("nitro", USABLE, "/dev/nsm", "/dev/nsm is there")
    return Found("nitro", ABSENT, "", "no /dev/nsm")


def _nvidia(root: Path) -> Found:
    version = root / "proc/driver/nvidia/version"
    devices = sorted(path.name for path in (root / "dev").glob("nvidia[0-9]*"))
    if not version.exists():
        if not devices:
            return Found("nvidia", ABSENT, "", "no NVIDIA driver is loaded")
        return Found("nvidia", UNUSABLE, "", f"/dev/{devices[0]} is there; no NVIDIA driver is loaded")
    if not devices:
        return Found("nvidia", UNUSABLE, "", "the NVIDIA driver is loaded; there is no /dev/nvidia0")
    reason = f"the NVIDIA driver is loaded, {len(devices)} devices; their confidential mode was not asked"
    return Found("nvidia", USABLE, "NVML", reason)


def _flags(root: Path) -> frozenset[str]:
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(next((value.split() for name, _, value in lines if name.strip() == "flags"), []))
