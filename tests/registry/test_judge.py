"""The judge as a process of its own, and what a worker makes of its answers and its silence."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from quotary.errors import Malformed, QuotaryError
from quotary.tlog.merkle import leaf_hash
from registry import problems, wire
from registry.admission import Accepted, Admission, Answer, Logged, admission_of
from registry.errors import Busy, FlushFailed, JudgeUnavailable, NotAdmitted
from registry.judge import answer, serve
from registry.judging import JudgeClient, read_answers, read_request, write_answers, write_request
from registry.store import open_store
from tests.fakes.inprocess import Local, local
from tests.fakes.processes import Log, start_log, until


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


@contextmanager
def judged(log: Local) -> Iterator[tuple[Admission, JudgeClient]]:
    """Serve an admission on the socket, one connection after the other."""
    admission = admission_of(log.config, log.store, log.clock)
    with closing(wire.listen(log.config.judge_socket)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with closing(connection):
                    serve(connection, admission)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield admission, JudgeClient(log.config.judge_socket, 10.0)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def told(answers: Sequence[Answer]) -> list[object]:
    return [
        problems.members(problems.of(item)) if isinstance(item, QuotaryError) else item for item in answers
    ]


def test_a_judge_answers_over_its_socket_what_admission_says(log: Local) -> None:
    made = log.authority
    first = made.allocation("a")
    with judged(log) as (_, client):
        (accepted,) = client.submit_all([first])
        assert accepted == Accepted(leaf_hash(first), accepted.statement_id, accepted.at)  # type: ignore[union-attr]  # it says so
        log.loop.round()
        found = client.submit_all([first, b"", b"no\nentry", made.release("b"), b"{}"])
        here = admission_of(log.config, log.store, log.clock).submit_all(
            [first, b"", b"no\nentry", made.release("b"), b"{}"]
        )
    assert isinstance(found[0], Logged)
    assert [problems.of(item).kind.name for item in found[1:] if isinstance(item, QuotaryError)] == [
        "malformed",
        "malformed",
        "not-admitted",
        "malformed",
    ]
    assert told(found)[:3] == told(here)[:3]


def test_a_problem_crosses_the_socket_with_all_its_members_and_headers() -> None:
    errors = [Busy("wait", 7), NotAdmitted("no effect", "sequence"), FlushFailed("a flush that failed")]
    answers: list[Answer] = [*errors, Logged(bytes(32), "sha256:0", 4), Accepted(bytes(32), "sha256:0", 9)]
    found = read_answers(write_answers(answers))
    assert found[3:] == answers[3:]
    for before, after in zip(errors, found, strict=False):
        assert isinstance(after, QuotaryError)
        assert problems.of(after) == problems.of(before)


def test_what_stops_the_judge_is_the_workers_problem_too(log: Local) -> None:
    with judged(log) as (admission, client):
        client.check()
        admission._store.write._failed = FlushFailed("a flush of the database that failed")
        for ask in (client.check, lambda: client.submit_all([log.authority.allocation("a")])):
            with pytest.raises(problems.Told, match="a flush of the database that failed") as caught:
                ask()
            assert problems.of(caught.value).kind.name == "unavailable"


def test_a_judge_that_is_silent_gone_or_ends_early_is_unavailable(log: Local) -> None:
    path = log.config.judge_socket
    with pytest.raises(JudgeUnavailable, match="no judge answers"):
        JudgeClient(path).check()
    with closing(wire.listen(path)) as listener:
        with pytest.raises(JudgeUnavailable, match="timed out"):
            JudgeClient(path, 0.05).check()
        ending = threading.Thread(target=lambda: listener.accept()[0].close())
        ending.start()
        with pytest.raises(JudgeUnavailable):
            JudgeClient(path, 10.0).check()
        ending.join()


def test_a_judge_that_answers_for_another_number_of_entries_is_not_believed(log: Local) -> None:
    class Short(Admission):
        def submit_all(self, entries: Sequence[bytes]) -> list[Answer]:
            return super().submit_all(entries)[1:]

    with judged(log) as (admission, client):
        admission.__class__ = Short
        with pytest.raises(JudgeUnavailable, match="gave 0 answers for 1"):
            client.submit_all([log.authority.allocation("a")])


@pytest.mark.parametrize("entries", [[], [b""], [b"a"], [b"", b"\n\x00", b"x" * 65_536]])
def test_a_request_reads_back_as_its_entries_and_no_other_bytes_do(entries: list[bytes]) -> None:
    data = write_request(entries)
    assert read_request(data) == entries
    for spoiled in (data + b"x", data[:-1], b"\xff" + data[1:], b"\x00\x00\x00\x09" + data[4:]):
        with pytest.raises(Malformed, match="so many entries"):
            read_request(spoiled)


def test_a_malformed_request_ends_the_connection_and_nothing_else(log: Local) -> None:
    with judged(log) as (admission, client):
        with closing(wire.connect(log.config.judge_socket, 10.0)) as connection:
            wire.send_bytes(connection, b"nonsense")
            assert wire.receive_bytes(connection, 99) is None
        client.check()
        assert answer(admission, write_request([])) == b"[]"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    found = start_log(tmp_path_factory.mktemp("log"), publish_interval=0.5)
    found.submit(found.authority.allocation(), found.authority.delegation())
    yield found
    found.stop()


def test_a_release_waits_with_the_seal_of_a_judge_and_no_worker_has_the_key(running: Log) -> None:
    (sequencer,) = running.registry.children("sequence")
    (gunicorn,) = running.registry.children("gunicorn")
    workers = Path(f"/proc/{gunicorn}/task/{gunicorn}/children").read_text("ascii").split()
    assert workers
    for pid in (gunicorn, *workers, sequencer, *running.registry.children("judge")):
        opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
        assert not [name for name in opened if "quotary-seal" in name]
    entry = running.authority.release("sealed")
    os.kill(sequencer, signal.SIGSTOP)
    try:
        assert running.request("POST", "/api/v1/entries", entry).status == 202
        with closing(open_store(f"sqlite:///{running.folder}/log.db")) as store:
            (row,) = store.read.waiting(9)
        assert row.seal is not None
    finally:
        os.kill(sequencer, signal.SIGCONT)
    running.publish(entry)


def test_a_judge_that_is_killed_comes_back_and_what_it_accepted_is_published(running: Log) -> None:
    (before,) = running.registry.children("judge")
    entry = running.authority.release("before the end")
    assert running.request("POST", "/api/v1/entries", entry).status in (200, 202)
    running.registry.kill_child("judge")
    until(lambda: running.registry.children("judge") not in ([], [before]), "it is started again")
    until(lambda: running.request("GET", "/readyz").status == 200, "it answers")
    running.publish(entry)
    running.publish(running.authority.release("after the end"))
