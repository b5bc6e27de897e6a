"""The copy of a log: byte for byte what it published, proven before it is kept, and renewed in place."""

from pathlib import Path

import pytest

from quotary.client.audit import Auditor
from quotary.client.finding import Finding
from quotary.client.mirror import Mirrored, mirror
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import CHECKPOINT, Files, FolderSource
from quotary.errors import CannotTell, Malformed, Refused
from quotary.tlog.tiles import entries_path, partial_widths, tile_path
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.files import MemorySource, files_of, source_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document, signed_note


def log_of(releases: int) -> FakeLog:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation())
    log.append(*(log.maker.release(f"seed {number}") for number in range(releases)))
    log.close()
    return log


def policy_of(log: FakeLog, **changes: object) -> Policy:
    return Policy.parse(policy_bytes({**policy_document(genesis=log.genesis), **changes}))


def copy(log: FakeLog, folder: Path, source: MemorySource | None = None) -> Mirrored:
    return mirror(Files(source or source_of(log)), folder, policy_of(log), lambda done, size: None)


def published(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("releases", [0, 250, 252, 600])
def test_a_copy_is_byte_for_byte_what_the_log_published(tmp_path: Path, releases: int) -> None:
    log = log_of(releases)
    source = source_of(log)
    found = copy(log, tmp_path, source)
    assert published(tmp_path) == source.files
    assert (found.size, found.root, found.fetched) == (
        len(log.entries),
        log.checkpoint.root,
        len(log.entries),
    )


def test_no_partial_tile_is_asked_for_that_the_verified_checkpoint_does_not_have(tmp_path: Path) -> None:
    log = log_of(300)
    source = source_of(log)
    copy(log, tmp_path / "copy", source)
    with ReplayStore(tmp_path / "store", ORIGIN) as store:
        Auditor(policy_of(log), store, lambda done, size: None).audit(Files(source))
    first, *later = source.reads
    widths = partial_widths(len(log.entries))
    partial = {path for path in later if ".p/" in path}
    assert first == CHECKPOINT
    assert partial <= {tile_path(0, 1, widths[0]), tile_path(1, 0, widths[1]), entries_path(1, widths[0])}
    assert partial


def test_a_copy_is_audited_offline(tmp_path: Path) -> None:
    log = log_of(300)
    copy(log, tmp_path / "copy")
    with ReplayStore(tmp_path / "store", ORIGIN) as store:
        auditor = Auditor(policy_of(log), store, lambda done, size: None)
        assert auditor.audit(Files(FolderSource(tmp_path / "copy"))).map_root == log.map_root


def test_a_second_run_fetches_only_what_is_new(tmp_path: Path) -> None:
    log = log_of(600)
    copy(log, tmp_path)
    log.append(log.maker.release("later"))
    log.close(TS + 1)
    source = source_of(log)
    found = copy(log, tmp_path, source)
    assert found.fetched == len(log.entries) - 512
    assert source.files.items() <= published(tmp_path).items()
    assert [path for path in source.reads if path.startswith("tile/entries")] == ["tile/entries/002.p/94"]


def test_a_damaged_copy_is_mended_from_the_log(tmp_path: Path) -> None:
    log = log_of(600)
    copy(log, tmp_path)
    for path in ("tile/entries/000", "tile/0/001", "tile/1/000.p/2"):
        damaged = bytearray((tmp_path / path).read_bytes())
        damaged[40] ^= 1
        (tmp_path / path).write_bytes(damaged)
    source = source_of(log)
    found = copy(log, tmp_path, source)
    assert published(tmp_path) == source.files
    assert found.fetched == len(log.entries)


def test_a_copy_can_be_made_from_a_copy(tmp_path: Path) -> None:
    log = log_of(300)
    copy(log, tmp_path / "first")
    mirror(
        Files(FolderSource(tmp_path / "first")), tmp_path / "second", policy_of(log), lambda done, size: None
    )
    assert published(tmp_path / "second") == published(tmp_path / "first")


def test_a_changed_entry_never_reaches_the_copy(tmp_path: Path) -> None:
    log = log_of(3)
    source = source_of(log)
    path = next(path for path in source.files if "entries" in path)
    changed = bytearray(source.files[path])
    changed[100] ^= 1
    source.files[path] = bytes(changed)
    with pytest.raises(Finding, match="leaf hash"):
        copy(log, tmp_path, source)
    assert published(tmp_path) == {}


def test_another_log_never_replaces_the_copy(tmp_path: Path) -> None:
    log, other = log_of(3), log_of(4)
    copy(log, tmp_path)
    before = published(tmp_path)
    with pytest.raises(Finding, match="fork"):
        copy(log, tmp_path, source_of(other))
    with pytest.raises(Finding, match="rollback"):
        copy(log, tmp_path, MemorySource(files_of(log.entries[:4])))
    assert published(tmp_path) == before


def test_a_copy_that_was_cut_off_keeps_its_old_checkpoint(tmp_path: Path) -> None:
    log = log_of(3)
    copy(log, tmp_path)
    note = (tmp_path / CHECKPOINT).read_bytes()
    log.append(*(log.maker.release(f"later {number}") for number in range(400)))
    log.close(TS + 1)
    source = source_of(log)
    cut = MemorySource({path: data for path, data in source.files.items() if "entries/001" not in path})
    with pytest.raises(CannotTell):
        copy(log, tmp_path, cut)
    assert (tmp_path / CHECKPOINT).read_bytes() == note
    copy(log, tmp_path, source)
    assert source.files.items() <= published(tmp_path).items()


def test_a_checkpoint_that_the_policy_does_not_accept_is_not_copied(tmp_path: Path) -> None:
    log = log_of(1)
    source = source_of(log)
    source.files[CHECKPOINT] = signed_note(log.checkpoint, TS, witnesses=())
    with pytest.raises(Refused, match="quorum"):
        copy(log, tmp_path, source)
    policy = policy_of(log, minimum={"size": 99, "time": "2026-11-01T00:00:00Z"})
    with pytest.raises(Refused, match="rollback"):
        mirror(Files(source_of(log)), tmp_path, policy, lambda done, size: None)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"x" * (1 << 18))
    with pytest.raises(Malformed, match="more than"):
        Files(FolderSource(tmp_path)).checkpoint()
