"""Start a whole registry: signer, sequencer, judge and gunicorn as supervised children of this process.

A child that crashes, or lost its database or its leadership (exit code 40), is started again, a few times a
minute at most; one that refuses (rolled back, another one runs) stops everything with its own code. SIGTERM
and SIGINT stop the children in order: HTTP first, then judge, sequencer
and signer.
"""

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from quotary.errors import CannotTell
from quotary.net.listen import open_listener
from registry import wire
from registry.apart import can_be_kept_apart
from registry.child import Child
from registry.config import Config
from registry.errors import SignerUnavailable
from registry.lock import only_one
from registry.metrics_app import prepare
from registry.quota import is_loopback
from registry.reload import Standing, replace_all
from registry.seal import new_key
from registry.signer import only_signer
from registry.signing import SignerClient
from registry.worker import most

log = logging.getLogger("registry")

READY_SECONDS = 20.0


def serve(
    config: Config,
    bind: str,
    announce: Callable[[str], None],
    metrics: str | None = None,
    without: Collection[str] = (),
) -> int:
    """Run until a signal or a refusal, and give the exit code; ``announce`` hears the address.

    metrics: ``host:port`` where ``/metrics`` is served; without it nothing is counted to disk
    without: ``signer``, ``sequencer``: what another machine runs
    """
    with ExitStack() as stack:
        listener = stack.enter_context(closing(open_listener(bind, "--bind host:port")))
        numbers = (
            stack.enter_context(closing(open_listener(metrics, "--metrics host:port"))) if metrics else None
        )
        stack.enter_context(only_one(config.folder / "serve.lock", "registry"))
        signals = stack.enter_context(_Signals())
        asked = None if "signer" in without else stack.enter_context(closing(_listen_for_signer(config)))
        environment = prepare(config.folder) if numbers else {}
        application = f"registry.app:wsgi({str(config.folder)!r})"
        web = _gunicorn(application, listener.fileno(), config.workers, config.threads)
        children = [_signer(config, asked)] if asked else []
        key = None
        if not (apart := can_be_kept_apart()):
            log.warning("seals.none", extra={"why": "no Landlock here, so no key would be the judge's alone"})
        if "sequencer" not in without:
            if apart:
                key = stack.enter_context(new_key())
            children.append(_sequencer(config, environment, key))
        children.append(_judge(config, stack.enter_context(closing(wire.listen(config.judge_socket))), key))
        children.append(Child("http", web, (listener.fileno(),), environment, application, apart))
        if config.collateral.products:
            children.append(Child("collateral", _ours(config, "collateral"), apart=apart))
        if numbers:
            children.append(_metrics_child(config, numbers, environment, apart))
        try:
            for child in children:
                child.start()
                if child.name == "signer":
                    _await_signer(config, child)
            Standing(os.getpid()).write(state := config.folder / "serve.state")
            _warn_without_front(listener, config.threads)
            announce(_address(listener))
            return _supervise(children, signals, lambda: replace_all(children, state))
        finally:
            for child in reversed(children):
                child.stop()


def _warn_without_front(listener: socket.socket, threads: int) -> None:
    host = listener.getsockname()[0]
    if not is_loopback(host):
        why = (
            "no front server shields it: a few hundred slow clients, each from a network of its own, stop it"
        )
        facts = {"address": _address(listener), "why": why, "requests_each": most(threads)}
        log.warning("front.absent", extra=facts)


def serve_witness(folder: Path, bind: str, announce: Callable[[str], None]) -> int:
    """Run a witness's HTTP server until a signal; one worker, because its memory has one lock."""
    application = f"registry.witness_app:create_app({str(folder.resolve())!r})"
    with closing(open_listener(bind, "--bind host:port")) as listener, _Signals() as signals:
        command = _gunicorn(application, listener.fileno(), 1, 4)
        child = Child("witness", command, (listener.fileno(),), application=application)
        try:
            child.start()
            announce(_address(listener))
            return _supervise([child], signals, child.replace)
        finally:
            child.stop()


def _metrics_child(
    config: Config, listener: socket.socket, environment: Mapping[str, str], apart: bool
) -> Child:
    application = f"registry.metrics_app:wsgi({str(config.folder)!r})"
    log.info("metrics.listening", extra={"address": _address(listener) + "/metrics"})
    descriptor = listener.fileno()
    command = _gunicorn(application, descriptor, 1, 2)
    return Child("metrics", command, (descriptor,), environment, application, apart)


def _listen_for_signer(config: Config) -> socket.socket:
    """Listen in the signer's place: requests wait here while one signer hands over to the next."""
    with only_signer(config.keys):
        return wire.listen(config.socket)


def _signer(config: Config, listener: socket.socket) -> Child:
    command = [*_ours(config, "sign"), "--listener", str(listener.fileno())]
    return Child("signer", command, (listener.fileno(),))


def _sequencer(config: Config, environment: Mapping[str, str], key: int | None) -> Child:
    command = _ours(config, "sequence")
    if key is None:
        return Child("sequencer", command, (), environment)
    return Child("sequencer", [*command, "--key", str(key)], (key,), environment)


def _judge(config: Config, listener: socket.socket, key: int | None) -> Child:
    command = [*_ours(config, "judge"), "--listener", str(listener.fileno())]
    if key is None:
        return Child("judge", command, (listener.fileno(),))
    return Child("judge", [*command, "--key", str(key)], (listener.fileno(), key))


class _Signals:
    """Waits for SIGCHLD, SIGHUP, SIGTERM and SIGINT without racing any of them."""

    def __enter__(self) -> "_Signals":
        self._read, write = socket.socketpair()
        self._write = write
        write.setblocking(False)
        self._before = signal.set_wakeup_fd(write.fileno())
        names = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in names}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float) -> set[int]:
        ready, _, _ = select.select([self._read], [], [], seconds)
        return set(self._read.recv(4096)) if ready else set()


def _supervise(children: list[Child], signals: _Signals, reload: Callable[[], None]) -> int:
    while True:
        caught = signals.wait(60.0)
        if caught & {signal.SIGTERM, signal.SIGINT}:
            log.info("registry.stopping")
            return 0
        if signal.SIGHUP in caught:
            reload()
        for child in children:
            code = child.process.poll() if child.process else None
            if code is None:
                continue
            log.error("child.ended", extra={"child": child.name, "code": code})
            if not child.may_restart(code):
                return code if code > 0 else 1
            child.start()


def _await_signer(config: Config, child: Child) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.process is not None and (code := child.process.poll()) is not None:
            raise _Ended(child.name, code)
        try:
            SignerClient(config.socket, timeout_seconds=0.5).head()
        except SignerUnavailable:
            select.select([], [], [], 0.02)
        else:
            return
    raise CannotTell(f"the signer was not ready after {READY_SECONDS:g} s")


class _Ended(CannotTell):
    """A child said why on stderr; its code becomes ours."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"the {name} ended with code {code}; its own message stands above")
        self.exit_code = code if code > 0 else 1


def _ours(config: Config, verb: str) -> list[str]:
    return [sys.executable, "-m", "registry", verb, "--dir", str(config.folder)]


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _gunicorn(application: str, descriptor: int, workers: int, threads: int) -> list[str]:
    options = {
        "bind": f"fd://{descriptor}",
        "worker-class": "registry.worker.Worker",
        "workers": str(workers),
        "threads": str(threads),
        "timeout": "60",
        "graceful-timeout": "10",
        "keep-alive": "2",
        "log-level": "warning",
        "logger-class": "registry.logs.GunicornLines",
        "limit-request-line": "4094",
        "limit-request-fields": "64",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "gunicorn", "--no-control-socket", *words, application]
