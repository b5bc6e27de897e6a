"""The judge: a process of its own that decides what may wait for the log, and lets it wait.

Workers, which the network reaches, hand it entries over the socket ``judge.sock`` (``registry/judging.py``).
It reads them, verifies their signatures, asks F1, and writes what it admits with a seal that the sequencer
believes (``registry/seal.py``), so that this is done once. A worker has no seal: what one may write past the
judge is worth what any stranger's bytes are.
"""

import logging
import signal
import socket
from contextlib import closing
from datetime import UTC, datetime

from quotary.errors import Malformed, QuotaryError
from quotary.garbage import collect_rarely
from registry import wire
from registry.admission import Admission, admission_of
from registry.config import Config
from registry.conversations import converse
from registry.judging import MAX_REQUEST, read_request, write_answers, write_problem
from registry.lock import only_one
from registry.seal import take_key
from registry.store import open_store

log = logging.getLogger("registry")


def run_judge(config: Config, inherited: int | None = None, key: int | None = None) -> None:
    """Serve until SIGTERM, and end what is being answered.

    inherited: descriptor of a listening socket that outlives this process, so that no request is refused
    key:       descriptor of the seals' key; without one nothing is sealed
    """
    stop, stopped = socket.socketpair()
    signal.signal(signal.SIGTERM, lambda *_: stop.send(b"x"))
    seal = None if key is None else take_key(key)
    with (
        only_one(config.folder / "judge.lock", "judge"),
        closing(stop),
        closing(stopped),
        closing(open_store(config.database_url)) as store,
    ):
        admission = admission_of(config, store, lambda: datetime.now(UTC), seal)
        collect_rarely()
        listener = wire.listen(config.judge_socket) if inherited is None else socket.socket(fileno=inherited)
        with closing(listener):
            log.info("judge.ready", extra={"socket": str(config.judge_socket)})
            converse(lambda connection: serve(connection, admission), listener, stopped)


def serve(connection: socket.socket, admission: Admission) -> None:
    """Answer what comes on one connection."""
    try:
        while (request := wire.receive_bytes(connection, MAX_REQUEST)) is not None:
            wire.send_bytes(connection, answer(admission, request))
    except (OSError, Malformed) as error:
        log.warning("judge.connection", extra={"why": str(error)})


def answer(admission: Admission, request: bytes) -> bytes:
    """Answer one request."""
    entries = read_request(request)
    try:
        if not entries:
            admission.check()
        return write_answers(admission.submit_all(entries))
    except QuotaryError as error:
        return write_problem(error)
