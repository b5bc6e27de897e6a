"""What the processes of the crash tests do; each tells as it goes what the world could know by then."""

import os
import resource
import signal
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from quotary.net.transport import HTTP
from quotary.tlog.merkle import leaf_hash
from registry.backup import restore_backup
from registry.config import load_config
from registry.errors import HeadMoved
from registry.identity import load_log_keys
from registry.recover import Folder, recover_log
from registry.sequence import only_sequencer
from registry.sequencer import Sequencer
from registry.signer import Signer, run_signer
from registry.signing import SignerClient
from registry.store import Batch, Writer, engine, open_store
from tests.fakes.authority import Authority
from tests.fakes.inprocess import Clock, assemble
from tests.fakes.signer import served
from tests.fakes.strace import Work

ROUNDS = ([b"a1", b"a2"], [b"b%d" % i for i in range(5)])
FILLER = [b"filler %d" % i for i in range(250)]


def sequence(folder: Path, told: Connection) -> None:
    """Take the log over, and admit, integrate, have signed, publish and export twice; the tile 0 becomes full."""
    config = load_config(folder / "log")
    with only_sequencer(config):
        store = open_store(config.database_url)
        log = assemble(config, store, SignerClient(config.socket), Clock(), HTTP(), Authority())
        log.sequencer.check_signer()
        log.publisher.check_witnesses(config.origin)
        for entries in ROUNDS:
            store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
            told.send(("acknowledged", entries))
            log.loop.round()
        store.close()


def sign(folder: Path, told: Connection) -> None:
    """Serve as the signer, until it is killed."""
    config = load_config(folder / "log")
    told.send(("serving", ""))
    run_signer(config.keys, config.origin, config.socket)


def recover(folder: Path, _: Connection) -> None:
    """Rebuild the database from a mirror."""
    recover_log(load_config(folder / "log"), Folder(folder / "mirror"), HTTP(), False)


def restore(folder: Path, _: Connection) -> None:
    """Put a backup back."""
    restore_backup(load_config(folder / "log"), folder / "backup", HTTP())


def limited(work: Work, length: int, folder: Path, told: Connection) -> None:
    """Do ``work`` where no file may grow beyond ``length`` bytes: the write that would is cut short by the kernel."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))
    work(folder, told)


class Telling(SignerClient):
    """Tells of a head before the signer hears of it, and of its note once it has answered."""

    def __init__(self, socket: Path, told: Connection) -> None:
        super().__init__(socket)
        self._told = told

    def sign(self, size: int, root: bytes, proof: tuple[bytes, ...], *, final: bool = False) -> bytes:
        self._told.send(("asked", (size, root)))
        note = super().sign(size, root, proof, final=final)
        self._told.send(("signed", note))
        return note


def power(mistake: str, rounds: int, folder: Path, told: Connection) -> None:
    """Start a new log, signer included, and let it grow; ``mistake`` is planted first."""
    MISTAKES[mistake]()
    config = load_config(folder / "log")
    load = lambda: load_log_keys(config.keys, config.origin)  # noqa: E731  # read again at each reload
    signer = Signer(config.origin, load, config.keys / "signed-head.json", Clock())
    with served(signer, config.socket), closing(open_store(config.database_url)) as store:
        client = Telling(config.socket, told)
        log = assemble(config, store, client, Clock(), None, Authority())
        for number in range(rounds):
            entries = [b"%d %d" % (number, i) for i in range(1 + number % 2)]
            store.write.enqueue([(leaf_hash(entry), entry) for entry in entries], 0)
            told.send(("acknowledged", entries))
            log.loop.round()


def pragma(name: str, wanted: str, reads: object) -> None:
    """Have SQLite opened with another setting."""
    others = tuple(found for found in engine.PRAGMAS if found[0] != name)
    engine.PRAGMAS = ((name, wanted, reads), *others)  # type: ignore[assignment]


def forget_to_sync() -> None:
    os.fsync = lambda _: None  # type: ignore[assignment]


def sign_early() -> None:
    """Have the head signed before it is committed; only the first one needs no proof."""
    commit = Sequencer._commit

    def early(self: Sequencer, batch: Batch) -> None:
        if self._signer.head().size == 0:
            self._signer.sign(batch.head.size, batch.head.root, ())
        commit(self, batch)

    Sequencer._commit = early  # type: ignore[method-assign]


MISTAKES: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "journal DELETE, synchronous FULL": lambda: pragma("journal_mode", "DELETE", "delete"),
    "WAL, synchronous NORMAL": lambda: pragma("synchronous", "NORMAL", 1),
    "synchronous OFF": lambda: pragma("synchronous", "OFF", 0),
    "the signer's memory is not synced": forget_to_sync,
    "signed before it is committed": sign_early,
}


STEPS = ("take_over", "integrate", "sign", "add_signed", "publish")


def stopping(step: str, after: bool, folder: Path, told: Connection) -> None:
    """Lead the log, and stand still before or after one step; whoever wakes us has led it meanwhile."""
    config = load_config(folder / "log")
    with closing(open_store(config.database_url)) as store:
        client = SignerClient(config.socket)
        owner: type = SignerClient if step == "sign" else Writer
        stand_still(owner, step, after, told)
        store.write.enqueue([(leaf_hash(b"the first's"), b"the first's")], 0)
        told.send(("acknowledged", [b"the first's"]))
        log = assemble(config, store, client, Clock(), None, Authority())
        log.loop.round()
        log.loop.round()


def stand_still(owner: type, name: str, after: bool, told: Connection) -> None:
    """Have the first call of a method stop this process, as SIGSTOP from outside would."""
    whole = getattr(owner, name)

    def halting(*arguments: object, **named: object) -> object:
        setattr(owner, name, whole)
        found = whole(*arguments, **named) if after else None
        told.send(("stopped", name))
        os.kill(os.getpid(), signal.SIGSTOP)
        return found if after else whole(*arguments, **named)

    setattr(owner, name, halting)


def race(name: str, count: int, folder: Path, told: Connection) -> None:
    """Take the log over again and again, while another process does the same."""
    config = load_config(folder / "log")
    with closing(open_store(config.database_url)) as store:
        for number in range(count):
            entry = f"{name} {number}".encode("ascii")
            store.write.enqueue([(leaf_hash(entry), entry)], 0)
            told.send(("acknowledged", [entry]))
            try:
                log = assemble(config, store, SignerClient(config.socket), Clock(), None, Authority())
                log.sequencer.check_signer()
                log.loop.round()
            except HeadMoved:
                told.send(("lost", number))
            else:
                told.send(("won", number))
