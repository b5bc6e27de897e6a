"""Every page and feed of the site at real addresses of one log, enumerated from the route table."""

from collections.abc import Iterator, Mapping, Sequence

from registry.pages.table import FEEDS, PAGES, twin
from tests.fakes.authority import SERVICE, Authority, measurement

ROWS = ("old", "new")


def history(made: Authority) -> list[bytes]:
    """One of everything that a page can show: two releases, of which one cannot be made again, rebuilds that match, differ and fail, a revocation."""
    old = made.release("old")
    material = {"not_reproducible": {"image.raw": "its driver comes signed by its vendor"}}
    new = made.release("new", lock_sha256="0a" * 32, material=material)
    return [
        made.allocation(),
        made.delegation(),
        made.floor(),
        old,
        new,
        made.rebuild(old, {"old": True}),
        made.rebuild(new, {"new": False}, signers=["rebuilder2"], organisation="Doubters"),
        made.rebuild(new, {}, signers=["rebuilder1"], organisation="Without a compiler"),
        made.revocation(old, reason="keys <leaked> & gone"),
    ]


def addresses(releases: Sequence[int], checkpoint: int) -> Iterator[tuple[str, str, str]]:
    """Give rule, page and twin of every page, at the indices of two releases and the size of a checkpoint."""
    for rule in PAGES:
        for values in _values(rule, releases, checkpoint):
            yield rule, _filled(rule, values), _filled(twin(rule), values)


def feed_addresses() -> Iterator[str]:
    for rule in FEEDS:
        yield _filled(rule, {"<path:service>": SERVICE})


def _values(rule: str, releases: Sequence[int], checkpoint: int) -> list[Mapping[str, str]]:
    service = {"<path:service>": SERVICE}
    known: dict[str, list[Mapping[str, str]]] = {
        "/entries/<int:index>": [{"<int:index>": str(index)} for index in (0, 1, *releases)],
        "/releases/<int:index>": [{"<int:index>": str(index)} for index in releases],
        "/log/checkpoints/<int:size>": [{"<int:size>": str(checkpoint)}],
        "/digests/<digest>": [{"<digest>": measurement("new").hex()}, {"<digest>": "00" * 32}],
        "/services/<path:service>/": [service],
        "/measurements/<path:service>/<string(length=64):digest>": [
            {**service, "<string(length=64):digest>": digest}
            for digest in (*(measurement(seed).hex() for seed in ROWS), "00" * 32)
        ],
    }
    return known[rule] if "<" in rule else [{}]


def _filled(rule: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        rule = rule.replace(name, value)
    assert "<" not in rule, f"{rule} has a value that tests/fakes/site.py does not know"
    return rule
