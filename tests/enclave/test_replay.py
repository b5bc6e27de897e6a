"""The replay set: a sealed head is admitted once, within the window, and memory is bounded."""

import pytest

from enclave.replay import WINDOW_SECONDS, OutsideWindow, Replayed, ReplaySet
from quotary.errors import Refused

NOW = 1_795_000_000


def test_a_head_is_admitted_once() -> None:
    seen = ReplaySet()
    seen.admit(b"enc", NOW, NOW)
    for later in (0, 1, WINDOW_SECONDS):
        with pytest.raises(Replayed):
            seen.admit(b"enc", NOW, NOW + later)


def test_every_moment_in_which_a_head_would_be_in_time_remembers_it() -> None:
    for shift in range(0, WINDOW_SECONDS, 7):
        at = NOW + shift
        seen = ReplaySet()
        seen.admit(b"enc", at, at - WINDOW_SECONDS)
        seen.admit(b"another", at + WINDOW_SECONDS, at + WINDOW_SECONDS)
        with pytest.raises(Replayed):
            seen.admit(b"enc", at, at + WINDOW_SECONDS)


@pytest.mark.parametrize("off", [-WINDOW_SECONDS - 1, WINDOW_SECONDS + 1])
def test_a_head_outside_the_window_is_refused(off: int) -> None:
    with pytest.raises(OutsideWindow):
        ReplaySet().admit(b"enc", NOW + off, NOW)


def test_a_full_set_refuses_instead_of_forgetting_and_time_empties_it() -> None:
    seen = ReplaySet(capacity=3)
    for number in range(3):
        seen.admit(bytes([number]), NOW, NOW)
    with pytest.raises(Refused, match="full replay set"):
        seen.admit(b"more", NOW, NOW)
    later = NOW + 3 * WINDOW_SECONDS
    seen.admit(b"more", later, later)
