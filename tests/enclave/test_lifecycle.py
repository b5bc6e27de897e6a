"""The life of an enclave: only a verified bundle opens it, and everything else only closes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
