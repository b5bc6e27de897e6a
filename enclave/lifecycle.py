"""Whether this enclave may serve, as a pure state machine: STARTING(step) -> READY <-> STALE -> REFUSING
(design section 7).

Every transition takes ``now`` (seconds of a monotonic clock, so that the host's clock cannot make time
stand still or run back) and returns a new state. Nothing leaves REFUSING; only a newly verified bundle
leads to READY. Age is judged again at each admission, so an enclave whose watcher has died goes stale by
itself.
"""

from dataclasses import dataclass, replace
from enum import Enum

from quotary.errors import Refused


class Phase(Enum):
    """Where in its life the enclave is."""

    STARTING = "starting"
    READY = "ready"
    STALE = "stale"
    REFUSING = "refusing"


class NotServing(Refused):
    """No request is admitted now. code: stable, for clients; final: this process will not serve again."""

    def __init__(self, code: str, found: str, *, final: bool = False) -> None:
        super().__init__("lifecycle", found, "ready")
        self.code = code
        self.final = final


class LogBehind(Refused):
    """The client has seen a larger log than this enclave has verified."""

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__("log size", f"{found} entries", f"{wanted} entries, which the client has seen")


@dataclass(frozen=True, slots=True)
class Verified:
    """What one successful check of a bundle established.

    size:       entries of the checkpoint
    age:        seconds by which the checkpoint was old at ``at``, by the later of the clocks that the check
                used
    at:         monotonic seconds when the bundle was asked for
    """

    size: int
    age: float
    at: float


@dataclass(frozen=True, slots=True)
class State:
    """The whole state; build the first with ``starting``.

    max_age:  seconds that a checkpoint may be old while requests are admitted
    reason:   one line for an operator; code: what clients get
    done, of: bytes of the model that were read, while the step is that
    """

    phase: Phase
    max_age: float
    step: str = ""
    code: str = ""
    reason: str = ""
    draining: bool = False
    verified: Verified | None = None
    done: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """A request was let in. size: entries of the log that was verified by then; at: monotonic seconds."""

    size: int
    at: float


def starting(max_age: float) -> State:
    """Begin; nothing is served."""
    assert max_age > 0
    return State(Phase.STARTING, max_age, step="start")


def step(state: State, name: str, done: int = 0, of: int = 0) -> State:
    """Name what the start is doing, and how far it has come; nothing after the end of the start."""
    return replace(state, step=name, done=done, of=of) if state.phase is Phase.STARTING else state


def verified(state: State, found: Verified, now: float) -> State:
    """A bundle passed the whole verification order; READY, unless it is too old by now or the end is final.

    A checkpoint smaller than the one held never replaces it: the check before this refuses it, and so does
    this.
    """
    if state.phase is Phase.REFUSING:
        return state
    if state.verified is not None and found.size < state.verified.size:
        return stale(state, "log_stale", f"log of {found.size} entries after one of {state.verified.size}")
    return aged(
        replace(state, phase=Phase.READY, step="", code="", reason="", verified=found, done=0, of=0), now
    )


def stale(state: State, code: str, reason: str) -> State:
    """The log cannot be asked, or says suspended: finish what runs, refuse new, recover by ``verified``."""
    if state.phase in (Phase.REFUSING, Phase.STARTING):
        return state
    return replace(state, phase=Phase.STALE, code=code, reason=reason)


def refuse(state: State, code: str, reason: str) -> State:
    """Revoked, below the floor, denied, or the start failed: final for this process."""
    if state.phase is Phase.REFUSING:
        return state
    return replace(state, phase=Phase.REFUSING, step="", code=code, reason=reason)


def drain(state: State) -> State:
    """Take no more requests because the process is to stop; says nothing about trust."""
    return replace(state, draining=True)


def aged(state: State, now: float) -> State:
    """Let time pass: READY becomes STALE when its checkpoint is older than ``max_age``."""
    if state.phase is Phase.READY and age(state, now) > state.max_age:
        return stale(state, "log_stale", f"checkpoint is older than {state.max_age:.0f} s")
    return state


def age(state: State, now: float) -> float:
    """Seconds that the newest verified checkpoint is old."""
    assert state.verified is not None
    # Neither a clock that was set back nor one that stands still makes a checkpoint younger than it was.
    return max(0.0, state.verified.age) + max(0.0, now - state.verified.at)


def admit(state: State, min_log_size: int, now: float) -> Admission:
    """Let one request in, or raise ``NotServing`` or ``LogBehind``."""
    state = aged(state, now)
    if state.phase is Phase.REFUSING:
        raise NotServing(state.code, state.reason, final=True)
    if state.phase is Phase.STARTING:
        raise NotServing("starting", f"starting: {state.step}")
    if state.draining:
        raise NotServing("draining", "stopping")
    if state.phase is Phase.STALE:
        raise NotServing(state.code, state.reason)
    assert state.verified is not None
    if state.verified.size < min_log_size:
        raise LogBehind(state.verified.size, min_log_size)
    return Admission(state.verified.size, now)
