"""The life of an enclave: only a verified bundle opens it, and everything else only closes it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from enclave import lifecycle
from enclave.lifecycle import LogBehind, NotServing, Phase, State, Verified

MAX_AGE = 600.0


def ready(size: int = 10, at: float = 100.0) -> State:
    return lifecycle.verified(lifecycle.starting(MAX_AGE), Verified(size, 5.0, at), at)


def test_nothing_is_admitted_while_starting() -> None:
    state = lifecycle.step(lifecycle.starting(MAX_AGE), "weights")
    with pytest.raises(NotServing, match="starting: weights"):
        lifecycle.admit(state, 0, 0.0)


def test_a_verified_bundle_makes_it_ready_and_admission_states_the_size() -> None:
    assert lifecycle.admit(ready(), 10, 101.0).size == 10


def test_a_client_that_has_seen_a_larger_log_is_refused() -> None:
    with pytest.raises(LogBehind):
        lifecycle.admit(ready(), 11, 101.0)


def test_an_old_checkpoint_admits_nobody_even_if_nobody_watches() -> None:
    state = ready()
    assert lifecycle.admit(state, 0, 100 + MAX_AGE - 5.0)
    with pytest.raises(NotServing) as caught:
        lifecycle.admit(state, 0, 100 + MAX_AGE - 4.0)
    assert caught.value.code == "log_stale"
    assert not caught.value.final


def test_a_bundle_that_is_already_too_old_does_not_make_it_ready() -> None:
    state = lifecycle.verified(lifecycle.starting(MAX_AGE), Verified(10, MAX_AGE + 1, 100.0), 100.0)
    assert state.phase is Phase.STALE


def test_stale_recovers_by_a_newly_verified_bundle() -> None:
    state = lifecycle.stale(ready(), "log_stale", "unreachable")
    with pytest.raises(NotServing, match="unreachable"):
        lifecycle.admit(state, 0, 101.0)
    assert lifecycle.verified(state, Verified(11, 0.0, 130.0), 130.0).phase is Phase.READY


def test_a_smaller_log_never_replaces_a_larger_one() -> None:
    state = lifecycle.verified(ready(size=10), Verified(9, 0.0, 130.0), 130.0)
    assert state.phase is Phase.STALE
    assert state.verified is not None
    assert state.verified.size == 10


def test_draining_admits_nobody() -> None:
    with pytest.raises(NotServing, match="stopping"):
        lifecycle.admit(lifecycle.drain(ready()), 0, 101.0)


STEPS = st.lists(
    st.one_of(
        st.builds(
            lambda n: lambda s: lifecycle.verified(s, Verified(n, 0.0, 200.0), 200.0), st.integers(0, 20)
        ),
        st.just(lambda s: lifecycle.stale(s, "log_stale", "x")),
        st.just(lifecycle.drain),
        st.just(lambda s: lifecycle.aged(s, 10_000.0)),
        st.just(lambda s: lifecycle.refuse(s, "other", "y")),
    )
)


@given(STEPS)
def test_nothing_leaves_refusing(steps: list) -> None:  # type: ignore[type-arg]
    state = lifecycle.refuse(ready(), "measurement_revoked", "revoked")
    for step in steps:
        state = step(state)
    assert (state.phase, state.code) == (Phase.REFUSING, "measurement_revoked")
    with pytest.raises(NotServing) as caught:
        lifecycle.admit(state, 0, 200.0)
    assert caught.value.final


def test_a_start_that_fails_is_final() -> None:
    state = lifecycle.refuse(lifecycle.starting(MAX_AGE), "boot_refused", "not in the log")
    assert lifecycle.verified(state, Verified(10, 0.0, 1.0), 1.0).phase is Phase.REFUSING


def test_a_start_goes_stale_only_by_becoming_ready_first() -> None:
    state = lifecycle.starting(MAX_AGE)
    assert lifecycle.stale(state, "log_stale", "x") == state


def test_a_step_says_how_far_it_is_and_nothing_after_the_start_does() -> None:
    state = lifecycle.step(lifecycle.starting(MAX_AGE), "model", 5, 20)
    assert (state.step, state.done, state.of) == ("model", 5, 20)
    opened = lifecycle.verified(state, Verified(10, 0.0, 1.0), 1.0)
    assert (opened.step, opened.of) == ("", 0)
    assert lifecycle.step(opened, "model", 5, 20) == opened


def test_a_checkpoint_from_the_future_is_not_young_for_longer() -> None:
    state = lifecycle.verified(lifecycle.starting(MAX_AGE), Verified(10, -500.0, 100.0), 100.0)
    with pytest.raises(NotServing):
        lifecycle.admit(state, 0, 100 + MAX_AGE + 1)


CODES = ("log_stale", "measurement_suspended", "gpu_lost")
ENDS = ("measurement_revoked", "tcb_refused", "log_ended", "gpu_refused")


class Life(RuleBasedStateMachine):
    """Everything that can happen to an enclave, in any order, beside what a client may conclude from it."""

    def __init__(self) -> None:
        super().__init__()
        self.state = lifecycle.starting(MAX_AGE)
        self.now = 1000.0
        self.end = ""
        self.drained = False
        self.largest = 0
        # When the checkpoint that is believed was made, by the monotonic clock; none while there is none.
        self.made_at: float | None = None
        self.closed = True

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, MAX_AGE / 2, MAX_AGE + 1]))
    def time_passes(self, seconds: float) -> None:
        """By the monotonic clock: a host that stops the machine gives 0, and none can give less."""
        self.now += seconds

    @rule(name=st.sampled_from(["evidence", "model"]), done=st.integers(0, 9))
    def start_goes_on(self, name: str, done: int) -> None:
        self.state = lifecycle.step(self.state, name, done, 9)

    @rule(
        size=st.integers(1, 30),
        age=st.sampled_from([-1000.0, 0.0, 10.0, MAX_AGE, MAX_AGE + 1]),
        took=st.sampled_from([0.0, 2.0, MAX_AGE + 1]),
    )
    def bundle_is_verified(self, size: int, age: float, took: float) -> None:
        """age: by clocks that may have jumped; took: from asking for it to the end of the check."""
        at = self.now
        self.now += took
        self.state = lifecycle.verified(self.state, Verified(size, age, at), self.now)
        if not self.end:
            if size >= self.largest:
                self.largest, self.made_at, self.closed = size, at - max(0.0, age), False
            else:
                self.closed = self.closed or self.made_at is not None

    @rule(code=st.sampled_from(CODES))
    def something_is_not_known(self, code: str) -> None:
        self.state = lifecycle.stale(self.state, code, "x")
        self.closed = True

    @rule(code=st.sampled_from(ENDS))
    def it_ends(self, code: str) -> None:
        self.state = lifecycle.refuse(self.state, code, "x")
        self.end = self.end or code

    @rule()
    def it_drains(self) -> None:
        self.state, self.drained = lifecycle.drain(self.state), True

    @rule()
    def somebody_looks(self) -> None:
        self.state = lifecycle.aged(self.state, self.now)

    @invariant()
    def it_admits_where_a_fresh_verified_bundle_lets_in_and_nowhere_else(self) -> None:
        if not (self.end or self.drained or self.closed or self._old()):
            assert lifecycle.admit(self.state, 0, self.now).size == self.largest
            return
        with pytest.raises(NotServing) as caught:
            lifecycle.admit(self.state, 0, self.now)
        assert caught.value.final == bool(self.end)
        assert self.end in ("", caught.value.code)

    @invariant()
    def it_knows_no_larger_log_than_it_has_verified(self) -> None:
        if self.state.phase is Phase.READY:
            with pytest.raises(NotServing if self.drained or self._old() else LogBehind):
                lifecycle.admit(self.state, self.largest + 1, self.now)

    def _old(self) -> bool:
        return self.made_at is None or self.now - self.made_at > MAX_AGE


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestLife = Life.TestCase
