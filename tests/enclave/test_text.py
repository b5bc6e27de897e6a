"""Text that was sent is never taken back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclave.text import TextAssembler


def assemble(data: bytes, stop: tuple[str, ...]) -> tuple[str, TextAssembler]:
    """One token a byte, the way a byte-level tokenizer would at its worst."""
    text = TextAssembler(lambda ids: bytes(ids).decode("utf-8", "replace"), stop)
    sent = ""
    for byte in data:
        sent += text.feed(byte)
        if text.stopped:
            break
    return sent + text.finish(), text


@given(st.text(max_size=40))
def test_pieces_add_up_to_the_text(answer: str) -> None:
    assert assemble(answer.encode(), ())[0] == answer


@given(st.text("abé", max_size=30), st.lists(st.text("abé", min_size=1, max_size=3), max_size=3))
def test_the_answer_ends_before_the_first_stop_string(answer: str, stop: list[str]) -> None:
    sent, text = assemble(answer.encode(), tuple(stop))
    places = [answer.find(s) for s in stop if s in answer]
    assert text.stopped == bool(places)
    assert not any(s in sent for s in stop)
    assert answer.startswith(sent)
    if not places:
        assert sent == answer


@pytest.mark.parametrize(("answer", "sent"), [("one END two", "one "), ("EN", "EN"), ("ENEND", "EN")])
def test_half_a_stop_string_waits_for_its_other_half(answer: str, sent: str) -> None:
    assert assemble(answer.encode(), ("END",))[0] == sent
