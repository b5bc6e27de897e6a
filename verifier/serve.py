"""Run the verifier: workers with key and policy, nothing on disk but a cache."""

import logging
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

from quotary.attestation.kept import Kept
from quotary.attestation.quote import Terms
from quotary.client.clock import SystemClock
from quotary.client.collateral import Cache, Fetcher, gather
from quotary.client.policy import Policy
from quotary.net import service
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
    """Serve on a bound socket until told to stop; the key is read by each worker."""
    service.serve(lambda: _app(options), listener, workers=WORKERS, threads=THREADS)


def _app(options: Options) -> Flask:
    clock = SystemClock()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # AMD gives every VCEK the serial number 0, which the library that parses them warns about.
    warnings.filterwarnings("ignore", message="Parsed a serial number")

    def fetch(kept: Kept, terms: Terms) -> Mapping[str, str]:
        transport = Offline() if options.offline else HTTP()
        source = Fetcher(transport, Cache(options.cache), Services(), clock.now(), options.registry)
        return gather(kept.evidence, kept.collateral, terms, source)

    return create_app(load_key(options.folder), options.policy, fetch, clock.now)
