"""Which inputs of a build decide which register: for people who ask why a register has moved.

The words follow docs/formats/measure.md and docs/formats/measure-process.md; a profile that is not known
here is shown without a picture, and nothing is guessed.
"""

from collections.abc import Mapping

Inputs = Mapping[str, tuple[str, ...]]

_PROCESS: Inputs = {
    "mrtd": ("our code",),
    "rtmr1": ("interpreter", "locked dependencies"),
    "rtmr2": ("command line", "environment", "policy", "weights"),
}
_TDX: Inputs = {
    "mrtd": ("firmware",),
    "rtmr0": ("firmware", "memory and devices"),
    "rtmr1": ("kernel",),
    "rtmr2": ("command line (policy, weights)", "initrd"),
}
_SNP: Inputs = {
    "measurement": (
        "firmware",
        "processors",
        "kernel",
        "initrd",
        "command line (policy, weights)",
    ),
}
_NITRO: Inputs = {
    "pcr0": ("kernel", "command line", "boot ramdisk", "application ramdisks"),
    "pcr1": ("kernel", "command line", "boot ramdisk"),
    "pcr2": ("application ramdisks",),
}
_SGX: Inputs = {"mrenclave": ("enclave file",)}


def inputs_of(platform: str, profile: str) -> Inputs:
    """Give the inputs of each register of a platform (without ``sim-``) under a profile."""
    if profile.startswith("process/"):
        return _PROCESS
    return {"tdx": _TDX, "snp": _SNP, "nitro": _NITRO, "sgx": _SGX}.get(platform, {})
