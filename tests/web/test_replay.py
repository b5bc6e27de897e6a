"""web/static/replay.js: a whole log replayed as a browser does it, under what it remembers and what others were shown."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from quotary.canonical import b64
from quotary.client.source import CHECKPOINT
from quotary.tlog.tiles import entries_path, tile_path
from tests.client.test_lying_logs import LIES, honest
from tests.fakes.authority import TS, keys
from tests.fakes.files import files_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document
from tests.fakes.node import node_says
from tests.vectors.make_orders import FREEZE, order
from tests.web.test_verify import ed25519_policy

MAP = "status map, by every entry replayed"
MEMORY = "not older than what this browser has seen"
ELSEWHERE = "what somebody else was shown"
ROOT_ROW = "every entry leads to the root"
OWNERS = "who may sign for chat"

Files = Mapping[str, bytes]


def asked(files: Files, **given: Any) -> dict[str, Any]:
    found = {
        "policy": ed25519_policy(),
        "limit": 20_000,
        "remembered": None,
        "elsewhere": "",
        "now": TS + 60,
        **given,
    }
    return {**found, "files": {path: b64(data) for path, data in files.items()}}


def answers(*questions: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node_says("tests/web/replay.mjs", questions)
    return found


def rows(answer: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["outcome"] for row in answer["results"]}


def judged(files: Files, **given: Any) -> tuple[str, dict[str, str]]:
    (answer,) = answers(asked(files, **given))
    return answer["verdict"], rows(answer)


def pinned(log: FakeLog, **changes: Any) -> str:
    document = {**policy_document(genesis=log.genesis), "tlog_policy": ed25519_policy(), **changes}
    return policy_bytes(document).decode()


def test_an_honest_log_is_replayed_whole_and_what_cannot_be_seen_is_named() -> None:
    files = files_of(honest().entries)
    (answer,) = answers(asked(files))
    found = rows(answer)
    assert answer["verdict"] == "could-not-check"
    assert {name for name, outcome in found.items() if outcome != "passed"} == {MEMORY, ELSEWHERE, "genesis"}
    assert {ROOT_ROW, MAP, "the log goes on", "age of the checkpoint"} <= found.keys()
    assert answer["note"] == files[CHECKPOINT].decode()


def test_with_memory_a_peer_and_a_policy_that_pins_nothing_is_left() -> None:
    log = honest()
    files, note = files_of(log.entries), files_of(log.entries)[CHECKPOINT].decode()
    verdict, found = judged(files, remembered=note, elsewhere=note, policy=pinned(log))
    assert set(found.values()) == {"passed"}
    assert (verdict, found[OWNERS], found["genesis"]) == ("passed", "passed", "passed")


def test_a_log_that_grew_continues_what_was_seen() -> None:
    log = honest()
    before = files_of(log.entries)[CHECKPOINT].decode()
    log.append(log.maker.revocation(["a"]))
    log.close()
    verdict, found = judged(files_of(log.entries), remembered=before, elsewhere=before)
    assert (found["continues what this browser has seen"], found[ELSEWHERE]) == ("passed", "passed")
    assert verdict == "could-not-check"


@pytest.mark.parametrize(
    ("name", "peer", "verdict", "row"),
    [
        ("split view", True, "mismatch", ELSEWHERE),
        ("rollback", False, "mismatch", MEMORY),
        ("frozen log", False, "refused", "age of the checkpoint"),
        ("forged map root", False, "mismatch", MAP),
        ("un-revocation", False, "mismatch", MAP),
        ("withheld entry", True, "refused", ELSEWHERE),
    ],
)
def test_each_lie_is_caught_where_it_can_be_seen(name: str, peer: bool, verdict: str, row: str) -> None:
    lie = LIES[name][0](honest())
    (first,) = answers(asked(lie.first))
    assert first["note"] is not None
    elsewhere = lie.peers[0][CHECKPOINT].decode() if peer else ""
    (then,) = answers(asked(lie.then, remembered=first["note"], elsewhere=elsewhere, now=TS + 60 + lie.late))
    assert then["verdict"] == verdict
    assert {name for name, outcome in rows(then).items() if outcome in ("failed", "refused")} == {row}
    assert then["note"] is None


@pytest.mark.parametrize("name", ["split view", "withheld entry"])
def test_what_only_others_can_see_is_named_and_not_passed(name: str) -> None:
    lie = LIES[name][0](honest())
    (answer,) = answers(asked(lie.then))
    (row,) = [row for row in answer["results"] if row["name"] == ELSEWHERE]
    assert (answer["verdict"], row["outcome"]) == ("could-not-check", "not checked")
    assert "quotary monitor" in row["detail"]


def test_a_history_that_was_rewritten_under_more_entries_is_a_contradiction() -> None:
    lie = LIES["split view"][0](honest())
    other = lie.peers[0]
    log = honest()
    log.append(log.maker.revocation(["a"]))
    log.close()
    verdict, found = judged(files_of(log.entries), remembered=other[CHECKPOINT].decode())
    assert (verdict, found["continues what this browser has seen"]) == ("mismatch", "failed")


def test_a_checkpoint_from_elsewhere_that_the_log_did_not_sign_says_nothing() -> None:
    files = files_of(honest().entries)
    note = files[CHECKPOINT].decode()
    text, _, lines = note.partition("\n\n")
    forged = f"{text.replace(chr(10) + '5' + chr(10), chr(10) + '9' + chr(10))}\n\n{lines}"
    assert forged != note
    verdict, found = judged(files, elsewhere=forged)
    assert (verdict, found[ELSEWHERE]) == ("could-not-check", "not checked")


def spoiled(change: Callable[[dict[str, bytes], list[bytes]], None]) -> dict[str, bytes]:
    entries = honest().entries
    files = files_of(entries)
    change(files, entries)
    return files


def other_entry(files: dict[str, bytes], entries: list[bytes]) -> None:
    path = entries_path(0, len(entries))
    files[path] = files[path].replace(entries[1], entries[1][:-1] + b" ")


def cut_bundle(files: dict[str, bytes], entries: list[bytes]) -> None:
    path = entries_path(0, len(entries))
    files[path] = files[path][:-1]


def long_bundle(files: dict[str, bytes], entries: list[bytes]) -> None:
    files[entries_path(0, len(entries))] += b"\0"


def no_bundle(files: dict[str, bytes], entries: list[bytes]) -> None:
    del files[entries_path(0, len(entries))]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (other_entry, "failed"),
        (cut_bundle, "not checked"),
        (long_bundle, "not checked"),
        (no_bundle, "failed"),
    ],
)
def test_files_that_are_not_the_logs_are_never_believed(
    change: Callable[[dict[str, bytes], list[bytes]], None], outcome: str
) -> None:
    (answer,) = answers(asked(spoiled(change)))
    found = rows(answer)
    assert found[ROOT_ROW] == outcome
    assert MAP not in found
    if outcome == "failed":
        assert answer["note"] is None


def test_a_log_that_has_ended_is_refused() -> None:
    log = honest()
    log.order(order(FREEZE))
    verdict, found = judged(files_of(log.entries))
    assert (verdict, found["the log goes on"]) == ("refused", "refused")


def test_other_owners_another_genesis_or_no_service_are_seen() -> None:
    log = honest()
    files = files_of(log.entries)
    strangers = {"chat": {"owner": {"keys": keys("stranger1"), "threshold": 1}}}
    verdict, found = judged(files, policy=pinned(log, services=strangers))
    assert (verdict, found[OWNERS]) == ("mismatch", "failed")
    verdict, found = judged(files, policy=pinned(log, genesis="ab" * 32))
    assert (verdict, found["genesis"]) == ("mismatch", "failed")
    owner = policy_document()["services"]
    assert isinstance(owner, dict)
    verdict, found = judged(files, policy=pinned(log, services={"search": owner["chat"]}))
    assert (verdict, found["who may sign for search"]) == ("could-not-check", "not checked")


@pytest.fixture(scope="module")
def long_log() -> list[bytes]:
    """More than two blocks of entries, of which most say nothing that counts."""
    log = honest()
    for number in range(700):
        log.entries.append(b'{"payload":"%d"}' % number)
    log.close()
    return log.entries


def test_a_log_that_is_too_long_is_replayed_as_far_as_the_limit(long_log: list[bytes]) -> None:
    files, size = files_of(long_log), len(long_log)
    # What the log need not give for the part that is not replayed: its entries.
    needed = {
        path: data
        for path, data in files.items()
        if not path.startswith("tile/entries/") or path == entries_path(0, 256)
    }
    needed[tile_path(1, 0, size // 256)] = files[tile_path(1, 0, size // 256)]
    (answer,) = answers(asked(needed, limit=200))
    found = rows(answer)
    assert found["entries from 256 on"] == "not checked"
    assert (found[ROOT_ROW], found[MAP], answer["verdict"]) == ("passed", "passed", "could-not-check")
    (detail,) = [row["detail"] for row in answer["results"] if row["name"] == ROOT_ROW]
    assert detail.startswith(f"256 of {size} entries")
    (row,) = [row for row in answer["results"] if row["name"] == "entries from 256 on"]
    assert "quotary audit" in row["detail"]


def test_the_whole_of_a_log_of_several_blocks_has_its_root(long_log: list[bytes]) -> None:
    before = files_of(long_log[:301])[CHECKPOINT].decode()
    (answer,) = answers(asked(files_of(long_log), remembered=before, elsewhere=before))
    found = rows(answer)
    assert (found[ROOT_ROW], found["continues what this browser has seen"], found[ELSEWHERE]) == (
        "passed",
    ) * 3
    assert not any(path.startswith(("tile/0", "tile/1")) for path in answer["asked"])


def test_tiles_of_the_part_that_is_not_replayed_are_held_to_the_root(long_log: list[bytes]) -> None:
    files = files_of(long_log)
    path = tile_path(1, 0, len(long_log) // 256)
    files[path] = files[path][:-1] + bytes([files[path][-1] ^ 1])
    verdict, found = judged(files, limit=200)
    assert (verdict, found[ROOT_ROW]) == ("mismatch", "failed")
