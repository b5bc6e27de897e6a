"""Signed single posts that wait for publication, through nginx and gunicorn: rate and latency.

Run: ``.venv/bin/python benchmarks/bench_post.py [SECONDS] [CONNECTIONS]`` (default 10 and 128); needs nginx
and wrk. A real registry with a real witness, fsync on, publishes ten times a second. Each post is another
release with its builder's signature, and is answered when a quorum has cosigned it: the latency is the time
from the post to its publication. The reference of the same run is the same load on ``/healthz``, which does
nothing, through the same nginx and workers.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import synthetic

from tests.fakes import nginx
from tests.fakes.processes import Log, start_log, until

PLAIN_SECONDS = 5
WARM_SECONDS = 3
# A builder's second release must not overtake its first, so each body of those under way has its own service.
SERVICES = 256
# More bodies than can be posted in a second: none is posted twice.
BODIES_A_SECOND = 2_000

SCRIPT = """
local bodies, at, good, bad = {}, 0, 0, 0
function setup(thread) made = thread end
function init(arguments)
  if arguments[1] then for line in io.lines(arguments[1]) do bodies[#bodies + 1] = line end end
end
function request()
  if #bodies == 0 then return wrk.format("GET") end
  at = at + 1
  return wrk.format("POST", nil, nil, bodies[math.min(at, #bodies)])
end
function response(status)
  if status == 200 then good = good + 1 else bad = bad + 1 end
  count, refused = good, bad
end
function done(summary, latency)
  io.write(string.format("%d %d %d %d %d\\n", made:get("count"), made:get("refused"), summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of wrk found; times in milliseconds."""

    answered: int
    refused: int
    per_second: float
    median: float
    p99: float

    def __str__(self) -> str:
        return f"{self.per_second:8,.0f}/s   median {self.median:5.0f} ms   p99 {self.p99:5.0f} ms"


def loaded(folder: Path, url: str, connections: int, seconds: int, bodies: Path | None = None) -> Load:
    script = folder / "load.lua"
    script.write_text(SCRIPT, "ascii")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30", "-s", str(script), url]
    done = subprocess.run(
        [*words, "--", *([str(bodies)] if bodies else [])],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    count, refused, micros, median, p99 = map(int, done.stdout.splitlines()[-1].split())
    return Load(count, refused, (count + refused) / micros * 1e6, median / 1000, p99 / 1000)


def prepare(log: Log, folder: Path, posts: Sequence[int]) -> list[Path]:
    """Let the builders in, and write the bodies of the posts of several runs."""
    setup, now = synthetic.setup(SERVICES), datetime.now(UTC).replace(microsecond=0)
    made = synthetic.entries(setup + sum(posts), now, SERVICES)
    first = list(islice(made, setup))[1:]
    answer = log.request("POST", "/api/v1/batches", b"\n".join(first))
    assert b'"status":4' not in answer.data, answer.data
    until(lambda: int(str(log.json("/api/v1/log")["published"])) > len(first), "the builders are known")
    paths = [folder / f"bodies{number}" for number in range(len(posts))]
    for path, count in zip(paths, posts, strict=True):
        path.write_bytes(b"".join(entry + b"\n" for entry in islice(made, count)))
    return paths


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 128
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        log = start_log(folder, publish_interval=0.1, refresh=120.0, workers=2, threads=160, quota=1e6)
        try:
            bodies = prepare(log, folder, [BODIES_A_SECOND * run for run in (WARM_SECONDS, seconds)])
            upstream = log.registry.address.removeprefix("http://")
            with nginx.running(folder, log.folder / "public", upstream) as address:
                plain = loaded(folder, address + "/healthz", connections, PLAIN_SECONDS)
                target = address + "/api/v1/entries?wait=published"
                # The first release of a service reads its delegation; later ones find it.
                loaded(folder, target, connections, WARM_SECONDS, bodies[0])
                found = loaded(folder, target, connections, seconds, bodies[1])
        finally:
            log.stop()
    assert found.answered + found.refused < BODIES_A_SECOND * seconds
    print(f"{connections} connections, load {os.getloadavg()[0]:.1f}")
    print(f"signed posts awaiting publication  {found}   {found.answered} answered, {found.refused} not")
    print(f"/healthz                           {plain}")
    share = found.per_second / plain.per_second
    print(f"ratio {share:.2f} of /healthz; bars: 800/s, p99 400 ms (and 5 s from acceptance to publication)")


if __name__ == "__main__":
    main()
