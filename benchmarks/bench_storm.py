"""A boot storm: many enclaves fetch checkpoint, bundle and the log's description, at times fixed beforehand.

Run: ``.venv/bin/python benchmarks/bench_storm.py [ENCLAVES SECONDS]`` (default 2,000 in 12 s, a fifth of bar
A63); needs nginx. A real registry with a real witness behind ``deploy/nginx.conf``. Open loop: an answer's
latency counts from its scheduled time, so whoever is late makes nobody else come later. The reference of the
same run is as many enclaves that ask a bare nginx for the same bytes. Processor time is that of nginx and of
all of the registry.
"""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.bench_static import bare
from tests.fakes import nginx
from tests.fakes.authority import measurement
from tests.fakes.processes import Log, start_log, until

BAR_SECONDS, BAR_SHARE = 0.25, 0.5
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Storm:
    """What a storm met; latencies in seconds, sorted."""

    latencies: list[float]
    failed: int

    def __str__(self) -> str:
        count = len(self.latencies)
        median, p99 = (self.latencies[int(count * share)] * 1000 for share in (0.5, 0.99))
        return f"{count} answers, {self.failed} failed, median {median:.1f} ms, p99 {p99:.1f} ms"


async def storm(address: str, paths: list[str], enclaves: int, seconds: float) -> Storm:
    """Let the enclaves come one after the other, evenly over the time, each on a connection of its own."""
    host, _, port = address.removeprefix("http://").partition(":")
    began, latencies, failed = time.perf_counter() + 0.2, [], 0

    async def boot(number: int) -> None:
        nonlocal failed
        due = began + number * seconds / enclaves
        await asyncio.sleep(due - time.perf_counter())
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            for path in paths:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: log\r\n\r\n".encode())
                failed += await _status(reader) != 200
                latencies.append(time.perf_counter() - due)
            writer.close()
        except OSError:
            failed += len(paths)

    await asyncio.gather(*map(boot, range(enclaves)))
    return Storm(sorted(latencies), failed)


async def _status(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    (length,) = (line[15:] for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    await reader.readexactly(int(length))
    return int(head.split(" ", 2)[1])


def processor(root: int) -> float:
    """Seconds that a process and everything below it have used, those that have ended too."""
    fields = Path(f"/proc/{root}/stat").read_text("ascii").rpartition(")")[2].split()
    children = Path(f"/proc/{root}/task/{root}/children").read_text("ascii").split()
    return sum(map(int, fields[11:15])) / TICKS + sum(processor(int(child)) for child in children)


def servers() -> float:
    """Of nginx and the registry, which are all children of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
    return sum(processor(int(child)) for child in children)


def ready(log: Log) -> str:
    """Publish a release, and give the path of its bundle once it stands in the public folder."""
    made = log.authority
    log.submit(made.allocation(), made.delegation(), made.floor(), made.release("r1"))
    path = f"/api/v1/bundles/chat/{measurement('r1').hex()}"
    until(lambda: (log.folder / f"public{path}").exists(), "the bundle is exported")
    return path


def main() -> None:
    enclaves, seconds = (int(sys.argv[1]), float(sys.argv[2])) if len(sys.argv) > 2 else (2000, 12.0)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        log = start_log(folder, publish_interval=1.0, refresh=30.0, workers=2, threads=160)
        try:
            paths = ["/checkpoint", ready(log), "/api/v1/log"]
            (folder / "plain/api/v1/bundles/chat").mkdir(parents=True)
            for path in paths:
                (folder / f"plain{path}").write_bytes(log.get(path))
            upstream = log.address.removeprefix("http://")
            with (
                nginx.running(folder, log.folder / "public", upstream) as front,
                bare(folder, folder / "plain") as plain,
            ):
                before, client = servers(), time.process_time()
                found = asyncio.run(storm(front, paths, enclaves, seconds))
                used, client = servers() - before, time.process_time() - client
                reference = asyncio.run(storm(plain, paths, enclaves, seconds))
        finally:
            log.stop()
    cores = os.cpu_count() or 1
    print(f"{enclaves} enclaves in {seconds:g} s, load {os.getloadavg()[0]:.1f}, {cores} cores")
    print(f"through deploy/nginx.conf  {found}")
    print(f"bare nginx                 {reference}")
    share = used / seconds / cores
    print(f"processor  {used:.2f} s of nginx and registry: {share:.0%} of the cores; enclaves {client:.2f} s")
    print(f"bars: no failure, p99 {BAR_SECONDS * 1000:.0f} ms, {BAR_SHARE:.0%} of the cores")


if __name__ == "__main__":
    main()
