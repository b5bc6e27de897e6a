"""Bar A41 without nginx, run where every address of a network is this machine's: slow clients from one of them.

Prints what became of them and of the honest ones beside them. Started by ``test_slow.py`` in a network namespace.
"""

import json
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import urllib3

from tests.fakes.processes import start_log, until

SERVER, ABUSER, HONEST = "192.0.2.1", "192.0.2.66", "192.0.2.77"
HEAD = b"GET /checkpoint HTTP/1.1\r\nHost: log\r\nX-Slow: "


def main() -> None:
    """Hold forty connections open while somebody else publishes."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log = start_log(Path(folder), bind="0.0.0.0:0", threads=8)
        stack.callback(log.stop)
        port = int(log.address.rpartition(":")[2])
        slow = [stack.enter_context(_connect(port)) for _ in range(40)]
        for found in slow:
            found.sendall(HEAD)
        if sys.argv[1:] == ["cut"]:
            print(json.dumps({"cut": _cut_after(slow)}))
            return
        until(lambda: len(_answered(slow)) == len(slow) - 2, "all but two are refused")
        refused = _answered(slow)
        pool = urllib3.PoolManager(retries=False, source_address=(HONEST, 0))
        honest = replace(log, at=f"http://{SERVER}:{port}", http=pool)
        index = honest.publish(log.authority.allocation())
        statuses = [honest.request("GET", "/checkpoint").status for _ in range(40)]
        lines = [json.loads(line) for line in log.registry.log().splitlines()]
        warned = [line["requests_each"] for line in lines if line.get("event") == "front.absent"]
        print(json.dumps({"refused": refused, "index": index, "statuses": statuses, "warned": warned}))


def _cut_after(slow: list[socket.socket]) -> float:
    """How many seconds it takes until all are gone, those too that were held."""
    started = time.monotonic()
    until(lambda: len(_answered(slow)) == len(slow), "the slow ones are cut", 60)
    return time.monotonic() - started


def _connect(port: int) -> socket.socket:
    return socket.create_connection((SERVER, port), timeout=10, source_address=(ABUSER, 0))


def _answered(slow: list[socket.socket]) -> list[str]:
    """What was read by those that the registry has answered or hung up on."""
    found = []
    for each in slow:
        each.setblocking(False)
        try:
            found.append(each.recv(4096, socket.MSG_PEEK).split(b"\r\n")[0].decode())
        except BlockingIOError:
            continue
        except ConnectionResetError:
            found.append("reset")
    return found


if __name__ == "__main__":
    main()
