"""Bar A49, run where every address of a network is this machine's: one abuser beside twenty honest callers.

Through nginx as it is shipped. An honest caller reads or publishes twice a second, at times fixed beforehand; the
abuser sends fifty times as much over a hundred connections, from one address. Prints the 99th percentile of the
honest, with the abuser and without, and how often they did not succeed. Started by ``test_fairness.py``.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import urllib3

from tests.fakes import nginx
from tests.fakes.authority import Authority
from tests.fakes.processes import Log, start_log

SERVER, ABUSER = "192.0.2.1", "192.0.2.66"
HONEST = 20
EACH_SECONDS = 0.5
TIMES = 50
CONNECTIONS = 100
SECONDS = 10.0

Ask = Callable[[int], int]


def main() -> None:
    """Measure a quiet time, an abused one, and a quiet one."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log = start_log(Path(folder), workers=2, threads=160)
        stack.callback(log.stop)
        log.submit(*_services(log.authority))
        (Path(folder) / "nginx").mkdir()
        upstream = log.address.removeprefix("http://")
        front = stack.enter_context(
            nginx.running(Path(folder) / "nginx", log.folder / "public", upstream, host=SERVER)
        )
        entries = Path(folder) / "entries"
        entries.write_bytes(log.authority.release("known", service="s0") + b"\n")
        log.publish(entries.read_bytes().strip())
        rounds = [("quiet", False), ("abused", True), ("quiet again", False)]
        print(json.dumps({name: _round(log, front, entries if abused else None) for name, abused in rounds}))


def _services(made: Authority) -> Iterator[bytes]:
    for number in range(HONEST):
        yield made.allocation(f"s{number}")
        yield made.delegation(f"s{number}")


def _round(log: Log, front: str, entries: Path | None) -> dict[str, object]:
    with ExitStack() as stack:
        said = stack.enter_context(_abuser(front, entries)) if entries else io.BytesIO(b"0\n")
        took, failed = paced(_honest(log, front), HONEST, EACH_SECONDS, SECONDS)
        abuse = int(said.readline())
    took.sort()
    return {"p99": took[int(len(took) * 0.99)], "asked": len(took), "failed": failed, "abuse": abuse}


@contextmanager
def _abuser(front: str, entries: Path) -> Iterator[IO[bytes]]:
    """A process of its own, which waits for no honest caller; at its end it says how much it has sent."""
    words = [sys.executable, "-m", "tests.hostile.fairness", "abuse", front, str(entries)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.stdout


def _honest(log: Log, front: str) -> Ask:
    pools = [_pool(f"192.0.2.{100 + number}") for number in range(HONEST)]

    def ask(number: int) -> int:
        caller, turn = number % HONEST, number // HONEST
        if turn % 5 == 0:
            entry = log.authority.release(f"r{time.monotonic_ns()}", service=f"s{caller}")
            return _post(pools[caller], front, "entries?wait=published", entry)
        path = "/checkpoint" if turn % 2 else f"/api/v1/search?q=honest-{number}"
        return int(pools[caller].request("GET", front + path, timeout=20).status)

    return ask


def _abuse(front: str, entries: Path) -> None:
    """Send what costs the registry most: entries that are known, forged, or none, and searches."""
    pool = _pool(ABUSER, CONNECTIONS)
    known = entries.read_bytes().strip()
    at = known.index(b'"sig":"') + 7
    forged = known[:at] + (b"B" if known[at : at + 1] == b"A" else b"A") + known[at + 1 :]
    kinds: list[Callable[[], int]] = [
        lambda: _post(pool, front, "entries?wait=published", known),
        lambda: _post(pool, front, "entries?wait=published", forged),
        lambda: _post(pool, front, "batches", (known + b"\n") * 20),
        lambda: int(pool.request("GET", front + "/api/v1/search?q=abuse", timeout=20).status),
    ]
    print("begins", flush=True)
    each_seconds = EACH_SECONDS * CONNECTIONS / TIMES
    took, _ = paced(lambda number: kinds[number % len(kinds)](), CONNECTIONS, each_seconds, SECONDS)
    print(len(took))


def paced(ask: Ask, callers: int, each_seconds: float, seconds: float) -> tuple[list[float], int]:
    """Let each of the callers ask at its times; the seconds from those times to the answers, and the failures."""
    began, took, failed = time.monotonic() + 0.2, [], []

    def call(caller: int) -> None:
        for turn in range(int(seconds / each_seconds)):
            due = began + (turn + caller / callers) * each_seconds
            threading.Event().wait(max(0.0, due - time.monotonic()))
            status = 0
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                status = ask(turn * callers + caller)
            took.append(time.monotonic() - due)
            if status not in (200, 202):
                failed.append(status)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, len(failed)


def _pool(address: str, connections: int = 1) -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=connections, retries=False, source_address=(address, 0))


def _post(pool: urllib3.PoolManager, front: str, path: str, body: bytes) -> int:
    return int(pool.request("POST", f"{front}/api/v1/{path}", body=body, timeout=20).status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["abuse"]:
        _abuse(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
