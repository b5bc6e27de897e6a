"""What a page costs the registry's processor as the log grows, beside `/healthz` of the same process.

Run: ``.venv/bin/python benchmarks/bench_pages.py [RELEASES ...]`` (default 4,000 and 16,000), or with folders
of logs that ``long_log.py`` made. Each page and feed of the route table is asked for five times in process;
the least processor time counts, as other programs disturb only upwards. A page asks for at most fifty lines,
so its time may not grow with the log.
"""

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flask.testing import FlaskClient
from synthetic import SERVICES, releases, service, setup, setup_entries

from registry.pages.table import FEEDS
from tests.fakes.authority import NOW
from tests.fakes.inprocess import Clock, local
from tests.fakes.site import addresses

BAR_SECONDS, SEARCH_BAR_SECONDS = 0.300, 0.100
ROUNDS = 5
SEARCH = "/search?q="
CHUNK = 4096


def least(client: FlaskClient, path: str) -> float:
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        answer = client.get(path)
        times.append(time.process_time() - before)
        assert answer.status_code == 200, (path, answer.data[:300])
    return min(times)


def measured(word: str) -> dict[str, float]:
    """Give the processor seconds of each page of a log with so many releases, or of the log in a folder."""
    if not word.isdigit():
        with local(Path(word), clock=Clock(datetime.now(UTC).replace(microsecond=0))) as log:
            if log.store.read.published_size() == 0:
                log.loop.round()
            return of_pages(log.client())
    with tempfile.TemporaryDirectory() as folder, local(Path(folder)) as log:
        log.loop.round()
        log.append(*setup_entries(NOW, SERVICES)[1:])
        first = setup(SERVICES)
        count = int(word)
        for start in range(first, first + count, CHUNK):
            log.append(*releases(start, min(start + CHUNK, first + count), NOW, SERVICES))
        return of_pages(log.client())


def of_pages(client: FlaskClient) -> dict[str, float]:
    lines = client.get("/releases.json").json["releases"]
    indices = [line["index"] for line in lines[:2]]
    size = client.get("/log.json").json["size"]
    found = {"/healthz": least(client, "/healthz")}
    name = service(0)
    for rule, page, _ in addresses(indices, size):
        found[rule] = max(found.get(rule, 0.0), least(client, page.replace("/chat/", f"/{name}/")))
    for feed in FEEDS:
        found[feed] = least(client, feed.replace("<path:service>", name))
    leaf = client.get(f"/entries/{indices[0]}.json").json["leaf_hash"]
    for what, text in (
        ("REVISION", lines[0]["revision"]),
        ("SERVICE", name),
        ("LEAF", leaf),
        ("NOTHING", "ab" * 32),
    ):
        found[f"{SEARCH}{what}"] = least(client, f"{SEARCH}{text}")
    return found


def main() -> None:
    words = sys.argv[1:] or ["4000", "16000"]
    found = {word: measured(word) for word in words}
    print(f"{'processor ms a page, releases':<68}" + "".join(f"{word:>14}" for word in words))
    for rule in found[words[0]]:
        print(f"{rule:<68}" + "".join(f"{found[word][rule] * 1e3:>14.1f}" for word in words))
    last = found[words[-1]]
    show("page or feed", max(last.values()), BAR_SECONDS)
    show("search", max(value for rule, value in last.items() if rule.startswith(SEARCH)), SEARCH_BAR_SECONDS)


def show(what: str, seconds: float, bar: float) -> None:
    print(f"worst {what} {seconds * 1e3:.0f} ms, wanted at most {bar * 1e3:.0f}")


if __name__ == "__main__":
    main()
