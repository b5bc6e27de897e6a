"""The doctor finds each thing that can be wrong, says why and what to do, and calls nothing fine unseen."""

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from quotary.net.transport import Offline, Reply, Request, Stream
from registry.backup import make_backup
from registry.config import Config
from registry.doctor import LOOKS, Finding, examine
from registry.looks import Surroundings
from registry.setup import WitnessLine, write_policy
from tests.fakes.authority import NOW
from tests.fakes.inprocess import Local, local
from tests.fakes.log import witness_key

WITNESS = "https://witness.example.org"
FRONT = "https://log.example.org"


class Net:
    """Answers of the front server and of a witness, which tests change."""

    def __init__(self, log: Local) -> None:
        published = log.store.read.published()
        assert published is not None
        self.at = NOW
        self.silent = ""
        self.answers = {f"{FRONT}/checkpoint": (200, published.note), f"{FRONT}/metrics": (404, b"")}

    def send(self, request: Request) -> Reply:
        if self.silent and request.url.startswith(self.silent):
            return Offline().send(request)
        status, body = self.answers.get(request.url, (404, b""))
        return Reply(status, {"date": format_datetime(self.at, usegmt=True)}, body)

    def open(self, request: Request) -> AbstractContextManager[Stream]:
        raise AssertionError("the doctor reads whole answers")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


@pytest.fixture
def net(log: Local) -> Net:
    found = Net(log)
    public = found_keys(log.config)
    write_policy(log.config.policy, public, [WitnessLine(WITNESS, witness_key().verifier)], None)
    found.answers[f"{FRONT}/checkpoint"] = (200, cosigned(log))
    return found


def found_keys(config: Config):  # type: ignore[no-untyped-def]
    from registry.identity import read_public

    return read_public(config.keys / "public")


def cosigned(log: Local) -> bytes:
    """The published note with the witness's line, as a reader gets it."""
    from quotary.tlog.note import Note

    published = log.store.read.published()
    assert published is not None
    note = Note.parse(published.note)
    return published.note + witness_key().line(note.text, int(NOW.timestamp())).encode()


def looked(log: Local, net: Net, config: Config | None = None, now: datetime = NOW) -> dict[str, Finding]:
    around = Surroundings(net, lambda: now, FRONT)
    return {found.name: found for found in examine(config or log.config, around)}


def name_of(check: str) -> str:
    (name,) = [look.name for look in LOOKS if look.check.__name__ == f"check_{check}"]
    return name


def test_a_log_in_order_is_fine_in_every_respect(log: Local, net: Net) -> None:
    found = looked(log, net)
    assert {finding.state for finding in found.values()} == {"fine"}, found
    assert set(found) == {look.name for look in LOOKS}


def test_what_was_not_looked_at_is_not_called_fine(log: Local, net: Net) -> None:
    found = {f.name: f for f in examine(log.config, Surroundings(net, lambda: NOW, "", ["signer"]))}
    states = {name: finding.state for name, finding in found.items() if finding.state != "fine"}
    assert states == {name_of(check): "not checked" for check in ("front", "keys", "memory")}


Fault = Callable[[Local, Net, pytest.MonkeyPatch], Config | None]


def open_key(log: Local, *_: object) -> None:
    (log.config.keys / "signed-head.json").chmod(0o640)


def open_folder(log: Local, *_: object) -> None:
    log.config.keys.chmod(0o770)


def other_key(log: Local, *_: object) -> None:
    public = log.config.keys / "public"
    first, second, promise = public.read_text("utf-8").splitlines()
    public.write_text(f"{second}\n{first}\n{promise}\n", "utf-8")


def no_memory(log: Local, *_: object) -> None:
    (log.config.keys / "signed-head.json").unlink()


def policy_of_another(log: Local, *_: object) -> None:
    lines = log.config.policy.read_text("utf-8").splitlines()
    log.config.policy.write_text("".join(f"{line}\n" for line in lines[1:]), "utf-8")


def no_quorum(log: Local, *_: object) -> Config:
    write_policy(log.config.policy, found_keys(log.config), [], None)
    return replace(log.config, origin="log.example.org")


def no_database(log: Local, *_: object) -> Config:
    return replace(log.config, database="sqlite:///other.db")


def full_disk(log: Local, net: Net, patch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    patch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 20))


def silent_witness(log: Local, net: Net, *_: object) -> None:
    net.silent = WITNESS


def other_clock(log: Local, net: Net, *_: object) -> None:
    net.at = NOW + timedelta(minutes=3)


def silent_front(log: Local, net: Net, *_: object) -> None:
    net.silent = FRONT


def front_of_another(log: Local, net: Net, *_: object) -> None:
    net.answers[f"{FRONT}/checkpoint"] = (200, b"a page\n")


def front_without_files(log: Local, net: Net, *_: object) -> None:
    del net.answers[f"{FRONT}/checkpoint"]


def open_numbers(log: Local, net: Net, *_: object) -> None:
    net.answers[f"{FRONT}/metrics"] = (200, b"")


FAULTS: list[tuple[str, Fault, str]] = [
    ("settings", lambda log, *_: replace(log.config, bind="0.0.0.0:8480"), "of this machine only"),
    ("settings", lambda log, *_: replace(log.config, promise_seconds=100), "promise_seconds"),
    ("modes", open_key, "0640"),
    ("modes", open_folder, "writable by others"),
    ("keys", other_key, "verifier keys"),
    ("memory", no_memory, "cannot be read"),
    ("policy", policy_of_another, "log keys in the policy"),
    ("quorum", no_quorum, "other operators"),
    ("database", no_database, "schema none"),
    ("disk", full_disk, "1048576 bytes are free"),
    ("signer", lambda log, *_: replace(log.config, folder=log.config.folder / "away"), "no signer answers"),
    ("witnesses", silent_witness, "offline"),
    ("witnesses", other_clock, "180 s behind"),
    ("front", silent_front, "offline"),
    ("front", front_of_another, "note"),
    ("front", front_without_files, "answers 404"),
    ("front", open_numbers, "for the operator"),
]


@pytest.mark.parametrize(("check", "fault", "said"), FAULTS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_what_is_wrong_is_found_with_its_reason_and_its_remedy(
    log: Local, net: Net, monkeypatch: pytest.MonkeyPatch, check: str, fault: Fault, said: str
) -> None:
    config = fault(log, net, monkeypatch)
    found = looked(log, net, config)[name_of(check)]
    assert (found.state, said in found.problem) == ("wrong", True), found
    assert found.why
    assert found.remedy
    assert all(part in str(found) for part in (found.name, found.problem, found.why, found.remedy))


def test_a_clock_behind_the_log_is_found(log: Local, net: Net) -> None:
    found = looked(log, net, now=NOW - timedelta(minutes=5))[name_of("clock")]
    assert (found.state, "300 s behind the log" in found.problem) == ("wrong", True)
    assert looked(log, net, now=NOW + timedelta(days=9))[name_of("clock")].state == "fine"


def test_a_front_that_serves_more_than_was_published_is_found(log: Local, net: Net, tmp_path: Path) -> None:
    make_backup(log.config, tmp_path / "old.db")
    log.append(log.authority.allocation())
    net.answers[f"{FRONT}/checkpoint"] = (200, cosigned(log))
    assert looked(log, net)[name_of("front")].state == "fine"
    old = replace(log.config, database=f"sqlite:///{tmp_path}/old.db")
    assert "has published 2" in looked(log, net, old)[name_of("front")].problem
