"""A14: from the same entries both databases, and every replay, make the same bytes."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.client.audit import Auditor
from quotary.client.policy import Policy
from quotary.client.replay_store import ReplayStore
from quotary.client.source import Files, FolderSource
from quotary.statements.bundle import Bundle
from quotary.tlog.note import Note
from registry.config import Config
from registry.export import Exporter
from registry.public import PublicLog
from registry.recover import Folder, recover_log
from registry.store import Store, open_store
from tests.fakes.authority import ORIGIN
from tests.fakes.inprocess import config_of, local
from tests.fakes.log import policy_bytes, policy_document
from tests.registry.test_recovery import NOBODY
from tests.registry.test_sequencer import everything, long_story

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def new_url(new_postgres: Callable[[], str]) -> Callable[[str], str]:
    return lambda database: "sqlite:///log.db" if database == "sqlite" else new_postgres()


def without_signatures(name: str, data: bytes) -> bytes:
    """Leave of a checkpoint its text: ML-DSA signatures are random, and each registry has keys of its own."""
    if name == "checkpoint":
        return Note.parse(data).text.encode("utf-8")
    if name.startswith("api/v1/bundles/"):
        bundle = Bundle.parse(data)
        return replace(bundle, checkpoint=without_signatures("checkpoint", bundle.checkpoint)).encode()
    return data


def files_of(store: Store, folder: Path) -> dict[str, bytes]:
    """Export everything, and give it by name."""
    Exporter(PublicLog(store.read), folder).export_all()
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rows_of(store: Store) -> dict[str, object]:
    head = store.read.head()
    assert head is not None
    return {**everything(store), "head": replace(head, epoch=0)}


def tell(folder: Path, url: str) -> tuple[Config, dict[str, object], dict[str, bytes]]:
    folder.mkdir()
    with local(folder, database=url) as log:
        log.loop.round()
        long_story(log)
        return log.config, rows_of(log.store), files_of(log.store, folder / "mirror")


def test_a14_the_same_entries_make_the_same_rows_and_files_in_both_databases(
    tmp_path: Path, new_url: Callable[[str], str]
) -> None:
    one, two = (tell(tmp_path / name, new_url(name)) for name in DATABASES)
    assert one[1] == two[1]
    assert len(one[1]["entries"]) > 256  # type: ignore[arg-type]
    assert one[2].keys() == two[2].keys()
    kinds = {name.split("/")[0] for name in one[2]}
    assert kinds == {"checkpoint", "tile", "api"}
    for name, data in one[2].items():
        assert without_signatures(name, data) == without_signatures(name, two[2][name]), name


@pytest.mark.parametrize("database", DATABASES)
def test_a14_a_replay_from_the_files_makes_the_same_rows_and_files_in_the_other_database(
    tmp_path: Path, new_url: Callable[[str], str], database: str
) -> None:
    config, rows, files = tell(tmp_path / "log", new_url(database))
    other = config_of(config.folder, new_url(DATABASES[1 - DATABASES.index(database)]))
    recover_log(other, Folder(tmp_path / "log" / "mirror"), NOBODY, False)
    with closing(open_store(other.database_url)) as store:
        found = rows_of(store)
        # A mirror tells of the newest checkpoint only.
        assert found.pop("checkpoints") == rows.pop("checkpoints")[-1:]  # type: ignore[index]
        assert found == rows
        assert files_of(store, tmp_path / "again") == files


@pytest.mark.parametrize("database", DATABASES)
def test_a14_an_auditor_derives_the_same_roots_from_the_files(
    tmp_path: Path, new_url: Callable[[str], str], database: str
) -> None:
    config, rows, _ = tell(tmp_path / "log", new_url(database))
    genesis = rows["hashes"][0].hex()  # type: ignore[index]
    document = {**policy_document(genesis=genesis), "map_auditor": "none"}
    document["tlog_policy"] = config.policy.read_text("utf-8")
    with ReplayStore(tmp_path / "replay", ORIGIN) as store:
        auditor = Auditor(Policy.parse(policy_bytes(document)), store, lambda done, size: None)
        found = auditor.audit(Files(FolderSource(tmp_path / "log" / "mirror")))
    head = rows["head"]
    assert (found.size, found.root, found.map_root) == (head.size, head.root, head.trie_root)  # type: ignore[attr-defined]
