"""A6: what was restored from an old backup is refused before a signature; a mirror brings the log back."""

import shutil
import time
from pathlib import Path

import pytest

from registry.config import Config
from registry.errors import RolledBack
from registry.recover import Folder, recover_log
from tests.fakes.authority import ORIGIN
from tests.fakes.history import History, check, fsck
from tests.fakes.inprocess import Local, local
from tests.fakes.network import Network, connect, create_witnessed

MEMORY = "signed-head.json"


def filler(start: int, count: int) -> list[bytes]:
    return [b'{"entry":%d}' % number for number in range(start, start + count)]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def damaged(tmp_path: Path, network: Network) -> tuple[Config, History]:
    """A stopped registry with 900 entries published after a copy of everything was made in ``old``."""
    config, history = create_witnessed(tmp_path, network), History()
    with local(tmp_path, transport=network) as log:
        log.append(*filler(0, 300))
    for name in ("log.db", "keys"):
        source, target = config.folder / name, tmp_path / "old" / name
        shutil.copytree(source, target) if source.is_dir() else copy(source, target)
    with local(tmp_path, transport=network) as log:
        log.append(*filler(300, 300))
        log.append(*filler(600, 300))
        history.acknowledge(*filler(0, 900))
        history.see_all(log.store, config.keys / MEMORY)
    return config, history


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def restore_memory(old: Path, config: Config) -> None:
    copy(old / "keys" / MEMORY, config.keys / MEMORY)


def restore_data(old: Path, config: Config) -> None:
    for path in config.folder.glob("log.db*"):
        path.unlink()
    copy(old / "log.db", config.folder / "log.db")


def restore_all(old: Path, config: Config) -> None:
    restore_memory(old, config)
    restore_data(old, config)


def guard(log: Local) -> None:
    """What the sequencer's process asks before its first signature."""
    log.sequencer.check_signer()
    log.publisher.check_witnesses(ORIGIN)


RESTORES = {"lock": restore_memory, "data": restore_data, "all": restore_all}


@pytest.mark.parametrize("what", sorted(RESTORES))
def test_a6_an_old_backup_is_refused_before_any_signature_and_a_mirror_brings_the_log_back(
    tmp_path: Path, network: Network, damaged: tuple[Config, History], what: str
) -> None:
    config, history = damaged
    shutil.copytree(config.public, tmp_path / "mirror")
    RESTORES[what](tmp_path / "old", config)
    memory = (config.keys / MEMORY).read_bytes()
    network.asked.clear()
    with local(tmp_path, transport=network) as log, pytest.raises(RolledBack) as caught:
        guard(log)
    assert "recover" in str(caught.value.next_command)
    assert (config.keys / MEMORY).read_bytes() == memory
    connect(tmp_path, network)
    recover_log(config, Folder(tmp_path / "mirror"), network, False)
    with local(tmp_path, transport=network) as log:
        guard(log)
        check(log.store.read, history, config.keys / MEMORY)
        log.append(*filler(900, 1))
        assert log.store.read.published_size() == max(history.signed) + 2
        fsck(config, log.store)


@pytest.mark.soak
def test_a6_a_log_of_a_hundred_thousand_entries_is_back_from_its_mirror_within_a_minute(
    tmp_path: Path, network: Network
) -> None:
    config, history = create_witnessed(tmp_path, network), History()
    with local(tmp_path, transport=network) as log:
        for start in range(0, 100_000, 20_000):
            log.append(*filler(start, 20_000))
        history.acknowledge(*filler(0, 100_000))
        history.see_all(log.store, config.keys / MEMORY)
    shutil.copytree(config.public, tmp_path / "mirror")
    for path in config.folder.glob("log.db*"):
        path.unlink()
    started = time.monotonic()
    recover_log(config, Folder(tmp_path / "mirror"), network, False)
    with local(tmp_path, transport=network) as log:
        guard(log)
        log.append(*filler(100_000, 1))
        took = time.monotonic() - started
        check(log.store.read, history, config.keys / MEMORY)
        assert log.store.read.published_size() == max(history.signed) + 2
    print(f"100,000 entries recovered from a mirror and published again in {took:.1f} s")
    assert took < 60
