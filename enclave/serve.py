"""Start the server: check in the parent, where nothing but the check is loaded; then serve from one worker.

The parent's check decides whether there is a server at all; it makes keys of its own that nobody is given.
The worker makes the keys that count, checks again, loads the model and serves. When the worker refuses to
start it says why through a page of shared memory, so that the command leaves with the exit code and the
reason of that refusal.
"""

import mmap
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication

from enclave import boot, nvml
from enclave.api import create_app
from enclave.boot import Machine, Setup
from enclave.environment import check_environment
from enclave.events import NetworkUnrestricted, emit
from enclave.front import Front
from enclave.hop import ports_of_hops
from enclave.job import LanguageModel
from enclave.lifecycle import Phase
from enclave.logs import silence
from enclave.network import restrict
from enclave.placement import Placement, without_evidence
from enclave.runtime import Enclave, Terms
from enclave.tokens import TokenGate
from enclave.watch import Watcher
from enclave.weights import read_manifest, read_weights
from quotary.client.issuer import issuer_keys
from quotary.client.log import LogClient
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, QuotaryError, Refused, Rejected
from quotary.net.transport import HTTP

if TYPE_CHECKING:
    from enclave.second import Door

THREADS = 64
# After the order to stop: until then answers may finish, then they end with an error, then the server goes.
DRAIN_SECONDS, GRACEFUL_SECONDS = 15.0, 20


@dataclass(frozen=True, slots=True)
class Options:
    """The measured command line. model: folder with ``MANIFEST``; device: ``auto``, ``cpu`` or ``cuda``.

    door: the second one, where it is open; nodes: of a key service, for the doors' keys
    hops: services that other enclaves answer for, with addresses
    """

    setup: Setup
    model: Path
    device: str
    door: "Door | None" = None
    nodes: tuple[str, ...] = ()
    hops: Mapping[str, str] = field(default_factory=dict)


class Outcome:
    """How the worker ended, readable by the parent: an exit code and one line, in one page of shared
    memory.
    """

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def set(self, code: int, reason: str) -> None:
        line = reason.encode("utf-8", "replace")[: mmap.PAGESIZE - 3]
        self._page[: 3 + len(line)] = bytes([code, *divmod(len(line), 256)]) + line

    def get(self) -> tuple[int, str]:
        """The exit code (0: nothing was refused) and the reason."""
        code, high, low = self._page[:3]
        return code, self._page[3 : 3 + high * 256 + low].decode("utf-8", "replace")


class WorkerRefused(CannotTell):
    """The worker would not serve; carries the exit code of its own reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = code


def preflight(options: Options, trail: Trail) -> boot.SelfCheck:
    """Run the boot check before anything is served or any model code is imported."""
    check_environment(os.environ)
    found = Machine(options.setup).rehearse(trail)
    check_manifest(options.model, found)
    return found


def check_manifest(model: Path, found: boot.SelfCheck) -> None:
    """Refuse a model folder that does not even claim to be the release's, before anything large is read."""
    claimed, wanted = read_manifest(model).digest, found.release.weights_sha256
    if claimed != wanted:
        raise Rejected("weights digest", claimed.hex(), wanted.hex())


def serve(options: Options, reached: Front) -> None:
    """Serve where it is reached until told to stop; raises ``WorkerRefused`` where the worker would not."""
    outcome = Outcome()
    try:
        _Server(options, outcome, reached).run()
    except SystemExit as stop:
        code, reason = outcome.get()
        if code:
            raise WorkerRefused(code, reason) from None
        if stop.code not in (0, None):
            raise CannotTell(f"the server stopped with {stop.code}") from None


def device_of(options: Options) -> str:
    """Give where the model may be wanted: on a GPU only if the boot check verified it, or in a simulation."""
    if options.setup.devices or options.setup.policy.simulation:
        return options.device
    return without_evidence(options.device)


def load_model(
    folder: Path,
    digest: bytes,
    device: str,
    placement: Placement,
    told: Callable[[int, int], None] = lambda done, of: None,
    cache_mib: int | None = None,
) -> LanguageModel:
    """Choose the device, read the files that have this digest, and only then import a model library."""
    chosen = placement.place(device)
    weights = read_weights(folder, digest, told)
    from enclave.transformer import TransformerModel

    cache_bytes = None if cache_mib is None else cache_mib << 20
    return TransformerModel(weights, device=chosen, cache_bytes=cache_bytes)


def door_seed(machine: Machine, nodes: Sequence[str]) -> Callable[[], bytes]:
    """Give what asks the nodes for the seed of the doors' keys, which nobody keeps."""
    # Imported here, because nothing else needs libsodium.
    from enclave.keys import DOORS, key_service

    transport = HTTP(plain_http=machine.setup.policy.simulation)
    return lambda: key_service(machine, nodes, transport).key(DOORS)


def drain_on_term(enclave: Enclave, seconds: float) -> None:
    """At SIGTERM, before whatever else it does: admit no more, and end after ``seconds`` what still runs."""
    before = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: FrameType | None) -> None:
        # In threads of their own: a signal may come while this one holds the enclave's lock.
        for wait, act in ((0.0, enclave.drain), (seconds, enclave.stop)):
            timer = threading.Timer(wait, act)
            timer.daemon = True
            timer.start()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, drain)


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    def __init__(self, options: Options, outcome: Outcome, reached: Front) -> None:
        self._options, self._outcome, self._reached = options, outcome, reached
        inner = [reached.inner, *([] if options.door is None else [options.door.inner])]
        self._descriptors = [end.detach() for end in inner]
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, object] = {
            "bind": [f"fd://{descriptor}" for descriptor in self._descriptors],
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "timeout": 120,
            "graceful_timeout": GRACEFUL_SECONDS,
            "keepalive": 5,
            # Its messages quote requests; ours do not.
            "accesslog": None,
            "loglevel": "critical",
            "control_socket_disable": True,
            "limit_request_line": 2048,
            "limit_request_fields": 40,
            "worker_exit": _stopped,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:  # a WSGI application, in the worker
        silence()
        setup = self._options.setup
        # Before any other thread: only what is started from here on is held to it.
        if not restrict(setup.ports | ports_of_hops(self._options.hops)):
            emit(NetworkUnrestricted())
        self._reached.start()
        door = self._options.door
        terms = Terms(
            setup.service,
            setup.rules,
            setup.policy.max_age_seconds,
            ratls=door is not None,
            hops=self._options.hops,
        )
        placement = Placement(nvml.load, simulation=setup.policy.simulation)
        gate, path = _gate(setup), "" if door is None else door.path
        machine = Machine(setup)
        seed = door_seed(machine, self._options.nodes) if self._options.nodes else None
        enclave = Enclave(terms, machine, setup.clock, placement.check, gate, path, seed)
        if door is not None:
            door.start(enclave.certificates)
        watcher = Watcher(enclave.poll, setup.rules.poll_seconds)
        start = threading.Thread(
            target=self._start, args=(enclave, watcher, placement), name="start", daemon=True
        )
        start.start()
        drain_on_term(enclave, DRAIN_SECONDS)
        app = create_app(enclave)
        app.extensions["quotary"] = (watcher, enclave, self._outcome)
        return app

    def _start(self, enclave: Enclave, watcher: Watcher, placement: Placement) -> None:
        options = self._options
        try:
            enclave.start(
                lambda digest: load_model(
                    options.model,
                    digest,
                    device_of(options),
                    placement,
                    enclave.loaded,
                    options.setup.rules.cache_mib,
                )
            )
        except Exception as error:  # noqa: BLE001  # whatever stopped the start stops the server
            known = isinstance(error, QuotaryError)
            reason = str(error) if known else f"internal error: {type(error).__name__} (this is our bug)"
            self._outcome.set(error.exit_code if isinstance(error, QuotaryError) else 1, reason)
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            watcher.start()


def _gate(setup: Setup) -> TokenGate | None:
    policy, log = setup.policy, setup.log
    if policy.issuer is None:
        return None
    if not isinstance(log, LogClient):
        raise Refused("issuer", "a bundle in place of a log", "a log that says which keys the issuer has")
    return TokenGate(policy.issuer, lambda: issuer_keys(log, policy, setup.clock.now()), setup.clock)


def _stopped(server: object, worker: Any) -> None:
    """Called in the worker when it leaves."""
    held = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("quotary")
    if held is not None:
        watcher, enclave, outcome = held
        state = enclave.state
        if state.phase is Phase.REFUSING and not outcome.get()[0]:
            outcome.set(Refused.exit_code, f"{state.code}: {state.reason}")
        watcher.close()
        enclave.close()
