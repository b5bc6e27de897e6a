"""F1's state in the database answers as the one in memory does, at every state entry, and costs a start nothing."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from quotary.statements.f1 import F1
from quotary.statements.keys import key_measurement
from quotary.statements.opened import open_entry
from quotary.statements.release import Release
from quotary.statements.state import Known, State
from quotary.statements.state_entry import StateEntry, is_reserved, state_of
from quotary.tlog.merkle import leaf_hash
from registry.batch import Intervals
from registry.store import EMPTY_HEAD, States, Store, Waiting, create_store, open_store
from registry.store import state as stored_state
from tests.conftest import ROOT
from tests.fakes.node import LEAST_NODE, node_version

VECTORS = [
    pytest.param(case, id=f"{path.stem}: {case['about']}")
    for path in sorted((Path(__file__).parents[1] / "vectors" / "f1").glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]
]
WALKS, LENGTH = 4, 60


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "log.db"
    create_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def store(empty: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(empty, tmp_path / "log.db")
    with closing(open_store(f"sqlite:///{tmp_path / 'log.db'}")) as opened:
        opened.write.create(EMPTY_HEAD)
        yield opened


@pytest.mark.parametrize("case", VECTORS)
def test_both_states_give_the_same_outcomes_and_answers_on_the_vectors(
    case: dict[str, Any], store: Store
) -> None:
    compare(case, store)


@pytest.mark.parametrize("seed", range(WALKS))
def test_both_states_give_the_same_outcomes_and_answers_on_random_logs(
    seed: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if node_version() < LEAST_NODE:
        pytest.skip(f"node >= {LEAST_NODE} is not on this machine")
    monkeypatch.setattr(stored_state, "PAGE", 2)
    monkeypatch.setattr(stored_state, "KEPT", 20)
    program = ["node", "tests/web/walks.mjs", str(seed), "1", str(LENGTH)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, check=True, timeout=60)
    (case,) = json.loads(done.stdout)["cases"]
    compare(case, store)


def test_both_states_give_the_same_answers_on_postgresql(new_postgres: Callable[[], str]) -> None:
    case = next(param.values[0] for param in VECTORS if "rebuilder's verdicts" in str(param.id))
    with closing(create_store(new_postgres())) as store:
        store.write.create(EMPTY_HEAD)
        compare(case, store)


def compare(case: dict[str, Any], store: Store) -> None:
    """Feed a log to both, and ask both for everything that the log names."""
    log = [base64.b64decode(entry) for entry in case["log"]]
    names = Names(log)
    intervals = Intervals(case["origin"], store.read)
    state = State()
    memory = F1(case["origin"], state)
    waiting: list[Waiting] = []
    seen: list[tuple[int, State]] = []
    head = EMPTY_HEAD
    for index, entry in enumerate(log):
        closing_entry = state_of(entry)
        if closing_entry is None:
            # A random log may hold an entry twice, a registry's never does: the digest is not looked at here.
            waiting.append(Waiting(index, leaf_hash(entry + b"%d" % index), entry))
            continue
        batch = intervals.close(head, waiting, closing_entry.ts)
        made = StateEntry.parse(batch.entries[-1][1])
        assert (made.index, made.maps, made.ts) == (index, closing_entry.maps, closing_entry.ts)
        closed = memory.close([(row.id, row.data) for row in waiting], closing_entry.ts)
        assert dict(batch.records) == closed.changes
        found = [(row.index, row.effect, row.code) for row in batch.outcomes]
        assert found == [(item.index, item.effect, item.code) for item in closed.outcomes]
        store.write.integrate(batch)
        head, waiting = batch.head, []
        seen.append((index + 1, state.copy()))
    # What came later must not change what an earlier state entry answers.
    for size, before in seen[-1 :: -max(1, len(seen) // 3)]:
        names.compare(States(store.read).at(size), before)


class Names:
    """Everything that the entries of a log name."""

    def __init__(self, log: list[bytes]) -> None:
        opened = [open_entry(entry) for entry in log if not is_reserved(entry)]
        envelopes = [item.envelope for item in opened if item.envelope]
        found = [item.statement for item in opened if item.statement]
        self.statements = {statement.statement_id for statement in found}
        self.services = {statement.service for statement in found} | {"log", "nobody"}
        self.kinds = {statement.kind for statement in found}
        self.signers = {signature.keyid for envelope in envelopes for signature in envelope.signatures}
        self.measurements = {bytes(32)}
        for statement in found:
            predicate = statement.predicate
            if isinstance(predicate, Release):
                self.measurements |= {row.measurement for row in predicate.rows}
            self.measurements |= set(getattr(predicate, "measurements", ()))
        self.length = len(log)

    def compare(self, stored: Known, memory: State) -> None:
        for name in self.statements:
            assert stored.had_effect(name) == memory.had_effect(name)
            assert stored.release(name) == memory.release(name)
        for service in self.services:
            assert stored.held(service) == memory.held(service)
            for kind in self.kinds:
                assert stored.sequence(service, kind) == memory.sequence(service, kind)
        for measurement in self.measurements:
            assert set(stored.holders(measurement)) == set(memory.holders(measurement))
            assert stored.denial(measurement) == memory.denial(measurement)
        for key in {*memory.new.records, bytes(32)} | self.keys():
            assert stored.record(key) == memory.record(key)
        for signer in self.signers:
            for start in range(0, self.length, 9):
                self.compare_signer(stored, memory, signer, start)

    def compare_signer(self, stored: Known, memory: State, signer: str, start: int) -> None:
        for service in self.services:
            releases = [list(known.signed_by(signer, service, start)) for known in (stored, memory)]
            assert releases[0] == releases[1]
        marked = [{item.key: item for item in known.marked_by(signer, start)} for known in (stored, memory)]
        assert marked[0] == marked[1]

    def keys(self) -> set[bytes]:
        return {key_measurement(s, m) for s in self.services for m in self.measurements}
