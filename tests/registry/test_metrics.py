"""Numbers for the operator: right, and of names that no client can choose."""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import urllib3
from prometheus_client import generate_latest
from prometheus_client.core import CollectorRegistry

from quotary.tlog.merkle import leaf_hash
from registry.app import create_app
from registry.errors import StoreUnavailable
from registry.metrics import MachineNumbers, StoreNumbers
from registry.metrics_app import Counted, prepare
from registry.store import Reader
from registry.witnesses import Answer
from tests.fakes.authority import NOW
from tests.fakes.inprocess import Local, local
from tests.fakes.processes import Log, Server, command, start_log, until

# The sequencer counts its rounds in a file of its own.
SEQUENCER = 1


def scraped(text: str) -> dict[str, float]:
    rows = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def numbers(log: Local, forward: int = 0) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(StoreNumbers(log.store, lambda: NOW + timedelta(seconds=forward)))
    return scraped(generate_latest(registry).decode())


def test_sizes_lags_and_ages_are_those_of_the_database(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        assert numbers(log)["quotary_checkpoint_age_seconds"] == float("inf")
        log.loop.round()
        entry = log.authority.allocation()
        log.store.write.enqueue([(leaf_hash(entry), entry)], int(NOW.timestamp()))
        found = numbers(log, 60)
        assert found["quotary_published_size"] == 2
        assert found["quotary_checkpoint_age_seconds"] == 60
        assert (found["quotary_waiting_entries"], found["quotary_oldest_waiting_seconds"]) == (1, 60)
        log.sequencer.integrate()
        found = numbers(log)
        assert (found["quotary_unsigned_entries"], found["quotary_unpublished_entries"]) == (2, 0)
        log.sequencer.sign()
        found = numbers(log)
        assert (found["quotary_unsigned_entries"], found["quotary_unpublished_entries"]) == (0, 2)
        assert found["quotary_store_up"] == 1


def test_a_silent_database_is_a_number_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Reader) -> None:
        raise StoreUnavailable("gone")

    with local(tmp_path) as log:
        monkeypatch.setattr(Reader, "head", fail)
        assert numbers(log) == {"quotary_store_up": 0}


def test_requests_are_counted_by_route_and_never_by_what_a_client_wrote(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        app = create_app(log.config, now=log.clock)
        client = app.test_client()
        for path in (
            "/checkpoint",
            "/api/v1/entries/0",
            "/api/v1/entries/1",
            "/api/v1/entries/99",
            "/evil/1",
        ):
            client.get(path)
        meters = app.extensions["meters"]
        found = scraped(generate_latest(meters.registry).decode())
        assert found['quotary_requests_total{route="api.entry",status="200"}'] == 2
        assert found['quotary_requests_total{route="api.entry",status="404"}'] == 1
        assert found['quotary_requests_total{route="none",status="404"}'] == 1
        assert not [name for name in found if "evil" in name]
        meters.witnesses([(Answer("https://w0.example.org", (), None, "faulty"), None)])
        found = scraped(generate_latest(meters.registry).decode())
        assert found['quotary_witness_state{state="faulty",witness="https://w0.example.org"}'] == 1
        assert found['quotary_witness_state{state="cosigned",witness="https://w0.example.org"}'] == 0


def test_the_counters_of_an_earlier_run_are_wiped(tmp_path: Path) -> None:
    (folder,) = prepare(tmp_path).values()
    (Path(folder) / "counter_1.db").write_bytes(b"old")
    assert prepare(tmp_path) == {"PROMETHEUS_MULTIPROC_DIR": folder}
    assert list(Path(folder).iterdir()) == []


def test_a_file_of_counters_that_is_just_being_made_stops_no_scrape(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(Counted(tmp_path))
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "histogram_1.db").write_bytes(bytes(4096))
    assert scraped(generate_latest(registry).decode()) == {}


def test_numbers_of_the_machine_say_whether_the_signer_answers(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        registry = CollectorRegistry()
        registry.register(MachineNumbers(log.config.folder, log.signer))
        found = scraped(generate_latest(registry).decode())
        assert found["quotary_signer_up"] == 1
        assert found["quotary_free_bytes"] > 0
    assert scraped(generate_latest(registry).decode())["quotary_signer_up"] == 0


def test_a_registry_serves_its_numbers_on_an_address_of_their_own(tmp_path: Path) -> None:
    log = start_log(tmp_path)
    try:
        log.stop_registry()
        settings = log.folder / "registry.toml"
        settings.write_text(settings.read_text("utf-8").replace("workers = 1", "workers = 3"), "utf-8")
        words = ["serve", "--dir", str(log.folder), "--metrics", "127.0.0.1:0"]
        log.registry = Server(words, tmp_path / "second.stderr").start()
        log.wait_ready()
        lines = [json.loads(line) for line in log.registry.log().splitlines() if line.startswith("{")]
        (address,) = [line["address"] for line in lines if line["event"] == "metrics.listening"]
        log.publish(log.authority.allocation())
        http = urllib3.PoolManager(retries=False)

        def ask() -> dict[str, float] | None:
            found = scraped(http.request("GET", address).data.decode())
            state = f'quotary_witness_state{{state="cosigned",witness="{log.witness.address}"}}'
            return found if found.get(state) == 1 else None

        found = until(ask, "the witness's state")
        assert found["quotary_published_size"] >= 4
        assert found['quotary_requests_total{route="api.submit",status="200"}'] >= 1
        assert found["quotary_round_seconds_count"] >= 1
        assert found["quotary_signer_up"] == 1
        assert found["quotary_scrub_age_seconds"] < 3600, "the sequencer reads the log again"
        assert log.request("GET", "/metrics").status == 404
        count_over_all_workers(log, ask)
        http.clear()
    finally:
        log.stop()


def count_over_all_workers(log: Log, ask: Callable[[], dict[str, float] | None]) -> None:
    """Count requests to three workers, one of which dies, and all of which are replaced."""
    name = 'quotary_requests_total{route="c2sp.checkpoint",status="200"}'

    def counted() -> float:
        return until(ask, "the numbers").get(name, 0.0)

    def send(count: int) -> None:
        nonlocal sent
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda _: log.get("/checkpoint"), range(count)))) == count
        sent += count

    def spread() -> bool:
        send(40)
        return len(list((log.folder / "metrics").glob("counter_*.db"))) >= 2 + SEQUENCER

    sent, before = 0, counted()
    until(spread, "more than one worker has answered")
    assert counted() == before + sent
    (gunicorn,) = log.registry.children("registry.app:wsgi(" + repr(str(log.folder)) + ")")
    workers = Path(f"/proc/{gunicorn}/task/{gunicorn}/children").read_text("ascii").split()
    os.kill(int(workers[0]), signal.SIGKILL)
    assert command("reload", "--dir", str(log.folder)).returncode == 0
    send(20)
    assert counted() == before + sent
