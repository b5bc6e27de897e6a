#!/usr/bin/python3.13 -IBS
"""PID 1 where the kernel opened the disks itself: do the ramdisk's work, then ``init.py``.

The kernel mapped each disk under the hash tree that the measured command line names (``dm-mod.create=``) and
mounted the first as root; here the rest is mounted and the network set up. Standard library only.
"""

import ctypes
import fcntl
import os
import runpy
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

INIT = "/usr/sbin/quotary-init"
# mount(2), netdevice(7), rtnetlink's older ioctl: linux/mount.h, linux/sockios.h, linux/route.h
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND = 0x1, 0x2, 0x4, 0x8, 0x20, 0x1000
PLAIN = NO_SUID | NO_DEVICES | NO_EXEC
# The runtime is libraries, which are mapped to be executed.
FLAGS = {"runtime": NO_SUID | NO_DEVICES, "model": PLAIN}
SET_FLAGS, SET_ADDRESS, SET_MASK, ADD_ROUTE = 0x8914, 0x8916, 0x891C, 0x890B
UP, GATEWAY = 0x1, 0x2
ROUTE_LENGTH = 120


def main(init: dict[str, Any]) -> int:
    """Prepare the machine and go on with PID 1 of every machine; return its exit code."""
    mount("", "/", "", REMOUNT | BIND | READ_ONLY | NO_SUID | NO_DEVICES)
    mount("proc", "/proc", "proc", PLAIN)
    mount("sys", "/sys", "sysfs", PLAIN)
    mount("security", "/sys/kernel/security", "securityfs", PLAIN | READ_ONLY)
    mount("", "/dev", "", REMOUNT | BIND | NO_SUID | NO_EXEC)
    mount("run", "/run", "tmpfs", PLAIN, "mode=0755")
    mount("tmp", "/tmp", "tmpfs", PLAIN, "mode=1777")  # noqa: S108  # the guest's own
    settings = init["Settings"].parse(Path("/proc/cmdline").read_text(encoding="ascii"))
    for number, name in enumerate(name for name in init["DISKS"] if settings.get(name)):
        if name != "rootfs":
            mount(f"/dev/dm-{number}", f"/srv/{name}", "erofs", FLAGS[name] | READ_ONLY)
    connect(settings.get("network"))
    return int(init["main"]())


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount a file system, or raise ``OSError`` that names where."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [word.encode() or None for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def connect(network: str | None) -> None:
    """Bring the loopback up, and the network card under ``address/prefix,gateway`` where one is named."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name, request, value in requests(network):
            fcntl.ioctl(control, request, value if name is None else struct.pack("16s24s", name, value))


def requests(network: str | None) -> list[tuple[bytes | None, int, bytes]]:
    """Return the requests to the kernel in order: interface (none for a route), number, value."""
    up = struct.pack("h", UP)
    found: list[tuple[bytes | None, int, bytes]] = [(b"lo", SET_FLAGS, up)]
    if network:
        own, _, gateway = network.partition(",")
        interface = IPv4Interface(own)
        found += [
            (b"eth0", SET_ADDRESS, address(interface.ip)),
            (b"eth0", SET_MASK, address(interface.netmask)),
            (b"eth0", SET_FLAGS, up),
            (None, ADD_ROUTE, default_route(IPv4Address(gateway))),
        ]
    return found


def address(ip: IPv4Address) -> bytes:
    """Write a ``sockaddr_in`` without a port (16 bytes)."""
    return struct.pack("=H2x4s8x", socket.AF_INET, ip.packed)


def default_route(gateway: IPv4Address) -> bytes:
    """Write a ``rtentry`` of x86-64: to everywhere, over a gateway."""
    anywhere = address(IPv4Address(0))
    head = struct.pack("=8x16s16s16sH", anywhere, address(gateway), anywhere, UP | GATEWAY)
    return head.ljust(ROUTE_LENGTH, b"\0")


if __name__ == "__main__":
    program = runpy.run_path(INIT, run_name="quotary_init")
    program["run"](lambda: main(program))
