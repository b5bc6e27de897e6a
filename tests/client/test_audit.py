"""Auditing: a good log passes, and each way to be wrong is refused by its name."""

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.canonical import parse_canonical, unb64
from quotary.client.audit import Audited, Auditor
from quotary.client.finding import Finding, keep
from quotary.client.opener import Opener
from quotary.client.policy import Policy
from quotary.client.replay import Batch, Replay
from quotary.client.replay_store import Progress, ReplayStore
from quotary.client.source import CHECKPOINT, Files
from quotary.errors import CannotTell, Refused
from quotary.statements.state_entry import StateEntry
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.merkle import EMPTY_ROOT, leaf_hash, root_of, verify_inclusion
from quotary.tlog.note import Note
from quotary.tlog.tiles import decode_entry_bundle, encode_entry_bundle
from tests.fakes.authority import ORIGIN, TS
from tests.fakes.files import MemorySource, files_of, source_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document, signed_note
from tests.vectors.make_orders import FREEZE, ROTATION, order


def log_of(releases: int = 3, interval: int = 100) -> FakeLog:
    """A log with several intervals."""
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation())
    log.close()
    for number in range(releases):
        log.append(log.maker.release(f"seed {number}"))
        if number % interval == interval - 1:
            log.close(TS + number)
    log.append(log.maker.revocation(["seed 0"]))
    log.close(TS + releases)
    return log


def policy_of(log: FakeLog, **changes: object) -> Policy:
    return Policy.parse(policy_bytes({**policy_document(genesis=log.genesis), **changes}))


@pytest.fixture
def log() -> FakeLog:
    return log_of()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplayStore]:
    with ReplayStore(tmp_path / "store", ORIGIN) as opened:
        yield opened


def audit(log: FakeLog, store: ReplayStore, source: MemorySource | None = None, *others: bytes) -> Audited:
    files = Files(source or source_of(log))
    return Auditor(policy_of(log), store, lambda done, size: None).audit(files, others)


def refused(log: FakeLog, store: ReplayStore, pair: Opener, entries: list[bytes]) -> Finding:
    """The finding about a log that really signed other entries than ``log`` has; two processes say the same."""
    lie = MemorySource(files_of(entries))
    with ReplayStore(store.path.parent / "of two", ORIGIN) as other:
        if (seen := store.fact("note")) is not None:
            other.keep("note", seen)
        with pytest.raises(Finding) as of_two:
            Auditor(policy_of(log), other, lambda done, size: None, pair).audit(Files(lie))
    with pytest.raises(Finding) as found:
        audit(log, store, lie)
    assert found.value.encode(ORIGIN) == of_two.value.encode(ORIGIN)
    return found.value


def with_state(log: FakeLog, **changes: object) -> list[bytes]:
    """The entries with another last state entry."""
    last = StateEntry.parse(log.entries[-1])
    return [*log.entries[:-1], replace(last, **changes).encode()]  # type: ignore[arg-type]


def test_a_good_log_passes_with_every_outcome_counted(log: FakeLog, store: ReplayStore) -> None:
    found = audit(log, store)
    assert (found.size, found.root, found.map_root) == (len(log.entries), log.checkpoint.root, log.map_root)
    assert found.outcomes == {"effective": 7}
    assert (found.states, found.log_time, found.quorum_at, found.fresh) == (2, TS + 3, TS, found.size)


def test_entries_without_effect_are_counted_by_their_code(log: FakeLog, store: ReplayStore) -> None:
    log.append(log.maker.release("x", signers=["owner1"]))
    log.close(TS + 4)
    assert audit(log, store).outcomes == {"effective": 7, "threshold": 1}


def test_a_log_of_several_tiles_passes_and_asks_for_each_bundle_once(store: ReplayStore) -> None:
    log = log_of(releases=530, interval=70)
    source = source_of(log)
    assert audit(log, store, source).size == len(log.entries)
    bundles = [path for path in source.reads if "entries" in path]
    assert len(bundles) == len(set(bundles)) == 3


def test_a_changed_entry_is_refused(log: FakeLog, store: ReplayStore) -> None:
    source = source_of(log)
    path = next(path for path in source.files if "entries" in path)
    entries = list(decode_entry_bundle(source.files[path]))
    entries[4] = entries[4].replace(b"sig", b"gis")
    source.files[path] = encode_entry_bundle(entries)
    with pytest.raises(Finding) as found:
        audit(log, store, source)
    assert found.value.check == "leaf hash"
    assert "entry 4" in found.value.found


def test_a_swapped_pair_is_refused(log: FakeLog, store: ReplayStore) -> None:
    source = source_of(log)
    path = next(path for path in source.files if "entries" in path)
    entries = list(decode_entry_bundle(source.files[path]))
    entries[4], entries[5] = entries[5], entries[4]
    source.files[path] = encode_entry_bundle(entries)
    with pytest.raises(Finding) as found:
        audit(log, store, source)
    assert found.value.check == "leaf hash"


def test_a_truncated_entry_bundle_is_refused(log: FakeLog, store: ReplayStore) -> None:
    for cut in (1, 40, 5000):
        source = source_of(log)
        path = next(path for path in source.files if "entries" in path)
        source.files[path] = source.files[path][:-cut]
        with pytest.raises(Finding) as found:
            audit(log, store, source)
        assert found.value.check == "entry bundle"


def test_a_changed_tile_is_refused_on_every_level(tmp_path: Path) -> None:
    log = log_of(releases=600)
    tiles = [path for path in source_of(log).files if path.startswith("tile/") and "entries" not in path]
    assert len(tiles) == 4
    for number, path in enumerate(tiles):
        for position in (0, -1):
            source = source_of(log)
            changed = bytearray(source.files[path])
            changed[position] ^= 1
            source.files[path] = bytes(changed)
            with (
                ReplayStore(tmp_path / f"{number}{position}", ORIGIN) as store,
                pytest.raises(Finding) as found,
            ):
                audit(log, store, source)
            assert found.value.check == "tile"


@pytest.mark.parametrize("change", [lambda tile: tile[:-1], lambda tile: tile[:-32], lambda tile: tile * 2])
def test_a_tile_of_another_length_is_refused(
    log: FakeLog, store: ReplayStore, change: Callable[[bytes], bytes]
) -> None:
    source = source_of(log)
    path = next(path for path in source.files if path.startswith("tile/0"))
    source.files[path] = change(source.files[path])
    with pytest.raises(Finding) as found:
        audit(log, store, source)
    assert found.value.check == "tile"


def test_a_full_tile_above_the_lowest_is_held_against_the_entries(store: ReplayStore) -> None:
    # Level 1 is full at 65,536 entries. Its last hash is in no path of the run that completes it.
    entry = FakeLog().maker.notice()
    before = [hashlib.sha256(number.to_bytes(4)).digest() for number in range(255 * 256)]
    frontier, _ = Frontier().append(before)
    hashes = (leaf_hash(entry),) * 256
    after, full = frontier.append(hashes)
    level1 = next(tile for tile in full if tile.level == 1)
    replay = Replay(ORIGIN, bytes(32), store, Opener(1))
    replay.progress = Progress(frontier)
    batch = Batch(255, len(before), (entry,) * 256, hashes, b"", b"".join(hashes))
    checkpoint = Checkpoint(ORIGIN, after.size, after.root())
    source = MemorySource({"tile/1/000": level1.data[:-1] + bytes([level1.data[-1] ^ 1])})
    with pytest.raises(Finding, match="other hashes in tile/1/000"):
        replay._take(Files(source), checkpoint, b"note", batch)
    source.files["tile/1/000"] = level1.data
    assert replay._take(Files(source), checkpoint, b"note", batch).frontier == after


def test_a_partial_tile_above_the_lowest_is_held_against_the_entries(store: ReplayStore) -> None:
    # Of 256 entries the only hash of level 1 is the root itself, and in no path.
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation())
    log.append(*(log.maker.notice() for _ in range(255 - len(log.entries))))
    log.close()
    source = source_of(log)
    source.files["tile/1/000.p/1"] = bytes(32)
    with pytest.raises(Finding, match=r"other hashes in tile/1/000\.p/1"):
        audit(log, store, source)


def test_another_root_over_what_was_replayed_already_is_refused(log: FakeLog, store: ReplayStore) -> None:
    files, note = Files(source_of(log)), log.note()
    replay = Replay(ORIGIN, bytes.fromhex(log.genesis), store, Opener(1))
    assert list(replay.run(files, log.checkpoint, note))[-1] == len(log.entries)
    assert list(replay.run(files, log.checkpoint, note)) == []
    with pytest.raises(Finding) as found:
        list(replay.run(files, replace(log.checkpoint, root=bytes(32)), note))
    assert found.value.check == "root"


def test_a_wrong_map_root_is_refused_with_evidence_that_the_log_cannot_deny(
    log: FakeLog, store: ReplayStore, pair: Opener, tmp_path: Path
) -> None:
    log.map_root = hashlib.sha256(b"some other map").digest()
    entries = with_state(log, maps={"F1": log.map_root})
    finding = refused(log, store, pair, entries)
    assert finding.check == "map root"
    path = keep(finding, ORIGIN, tmp_path / "findings")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = parse_canonical(path.read_bytes(), 1 << 24)
    assert isinstance(document, dict)
    shown = {item["name"]: unb64(item["data"]) for item in document["exhibits"]}
    checkpoint = policy_of(log).tlog.verify(shown["checkpoint"]).checkpoint
    index = len(entries) - 1
    proof = shown[f"path {index}"]
    hashes = [proof[i : i + 32] for i in range(0, len(proof), 32)]
    verify_inclusion(index, checkpoint.size, leaf_hash(shown[f"entry {index}"]), hashes, checkpoint.root)
    assert StateEntry.parse(shown[f"entry {index}"]).maps["F1"] == log.map_root
    assert [f"entry {number}" in shown for number in range(4, index)] == [True] * (index - 4)


def test_a_state_entry_without_our_map_function_is_refused(
    log: FakeLog, store: ReplayStore, pair: Opener
) -> None:
    assert refused(log, store, pair, with_state(log, maps={"F2": bytes(32)})).check == "map root"


def test_a_log_time_that_goes_back_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    finding = refused(log, store, pair, with_state(log, ts=TS - 1))
    assert (finding.check, finding.found) == ("state", f"log time {TS - 1}")
    # Without the state entry before it nobody else could see that the time went back.
    assert {"entry 3", f"entry {len(log.entries) - 1}"} <= {exhibit.name for exhibit in finding.exhibits}


def test_a_state_entry_that_names_another_predecessor_is_refused(
    log: FakeLog, store: ReplayStore, pair: Opener
) -> None:
    assert refused(log, store, pair, with_state(log, prev=2)).check == "state"


def test_a_state_entry_at_another_index_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    finding = refused(log, store, pair, with_state(log, index=len(log.entries)))
    assert (finding.check, finding.wanted) == ("state", f"size {len(log.entries) - 1}")


def test_a_state_entry_that_cannot_be_read_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    entries = [*log.entries[:-1], log.entries[-1].replace(b'"v":1', b'"v":2')]
    assert refused(log, store, pair, entries).check == "state"


def test_a_checkpoint_that_no_state_entry_ends_is_refused(
    log: FakeLog, store: ReplayStore, pair: Opener
) -> None:
    finding = refused(log, store, pair, log.entries[:-1])
    assert finding.check == "state"


def test_a_checkpoint_before_the_first_state_entry_is_refused(
    log: FakeLog, store: ReplayStore, pair: Opener
) -> None:
    finding = refused(log, store, pair, log.entries[:3])
    assert (finding.check, finding.found) == ("state", "the last state entry is none")


def test_another_genesis_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    other = log_of()
    other.entries[0] = other.maker.genesis(expires="2030-01-01T00:00:00Z")
    assert refused(log, store, pair, other.entries).check == "genesis"


def test_a_smaller_log_than_last_time_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    audit(log, store)
    finding = refused(log, store, pair, log.entries[:4])
    assert finding.check == "rollback"


def test_another_log_of_the_same_size_is_refused_with_both_notes(
    log: FakeLog, store: ReplayStore, pair: Opener
) -> None:
    first = source_of(log)
    audit(log, store, first)
    finding = refused(log, store, pair, with_state(log, ts=TS + 9))
    assert finding.check == "fork"
    shown = {item.name: item.data for item in finding.exhibits}
    assert shown["remembered"] == first.files[CHECKPOINT]
    sizes = {Checkpoint.parse(Note.parse(note).text).size for note in shown.values()}
    assert sizes == {len(log.entries)}


def test_a_larger_log_with_another_past_is_refused(log: FakeLog, store: ReplayStore, pair: Opener) -> None:
    audit(log, store)
    other = log_of(releases=4)
    finding = refused(log, store, pair, other.entries)
    assert finding.check == "fork"


def test_a_checkpoint_from_elsewhere_is_held_against_the_log(log: FakeLog, store: ReplayStore) -> None:
    def note(size: int, root: bytes) -> bytes:
        return signed_note(Checkpoint(ORIGIN, size, root), TS)

    older = root_of([leaf_hash(entry) for entry in log.entries[:4]])
    good = [note(0, EMPTY_ROOT), note(4, older), note(len(log.entries), log.checkpoint.root)]
    assert audit(log, store, None, *good).checkpoints == 3
    with pytest.raises(Finding) as found:
        audit(log, store, None, note(4, bytes(32)))
    assert found.value.check == "fork"
    with pytest.raises(Refused, match="at most"):
        audit(log, store, None, note(50, bytes(32)))


def test_a_bad_signature_on_the_checkpoint_is_refused(log: FakeLog, store: ReplayStore) -> None:
    source = source_of(log)
    note = source.files[CHECKPOINT]
    lines = note.decode().split("\n")
    lines[4] = lines[4][:-12] + ("AAAA" if lines[4][-12:-8] != "AAAA" else "BBBB") + lines[4][-8:]
    source.files[CHECKPOINT] = "\n".join(lines).encode()
    with pytest.raises(Finding) as found:
        audit(log, store, source)
    assert found.value.check == "checkpoint"


def test_a_checkpoint_without_the_quorum_is_refused_by_policy(log: FakeLog, store: ReplayStore) -> None:
    source = source_of(log)
    source.files[CHECKPOINT] = signed_note(log.checkpoint, TS, witnesses=())
    with pytest.raises(Refused, match="witness quorum"):
        audit(log, store, source)


def test_a_log_below_the_minimum_of_the_policy_is_refused(log: FakeLog, store: ReplayStore) -> None:
    policy = policy_of(log, minimum={"size": 99, "time": "2026-11-01T00:00:00Z"})
    with pytest.raises(Refused, match="rollback"):
        Auditor(policy, store, lambda done, size: None).audit(Files(source_of(log)))


def test_after_a_finding_the_honest_log_is_still_accepted(log: FakeLog, store: ReplayStore) -> None:
    source = source_of(log)
    path = next(path for path in source.files if "entries" in path)
    source.files[path] = source.files[path][:-1]
    with pytest.raises(Finding):
        audit(log, store, source)
    assert audit(log, store).size == len(log.entries)


def test_a_full_tile_stands_in_for_the_partial_one_that_is_gone(store: ReplayStore) -> None:
    log = log_of(releases=300)
    whole, small = files_of(log.entries), files_of(log.entries[:200])
    source = MemorySource({path: data for path, data in whole.items() if path != CHECKPOINT})
    files = Files(source)
    assert files.tile(0, 0, 200) == small["tile/0/000.p/200"]
    assert files.entries(0, 200) == small["tile/entries/000.p/200"]
    for read in (files.tile, files.entries):
        with pytest.raises(CannotTell):
            read(*((0, 9, 256) if read == files.tile else (9, 256)))


def test_a_tile_that_says_otherwise_than_last_time_is_refused(log: FakeLog, store: ReplayStore) -> None:
    audit(log, store)
    progress = store.progress()
    tiles = (bytes(len(progress.frontier.tiles[0])), *progress.frontier.tiles[1:])
    store.save(progress.grown(Frontier(progress.frontier.size, tiles)))
    log.append(log.maker.release("later"))
    log.close(TS + 9)
    with pytest.raises(Finding, match="fork"):
        audit(log, store)


def test_orders_of_the_roots_are_listed_also_by_the_next_run(log: FakeLog, store: ReplayStore) -> None:
    log.order(order(ROTATION), TS + 4)
    assert [(index, made.kind) for index, made in audit(log, store).orders] == [(9, "key-rotation")]
    log.order(order(FREEZE), TS + 5)
    found = audit(log, store)
    assert [made.kind for _, made in found.orders] == ["key-rotation", "freeze"]
    assert found.orders[-1][1].sentence == "the log is frozen: the log's key was stolen"


@pytest.mark.parametrize(
    ("signers", "end", "found"),
    [
        (("root1",), "freeze", "1 signatures by roots"),
        (("root1", "security1"), "freeze", "a signature by"),
        (("root1", "root2"), None, "end None"),
        (("root1", "root2"), "shard-closed", "end shard-closed"),
    ],
)
def test_an_order_that_does_not_hold_is_a_finding_with_the_order_in_it(
    log: FakeLog, store: ReplayStore, pair: Opener, signers: tuple[str, ...], end: str | None, found: str
) -> None:
    made = order(FREEZE, signers)
    log.order(made, TS + 4)
    entries = with_state(log, end=end)
    finding = refused(log, store, pair, entries)
    assert finding.check == "order"
    assert found in finding.found
    assert made.encode() in {exhibit.data for exhibit in finding.exhibits}


def test_a_log_that_goes_on_after_its_end_is_a_finding(log: FakeLog, store: ReplayStore) -> None:
    log.order(order(FREEZE), TS + 4)
    log.append(log.maker.notice())
    log.close(TS + 5)
    with pytest.raises(Finding, match="nothing after the freeze") as found:
        audit(log, store)
    assert found.value.check == "state"
