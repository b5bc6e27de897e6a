"""No way out by TCP but to the ports of the log and the vendors: Landlock, from before the first request on.

landlock(7), network rules of ABI 4 (Linux 6.7). The kernel holds this process and all that it starts to it
for good; nothing in the process can lift it. It knows ports, not addresses, and does not know UDP: what else
may be reached is for the machine's own firewall (docs/enclave.md, "What leaves it").
"""

import ctypes
import os
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


def ports_of(registry: str, services: Services) -> frozenset[int]:
    """Give the TCP ports at which an enclave asks its log and the vendors."""
    urls = [registry, services.intel, services.intel_crl, services.amd, services.nvidia, services.ocsp]
    parts = [urlsplit(url) for url in urls]
    return frozenset(part.port or _DEFAULT[part.scheme] for part in parts)


def restrict(ports: Iterable[int]) -> bool:
    """Forbid this thread, and all that it starts from now on, to bind TCP and to connect it to other ports.

    False where the kernel has no such rules; ``CannotTell`` where it has them and does not take these.
    """
    kernel = ctypes.CDLL(None, use_errno=True)
    if kernel.syscall(_CREATE_RULESET, None, 0, _VERSION) < _LEAST_ABI:
        return False
    handled = struct.pack("=QQ", 0, _BIND_TCP | _CONNECT_TCP)
    ruleset = _ask(kernel, _CREATE_RULESET, handled, len(handled), 0)
    try:
        for port in ports:
            _ask(kernel, _ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        if kernel.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise CannotTell("the network cannot be restricted: new privileges cannot be given up")
        _ask(kernel, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _ask(kernel: ctypes.CDLL, number: int, *words: int | bytes) -> int:
    found = int(kernel.syscall(number, *words))
    if found < 0:
        raise CannotTell(f"the network cannot be restricted: {os.strerror(ctypes.get_errno())}")
    return found
