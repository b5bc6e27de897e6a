"""Run the verifier: gunicorn in this process, workers with key and policy, nothing on disk but a cache."""

import logging
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from quotary.attestation.kept import Kept
from quotary.attestation.quote import Terms
from quotary.client.clock import SystemClock
from quotary.client.collateral import Cache, Fetcher, gather
from quotary.client.policy import Policy
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Offline
from quotary.net.vendors import Services
from verifier.app import create_app
from verifier.keys import load_key

WORKERS, THREADS = 2, 4


@dataclass(frozen=True, slots=True)
class Options:
    """folder: the verifier's key; cache: what vendors published; registry: asked before them, or empty."""

    folder: Path
    policy: Policy
    cache: Path
    registry: str
    offline: bool


def serve(options: Options, listener: socket.socket) -> None:
    """Serve on a bound socket until told to stop."""
    try:
        _Server(options, listener.detach()).run()
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise CannotTell(f"the server stopped with {stop.code}; its own lines say why") from None


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    def __init__(self, options: Options, descriptor: int) -> None:
        self._options, self._descriptor = options, descriptor
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, object] = {
            "bind": [f"fd://{self._descriptor}"],
            "workers": WORKERS,
            "worker_class": "gthread",
            "threads": THREADS,
            "timeout": 120,
            "graceful_timeout": 20,
            "keepalive": 2,
            # Its messages quote requests; ours do not.
            "accesslog": None,
            "loglevel": "critical",
            "control_socket_disable": True,
            "limit_request_line": 2048,
            "limit_request_fields": 40,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # a WSGI application, in the worker
        options, clock = self._options, SystemClock()
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        # AMD gives every VCEK the serial number 0, which the library that parses them warns about.
        warnings.filterwarnings("ignore", message="Parsed a serial number")

        def fetch(kept: Kept, terms: Terms) -> Mapping[str, str]:
            transport = Offline() if options.offline else HTTP()
            source = Fetcher(transport, Cache(options.cache), Services(), clock.now(), options.registry)
            return gather(kept.evidence, kept.collateral, terms, source)

        return create_app(load_key(options.folder), options.policy, fetch, clock.now)
