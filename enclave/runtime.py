"""What one serving process holds, and the few ways in which it changes: start, poll, rotate, refuse, drain.

Every change of state goes through one lock and ``lifecycle``; an admission reads under the same lock. What
was believed last (size, keyset, release) comes from ``boot`` alone. After READY nothing here can be
configured.
"""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from enclave import boot, lifecycle
from enclave.answer import Serving
from enclave.boot import SelfCheck, Shown
from enclave.chat import APIError
from enclave.doors.keys import DoorKeys
from enclave.doors.routes import Doors
from enclave.engine import Engine
from enclave.events import LifecycleChanged, Step, Why, emit, word
from enclave.hop import Hops
from enclave.job import LanguageModel
from enclave.keyset import Keyring, LiveKeyset
from enclave.lifecycle import NotServing, State, Verified
from enclave.receipts import ReceiptBook
from enclave.replay import ReplaySet
from enclave.secure import Certificates, certificate_report, require_form
from enclave.sessions import SessionBook
from enclave.tokens import TokenGate
from quotary.attestation.document import AttestationDocument
from quotary.client.caller import Caller, Callers
from quotary.client.clock import Clock
from quotary.client.location import CHECK as LOCATION
from quotary.client.policy import EnclaveRules
from quotary.client.receipt import Origin
from quotary.client.session import Client
from quotary.client.verdict import Verdict
from quotary.errors import QuotaryError, Refused

CATCH_UP_SECONDS = 1.0

LoadModel = Callable[[bytes], LanguageModel]
"""Reads and loads the model with this weights digest (32 bytes); the first thing that imports torch."""


class SelfJudge(Protocol):
    """A machine that judges itself: ``boot.Machine``, which needs a device and a log."""

    def check(self, keyset: bytes) -> SelfCheck: ...
    def renew(self, believed: SelfCheck) -> SelfCheck: ...
    def attest(self, believed: SelfCheck, nonce: bytes | None) -> bytes: ...
    def ask(self, service: str, url: str, caller: Callable[[], Caller]) -> Client: ...
    def judge_other(self, document: AttestationDocument, nonce: bytes) -> Verdict: ...
    def show(self, believed: SelfCheck, report_data: bytes, nonce: bytes) -> Shown: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What the measured policy and command line say.

    max_age_seconds: of a checkpoint, while requests are admitted
    ratls:           whether the second door is open
    hops:            addresses of the services that other enclaves answer for
    """

    service: str
    rules: EnclaveRules
    max_age_seconds: int
    ratls: bool = False
    hops: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ready:
    """What exists only from READY on."""

    engine: Engine
    weights: bytes


class Enclave:
    """One enclave process. gate: takes the token that an answer costs, where it costs one."""

    def __init__(
        self,
        terms: Terms,
        machine: SelfJudge,
        clock: Clock,
        gpus: Callable[[], None] = lambda: None,
        gate: TokenGate | None = None,
        door: str = "",
        seed: Callable[[], bytes] | None = None,
    ) -> None:
        """gpus: raises ``Refused`` where the model may not stay where it lies (``Placement.check``).

        door: path of the socket at which requests arrive that came through the second door
        seed: asks a key service for what the doors' keys are made of; None: they are this process's own
        """
        self.terms, self.gate = terms, gate
        self._machine, self._clock, self._gpus = machine, clock, gpus
        self.book = ReceiptBook()
        self.replay = ReplaySet()
        self.sessions = SessionBook()
        self.callers = Callers(machine.judge_other, clock)
        self.certificates, self.door = Certificates(), door
        self.keys = Keyring()
        self.doors, self._seed = Doors(terms.rules.doors), seed
        self.hops = Hops({name: machine.ask(name, url, self.caller) for name, url in terms.hops.items()})
        self._instance = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._state = lifecycle.starting(float(terms.max_age_seconds))
        self._believed: SelfCheck | None = None
        self._catching_up = threading.Lock()
        self._caught_up_at = -CATCH_UP_SECONDS
        self._ready: Ready | None = None

    @property
    def state(self) -> State:
        """The state as of now."""
        with self._lock:
            return lifecycle.aged(self._state, self._clock.elapsed())

    @property
    def believed(self) -> SelfCheck | None:
        """The newest successful check of this machine by itself."""
        with self._lock:
            return self._believed

    @property
    def ready(self) -> Ready | None:
        return self._ready

    def start(self, load: LoadModel) -> None:
        """Make keys, check this machine, load the model, serve. A ``QuotaryError`` that leaves here
        is final.
        """
        try:
            self._step("evidence")
            at = self._clock.elapsed()
            if self._seed is not None:
                self.doors.keys = DoorKeys(self.doors.opened, self._seed())
            found = self._new_keyset()
            self._step("model")
            weights = found.release.weights_sha256
            self._ready = Ready(Engine(load(weights)), weights)
            self._verified(found, at)
            # Loading may have taken long: what was verified before it may be too old, or no longer so.
            self.poll()
        except QuotaryError as error:
            self.refuse("boot_refused", str(error))
            raise
        except Exception:  # raised again; the door is closed first
            self.refuse("boot_refused", "internal error (this is our bug)")
            raise

    def loaded(self, done: int, of: int) -> None:
        """Say how much of the model was read, in bytes."""
        self._change(lambda state: lifecycle.step(state, state.step, done, of))

    def poll(self) -> None:
        """Ask the log again and act on the answer; never raises, because the watcher must go on."""
        believed = self.believed
        if self._state.phase is lifecycle.Phase.REFUSING or believed is None:
            return
        try:
            self._gpus()
            at = self._clock.elapsed()
            self._verified(self._look_again(believed), at)
        except QuotaryError as error:
            self._act(boot.consequence(error), str(error))
        except Exception as error:  # noqa: BLE001  # a mistake of ours closes the door, it does not open it
            self._act(boot.Consequence("log_stale", final=False), f"internal error {type(error).__name__}")

    def refuse(self, code: str, reason: str) -> None:
        """End serving for good: running answers are cut with an error, channel keys are gone."""
        self._change(lambda state: lifecycle.refuse(state, code, reason))
        self.keys.destroy()
        self.doors.keys.destroy()
        self.sessions.destroy()
        self.certificates.destroy()
        if self._ready is not None:
            self._ready.engine.abort("revoked")

    def drain(self) -> None:
        """Admit no more; running answers go on."""
        self._change(lifecycle.drain)

    def stop(self) -> None:
        """End what still runs, with an error in its stream and a receipt that says so."""
        if self._ready is not None:
            self._ready.engine.abort("cancelled")

    def serving(self, keyset: LiveKeyset, min_log_size: int) -> Serving:
        """Admit one request, or raise ``NotServing``, ``LogBehind`` or ``APIError``."""
        if self.log_size() < min_log_size:
            self._catch_up()
        with self._lock:
            admission = lifecycle.admit(self._state, min_log_size, self._clock.elapsed())
            believed, ready = self._believed, self._ready
        if believed is None or ready is None:
            raise NotServing("starting", "starting")

        def origin(size_at_admit: int, size_at_end: int) -> Origin:
            return Origin(
                self.terms.service, self.terms.service, ready.weights, believed.verdict.measurement_id,
                believed.verdict.facts.platform, keyset.evidence, keyset.digest, believed.verdict.origin,
                size_at_admit, size_at_end,
            )  # fmt: skip

        return Serving(
            self.terms.service,
            ready.engine,
            self.book,
            keyset.sign,
            admission,
            origin,
            self.log_size,
            self.now,
        )

    def attest(self, nonce: bytes | None) -> bytes:
        """Give an attestation document over a nonce (32 bytes), or an unchallenged one."""
        return self._machine.attest(self._alive(), nonce)

    def show(self, report_data: bytes, nonce: bytes) -> Shown:
        """Give evidence over 64 bytes of a door's, never of a client's own."""
        return self._machine.show(self._alive(), report_data, nonce)

    def caller(self) -> Caller:
        """Give what this enclave calls others with now."""
        believed, keyset = self._alive(), self.keys.current()
        assert keyset is not None, "who is alive has a keyset"
        assert keyset.caller is not None, "who calls has a key for it"
        return Caller(keyset.digest, keyset.caller, lambda nonce: self._machine.attest(believed, nonce))

    @property
    def service(self) -> str:
        return self.terms.service

    @property
    def platform(self) -> str:
        """The platform as this machine's own evidence showed it."""
        return self._alive().verdict.facts.platform

    @property
    def measurement(self) -> bytes:
        return self._alive().verdict.measurement_id

    @property
    def log_age(self) -> float:
        """Seconds that the newest verified checkpoint is old; only after the first."""
        return lifecycle.age(self._state, self._clock.elapsed())

    def log_size(self) -> int:
        """Entries of the newest verified checkpoint."""
        verified = self._state.verified
        return 0 if verified is None else verified.size

    def now(self) -> int:
        """Seconds since 1970 by the local clock, which cannot run back while the process lives."""
        return int(self._clock.now().timestamp())

    def close(self) -> None:
        """Stop the model and forget the keys."""
        self.drain()
        self.keys.destroy()
        self.doors.keys.destroy()
        self.sessions.destroy()
        self.certificates.destroy()
        if self._ready is not None:
            self._ready.engine.close()

    def _alive(self) -> SelfCheck:
        """Give what is believed, while there are keys that evidence could be about."""
        believed = self.believed
        if self.keys.current() is None or believed is None:
            state = self.state
            raise APIError(503, state.code or "starting", "this enclave has no keys now", kind="server_error")
        return believed

    def _catch_up(self) -> None:
        """A client has seen more of the log than we have: look at once, but not more than once a second."""
        with self._catching_up:
            now = self._clock.elapsed()
            if now - self._caught_up_at >= CATCH_UP_SECONDS:
                self._caught_up_at = now
                self.poll()

    def _look_again(self, believed: SelfCheck) -> SelfCheck:
        if self.keys.due(self.now()):
            return self._new_keyset()
        try:
            return self._machine.renew(believed)
        except Refused as error:
            if not boot.is_below_floor(error) and error.check != LOCATION:
                raise
            # The floor may have risen to collateral that is newer than what we hold, or another statement
            # of the place have followed the one that ended: evidence of now decides.
            return self._new_keyset()

    def _new_keyset(self) -> SelfCheck:
        keyset = LiveKeyset.born(
            self.terms.service,
            self._instance,
            self.now(),
            self.doors.keys.public,
            oblivious=self.terms.rules.oblivious,
            ratls=self.terms.ratls,
            calls=bool(self.terms.hops),
        )
        found = self._machine.check(keyset.document)
        if keyset.ratls is not None:
            require_form(found.verdict.facts.platform)
            shown = self._machine.show(found, certificate_report(keyset.ratls), bytes(32))
            self.certificates.use(keyset, shown.quote)
        self.keys.add(keyset.with_evidence(found.evidence_digest))
        return found

    def _verified(self, found: SelfCheck, at: float) -> None:
        age = (found.verdict.judged_at - found.verdict.quorum_at).total_seconds()
        with self._lock:
            self._believed = found
        now = self._clock.elapsed()
        self._change(lambda state: lifecycle.verified(state, Verified(found.verdict.size, age, at), now))

    def _act(self, consequence: boot.Consequence, reason: str) -> None:
        if consequence.final:
            self.refuse(consequence.code, reason)
        else:
            self._change(lambda state: lifecycle.stale(state, consequence.code, reason))

    def _step(self, name: str) -> None:
        self._change(lambda state: lifecycle.step(state, name))

    def _change(self, change: Callable[[State], State]) -> None:
        with self._lock:
            before, self._state = self._state, change(self._state)
            after = self._state
        if (before.phase, before.step, before.code) != (after.phase, after.step, after.code):
            emit(LifecycleChanged(after.phase, word(Step, after.step), word(Why, after.code)))
