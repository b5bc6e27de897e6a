"""Every partial tile and entry bundle of every published size up to 600, cut from what the full one holds."""

from collections.abc import Iterator

import pytest

from quotary.tlog.merkle import leaf_hash, root_of
from quotary.tlog.note import ED25519, Note
from quotary.tlog.tiles import TILE_WIDTH, TilePath, encode_entry_bundle, entries_path, tile_path
from registry.errors import NotPublished
from registry.identity import read_public
from registry.public import PublicLog
from tests.fakes.inprocess import Local, local

SIZES = range(1, 601)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A log of more entries than the largest size."""
    with local(tmp_path_factory.mktemp("tiles")) as found:
        found.loop.round()
        made = found.authority
        found.append(made.allocation(), made.delegation(), *(made.release(f"r{n}") for n in range(SIZES[-1])))
        yield found


def wanted(hashes: list[bytes], level: int) -> list[bytes]:
    """All hashes of a level, from the leaf hashes alone."""
    span = TILE_WIDTH**level
    return [root_of(hashes[start : start + span]) for start in range(0, len(hashes) - span + 1, span)]


def test_each_size_serves_its_tiles_and_bundles_as_prefixes_and_nothing_wider(log: Local) -> None:
    public = PublicLog(log.store.read)
    entries = log.store.read.entries(0, SIZES[-1])
    hashes = [leaf_hash(entry) for entry in entries]
    levels = [wanted(hashes, level) for level in (0, 1)]
    served = 0
    for size in SIZES:
        for level in (0, 1, None):
            whole = levels[level or 0][: size >> (8 * (level or 0))]
            n, width = divmod(len(whole), TILE_WIDTH)
            for tile, found in [*((i, TILE_WIDTH) for i in range(n)), (n, width)]:
                if found:
                    start = tile * TILE_WIDTH
                    if level is None:
                        expected = encode_entry_bundle(entries[start : start + found])
                    else:
                        expected = b"".join(whole[start : start + found])
                    assert public.tile_bytes(TilePath(level, tile, found), size) == expected
                    served += 1
            for beyond in (
                TilePath(level, n, width + 1),
                TilePath(level, n, TILE_WIDTH),
                TilePath(level, n + 1, 1),
            ):
                with pytest.raises(NotPublished):
                    public.tile_bytes(beyond, size)
    assert served > 3 * len(SIZES)


def test_over_http_a_partial_of_each_width_is_a_prefix_until_the_published_size(log: Local) -> None:
    client, size = log.client(), log.store.read.published_size()
    full, bundle = client.get(f"/{tile_path(0, 0)}").data, client.get(f"/{entries_path(0)}").data
    assert (size > 600, len(full)) == (True, 8192)
    for width in range(1, TILE_WIDTH):
        answer = client.get(f"/{tile_path(0, 0, width)}")
        assert (answer.status_code, answer.data) == (200, full[: 32 * width])
        assert bundle.startswith(client.get(f"/{entries_path(0, width)}").data)
    n, width = divmod(size, TILE_WIDTH)
    for path in (
        tile_path(0, n, width + 1),
        entries_path(n, width + 1),
        tile_path(0, n),
        entries_path(n + 1, 1),
        tile_path(1, 0, n + 1),
    ):
        assert client.get(f"/{path}").status_code == 404, path
    for path in (
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/00/000",
        "tile/0/0",
        "tile/0/x000/000",
        "tile/64/000",
    ):
        assert client.get(f"/{path}").status_code == 400, path


def test_checkpoint_tiles_and_bundles_have_the_media_types_and_caching_of_the_specification(
    log: Local,
) -> None:
    client = log.client()
    for path, kind, caching in (
        ("checkpoint", "text/plain; charset=utf-8", "public, max-age=2"),
        (tile_path(0, 0), "application/octet-stream", "public, max-age=31536000, immutable"),
        (tile_path(1, 0, 1), "application/octet-stream", "public, max-age=31536000, immutable"),
        (entries_path(0), "application/octet-stream", "public, max-age=31536000, immutable"),
    ):
        answer = client.get(f"/{path}")
        assert (answer.status_code, answer.content_type, answer.headers["Cache-Control"]) == (
            200,
            kind,
            caching,
        )


def test_a_checkpoint_carries_an_ed25519_signature_of_its_log(log: Local) -> None:
    note = Note.parse(log.client().get("/checkpoint").data)
    keys = [key for key in read_public(log.config.keys / "public").log if key.alg == ED25519]
    assert [key.name for key in keys] == [note.text.partition("\n")[0]]
    assert note.verify(keys) == {keys[0]: ()}
