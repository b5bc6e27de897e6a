"""The log in an object store: what is there, in which order it gets there, and what stands in the way."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from quotary.client.mirror import mirror
from quotary.client.policy import Policy
from quotary.client.source import Files, HTTPSource
from quotary.errors import CannotTell, Refused, Unsupported, Usage
from quotary.net.transport import HTTP
from quotary.tlog.tiles import parse_tile_path
from registry.cli import registry
from registry.config import Config, load_config
from registry.objects import Bucket
from registry.public import PublicLog
from registry.setup import create_registry
from registry.upload import Upload, open_bucket, uploading
from tests.fakes import s3
from tests.fakes.authority import ORIGIN, Authority
from tests.fakes.inprocess import Local, local
from tests.fakes.log import policy_bytes, policy_document
from tests.fakes.processes import Log, Server, until
from tests.registry.test_recovery import story
from tests.registry.test_sequencer import long_story

PLACE = "s3://logs/one"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.ObjectStore]:
    if not s3.PROGRAM.exists():
        pytest.skip("no object store in .venv-s3: sh deploy/setup.sh test makes it")
    with s3.serving(tmp_path_factory.mktemp("s3") / "log") as running:
        yield running


@pytest.fixture
def bucket(store: s3.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.ObjectStore]:
    """The store with an empty bucket, and the environment that leads there."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    yield store
    for name in store.names():
        store.request("DELETE", name)


def upload(log: Local) -> Upload:
    return Upload(PublicLog(log.store.read), open_bucket(PLACE))


def served(log: Local, name: str) -> bytes:
    """What the registry itself serves under a name."""
    public = PublicLog(log.store.read)
    snapshot = public.snapshot()
    return snapshot.note if name == "checkpoint" else public.tile_bytes(parse_tile_path(name), snapshot.size)


def test_the_store_holds_what_the_registry_serves_and_a_mirror_reads_it(
    tmp_path: Path, bucket: s3.ObjectStore
) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        assert upload(log).run() == 2
        assert bucket.names() == {"one/checkpoint", "one/tile/0/000.p/2", "one/tile/entries/000.p/2"}
        work = upload(log)
        long_story(log)
        size = work.run()
        assert size > 256
        rest = size % 256
        names = {"checkpoint", "tile/0/000", "tile/entries/000", "tile/1/000.p/1"}
        names |= {f"tile/0/001.p/{rest}", f"tile/entries/001.p/{rest}"}
        assert bucket.names() == {f"one/{name}" for name in names}
        for name in names:
            answer = bucket.request("GET", f"one/{name}")
            assert answer.data == served(log, name), name
            caching = "public, max-age=2" if name == "checkpoint" else "public, max-age=31536000, immutable"
            assert answer.headers["Cache-Control"] == caching
        genesis = log.store.read.leaf_hashes(0, 1)[0].hex()
        tlog_policy = log.config.policy.read_text("utf-8")
        document = {**policy_document(genesis=genesis), "tlog_policy": tlog_policy, "map_auditor": "none"}
        copied = mirror(
            Files(HTTPSource(HTTP(), f"{bucket.address}/logs/one")),
            tmp_path / "copy",
            Policy.parse(policy_bytes(document)),
            lambda done, size: None,
        )
        assert (copied.origin, copied.size) == (ORIGIN, size)
        for path in (tmp_path / "copy").rglob("*"):
            name = str(path.relative_to(tmp_path / "copy"))
            if path.is_file():
                assert path.read_bytes() == bucket.request("GET", f"one/{name}").data, name


def test_a_new_start_goes_on_behind_the_stores_checkpoint_and_export_looks_at_everything(
    tmp_path: Path, bucket: s3.ObjectStore
) -> None:
    with local(tmp_path) as log:
        log.loop.round()
        long_story(log)
        upload(log).run()
        for name in ("one/tile/0/000", "one/tile/entries/000"):
            bucket.request("DELETE", name)
        log.append(log.authority.release("r2"))
        size = upload(log).run()
        assert "one/tile/0/000" not in bucket.names()
        (log.config.folder / "registry.toml").write_text(log.config.text(), "utf-8")
        words = ["export", "--dir", str(log.config.folder), PLACE]
        result = CliRunner().invoke(registry, words, catch_exceptions=False, standalone_mode=False)
        assert result.exception is None
        assert result.stdout == f"{PLACE} holds the published log of {size} entries\n"
        assert {"one/tile/0/000", "one/tile/entries/000"} <= bucket.names()


@pytest.mark.parametrize("name", ["tile/0/000.p/8", "tile/entries/000.p/8"])
def test_what_was_written_once_is_never_replaced_and_the_checkpoint_comes_last(
    tmp_path: Path, bucket: s3.ObjectStore, name: str
) -> None:
    with local(tmp_path) as log:
        story(log)
        bucket.request("PUT", f"one/{name}", b"other bytes")
        with pytest.raises(Refused, match=f"{name} with other bytes"):
            upload(log).run()
        assert bucket.request("GET", f"one/{name}").data == b"other bytes"
        assert "one/checkpoint" not in bucket.names()


def test_a_store_that_holds_another_log_or_a_later_one_is_left_alone(
    tmp_path: Path, bucket: s3.ObjectStore
) -> None:
    with local(tmp_path / "one") as one, local(tmp_path / "two") as two:
        story(one)
        two.clock.forward(5)
        two.loop.round()
        upload(one).run()
        before = bucket.names()
        with pytest.raises(Refused, match="size of the object store: found 8, wanted at most"):
            upload(two).run()
        story(two)
        two.append(two.authority.release("r2"))
        with pytest.raises(Refused, match="root of size 8 in the object store"):
            upload(two).run()
        bucket.request("PUT", "one/checkpoint", b"no checkpoint")
        with pytest.raises(Refused, match="wanted a checkpoint"):
            upload(one).run()
        assert bucket.names() == before


def test_a_store_that_fails_does_not_stop_the_log_and_gets_everything_later(
    tmp_path: Path, bucket: s3.ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    with local(tmp_path) as log:
        story(log)
        bucket.request("PUT", "one/tile/0/000.p/8", b"in the way")
        with uploading(upload(log), 0.05):
            until(lambda: "upload.failed" in caplog.text, "the upload fails")
            log.append(log.authority.release("r2"))
            assert log.store.read.published_size() == 10
            bucket.request("DELETE", "one/tile/0/000.p/8")
            until(lambda: "one/checkpoint" in bucket.names(), "the store is complete")
        assert bucket.request("GET", "one/checkpoint").data == served(log, "checkpoint")


def test_a_store_that_does_not_answer_or_does_not_exist_is_named(
    bucket: s3.ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotTell, match="s3://nowhere/one/tile"):
        Bucket("s3://nowhere/one").create("tile", b"", "text/plain", "no-store")
    monkeypatch.setattr("registry.objects.RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CannotTell, match=f"{PLACE}/checkpoint") as caught:
        Bucket(PLACE).get("checkpoint")
    assert "tester" not in str(caught.value)


@pytest.mark.parametrize(
    "place", ["s3://", "s3:///", "gs://bucket", "s3://key:secret@bucket/x", "s3://b/?a=b"]
)
def test_an_address_is_a_bucket_and_a_prefix_and_no_secret(place: str) -> None:
    with pytest.raises(Usage) as caught:
        open_bucket(place)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named_with_the_extra_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "registry.objects")
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(Unsupported) as caught:
        open_bucket(PLACE)
    assert caught.value.next_command == "pip install 'quotary[s3]'"


def test_the_setting_is_kept_and_read_again(tmp_path: Path) -> None:
    with local(tmp_path) as log:
        config = replace(log.config, upload=PLACE)
        (config.folder / "registry.toml").write_text(config.text(), "utf-8")
        assert load_config(config.folder) == config


def test_a_running_registry_uploads_what_it_publishes(tmp_path: Path, bucket: s3.ObjectStore) -> None:
    authority = Authority(origin=ORIGIN, now=datetime.now(UTC).replace(microsecond=0))
    folder = tmp_path / "log"
    place = (folder, ORIGIN, "sqlite:///log.db", "127.0.0.1:0")
    config = Config(*place, 0.1, 2.0, 600, workers=1, threads=4, upload=PLACE)
    create_registry(config, [], authority.genesis(), datetime.now(UTC))
    server = Server(["serve", "--dir", str(folder)], tmp_path / "stderr").start()
    log = Log(folder, server, server, authority)
    try:
        log.wait_ready()
        assert log.submit(authority.allocation()) == [2]
        name = "one/checkpoint"
        until(lambda: b"\n4\n" in bucket.request("GET", name).data, "the store has the newest checkpoint")
    finally:
        log.stop_registry()
    assert {"one/tile/0/000.p/4", "one/tile/entries/000.p/4"} <= bucket.names()
