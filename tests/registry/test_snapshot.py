"""A start goes on from F1's snapshot, and never from a wrong one."""

from pathlib import Path

import pytest

from quotary.errors import Rejected
from quotary.tlog.policy import TlogPolicy
from registry import sequencer, snapshot
from registry.backup import make_backup, restore_backup
from registry.fsck import check_store
from registry.replica import Follower
from registry.snapshot import open_follower
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import Local, local
from tests.registry.test_recovery import NOBODY, story


def check(log: Local) -> int:
    policy = TlogPolicy.parse(log.config.policy.read_text("utf-8"))
    return check_store(log.store.read, ORIGIN, policy, log.config.snapshot).entries


def test_a_restart_reads_only_what_came_after_the_snapshot(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        log.sequencer.keep_snapshot()
        log.append(log.authority.release("r2"))
        assert check(log) == 10
    with local(tmp_path) as log:
        follower = open_follower(ORIGIN, log.store.read, log.config.snapshot)
        assert follower.size == 8
        follower.catch_up(log.store.read, 10)
        whole = Follower(ORIGIN)
        whole.catch_up(log.store.read, 10)
        assert follower.f1.dump() == whole.f1.dump()
        made = log.authority
        made.allocation(), made.delegation(), made.release("r1"), made.release("r2")
        answer = log.client().post("/api/v1/entries", data=made.release("r3"))
        assert answer.status_code == 202
        log.loop.round()
        assert check(log) == 12


def test_the_sequencer_keeps_a_snapshot_after_enough_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "EVERY_ENTRIES", 4)
    with local(tmp_path) as log:
        log.loop.round()
        assert not log.config.snapshot.exists()
        log.append(log.authority.allocation())
        assert snapshot.parts(log.config.snapshot)[0] == 4
        log.append(log.authority.delegation())
        assert snapshot.parts(log.config.snapshot)[0] == 4


def test_a_snapshot_that_is_broken_or_of_another_tree_is_ignored(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        log.sequencer.keep_snapshot()
        path, read = log.config.snapshot, log.store.read
        data = path.read_bytes()
        for broken in (
            b"",
            data[:-1],
            data.replace(b"8\n", b"6\n", 1),
            data.replace(b"8\n", b"99\n", 1),
            b"x\ny\nz",
        ):
            path.write_bytes(broken)
            assert open_follower(ORIGIN, read, path).size == 0
        assert open_follower(ORIGIN, read, None).size == 0
        path.unlink()
        path.mkdir()
        assert open_follower(ORIGIN, read, path).size == 0
        log.append(log.authority.release("r2"))
        log.sequencer.keep_snapshot()


def test_fsck_finds_a_snapshot_that_a_full_replay_does_not_give(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        log.sequencer.keep_snapshot()
        assert check(log) == 8
        path = log.config.snapshot
        size, root, _ = snapshot.parts(path)
        path.write_bytes(f"{size}\n{root.hex()}\n".encode() + Follower(ORIGIN).f1.dump())
        with pytest.raises(Rejected, match="F1's state in the snapshot"):
            check(log)
        path.write_bytes(b"7\n" + b"\n".join(path.read_bytes().split(b"\n")[1:]))
        with pytest.raises(Rejected, match="snapshots not of this tree"):
            check(log)


def test_a_snapshot_newer_than_a_restored_database_does_no_harm(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        story(log)
        make_backup(log.config, tmp_path / "backup")
        log.sequencer.keep_snapshot()
    restore_backup(log.config, tmp_path / "backup", NOBODY)
    assert not log.config.snapshot.exists()
    with local(tmp_path) as log:
        assert check(log) == 8
