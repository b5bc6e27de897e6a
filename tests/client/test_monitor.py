"""The monitor: it tells what its rules ask for, once, and what is wrong with the log, when it begins and ends."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quotary.client.monitor import Looked, Monitor
from quotary.client.opener import Opener
from quotary.client.outbox import Alert
from quotary.client.outputs import ATOM, Output
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import CHECKPOINT, Files
from quotary.client.watch import EVENTS, Watch
from quotary.errors import CannotTell
from tests.fakes.authority import ORIGIN, SERVICE, TS, keyid, measurement, registers
from tests.fakes.files import MemorySource, files_of
from tests.fakes.log import AUDITOR, WITNESS, FakeLog, policy_bytes, policy_document, signed_note
from tests.vectors.make_orders import FREEZE, order

LOG = {"stale_seconds": 600, "each_witness": True}
ALL = {"name": "all", "events": list(EVENTS)}


@dataclass(slots=True)
class Box:
    """An output that takes what it is given, or nothing while it is ``broken``."""

    name: str = "box"
    most: int = 2
    broken: bool = False
    taken: list[Alert] = field(default_factory=list)

    def send(self, alerts: Sequence[Alert]) -> None:
        if self.broken:
            raise CannotTell("the box is shut")
        assert len(alerts) <= self.most
        self.taken += alerts


def watch_of(*rules: dict[str, object], **outputs: object) -> Watch:
    document = {"v": 1, "type": "quotary/watch/v1", "rules": rules, "log": LOG, "outputs": outputs}
    return Watch.parse(json.dumps(document).encode())


@dataclass(slots=True)
class Scene:
    """A log, its monitor's store, and the monitor's clock, ``late`` seconds behind the log's newest note."""

    log: FakeLog
    folder: Path
    late: int = 0

    @property
    def policy(self) -> Policy:
        return Policy.parse(policy_bytes(policy_document(genesis=self.log.genesis)))

    def look(
        self,
        watch: Watch,
        *outputs: Output,
        files: dict[str, bytes] | None = None,
        peers: Sequence[dict[str, bytes]] = (),
        **settings: object,
    ) -> Looked:
        shown = [Files(MemorySource(each)) for each in (files or files_of(self.log.entries), *peers)]
        with self.monitor(watch, *outputs, **settings) as monitor:
            return monitor.look(shown[0], shown[1:])

    def monitor(self, watch: Watch, *outputs: Output, **settings: object) -> "Opened":
        return Opened(self, watch, outputs, settings)

    def now(self) -> datetime:
        return datetime.fromtimestamp(TS, UTC) + timedelta(seconds=self.late)


class Opened:
    def __init__(self, scene: Scene, watch: Watch, outputs: Sequence[Output], settings: dict[str, object]):
        self._store = ReplayStore(scene.folder, ORIGIN)
        quiet: Callable[[int, int], None] = lambda done, size: None  # noqa: E731
        self._monitor = Monitor(
            scene.policy, watch, self._store, outputs, scene.now, quiet, Opener(1), **settings
        )

    def __enter__(self) -> Monitor:
        return self._monitor

    def __exit__(self, *_: object) -> None:
        self._store.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    log = FakeLog()
    log.append(log.maker.genesis(), log.maker.allocation(), log.maker.delegation(), log.maker.release("old"))
    log.close()
    return Scene(log, tmp_path / "store")


def events(looked: Looked) -> list[tuple[str, str | None]]:
    return [(str(alert.document["event"]), alert.document.get("rule")) for alert in looked.alerts]


def grow(scene: Scene, *entries: bytes) -> None:
    scene.log.append(*entries)
    scene.log.close()


def test_the_first_look_tells_nothing_of_the_past_unless_it_is_asked_to(scene: Scene, tmp_path: Path) -> None:
    assert events(scene.look(watch_of(ALL))) == []
    asked = Scene(scene.log, tmp_path / "other")
    found = events(asked.look(watch_of(ALL), from_start=True))
    assert [kind for kind, _ in found] == ["delegation", "delegation", "delegation", "release"]


def test_a_new_entry_is_told_once_also_after_a_restart(scene: Scene) -> None:
    box = Box()
    scene.look(watch_of(ALL), box)
    grow(scene, scene.log.maker.release("new"))
    assert events(scene.look(watch_of(ALL), box)) == [("release", "all")]
    assert events(scene.look(watch_of(ALL), box)) == []
    assert [alert.document["index"] for alert in box.taken] == [5]
    assert "A builder of chat says" in box.taken[0].text


@pytest.mark.parametrize(
    ("selector", "value", "hit"),
    [
        ("services", SERVICE, True),
        ("services", "another", False),
        ("builders", keyid("builder1"), True),
        ("builders", keyid("owner1"), False),
        ("digests", measurement("new").hex(), True),
        ("digests", f"sha256:{measurement('new').hex().upper()}", True),
        ("digests", registers("new")["mrtd"], True),
        ("digests", "03" * 32, True),
        ("digests", measurement("old").hex(), False),
        ("keys", keyid("builder1"), True),
        ("keys", keyid("builder2"), False),
    ],
)
def test_a_rule_selects_by_service_builder_digest_and_key(
    scene: Scene, selector: str, value: str, hit: bool
) -> None:
    watch = watch_of({**ALL, selector: [value]})
    scene.look(watch)
    grow(scene, scene.log.maker.release("new"))
    assert bool(scene.look(watch).alerts) == hit


def test_every_selector_of_a_rule_must_match(scene: Scene) -> None:
    both = {**ALL, "services": [SERVICE], "digests": ["ff" * 32]}
    watch = watch_of(both, {**both, "name": "other", "digests": ["03" * 32]})
    scene.look(watch)
    grow(scene, scene.log.maker.release("new"))
    assert events(scene.look(watch)) == [("release", "other")]


def test_a_key_that_a_delegation_names_is_seen_though_it_signed_nothing(scene: Scene) -> None:
    watch = watch_of(
        {**ALL, "keys": [keyid("builder2")]}, {**ALL, "name": "b", "builders": [keyid("builder2")]}
    )
    scene.look(watch)
    grow(scene, scene.log.maker.delegation(builders=("builder2",)))
    assert events(scene.look(watch)) == [("delegation", "all")]


def test_revocation_of_a_release_is_told_to_who_watches_its_measurement(scene: Scene) -> None:
    watch = watch_of({"name": "mine", "events": ["revocation"], "digests": [measurement("old").hex()]})
    scene.look(watch)
    release = scene.log.entries[3]
    grow(scene, scene.log.maker.revocation(release))
    assert events(scene.look(watch)) == [("revocation", "mine")]


def test_security_who_revokes_any_measurement_is_told_to_the_service_that_has_it(scene: Scene) -> None:
    watch = watch_of({"name": "mine", "events": ["revocation"], "services": [SERVICE]})
    scene.look(watch)
    grow(scene, scene.log.maker.revocation(["old"], service="log", signers=["security1"]))
    assert events(scene.look(watch)) == [("revocation", "mine")]


@pytest.mark.parametrize(
    ("same", "event"), [({"old": True}, "rebuild"), ({"old": False}, "mismatch"), ({}, "mismatch")]
)
def test_a_rebuild_that_differs_or_fails_is_a_mismatch(
    scene: Scene, same: dict[str, bool], event: str
) -> None:
    watch = watch_of(ALL)
    scene.look(watch)
    grow(scene, scene.log.maker.rebuild(scene.log.entries[3], same))
    assert events(scene.look(watch)) == [(event, "all")]


def test_what_has_no_effect_is_told_as_that(scene: Scene) -> None:
    watch = watch_of(ALL)
    scene.look(watch)
    grow(scene, scene.log.maker.release("x", signers=["owner1"]))
    looked = scene.look(watch)
    assert events(looked) == [("ignored", "all")]
    assert looked.alerts[0].text.startswith("Without effect (threshold): ")


def test_an_order_of_the_roots_is_told(scene: Scene) -> None:
    watch = watch_of(ALL)
    scene.look(watch)
    scene.log.order(order(FREEZE))
    assert events(scene.look(watch)) == [("order", "all")]


def test_an_output_that_failed_hears_of_it_later_and_the_others_only_once(scene: Scene) -> None:
    good, bad = Box("good"), Box("bad", broken=True)
    watch = watch_of(ALL)
    scene.look(watch, good, bad)
    grow(scene, *(scene.log.maker.release(f"r{number}") for number in range(3)))
    assert scene.look(watch, good, bad).untold == {"bad": "the box is shut"}
    bad.broken = False
    assert scene.look(watch, good, bad).untold == {}
    assert [alert.number for alert in good.taken] == [alert.number for alert in bad.taken] == [1, 2, 3]


def test_an_output_that_is_new_begins_with_what_comes_next(scene: Scene) -> None:
    watch, late = watch_of(ALL), Box("late")
    scene.look(watch, from_start=True)
    scene.look(watch, late)
    assert late.taken == []
    grow(scene, scene.log.maker.release("new"))
    scene.look(watch, late)
    assert [alert.document["event"] for alert in late.taken] == ["release"]


def test_a_frozen_log_is_stale_once_and_over_when_it_moves(scene: Scene) -> None:
    watch = watch_of()
    scene.late = 600
    assert scene.look(watch).conditions == {}
    scene.late = 601
    looked = scene.look(watch)
    assert set(looked.conditions) == {"stale", f"witness {WITNESS}", f"witness {AUDITOR}"}
    assert [alert.document["state"] for alert in looked.alerts] == ["begins"] * 3
    assert scene.look(watch).alerts == []
    looked = scene.look(watch, files=files_of(scene.log.entries, ts=TS + 601))
    assert [alert.document["state"] for alert in looked.alerts] == ["ends"] * 3


def test_a_witness_that_is_missing_is_named_though_the_quorum_holds(scene: Scene) -> None:
    document = policy_document(genesis=scene.log.genesis)
    text = str(document["tlog_policy"]).replace(f"group both all {WITNESS}", f"group both any {WITNESS}")
    policy = Policy.parse(policy_bytes({**document, "tlog_policy": text, "map_auditor": "none"}))
    files = files_of(scene.log.entries)
    files[CHECKPOINT] = signed_note(scene.log.checkpoint, TS, witnesses=(AUDITOR,))
    quiet: Callable[[int, int], None] = lambda done, size: None  # noqa: E731
    with ReplayStore(scene.folder, ORIGIN) as store:
        monitor = Monitor(policy, watch_of(), store, (), scene.now, quiet, Opener(1))
        assert list(monitor.look(Files(MemorySource(files))).conditions) == [f"witness {WITNESS}"]


def test_a_log_that_does_not_answer_is_told_and_a_contradiction_is_not_over_by_that(scene: Scene) -> None:
    watch = watch_of()
    scene.look(watch)
    forked = Scene(FakeLog(now=scene.log.maker.now), scene.folder)
    forked.log.append(forked.log.maker.genesis(), forked.log.maker.allocation())
    forked.log.close()
    grow(forked, forked.log.maker.delegation(), forked.log.maker.release("other"))
    assert list(scene.look(watch, files=files_of(forked.log.entries)).conditions) == ["contradiction"]
    looked = scene.look(watch, files={"nothing": b""})
    assert list(looked.conditions) == ["contradiction", "unreachable"]
    assert [(alert.document["event"], alert.document["state"]) for alert in looked.alerts] == [
        ("unreachable", "begins")
    ]
    over = scene.look(watch)
    assert [(alert.document["event"], alert.document["state"]) for alert in over.alerts] == [
        ("contradiction", "ends"),
        ("unreachable", "ends"),
    ]


def test_it_says_that_it_lives_at_the_distance_that_was_asked_for(scene: Scene) -> None:
    watch, told = watch_of(), []
    for scene.late in (0, 59, 60, 61, 120):
        told.append(events(scene.look(watch, heartbeat_seconds=60)))
    assert told == [[("heartbeat", None)], [], [("heartbeat", None)], [], [("heartbeat", None)]]
    assert events(scene.look(watch)) == []


def test_a_self_test_reaches_every_output_and_says_what_each_rule_matched(scene: Scene) -> None:
    good, bad = Box("good"), Box("bad", broken=True)
    never = {"name": "never", "events": ["release"], "services": ["chatt"]}
    with scene.monitor(watch_of(ALL, never), good, bad) as monitor:
        monitor.look(Files(MemorySource(files_of(scene.log.entries))))
        assert monitor.test() == {"bad": "the box is shut"}
        assert monitor.matches() == {
            "all": {"since": 0, "matched": 4, "newest": 3},
            "never": {"since": 0, "matched": 0},
        }
    assert [alert.document["event"] for alert in good.taken] == ["test"]


def test_a_rule_that_came_later_says_from_where_on_it_is_watched(scene: Scene) -> None:
    scene.look(watch_of())
    with scene.monitor(watch_of(ALL)) as monitor:
        assert monitor.matches() == {"all": {"since": 5, "matched": 0}}


def test_the_feed_is_atom_and_is_renewed_by_each_look(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "alerts.atom"
    watch = watch_of(ALL, feed=str(path))
    scene.look(watch, from_start=True)
    grow(scene, scene.log.maker.revocation(["old"], reason="<b>&"))
    scene.late = 7
    scene.look(watch)
    root = ElementTree.fromstring(path.read_bytes())
    assert root.findtext(f"{{{ATOM}}}updated") == "2026-11-21T12:00:07Z"
    titles = [entry.findtext(f"{{{ATOM}}}title") for entry in root.iter(f"{{{ATOM}}}entry")]
    assert len(titles) == 5
    assert titles[0] == "revocation: Revoked for good: 1 measurement of chat. Reason given: <b>&"
    ids = [found.text for found in root.iter(f"{{{ATOM}}}id")]
    assert len(set(ids)) == 6


def test_an_alert_lands_with_the_entries_that_it_is_about_or_not_at_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, box = watch_of(ALL), Box()
    scene.look(watch, box)
    grow(scene, scene.log.maker.release("new"))
    with monkeypatch.context() as patched:
        patched.setattr(ReplayStore, "save", lambda *_: (_ for _ in ()).throw(CannotTell("cut off")))
        assert events(scene.look(watch, box)) == [("unreachable", None)]
    assert events(scene.look(watch, box)) == [("release", "all"), ("unreachable", None)]
