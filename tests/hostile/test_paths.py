"""Row I13 and bar A46 (traversal), row I17 (caches): what leaves the registry is what is public, under its own name."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.processes import Log
from tests.hostile.paths import paths
from tests.hostile.wire import Heard, exchange

PATHS = sorted(set(paths()))
OUTSIDE = (b"PRIVATE KEY", b"publish_interval_seconds", b"root:x:", b"SQLite format 3", b"canary-outside")


def get(address: str, path: str, *lines: str) -> Heard:
    head = [f"GET {path} HTTP/1.1", "Host: log.example.org", *lines, "Connection: close", "", ""]
    return exchange(address, "\r\n".join(head).encode("latin-1"))


def test_a46_the_corpus_has_more_than_three_hundred_paths() -> None:
    assert len(PATHS) > 300


@pytest.mark.parametrize("door", ["nginx", "gunicorn"])
def test_a46_no_path_leads_out_of_what_is_public(doors: dict[str, Log], door: str) -> None:
    log = doors[door]
    (log.folder / "public" / "tile" / ".half").write_bytes(b"canary-outside")
    (log.folder / "canary").write_bytes(b"canary-outside")
    with ThreadPoolExecutor(4) as pool:
        heard = list(pool.map(lambda path: get(log.address, path), PATHS))
    wrong = [
        (path, found.statuses)
        for path, found in zip(PATHS, heard, strict=True)
        if any(bad in found.data for bad in OUTSIDE) or not _is_refusal(found)
    ]
    assert wrong == []


def _is_refusal(heard: Heard) -> bool:
    """A refusal, or a redirect to a shorter path of our own."""
    (status,) = heard.statuses
    if status == 308:
        _, _, place = heard.data.partition(b"Location: ")
        return place.startswith((b"http://log.example.org/", b"/")) and not place.startswith(b"//")
    return status in (400, 404)


def headers(heard: Heard) -> dict[str, str]:
    head = heard.data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}


LYING = ("X-Forwarded-Host: evil.example.org", "X-Forwarded-Proto: gopher", "X-Original-URL: /metrics",
         "X-Rewrite-URL: /metrics", "Forwarded: host=evil.example.org", "X-HTTP-Method-Override: DELETE")  # fmt: skip
READ = (
    "/checkpoint",
    "/tile/0/000.p/1",
    "/api/v1/log",
    "/api/v1/entries/0",
    "/api/v1/proofs/0",
    "/",
    "/entries/0",
)
MISSING = (
    "/nothing",
    "/tile/0/999",
    "/tile/0/000.p/256",
    "/api/v1/entries/999999",
    "/api/v1/proofs/x",
    "/problems/none",
)


@pytest.mark.parametrize("door", ["nginx", "gunicorn"])
@pytest.mark.parametrize("path", READ)
def test_i17_no_header_and_no_query_changes_what_a_cache_keeps(
    doors: dict[str, Log], door: str, path: str
) -> None:
    address = doors[door].address
    plain = get(address, path)
    assert plain.statuses == (200,)
    for lines in (LYING, ("Accept: text/evil",), ("Accept-Language: xx", "User-Agent: evil.example.org")):
        lied = get(address, path, *lines)
        assert lied.statuses == (200,)
        assert b"evil.example.org" not in lied.data
        assert headers(lied).get("cache-control") == headers(plain).get("cache-control")
    queried = get(address, path + "?utm=evil.example.org")
    assert b"evil.example.org" not in queried.data


@pytest.mark.parametrize("door", ["nginx", "gunicorn"])
@pytest.mark.parametrize("path", MISSING)
def test_i17_an_error_is_kept_by_no_cache(doors: dict[str, Log], door: str, path: str) -> None:
    heard = get(doors[door].address, path)
    found = headers(heard)
    assert heard.statuses[0] in (400, 404)
    assert found["cache-control"] == "no-store"
    assert found["content-type"] == "application/problem+json"
    assert json.loads(heard.data.partition(b"\r\n\r\n")[2])["status"] == heard.statuses[0]


@pytest.mark.parametrize("door", ["nginx", "gunicorn"])
def test_i17_what_is_for_ever_is_for_ever_only_where_it_cannot_change(
    doors: dict[str, Log], door: str
) -> None:
    address = doors[door].address
    for path in (
        "/tile/0/000.p/1",
        "/tile/entries/000.p/1",
        "/api/v1/entries/0",
        "/api/v1/consistency?old=1&new=2",
    ):
        assert "immutable" in headers(get(address, path))["cache-control"], path
    for path in (
        "/checkpoint",
        "/api/v1/log",
        "/api/v1/proofs/0",
        "/api/v1/services",
        "/api/v1/search?q=chat",
    ):
        assert "immutable" not in headers(get(address, path))["cache-control"], path
