"""Keep what the network reaches apart from the other processes of its user: Landlock.

landlock(7), "Ptrace restrictions": a process in a domain may trace none outside of it, and so the kernel
opens to it neither memory nor descriptors of one (ptrace(2), "Ptrace access mode checking"), from that one's
first instruction to its last, whoever starts it again and why. The domain's only rule forbids to make block
devices.
"""

import ctypes
import os
import struct

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_MAKE_BLOCK = 1 << 11  # LANDLOCK_ACCESS_FS_MAKE_BLOCK
_NO_NEW_PRIVILEGES = 38  # prctl(2)


def can_be_kept_apart() -> bool:
    """Say whether this kernel has Landlock (Linux 5.13) and runs with it."""
    return int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, _VERSION)) >= 1


def keep_apart() -> None:
    """Put this thread, and all that it starts from now on, into a domain of their own for good.

    OSError where the kernel does not do it.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    rules = struct.pack("=Q", _MAKE_BLOCK)
    _done(kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    ruleset = _done(kernel.syscall(_CREATE_RULESET, rules, len(rules), 0))
    try:
        _done(kernel.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _done(found: int) -> int:
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot be kept apart: {os.strerror(number)}")
    return found
