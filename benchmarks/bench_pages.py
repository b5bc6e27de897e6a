"""What a page costs the registry's processor as the log grows, beside `/healthz` of the same process.

Run: ``.venv/bin/python benchmarks/bench_pages.py [RELEASES ...]`` (default 4,000 and 16,000). Each page and
feed of the route table is asked for five times in process; the least processor time counts, as other programs
disturb only upwards. A page asks for at most fifty lines, so its time may not grow with the log.
"""

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flask.testing import FlaskClient
from synthetic import SERVICES, releases, service, setup, setup_entries

from registry.pages.table import FEEDS
from tests.fakes.authority import NOW
from tests.fakes.inprocess import local
from tests.fakes.site import addresses

BAR_SECONDS = 0.300
ROUNDS = 5
CHUNK = 4096


def least(client: FlaskClient, path: str) -> float:
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        answer = client.get(path)
        times.append(time.process_time() - before)
        assert answer.status_code == 200, (path, answer.data[:300])
    return min(times)


def measured(count: int) -> dict[str, float]:
    """Give the processor seconds of each page of a log with so many releases."""
    with tempfile.TemporaryDirectory() as folder, local(Path(folder)) as log:
        log.loop.round()
        log.append(*setup_entries(NOW, SERVICES)[1:])
        first = setup(SERVICES)
        for start in range(first, first + count, CHUNK):
            log.append(*releases(start, min(start + CHUNK, first + count), NOW, SERVICES))
        client = log.client()
        lines = client.get("/releases.json").json["releases"]
        indices = [line["index"] for line in lines[:2]]
        size = client.get("/log.json").json["before"][0]["size"]
        found = {"/healthz": least(client, "/healthz")}
        name = service(0)
        for rule, page, _ in addresses(indices, size):
            found[rule] = max(found.get(rule, 0.0), least(client, page.replace("/chat/", f"/{name}/")))
        for feed in FEEDS:
            found[feed] = least(client, feed.replace("<path:service>", name))
        revision = lines[0]["revision"]
        found["/search?q=REVISION"] = least(client, f"/search?q={revision}")
        found["/search?q=SERVICE"] = least(client, f"/search?q={name}")
        return found


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [4_000, 16_000]
    found = {count: measured(count) for count in counts}
    print(f"{'processor ms a page, releases':<68}" + "".join(f"{count:>10,}" for count in counts))
    for rule in found[counts[0]]:
        print(f"{rule:<68}" + "".join(f"{found[count][rule] * 1e3:>10.1f}" for count in counts))
    worst = max(found[counts[-1]].values())
    print(f"worst {worst * 1e3:.0f} ms, wanted at most {BAR_SECONDS * 1e3:.0f}")


if __name__ == "__main__":
    main()
