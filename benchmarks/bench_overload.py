"""Overload (bar A61): five times the signed posts that a registry takes, through nginx and gunicorn.

Run: ``.venv/bin/python benchmarks/bench_overload.py [SECONDS]`` (default 10); needs nginx and wrk. A real
registry with a real witness, fsync on. The peak is what 64 connections get accepted that post as fast as
they are answered, before and after: the reference of the same run. Between them a thousand connections post
five times as much, each at its own pace whatever it is answered. Beside the loads an honest client posts ten
times a second, and its times are kept: to an acceptance, to a refusal, and from there to publication.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import urllib3

from benchmarks import synthetic
from quotary.tlog.merkle import leaf_hash
from registry.store import Store, open_store
from tests.fakes import nginx
from tests.fakes.processes import Log, start_log, until

TIMES = 5
PEAK, MANY = 64, 1000
PEAK_SECONDS = 5
# More than posts are under way at once: a builder's second release must not overtake its first.
SERVICES = 1024
# More than any of these machines takes.
PEAK_BODIES = 2000 * PEAK_SECONDS
PROBES_A_SECOND = 10

SCRIPT = """
local bodies, at, pause = {}, 0, 0
function setup(thread) made = thread end
function init(arguments)
  pause = tonumber(arguments[2])
  for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end
end
function delay() return pause * (0.5 + math.random()) end
function request()
  at = at + 1
  return wrk.format("POST", nil, nil, bodies[math.min(at, #bodies)])
end
accepted, refused, overtaken, other = 0, 0, 0, 0
function response(status, headers)
  if status == 202 or status == 200 then accepted = accepted + 1
  elseif (status == 429 or status == 503) and headers["Retry-After"] then refused = refused + 1
  elseif status == 403 then overtaken = overtaken + 1
  else other = other + 1 end
end
function done(summary)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format("%d %d %d %d %d\\n", made:get("accepted"), made:get("refused"),
    made:get("overtaken"), made:get("other") + failed, summary.duration))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What became of one load's posts.

    overtaken: releases whose service's next one was quicker, which is no fault of the registry's
    other:     neither accepted nor refused by name
    """

    accepted: int
    refused: int
    overtaken: int
    other: int
    seconds: float

    @property
    def goodput(self) -> float:
        return self.accepted / self.seconds

    @property
    def offered(self) -> float:
        return (self.accepted + self.refused + self.overtaken + self.other) / self.seconds

    def __str__(self) -> str:
        rest = f"{self.refused} refused by name, {self.overtaken} overtaken, {self.other} otherwise"
        return f"{self.offered:,.0f}/s posted, {self.goodput:,.0f}/s accepted, {rest}"


@dataclass(slots=True)
class Honest:
    """Times of one client in seconds: to an acceptance, to a refusal, from acceptance to publication."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    published: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"accepted after {_times(self.accepted)}, published {_times(self.published)} later, "
            f"refused after {_times(self.refused)}"
        )


def _times(found: list[float]) -> str:
    if not found:
        return "(none)"
    ordered = sorted(found)
    return f"{ordered[len(ordered) // 2] * 1000:.0f} ms (most {ordered[-1] * 1000:.0f})"


def loaded(folder: Path, url: str, connections: int, seconds: int, bodies: Path, pause: float) -> Load:
    """Post bodies, each connection after a pause of so many milliseconds on the average."""
    script = folder / "overload.lua"
    script.write_text(SCRIPT, "ascii")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30", "-s", str(script), url]
    done = subprocess.run(
        [*words, "--", str(bodies), f"{pause:.0f}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    accepted, refused, overtaken, other, micros = map(int, done.stdout.splitlines()[-1].split())
    return Load(accepted, refused, overtaken, other, micros / 1e6)


@contextmanager
def honest(store: Store, url: str, entries: Iterator[bytes]) -> Iterator[Honest]:
    """Let one more client post beside what happens inside, and see when its entries are published."""
    found, stop, waiting = Honest(), threading.Event(), dict[bytes, float]()

    def look() -> bool:
        size, places = store.read.published_size(), store.read.find_all(list(waiting))
        for name, index in places.items():
            if index < size:
                found.published.append(time.perf_counter() - waiting.pop(name))
        return not waiting

    def work() -> None:
        http = urllib3.PoolManager(retries=False)
        while not stop.is_set():
            entry, began = next(entries), time.perf_counter()
            status = http.request("POST", url, body=entry, timeout=30).status
            now = time.perf_counter()
            if status == 202:
                found.accepted.append(now - began)
                waiting[leaf_hash(entry)] = now
            else:
                found.refused.append(now - began)
            while not stop.is_set() and time.perf_counter() < began + 1 / PROBES_A_SECOND:
                look()
                stop.wait(0.01)
        until(look, "what was accepted is published")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def memory(log: Log) -> float:
    """Give the peaks of the registry's processes together, in MiB."""
    assert log.registry.process is not None
    waiting, total = [log.registry.process.pid], 0
    while waiting:
        pid = waiting.pop()
        status = Path(f"/proc/{pid}/status").read_text("ascii").split("VmHWM:")[1]
        total += int(status.split()[0])
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting += map(int, (task / "children").read_text("ascii").split())
    return total / 1024


def prepare(log: Log, folder: Path, counts: Sequence[int]) -> list[Path]:
    """Let the builders in, and write the bodies of several loads."""
    setup, now = synthetic.setup(SERVICES), datetime.now(UTC).replace(microsecond=0)
    made = synthetic.entries(setup + sum(counts), now, SERVICES)
    first = list(islice(made, setup))[1:]
    answer = log.request("POST", "/api/v1/batches", b"\n".join(first))
    assert b'"status":4' not in answer.data, answer.data
    log.submit(log.authority.allocation("honest"), log.authority.delegation("honest"))
    paths = [folder / f"bodies{number}" for number in range(len(counts))]
    for path, size in zip(paths, counts, strict=True):
        path.write_bytes(b"".join(entry + b"\n" for entry in islice(made, size)))
    return paths


def releases(log: Log) -> Iterator[bytes]:
    """Make the honest client's entries."""
    for number in count():
        yield log.authority.release(f"honest {number}", service="honest")


def measure(log: Log, folder: Path, url: str, store: Store, seconds: int) -> None:
    """Run the four loads and say what was found."""
    sizes = [PEAK_BODIES, PEAK_BODIES, TIMES * 1000 * seconds, PEAK_BODIES]
    warm, calm, many, after = prepare(log, folder, sizes)
    entries = releases(log)
    loaded(folder, url, PEAK, PEAK_SECONDS, warm, 0)  # the first release of a service reads its delegation
    with honest(store, url, entries) as before:
        peak = loaded(folder, url, PEAK, PEAK_SECONDS, calm, 0)
    with honest(store, url, entries) as during:
        pause = MANY / (TIMES * peak.goodput) * 1000
        storm = loaded(folder, url, MANY, seconds, many, pause)
    began = time.perf_counter()
    until(lambda: store.read.waiting_count() == 0, "all that was accepted is logged")
    drained = time.perf_counter() - began
    again = loaded(folder, url, PEAK, PEAK_SECONDS, after, 0)
    print(f"load {os.getloadavg()[0]:.1f}, peaks of memory {memory(log):.0f} MiB together")
    print(f"peak       {peak}\n           honest client: {before}")
    print(f"overload   {storm}\n           honest client: {during}")
    print(f"afterwards {again}; what waited was logged after {drained:.1f} s")
    reference = (peak.goodput + again.goodput) / 2
    print(f"goodput {storm.goodput / reference:.0%} of the peaks under {storm.offered / reference:.1f} times")
    print("bars (A61): 80 % of the peak, the rest refused by name within 50 ms, publication +20 %, 5 s after")


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        log = start_log(folder, publish_interval=0.1, refresh=120.0, workers=2, threads=160, quota=1e6)
        try:
            upstream = log.registry.address.removeprefix("http://")
            with (
                nginx.running(folder, log.folder / "public", upstream) as address,
                closing(open_store(f"sqlite:///{log.folder}/log.db")) as store,
            ):
                measure(log, folder, address + "/api/v1/entries", store, seconds)
        finally:
            log.stop()


if __name__ == "__main__":
    main()
