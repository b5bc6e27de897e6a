"""F1 against its vectors: every outcome, record and root, in one go, interval by interval, and made again."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quotary.statements.f1 import F1
from quotary.statements.outcome import CODES, EFFECTIVE
from quotary.statements.records import parse_record
from quotary.statements.state_entry import StateEntry, is_reserved
from quotary.tlog import trie
from tests.vectors import make_f1

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "f1"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['about']}")
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]


@pytest.mark.parametrize("case", CASES)
def test_outcomes_records_and_roots_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    f1, nodes, root = F1(case["origin"]), trie.MemoryStore(), trie.EMPTY
    waiting: list[tuple[int, bytes]] = []
    outcomes: list[dict[str, object]] = []
    closings = {closing["state"]: closing for closing in case["closings"]}
    before: StateEntry | None = None
    for index, entry in enumerate(map(base64.b64decode, case["log"])):
        waiting.append((index, entry))
        if index not in closings:
            continue
        state = StateEntry.parse(entry)
        state.check_follows(before)
        closed = f1.close(waiting, state.ts)
        outcomes += [
            {name: getattr(outcome, name) for name in ("index", "kind", "statement_id", "effect", "code")}
            for outcome in closed.outcomes
        ]
        records = {key.hex(): record.decode() for key, record in closed.changes.items()}
        assert records == closings[index]["records"]
        values = {key: hashlib.sha256(record).digest() for key, record in closed.changes.items()}
        root = trie.update(nodes, root, values)
        assert root.hex() == closings[index]["root"]
        assert state.maps == {"F1": root}
        before, waiting = state, []
    assert outcomes == case["outcomes"]
    assert not waiting


@pytest.mark.parametrize("case", CASES)
def test_asking_first_gives_the_same_answer_and_changes_nothing(case: dict[str, Any]) -> None:
    f1 = F1(case["origin"])
    wanted = {outcome["index"]: outcome for outcome in case["outcomes"]}
    log = [base64.b64decode(entry) for entry in case["log"]]
    start = 0
    for closing in case["closings"]:
        for index in range(start, closing["state"]):
            before = f1.copy()
            asked = f1.would(log[index], closing["ts"])
            assert asked == before.would(log[index], closing["ts"])
            if is_reserved(log[index]):
                assert asked.code == "malformed"
            elif wanted[index]["code"] != "notice":
                assert (asked.code, asked.effect) == (wanted[index]["code"], wanted[index]["effect"])
            f1.close([(index, log[index])], closing["ts"])
        start = closing["state"] + 1


@pytest.mark.parametrize("case", CASES)
def test_every_record_reads_back(case: dict[str, Any]) -> None:
    for closing in case["closings"]:
        for key, text in closing["records"].items():
            record = parse_record(text.encode())
            assert record.key.hex() == key
            assert record.encode() == text.encode()


def test_the_histories_are_the_chains_of_the_entries_that_touched_a_key() -> None:
    touched: dict[str, int] = {}
    for case in (param.values[0] for param in CASES):
        assert isinstance(case, dict)
        for closing in case["closings"]:
            for text in closing["records"].values():
                record = json.loads(text)
                touched[record["hist"]] = record["count"]
                if record["kind"] == "measurement" and record["count"] == 1:
                    assert record["first"] == record["last"]
                    chain = hashlib.sha256(bytes(32) + record["first"].to_bytes(8, "big"))
                    assert record["hist"] == chain.hexdigest()
    assert max(touched.values()) > 5


def test_every_code_has_a_vector() -> None:
    cases = [param.values[0] for param in CASES]
    codes = {outcome["code"] for case in cases if isinstance(case, dict) for outcome in case["outcomes"]}
    assert codes == {EFFECTIVE, *CODES}


def test_the_script_makes_these_very_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_f1, "FOLDER", tmp_path / "f1")
    make_f1.main()
    made = {path.name: path.read_bytes() for path in (tmp_path / "f1").iterdir()}
    assert made == {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
