"""The public folder: bundles a few at a time beside the log's own work, and an export that goes on."""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry import export
from registry.bundles import Bundles
from registry.export import BUNDLES, Exporter
from registry.public import PublicLog
from tests.fakes.authority import SERVICE
from tests.fakes.inprocess import Local, local
from tests.fakes.queries import counted

ROWS = 40


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    """A log with a release of many measurements, and hurry."""
    with ExitStack() as stack:
        found = stack.enter_context(local(tmp_path))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("TURN_SECONDS", "SHARE", "LATE_SHARE"):
            patch.setattr(export, name, 0.0)
        patch.setattr(export, "LEAST_BUNDLES", 16)
        made = found.authority
        seeds = [f"row {number}" for number in range(ROWS)]
        found.append(made.genesis(), made.allocation(), made.delegation(), made.release(*seeds))
        yield found


def checkpoints(folder: Path) -> list[bytes]:
    """Give the checkpoint of every bundle in a folder."""
    files = (folder / BUNDLES / SERVICE).iterdir()
    return [b64decode(json.loads(file.read_bytes())["checkpoint"]) for file in files]


def test_each_round_writes_a_few_bundles_until_all_are_as_new_as_the_checkpoint(
    log: Local, tmp_path: Path
) -> None:
    exporter, folder = Exporter(PublicLog(log.store.read), tmp_path / "out"), tmp_path / "out"
    assert [exporter.export() for _ in range(3)] == [False, False, True]
    assert checkpoints(folder) == [(folder / "checkpoint").read_bytes()] * ROWS


def test_bundles_are_gathered_together(log: Local, tmp_path: Path) -> None:
    Exporter(PublicLog(log.store.read), tmp_path / "before").export()
    public = PublicLog(log.store.read)
    places = list(public.measurements(public.snapshot().size))[:16]
    bundles = Bundles(public, public.snapshot())
    with counted(log.store) as queries:
        bundles.prepare(places)
        made = {place: bundles.of(place[1], place[0]) for place in places}
    # Apart they ask for the record, the release and each node on the way: over a hundred statements.
    assert len(queries) < 40
    alone = Bundles(public, public.snapshot())
    assert made == {place: alone.of(place[1], place[0]) for place in places}


def test_a_checkpoint_that_comes_meanwhile_makes_another_walk(log: Local, tmp_path: Path) -> None:
    exporter, folder = Exporter(PublicLog(log.store.read), tmp_path / "out"), tmp_path / "out"
    assert not exporter.export()
    log.append(log.authority.floor())
    assert [exporter.export() for _ in range(2)] == [False, False]
    newest = (folder / "checkpoint").read_bytes()
    assert sorted(map(newest.__eq__, checkpoints(folder))) == [False] * 16 + [True] * 24
    assert [exporter.export() for _ in range(3)] == [False, False, True]
    assert checkpoints(folder) == [newest] * ROWS


def test_a_turn_is_saved_up_until_it_is_worth_while(
    log: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TURN_SECONDS", 3600.0)
    exporter, folder = Exporter(PublicLog(log.store.read), tmp_path / "out"), tmp_path / "out"
    assert [exporter.export() for _ in range(3)] == [False] * 3
    assert (folder / "checkpoint").exists()
    assert not (folder / BUNDLES).exists()
    monkeypatch.setattr(export, "TURN_SECONDS", 0.0)
    assert [exporter.export() for _ in range(3)] == [False, False, True]


def test_no_more_bundles_are_kept_on_disk_than_can_be_kept_fresh(
    log: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MAX_BUNDLES", 20)
    exporter, folder = Exporter(PublicLog(log.store.read), tmp_path / "out"), tmp_path / "out"
    assert [exporter.export() for _ in range(4)] == [False, True, False, True]
    assert len(checkpoints(folder)) == 20


def test_an_export_that_was_cut_off_goes_on_and_has_every_bundle(log: Local, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    Exporter(PublicLog(log.store.read), folder).export_all()
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(checkpoints(folder)) == ROWS
    entries = next(path for path in whole if "entries" in path.parts)
    kept = next(path for path in whole if "tile" in path.parts and "0" in path.parts)
    entries.unlink()
    (folder / "checkpoint").unlink()
    before = kept.stat().st_ino
    Exporter(PublicLog(log.store.read), folder).export_all()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole
    assert kept.stat().st_ino == before
