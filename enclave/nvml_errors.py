"""NVML's error numbers by name (nvml.h, ``nvmlReturn_t``), and what an operator can do about them."""

from collections.abc import Mapping

NOT_SUPPORTED = 3
DRIVER_NOT_LOADED = 9

NAMES: Mapping[int, str] = {
    1: "NVML_ERROR_UNINITIALIZED",
    2: "NVML_ERROR_INVALID_ARGUMENT",
    NOT_SUPPORTED: "NVML_ERROR_NOT_SUPPORTED",
    4: "NVML_ERROR_NO_PERMISSION",
    5: "NVML_ERROR_ALREADY_INITIALIZED",
    6: "NVML_ERROR_NOT_FOUND",
    7: "NVML_ERROR_INSUFFICIENT_SIZE",
    8: "NVML_ERROR_INSUFFICIENT_POWER",
    DRIVER_NOT_LOADED: "NVML_ERROR_DRIVER_NOT_LOADED",
    10: "NVML_ERROR_TIMEOUT",
    11: "NVML_ERROR_IRQ_ISSUE",
    12: "NVML_ERROR_LIBRARY_NOT_FOUND",
    13: "NVML_ERROR_FUNCTION_NOT_FOUND",
    14: "NVML_ERROR_CORRUPTED_INFOROM",
    15: "NVML_ERROR_GPU_IS_LOST",
    16: "NVML_ERROR_RESET_REQUIRED",
    17: "NVML_ERROR_OPERATING_SYSTEM",
    18: "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
    19: "NVML_ERROR_IN_USE",
    20: "NVML_ERROR_MEMORY",
    21: "NVML_ERROR_NO_DATA",
    22: "NVML_ERROR_VGPU_ECC_NOT_SUPPORTED",
    23: "NVML_ERROR_INSUFFICIENT_RESOURCES",
    24: "NVML_ERROR_FREQ_NOT_SUPPORTED",
    25: "NVML_ERROR_ARGUMENT_VERSION_MISMATCH",
    26: "NVML_ERROR_DEPRECATED",
    27: "NVML_ERROR_NOT_READY",
    28: "NVML_ERROR_GPU_NOT_FOUND",
    29: "NVML_ERROR_INVALID_STATE",
    30: "NVML_ERROR_RESET_TYPE_NOT_SUPPORTED",
    999: "NVML_ERROR_UNKNOWN",
}

REMEDIES: Mapping[int, str] = {
    2: "driver and caller disagree about the call: use a driver that docs/gpu.md names",
    NOT_SUPPORTED: "the GPU is not in confidential mode, or cannot be",
    4: "this user may not ask: run as root, or as a user who may open /dev/nvidiactl",
    DRIVER_NOT_LOADED: "load the kernel module: modprobe nvidia",
    10: "the GPU did not answer in time: try again, then reset it",
    12: "a part of the driver's library is missing: install it whole",
    13: "the driver is too old for this call",
    15: "the GPU fell off its bus: restart the machine",
    16: "the GPU has to be reset before it answers",
    17: "the operating system, or the container's rules, refused the call",
    18: "library and kernel module are of different versions: load the module of the library's version",
    20: "the driver has no memory left",
    25: "the driver knows another version of this structure: use a driver that docs/gpu.md names",
    27: "the GPU is not ready yet: try again",
    29: "the GPU is in a state that does not allow this: restart the driver",
    999: "the driver says no more: its kernel log (dmesg) may",
}
