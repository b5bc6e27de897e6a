"""A scheduled rebuilder against a log in memory: it keeps its place, tries again, and speaks once."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from builder.errors import DiskFull, InputMissing, NixMissing, SandboxMissing, SourceMissing
from builder.follow import Rebuilder, next_due
from builder.place import LONGEST_DELAY_SECONDS, Folder, Place, Waiting
from builder.rebuild import Rebuilt
from quotary.canonical import time_text
from quotary.client.clock import FixedClock
from quotary.client.finding import Finding
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.source import Files
from quotary.client.trust import ProcessMemory
from quotary.errors import CannotTell, InvalidSignature, Malformed, QuotaryError, Refused
from quotary.net.transport import Reply, Request, Stream
from quotary.statements.envelope import Envelope
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild
from quotary.statements.schema import parse_statement
from quotary.tlog.merkle import leaf_hash
from quotary.tlog.tiles import entries_path
from tests.fakes import authority
from tests.fakes.authority import NOW
from tests.fakes.files import source_of
from tests.fakes.log import FakeLog, policy_bytes, policy_document


@dataclass(slots=True)
class Desk:
    """Where entries are posted: takes those with the next number, as a registry would, or is away."""

    log: FakeLog
    away: bool = False
    lost: bool = False
    taken: list[bytes] = field(default_factory=list)
    numbers: int = 0

    def send(self, request: Request) -> Reply:
        if self.away:
            raise CannotTell("no answer")
        if request.method == "GET":
            return _json(200, {"next_sequence": {"rebuild": self.numbers + 1}})
        assert request.body is not None
        envelope = Envelope.parse(request.body)
        if request.body not in self.taken:
            if parse_statement(envelope.payload).sequence != self.numbers + 1:
                return _json(403, {"title": "The entry would have no effect now", "code": "sequence"})
            self.numbers += 1
            self.taken.append(request.body)
        if self.lost:
            self.lost = False
            raise CannotTell("the answer broke off")
        answer = {"statement_id": envelope.statement_id, "leaf_hash": leaf_hash(request.body).hex()}
        return _json(200, answer | {"published": True, "index": 99})

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        raise NotImplementedError

    def said(self) -> list[Rebuild]:
        found = [parse_statement(Envelope.parse(entry).payload).predicate for entry in self.taken]
        return [one for one in found if isinstance(one, Rebuild)]


def _json(status: int, document: object) -> Reply:
    return Reply(status, {}, json.dumps(document).encode())


class Bench:
    """Builds what it is told to: a verdict, or an error to raise."""

    def __init__(self) -> None:
        self.built: list[Release] = []
        self.next: list[str | QuotaryError] = []

    def __call__(self, release: Release) -> tuple[Rebuilt, str]:
        self.built.append(release)
        found = self.next.pop(0) if self.next else "match"
        if isinstance(found, QuotaryError):
            raise found
        rows = [{"measurement": row.measurement.hex(), "match": found == "match"} for row in release.rows]
        return Rebuilt(found, tuple(sorted(rows, key=str)), (), None), "a tool"


@dataclass(slots=True)
class World:
    log: FakeLog
    desk: Desk
    bench: Bench
    folder: Folder
    tries: int = 3

    def release(self, *seeds: str) -> None:
        self.log.append(*(self.log.maker.release(seed) for seed in seeds))
        self.log.close()

    def rebuilder(self, seconds: int = 0, key: str = "rebuilder1") -> Rebuilder:
        return Rebuilder(
            Policy.parse(policy_bytes(policy_document(genesis=self.log.genesis))),
            LogClient(self.desk, "https://log.example.org"),
            Files(source_of(self.log)),
            ProcessMemory(),
            FixedClock(NOW + timedelta(seconds=seconds)),
            self.folder,
            frozenset({authority.SERVICE}),
            "Us",
            [authority.key(key)],
            self.tries,
            self.bench,
            lambda line: None,
        )

    def round(self, seconds: int = 0) -> list[str]:
        rebuilder = self.rebuilder(seconds)
        rebuilder.look()
        return [one.verdict for one in rebuilder.work()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation())
    log.close()
    (tmp_path / "state").mkdir()
    return World(log, Desk(log), Bench(), Folder(tmp_path / "state"))


def test_every_release_is_built_and_answered_once(world: World) -> None:
    world.release("a", "b")
    assert world.round() == ["match", "match"]
    assert world.round() == []
    world.release("c")
    world.bench.next = ["mismatch"]
    assert world.round() == ["mismatch"]
    assert [one.verdict for one in world.desk.said()] == ["match", "match", "mismatch"]
    assert len(world.bench.built) == 3


def test_only_what_is_proven_to_stand_in_the_log_is_built(world: World) -> None:
    world.release("a")
    source = source_of(world.log)
    path = entries_path(0, len(world.log.entries))
    source.files[path] = source.files[path].replace(b'"sig":"', b'"sig":"A', 1)[:-1]
    with pytest.raises(Finding):
        replace(world.rebuilder(), files=Files(source)).look()
    assert world.round() == ["match"]
    longer = world.rebuilder()
    world.log.entries.pop()
    with pytest.raises(Refused, match="rollback"):
        replace(longer, files=Files(source_of(world.log)), memory=remembering(longer)).look()


def remembering(rebuilder: Rebuilder) -> ProcessMemory:
    memory = ProcessMemory()
    replace(rebuilder, memory=memory).look()
    return memory


def test_releases_of_services_that_nobody_asked_for_or_that_have_ended_are_left(world: World) -> None:
    world.log.append(world.log.maker.release("a", not_after=time_text(NOW + timedelta(seconds=30))))
    world.log.close()
    other = replace(
        world.rebuilder(), services=frozenset({"other"}), folder=Folder(world.folder.path / "other")
    )
    other.folder.path.mkdir()
    assert other.look().waiting == ()
    late = replace(world.rebuilder(60), folder=other.folder)
    (other.folder.path / "place.json").unlink()
    assert late.look().waiting == ()
    assert [one.index for one in world.rebuilder().look().waiting] == [4]
    assert [one.verdict for one in world.rebuilder(60).work()] == ["set aside"]
    assert world.bench.built == []


def test_a_newer_release_of_the_same_measurements_takes_the_older_ones_place(world: World) -> None:
    world.release("a", "b", "a")
    place = world.rebuilder().look()
    assert [one.index for one in place.waiting] == [5, 6]


def test_a_machine_that_dies_between_any_two_steps_goes_on_without_building_twice(world: World) -> None:
    world.release("a")
    world.rebuilder().look()
    world.desk.away = True
    assert [one.verdict for one in world.rebuilder().work()] == ["waits"]  # built; the log is away
    assert world.folder.verdict(4) is not None
    world.desk.away, world.desk.lost = False, True
    assert [one.verdict for one in world.rebuilder(60).work()] == ["waits"]  # taken; the answer is lost
    assert [one.verdict for one in world.rebuilder(180).work()] == ["match"]
    assert len(world.bench.built) == 1
    assert len(world.desk.taken) == 1


def test_a_number_that_another_rebuilder_took_is_replaced(world: World) -> None:
    world.release("a")
    world.rebuilder().look()
    world.desk.lost = world.desk.away = True
    world.rebuilder().work()
    world.desk.away = world.desk.lost = False
    rebuilder = world.rebuilder(60)
    found, _ = rebuilder._release(4)
    rebuilder._signed(4, found, *rebuilder.folder.verdict(4))  # type: ignore[misc]  # it was built above
    world.desk.numbers = 7
    assert [one.verdict for one in rebuilder.work()] == ["waits"]
    assert [one.verdict for one in world.rebuilder(180).work()] == ["match"]
    assert [one.header.sequence for one in world.desk.said()] == [8]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(InputMissing(["libc6=1"]), "input-missing: "), (SourceMissing("away"), "source-missing: ")],
)
def test_what_may_come_back_is_tried_later_and_later_and_then_stated(
    world: World, error: QuotaryError, reason: str
) -> None:
    world.release("a")
    world.bench.next = [error] * 3
    assert world.round() == ["waits"]
    assert world.round(59) == []
    assert world.round(60) == ["waits"]
    assert world.round(60 + 119) == []
    assert world.desk.taken == []
    assert world.round(60 + 120) == ["failed"]
    (said,) = world.desk.said()
    assert said.verdict == "failed"
    assert (said.detail or "").startswith(reason)
    assert said.rows == ()


@pytest.mark.parametrize("kind", [NixMissing, SandboxMissing, DiskFull])
def test_what_is_wrong_with_this_machine_says_nothing_of_the_release(
    world: World, kind: Callable[[str], QuotaryError]
) -> None:
    world.release("a")
    world.bench.next = [kind("x")]
    with pytest.raises(CannotTell):
        world.round()
    assert world.desk.taken == []
    assert world.round() == ["match"]


def test_another_lock_in_the_source_is_a_failure_of_the_release_and_other_weights_are_not(
    world: World,
) -> None:
    world.release("a", "b")
    world.bench.next = [Refused("lock", "a", "b"), Refused("weights", "a", "b")]
    assert world.round() == ["failed", "set aside"]
    (said,) = world.desk.said()
    assert (said.detail or "").startswith("lock: ")
    assert world.round() == []


def test_a_rebuilder_that_lost_its_folder_finds_what_its_key_has_said(world: World, tmp_path: Path) -> None:
    world.release("a", "b")
    assert world.round() == ["match", "match"]
    world.log.append(world.desk.taken[0])
    world.log.close()
    world.folder = Folder(tmp_path / "state")
    (tmp_path / "state" / "place.json").unlink()
    place = world.rebuilder().look()
    assert [one.index for one in place.waiting] == [5]
    (tmp_path / "state" / "place.json").unlink()
    assert [one.index for one in world.rebuilder(key="rebuilder2").look().waiting] == [4, 5]


def test_a_statement_that_only_looks_like_ours_stops_the_rebuilder(world: World) -> None:
    world.release("a")
    assert world.round() == ["match"]
    envelope = Envelope.parse(world.desk.taken[0])
    forged = Envelope(envelope.payload.replace(b'"Us"', b'"Ws"'), envelope.signatures)
    with pytest.raises(InvalidSignature):
        world.rebuilder()._is_ours(forged.encode())


def test_one_rebuilder_at_a_time_works_on_a_place(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "state")
    with folder.taken(), pytest.raises(Refused, match="one rebuilder at a time"), folder.taken():
        pass
    with Folder(tmp_path / "state").taken():
        pass


def test_a_place_comes_back_and_one_of_another_log_or_form_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    place = Place("a", 7, (Waiting(3).later(1000, "away"), Waiting(5)))
    folder.save(place)
    assert folder.load("a") == place
    with pytest.raises(Refused, match="of a, wanted b"):
        folder.load("b")
    for text in ("", "{}", '{"v": 2, "origin": "a", "next": 0, "waiting": []}', '{"v": 1}'):
        (tmp_path / "place.json").write_text(text)
        with pytest.raises(Malformed):
            folder.load("a")


def test_a_release_that_waits_is_looked_at_again_when_it_is_due() -> None:
    item = Waiting(3)
    delays = []
    for _ in range(12):
        item = item.later(0, "away")
        delays.append(item.not_before)
    assert delays[:4] == [60, 120, 240, 480]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    assert next_due(Place("a", 1, (Waiting(3, not_before=130),)), 600, 100) == 30
    assert next_due(Place("a", 1, (Waiting(3, not_before=90),)), 600, 100) == 1
    assert next_due(Place("a"), 600, 100) == 600
