"""Which hardware is here, in trees that look like real machines."""

from pathlib import Path

import pytest

from quotary.client.detect import Found, detect


def tree(root: Path, *files: str, flags: str = "fpu vme") -> dict[str, Found]:
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n\n" * 2)
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/report"):
            path.mkdir()
        else:
            path.touch()
    return {found.platform: found for found in detect(root)}


TSM = "sys/kernel/config/tsm/report"


@pytest.mark.parametrize(
    ("files", "flags", "platform", "state", "interface", "said"),
    [
        (("dev/tdx_guest", TSM), "tdx_guest", "tdx", "usable", f"/{TSM}", "configfs-tsm"),
        (("dev/tdx_guest",), "tdx_guest", "tdx", "unusable", "", "mount configfs"),
        ((), "tdx_guest", "tdx", "unusable", "", "load the guest driver"),
        ((), "", "tdx", "absent", "", "no /dev/tdx_guest"),
        (("dev/sev-guest", TSM), "", "snp", "usable", f"/{TSM}", "configfs-tsm"),
        (("dev/sev-guest",), "", "snp", "usable", "/dev/sev-guest", "no /sys"),
        ((), "sev_snp", "snp", "unusable", "", "load the guest driver"),
        ((), "sev sev_es", "snp", "absent", "", "no CPU flag"),
        (("dev/nsm",), "", "nitro", "usable", "/dev/nsm", "is there"),
        ((), "", "nitro", "absent", "", "no /dev/nsm"),
        (
            ("dev/nvidia0", "dev/nvidia1", "proc/driver/nvidia/version"),
            "",
            "nvidia",
            "usable",
            "NVML",
            "2 dev",
        ),
        (("proc/driver/nvidia/version",), "", "nvidia", "unusable", "", "no /dev/nvidia0"),
        (("dev/nvidia0",), "", "nvidia", "unusable", "", "no NVIDIA driver"),
        (("dev/nvidiactl",), "", "nvidia", "absent", "", "no NVIDIA driver"),
    ],
)
def test_hardware_is_named_with_the_reason(
    tmp_path: Path, files, flags, platform, state, interface, said
) -> None:
    found = tree(tmp_path, *files, flags=flags)[platform]
    assert (found.state, found.interface) == (state, interface)
    assert said in found.reason


def test_a_machine_without_proc_has_nothing(tmp_path: Path) -> None:
    assert {found.state for found in detect(tmp_path)} == {"absent"}
