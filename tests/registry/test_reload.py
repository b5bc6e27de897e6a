"""New code without a gap (bar A52): requests go on through a reload, none is refused and none is lost."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from quotary.errors import CannotTell
from quotary.tlog.merkle import leaf_hash
from registry import reload
from registry.lock import is_held, only_one
from tests.fakes.processes import Log, command, start_log, until

READS = ("/checkpoint", "/api/v1/log", "/api/v1/entries/0", "/tile/0/000.p/1", "/readyz", "/entries/0")


@dataclass(slots=True)
class Load:
    """Steady readers and one writer, until told to stop; what each request came to is kept."""

    log: Log
    readers: int
    a_second: float
    reads: list[object] = field(default_factory=list)
    writes: list[object] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._read, args=(n,)) for n in range(self.readers)]
        self._threads.append(threading.Thread(target=self._write))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, number: int) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self.readers / self.a_second
            number += 1
            self.reads.append(self._ask("GET", READS[number % len(READS)]))

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            entry = self.log.authority.release(f"steady{id(self)}-{(number := number + 1)}")
            status = self._ask("POST", "/api/v1/entries", entry)
            self.writes.append(status)
            if status in (200, 202):
                self.accepted.append(entry)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> object:
        try:
            return self.log.request(method, path, body).status
        except urllib3.exceptions.HTTPError as error:
            return repr(error)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    found = start_log(tmp_path_factory.mktemp("log"))
    found.submit(found.authority.allocation(), found.authority.delegation())
    yield found
    found.stop()


def under_load(log: Log, reloads: int, readers: int, a_second: float) -> Load:
    with Load(log, readers, a_second) as load:
        for _ in range(reloads):
            before = {verb: log.registry.children(verb) for verb in ("sign", "sequence", "gunicorn")}
            done = command("reload", "--dir", str(log.folder))
            assert done.returncode == 0, (done.stderr, log.registry.log()[-3000:])
            after = {verb: log.registry.children(verb) for verb in before}
            assert after["gunicorn"] == before["gunicorn"]
            assert not set(after["sign"] + after["sequence"]) & set(before["sign"] + before["sequence"])
    assert {*load.reads} == {200}, [found for found in load.reads if found != 200][:5]
    assert {*load.writes} <= {200, 202}, [found for found in load.writes if found not in (200, 202)][:5]
    for entry in load.accepted:
        path = f"/api/v1/entries/by-hash/{leaf_hash(entry).hex()}"
        until(lambda path=path: log.request("GET", path).status == 200, "what was accepted is published")
    return load


def test_a52_a_reload_under_steady_requests_fails_no_read_and_loses_no_write(log: Log) -> None:
    load = under_load(log, reloads=1, readers=3, a_second=60)
    assert len(load.reads) > 50
    assert len(load.accepted) > 10


@pytest.mark.soak
def test_a52_ten_reloads_at_200_requests_a_second_fail_no_read_and_lose_no_write(log: Log) -> None:
    load = under_load(log, reloads=10, readers=8, a_second=200)
    print(f"{len(load.reads)} reads, {len(load.accepted)} writes")


def test_code_that_cannot_be_loaded_changes_nothing(log: Log) -> None:
    before = [log.registry.children(verb) for verb in ("sign", "sequence")]
    settings = log.folder / "registry.toml"
    text = settings.read_text("utf-8")
    settings.write_text(text + "unheard_of = 1\n", "utf-8")
    done = command("reload", "--dir", str(log.folder))
    assert (done.returncode, "cannot be loaded" in done.stderr) == (40, True)
    assert [log.registry.children(verb) for verb in ("sign", "sequence")] == before
    assert "reload.refused" in log.registry.log()
    settings.write_text(text, "utf-8")
    assert command("reload", "--dir", str(log.folder)).returncode == 0
    assert log.request("GET", "/readyz").status == 200


def test_a_second_registry_over_the_same_folder_does_not_start(log: Log) -> None:
    done = command("serve", "--dir", str(log.folder), "--bind", "127.0.0.1:0")
    assert (done.returncode, "a registry already runs" in done.stderr) == (2, True)
    assert log.request("GET", "/readyz").status == 200


def test_a_registry_that_does_not_run_cannot_be_reloaded(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match="no registry runs"):
        reload.ask(tmp_path)
    with only_one(tmp_path / "serve.lock", "registry"):
        assert is_held(tmp_path / "serve.lock")
        with pytest.raises(CannotTell, match="does not say"):
            reload.ask(tmp_path)
    assert not is_held(tmp_path / "serve.lock")
