"""A12: the whole log is read again while it runs; what the disk changed is an alarm, and a restart goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry
from sqlalchemy import text

from quotary.cli import quotary
from registry.errors import Damaged
from registry.metrics import ScrubNumbers
from registry.public import PublicLog
from registry.scrub import EVERY_SECONDS, Progress, Scrubber, recall
from tests.fakes.inprocess import Local, local


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    """A log of three entry bundles, two of them full."""
    with local(tmp_path) as found:
        found.append(*(b'{"entry":%d}' % i for i in range(600)))
        yield found


def scrubber_of(log: Local) -> Scrubber:
    return Scrubber(log.store.read, log.config.public, log.config.scrub, log.clock)


def step(scrubber: Scrubber, log: Local) -> None:
    scrubber.step(PublicLog(log.store.read).snapshot())


def one_pass(scrubber: Scrubber, log: Local) -> Progress:
    """Four steps: three bundles and the root."""
    for _ in range(4):
        step(scrubber, log)
    return scrubber.progress


def change(log: Local, table: str, statement: str) -> None:
    with log.store.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER IF EXISTS {table}_no_update"))
        connection.execute(text(statement))


def test_a12_a_whole_log_is_read_to_its_root_and_a_restart_goes_on_where_it_was(log: Local) -> None:
    scrubber = scrubber_of(log)
    step(scrubber, log)
    assert recall(log.config.scrub).bundles == 1
    again = scrubber_of(log)
    assert again.progress.bundles == 1
    for _ in range(3):
        step(again, log)
    now = int(log.clock().timestamp())
    assert recall(log.config.scrub) == Progress(0, now, now)


DAMAGES = {
    "entry": "UPDATE entry SET data = CAST(data || x'00' AS BLOB) WHERE idx = 300",
    "leaf hash": "UPDATE entry SET leaf_hash = zeroblob(32) WHERE idx = 599",
    "tile": "UPDATE tile SET data = CAST(zeroblob(32) || substr(data, 33) AS BLOB) WHERE n = 1",
    "frontier": "UPDATE head SET frontier = CAST(substr(frontier, 1, length(frontier) - 1) || x'00' AS BLOB)",
}


@pytest.mark.parametrize("what", ["entry", "leaf hash", "tile", "frontier"])
def test_a12_damage_in_the_database_is_an_alarm_until_a_pass_finds_none(
    log: Local, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = {"leaf hash": "entry", "frontier": "head"}.get(what, what)
    with log.store.engine.connect() as connection:
        before = [tuple(row) for row in connection.execute(text(f"SELECT rowid, * FROM {table}"))]
        columns = list(connection.execute(text(f"SELECT * FROM {table}")).keys())
    change(log, table, "DROP TRIGGER IF EXISTS head_grows" if table == "head" else "SELECT 1")
    change(log, table, DAMAGES[what])
    scrubber = scrubber_of(log)
    assert one_pass(scrubber, log).damage
    assert [record.msg for record in caplog.records].count("scrub.damaged") >= 1
    assert recall(log.config.scrub).damage
    with log.store.engine.begin() as connection:
        for rowid, *values in before:
            named = {f"c{i}": value for i, value in enumerate(values)}
            assigned = ", ".join(f"{name} = :c{i}" for i, name in enumerate(columns))
            connection.execute(
                text(f"UPDATE {table} SET {assigned} WHERE rowid = :row"), {"row": rowid, **named}
            )
    step(scrubber, log)
    assert scrubber.progress.damage, "one good bundle is no good log"
    for _ in range(3):
        step(scrubber, log)
    assert not recall(log.config.scrub).damage


@pytest.mark.parametrize("name", ["tile/0/001", "tile/entries/000"])
def test_a12_a_damaged_exported_file_is_found(log: Local, name: str) -> None:
    file = log.config.public / name
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert name in one_pass(scrubber_of(log), log).damage


def test_a12_damage_makes_the_registry_unready_and_stands_in_the_metrics(log: Local) -> None:
    client = log.client()
    assert client.get("/readyz").status_code == 200
    change(log, "entry", DAMAGES["entry"])
    one_pass(scrubber_of(log), log)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "leaf hashes of bundle 1" in answer.json["detail"]
    registry = CollectorRegistry()
    registry.register(ScrubNumbers(log.config.scrub, log.clock))
    shown = generate_latest(registry).decode()
    assert "quotary_scrub_damaged 1.0" in shown
    assert "quotary_scrub_age_seconds 0.0" in shown


def test_a12_a_pass_begins_twice_a_day_and_takes_no_more_time_than_it_is_given(log: Local) -> None:
    scrubber = scrubber_of(log)
    scrubber.work(0.0)
    assert scrubber.progress == Progress()
    scrubber.work(60.0)
    done = scrubber.progress
    assert done.completed
    log.clock.forward(EVERY_SECONDS - 1)
    scrubber.work(60.0)
    assert scrubber.progress == done
    log.clock.forward(1)
    scrubber.work(60.0)
    assert scrubber.progress.completed == done.completed + EVERY_SECONDS


def test_a12_the_command_makes_a_whole_pass_and_ends_with_10_on_damage(log: Local) -> None:
    words = ["registry", "scrub", "--dir", str(log.config.folder)]
    whole = CliRunner().invoke(quotary, words)
    assert whole.exit_code == 0, whole.output
    assert "602 entries read again" in whole.output
    change(log, "entry", DAMAGES["entry"])
    damaged = CliRunner().invoke(quotary, words, standalone_mode=False).exception
    assert isinstance(damaged, Damaged)
    assert damaged.exit_code == 10
    assert "recover" in str(damaged.next_command)
