"""Run one small service: gunicorn in this process, threads for connections, no request in its log."""

import socket
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from quotary.errors import CannotTell

WORKERS, THREADS = 2, 32


def serve(
    make: Callable[[], Flask], listener: socket.socket, *, workers: int = WORKERS, threads: int = THREADS
) -> None:
    """Serve what ``make`` builds in each worker, on a bound socket, until told to stop."""
    try:
        _Server(make, listener.detach(), workers, threads).run()
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise CannotTell(f"the server stopped with {stop.code}; its own lines say why") from None


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    def __init__(self, make: Callable[[], Flask], descriptor: int, workers: int, threads: int) -> None:
        self._make, self._descriptor, self._workers, self._threads = make, descriptor, workers, threads
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, object] = {
            "bind": [f"fd://{self._descriptor}"],
            "workers": self._workers,
            "worker_class": "gthread",
            "threads": self._threads,
            "timeout": 120,
            "graceful_timeout": 20,
            "keepalive": 5,
            # Its messages quote requests, and its access log has addresses.
            "accesslog": None,
            "loglevel": "critical",
            "control_socket_disable": True,
            "limit_request_line": 2048,
            "limit_request_fields": 40,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # a WSGI application, in the worker
        return self._make()
