"""No way out by TCP but to the ports of the log and the vendors, and no sockets of other kinds: Landlock and
seccomp, from before the first request on.

landlock(7), network rules of ABI 4 (Linux 6.7); seccomp(2). The kernel holds this process and all that it
starts to them for good; nothing in the process can lift them. They know ports, not addresses, and nothing of
UDP: to what addresses a machine may speak at all is ``enclave.egress``'s work (docs/enclave.md, "What leaves
it").
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable
from urllib.parse import urlsplit

from quotary.errors import CannotTell
from quotary.net.vendors import Services

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_NET_PORT = 2  # LANDLOCK_RULE_NET_PORT
_BIND_TCP, _CONNECT_TCP = 1, 2
_LEAST_ABI = 4
_NO_NEW_PRIVILEGES = 38  # prctl(2)
_DEFAULT = {"http": 80, "https": 443}
# linux/seccomp.h, linux/filter.h, linux/audit.h; by machine: architecture, number of socket(2).
_SET_SECCOMP, _FILTER_MODE = 22, 2
_LOAD, _EQUAL, _ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EACCES
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_RING = 425  # io_uring_setup(2), through which sockets could be made past a filter
_X32 = 0x40000000  # calls of another numbering
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)


def ports_of(registry: str, services: Services) -> frozenset[int]:
    """Give the TCP ports at which an enclave asks its log and the vendors."""
    return ports_at(
        [registry, services.intel, services.intel_crl, services.amd, services.nvidia, services.ocsp]
    )


def ports_at(urls: Iterable[str]) -> frozenset[int]:
    """Give the TCP ports of some addresses."""
    parts = map(urlsplit, urls)
    return frozenset(part.port or _DEFAULT[part.scheme] for part in parts)


def restrict(ports: Iterable[int]) -> bool:
    """Forbid this thread, and all that it starts from now on, to bind TCP, to connect it to other ports, and
    to make sockets that are no unix socket and not of the internet, a vsock among them.

    False where the kernel has no rules for ports; ``CannotTell`` where it does not take those that it has.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise CannotTell("the network cannot be restricted: new privileges cannot be given up")
    _filter_sockets(kernel)
    if kernel.syscall(_CREATE_RULESET, None, 0, _VERSION) < _LEAST_ABI:
        return False
    handled = struct.pack("=QQ", 0, _BIND_TCP | _CONNECT_TCP)
    ruleset = _ask(kernel, _CREATE_RULESET, handled, len(handled), 0)
    try:
        for port in ports:
            _ask(kernel, _ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        _ask(kernel, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def socket_filter(machine: str) -> list[tuple[int, int, int, int]]:
    """Write the filter's instructions (code, jump if so, jump if not, operand) for a kind of machine."""
    if machine not in _MACHINES:
        raise CannotTell(f"sockets cannot be restricted on {machine}, only on {', '.join(_MACHINES)}")
    architecture, number = _MACHINES[machine]
    deny = 7 + len(_FAMILIES)
    allow = deny + 1
    # A jump counts from the instruction behind it.
    return [
        (_LOAD, 0, 0, 4),  # architecture
        (_EQUAL, 0, deny - 2, architecture),
        (_LOAD, 0, 0, 0),  # number of the call
        (_ABOVE, deny - 4, 0, _X32),
        (_EQUAL, deny - 5, 0, _RING),
        (_EQUAL, 0, allow - 6, number),
        (_LOAD, 0, 0, 16),  # its first argument
        *((_EQUAL, allow - 8 - place, 0, family) for place, family in enumerate(_FAMILIES)),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _filter_sockets(kernel: ctypes.CDLL) -> None:
    code = b"".join(struct.pack("=HBBI", *step) for step in socket_filter(os.uname().machine))
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    if kernel.prctl(_SET_SECCOMP, _FILTER_MODE, program, 0, 0):
        raise CannotTell(f"sockets cannot be restricted: {os.strerror(ctypes.get_errno())}")


def _ask(kernel: ctypes.CDLL, number: int, *words: int | bytes) -> int:
    found = int(kernel.syscall(number, *words))
    if found < 0:
        raise CannotTell(f"the network cannot be restricted: {os.strerror(ctypes.get_errno())}")
    return found
