"""A running enclave with open doors on loopback, and what the clients of other systems do with it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from werkzeug.serving import WSGIRequestHandler, make_server

from enclave.api import create_app
from enclave.job import LanguageModel
from enclave.runtime import Enclave, Terms
from quotary.client.policy import DOORS, EnclaveRules
from quotary.client.sealed import Head, ResponseOpener, seal_request
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine
from tests.fakes.machine import hardware, registers

MODEL = f"TEE/{SERVICE}"


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing."""


@dataclass(frozen=True, slots=True)
class DoorSite:
    enclave: Enclave
    machine: ToldMachine
    url: str

    def seal(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, ResponseOpener]:
        keyset = self.enclave.keys.current()
        assert keyset is not None
        head = Head.new(method, path, at=self.enclave.now(), min_log_size=10, headers=headers)
        return seal_request(head, body, keyset.channel.public, keyset.digest)


@contextmanager
def opened(
    folder: Path,
    model: LanguageModel,
    weights: bytes,
    doors: tuple[str, ...] = DOORS,
    *,
    plaintext: bool = True,
    platform: str = "sim-tdx",
) -> Iterator[DoorSite]:
    """Serve an enclave whose quotes are a simulated machine's."""
    _, vendor = hardware(folder)
    clock = SteppedClock()
    machine = ToldMachine(clock, weights, platform=platform)
    machine.quote = lambda report_data: vendor.quote(registers(), report_data)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, plaintext, doors), 600), machine, clock)
    enclave.start(lambda digest: model)
    server = make_server("127.0.0.1", 0, create_app(enclave), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, name="enclave", daemon=True)
    thread.start()
    try:
        yield DoorSite(enclave, machine, f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        enclave.close()
