"""Two machines of a test: a guest that is held to addresses, and what it might reach (``test_egress.py``)."""

import errno
import json
import os
import socket
import sys
import threading
from collections.abc import Callable

GUEST, PEER, OTHER = "10.9.0.1", "10.9.0.2", "10.9.0.3"
LOG, SECOND, NAMES, SERVED = 8000, 9000, 53, 8080
CALL_BACK = b"call back"


def tried(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def connected(address: str, port: int, source: int | None = None) -> None:
    with socket.socket() as one:
        one.settimeout(10)
        if source is not None:
            one.bind(("", source))
        one.connect((address, port))


def sent(family: int, kind: int, place: tuple[object, ...], protocol: int = 0) -> None:
    with socket.socket(family, kind, protocol) as one:
        one.sendto(b"\x08" + bytes(7), place)  # as a raw socket, an echo request


def ways() -> dict[str, str]:
    udp = socket.SOCK_DGRAM
    tries: dict[str, Callable[[], object]] = {
        "log": lambda: connected(PEER, LOG),
        "another port": lambda: connected(PEER, SECOND),
        "another address": lambda: connected(OTHER, LOG),
        "names": lambda: sent(socket.AF_INET, udp, (PEER, NAMES)),
        "udp to the log's port": lambda: sent(socket.AF_INET, udp, (PEER, LOG)),
        "raw": lambda: sent(socket.AF_INET, socket.SOCK_RAW, (PEER, 0), socket.IPPROTO_ICMP),
        "everybody": lambda: sent(socket.AF_INET, udp, ("192.0.2.7", 9)),
        "six": lambda: sent(socket.AF_INET6, udp, ("fd00::2", NAMES)),
        "itself": lambda: connected("127.0.0.1", SERVED),
        "by its own address": lambda: connected(GUEST, SERVED),
    }
    return {name: tried(work) for name, work in tries.items()}


def lifted() -> str:
    """Try as an ordinary user to take the last rule away."""
    from enclave import egress

    child = os.fork()
    if child:
        return "no" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EPERM else "yes"
    os.setuid(65_534)
    request = bytearray(next(egress.rules([], None, (socket.AF_INET,))))
    request[4:8] = (33).to_bytes(2, "little") + (5).to_bytes(2, "little")  # delete, and say so
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.send(request)
        os._exit(-int.from_bytes(kernel.recv(4096)[16:20], "little", signed=True))


def guest() -> None:
    from enclave import egress

    with socket.create_server(("", SERVED)) as served:
        threading.Thread(target=accept, args=(served,), daemon=True).start()
        before = ways()
        egress.main(["--answer", str(SERVED), f"{PEER}:{LOG}"])
        after = ways()
        with socket.create_connection((PEER, LOG), 10) as one:
            one.sendall(CALL_BACK)
            called = one.recv(100).decode()
    print(json.dumps({"before": before, "after": after, "called": called, "lifted": lifted()}))


def accept(listener: socket.socket) -> None:
    while True:
        taken, _ = listener.accept()
        with taken:
            taken.settimeout(10)
            if taken.recv(100) == CALL_BACK:
                taken.sendall(tried(lambda: connected(GUEST, SERVED)).encode())


def peer() -> None:
    for port in (LOG, SECOND):
        listener = socket.create_server(("", port))
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    {"guest": guest, "peer": peer}[sys.argv[1]]()
