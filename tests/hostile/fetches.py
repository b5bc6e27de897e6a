"""Row I14, run where every packet is counted: statements full of addresses go through a whole registry.

Prints how many connections and datagrams this process's namespace has tried to send. Started by
``test_fetches.py`` in a network namespace whose only way out is a device that leads nowhere.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Limits, Request
from tests.fakes.inprocess import Local, local

BAIT = (
    "http://198.51.100.1/bait",
    "https://bait.example.org/x",
    "git+ssh://bait.example.org/x.git",
    "ftp://198.51.100.1/x",
    "file:///etc/passwd",
    "gopher://198.51.100.1:70/_x",
    "//198.51.100.1/x",
    "dict://198.51.100.1:11211/stat",
    "http://[2001:db8::1]/x",
    "http://169.254.169.254/latest/meta-data/",
)


def submit(log: Local) -> list[int]:
    """Send one statement with each address wherever one fits; the statuses that came back."""
    made, client, found = log.authority, log.client(), []
    log.append(made.allocation(), made.delegation(), made.floor(), made.release("plain"))
    for number, address in enumerate(BAIT):
        entries = [
            made.release(f"r{number}", material={"sbom": address, "key": address, "repository": address}),
            made.notice(uri=address),
            made.revocation([f"m{number}"], advisory=address, reason=address),
        ]
        found += [client.post("/api/v1/entries", data=entry).status_code for entry in entries]
        log.loop.round()
    return found


def read(log: Local) -> int:
    """Read everything there is to read, with the addresses as parameters and headers too."""
    client, asked = log.client(), 0
    size = log.store.read.published_size()
    paths = [
        "/",
        "/log",
        "/revocations",
        "/tcb",
        "/builders",
        "/api/v1/log",
        "/api/v1/services/chat",
        "/openapi.json",
    ]
    paths += [f"/entries/{index}" for index in range(size)] + [
        f"/api/v1/search?q={address}" for address in BAIT
    ]
    for path in paths:
        headers = {"Referer": BAIT[0], "X-Forwarded-Host": "bait.example.org", "Origin": BAIT[1]}
        assert client.get(path, headers=headers).status_code < 500, path
        asked += 1
    return asked


def tried() -> dict[str, int]:
    """What this namespace's kernel has counted: TCP connections begun, UDP datagrams, packets of IPv4.

    Of IPv6 the packets are left out, because the kernel itself asks for routers and neighbours.
    """
    lines = [line.split() for line in Path("/proc/net/snmp").read_text("ascii").splitlines()]
    names = {
        heads[0] + name: int(value)
        for heads, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(heads[1:], values[1:], strict=True)
    }
    later = dict(line.split() for line in Path("/proc/net/snmp6").read_text("ascii").splitlines())
    datagrams = names["Udp:OutDatagrams"] + int(later["Udp6OutDatagrams"])
    return {
        "connections": names["Tcp:ActiveOpens"],
        "datagrams": datagrams,
        "packets": names["Ip:OutRequests"],
    }


if __name__ == "__main__":
    before = tried()
    if sys.argv[1:] == ["bait"]:
        # The harness must see what it is there to see.
        with contextlib.suppress(CannotTell):
            HTTP(plain_http=True).send(Request(BAIT[0], limits=Limits(0.2, 0.2, 0.5)))
        result: dict[str, object] = {}
    else:
        with tempfile.TemporaryDirectory() as folder, local(Path(folder)) as log:
            log.loop.round()
            result = {"statuses": submit(log), "read": read(log)}
    print(json.dumps(result | {"tried": {name: count - before[name] for name, count in tried().items()}}))
