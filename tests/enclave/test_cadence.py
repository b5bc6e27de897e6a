"""What somebody who watches a sealed stream with a cadence sees: counted on a clock that the test turns."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from builder.model import MadeModel
from enclave.answer import LAST_EVENT, Reply
from enclave.beat import Beat
from enclave.channel import SealedBody
from enclave.chat import Sampling
from enclave.job import Choice, Job, Output, Piece
from enclave.transformer import TransformerModel
from quotary.client.policy import StreamRules
from quotary.client.receipt import Receipt
from quotary.client.sealed import Head, PrivateKey, open_request, seal_request
from tests.enclave.api_site import Site, body, build, check_receipt, events

RULES = StreamRules(interval_ms=50, frames=32)
KEY, KEYSET = PrivateKey(), bytes(32)
Script = list[tuple[int, bytes]]

# When a model makes which text (ms): three answers that nobody should be able to tell apart, and a long one.
SHORT: Script = [(10, b"No."), (15, b" Never.")]
STEADY: Script = [(at, b" token") for at in range(40, 1200, 30)]
HESITANT: Script = [(3, b"Well"), (900, b" it" * 50), (905, b" depends")]
LONG: Script = [(at, b" token") for at in range(0, 2000, 50)]


class Hand:
    """A clock that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def elapsed(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


def made(script: Script, hand: Hand, beat: Beat | None) -> Iterator[bytes]:
    """The events of an answer: each when its text is made, or all at each beat."""
    rest = list(script)
    while rest:
        due = rest[0][0] / 1000 if beat is None else hand.now + beat.left()
        hand.now = max(hand.now, due)
        come = [text for at, text in rest if at / 1000 <= hand.now + 1e-9]
        rest = rest[len(come) :]
        yield b"".join(come)
    yield LAST_EVENT


@dataclass(frozen=True, slots=True)
class Watched:
    trace: tuple[tuple[int, int], ...]
    text: bytes


def watch(script: Script, rules: StreamRules | None, pad: int = 256) -> Watched:
    """Answer under a script: when (ms) which length went out, and what the client read."""
    hand = Hand()
    beat = None if rules is None else Beat(rules, hand.elapsed, hand.wait)
    head = Head.new("POST", "/v1/chat/completions", at=0, min_log_size=0, pad=pad)
    wire, opener = seal_request(head, b"{}", KEY.public, KEYSET)
    reply = Reply(200, {}, made(script, hand, beat), lambda channel, cut: None, beat=beat)
    trace, text = [], b""
    for frame in SealedBody(open_request(wire, KEY, KEYSET), reply):
        trace.append((round(hand.now * 1000), len(frame)))
        text += opener.feed(frame)
    opener.close()
    return Watched(tuple(trace), text)


@pytest.mark.parametrize("pad", [256, 1024])
def test_c15_answers_of_any_rhythm_are_one_sequence_of_frames(pad: int) -> None:
    seen = [watch(script, RULES, pad) for script in (SHORT, STEADY, HESITANT)]
    assert len({found.trace for found in seen}) == 1
    head, *frames, end = seen[0].trace
    assert head == (0, 33 + pad)
    assert frames == [(50 * number, pad) for number in range(1, 31)]
    assert end[0] == 50 * 31
    for script, found in zip((SHORT, STEADY, HESITANT), seen, strict=True):
        assert found.text == b"".join(text for _, text in script) + LAST_EVENT


def test_without_a_cadence_the_same_answers_are_told_apart() -> None:
    assert len({watch(script, None).trace for script in (SHORT, STEADY, HESITANT)}) == 3


def test_a_longer_answer_is_seen_to_be_longer_by_whole_multiples_only() -> None:
    assert [len(watch(script, RULES).trace) for script in (SHORT, LONG, LONG * 2)] == [32, 64, 64]


def test_what_does_not_fit_into_a_frame_goes_with_the_next_ones() -> None:
    found = watch([(5, b"x" * 1000)], RULES)
    assert found.trace == watch(SHORT, RULES).trace
    assert found.text == b"x" * 1000 + LAST_EVENT


def test_who_comes_late_sends_no_burst() -> None:
    hand = Hand()
    beat = Beat(RULES, hand.elapsed, hand.wait)
    hand.now = 0.230
    assert beat.left() == 0
    beat.wait()
    assert hand.now == 0.230
    beat.wait()
    assert hand.now == pytest.approx(0.250)


def test_pieces_between_two_beats_are_one_piece_and_an_empty_one_where_there_were_none() -> None:
    job = Job((1,), Sampling(0, 0, 9, 0, ()))
    pieces = job.merged(lambda: 0.0)
    job.put(Piece("a", (Choice(1, -0.5),)))
    job.put(Piece("b", (Choice(2, -0.25),)))
    assert next(pieces) == Piece("ab", (Choice(1, -0.5), Choice(2, -0.25)))
    assert next(pieces) == Piece("")
    job.put(Piece("c"))
    job.put(Output("stop", (1, 2, 3)))
    assert list(pieces) == [Piece("c")]
    assert job.output.ids == (1, 2, 3)


@pytest.fixture
def paced(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    made = build(model, stream=StreamRules(interval_ms=5, frames=16))
    made.enclave.start(lambda digest: loaded)
    yield made
    made.enclave.close()


def lengths(stream: bytes) -> list[int]:
    found, rest = [], stream[33:]
    while rest:
        found.append(4 + int.from_bytes(rest[:4], "big"))
        rest = rest[found[-1] :]
    return found


def text_of(answer: bytes) -> str:
    chunks = [json.loads(event) for event in events(answer)[:-1]]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_an_enclave_answers_in_time_and_its_receipt_is_about_all_frames(paced: Site) -> None:
    whole = json.loads(paced.ask(body())[1])["choices"][0]["message"]["content"]
    asked = body(stream=True)
    wire, opener = paced.seal(asked)
    stream = paced.post(wire).data
    answer = opener.feed(stream)
    opener.close()
    found = lengths(stream)
    assert set(found[:-1]) == {256}
    assert found[-1] == 2304
    assert len(found) % 16 == 0
    assert text_of(answer) == whole
    receipt = check_receipt(paced, opener, asked, answer)
    assert receipt.served.complete


def test_an_answer_that_is_not_streamed_or_in_clear_has_no_cadence(
    model: MadeModel,
    loaded: TransformerModel,
) -> None:
    site = build(model, plaintext=True, stream=StreamRules(interval_ms=1000, frames=4096))
    site.enclave.start(lambda digest: loaded)
    opener, _ = site.ask(body())
    assert opener.receipt is not None
    reply = site.http.post("/v1/chat/completions", data=body(stream=True))
    assert reply.data.endswith(LAST_EVENT)
    site.enclave.close()


def test_a_client_that_leaves_before_the_end_has_a_receipt_that_says_so(paced: Site) -> None:
    wire, opener = paced.seal(body(stream=True))
    reply = paced.http.post(
        "/v1/sealed", data=wire, content_type="application/quotary-sealed", buffered=False
    )
    first = next(iter(reply.response))
    reply.close()
    opener.feed(first)
    assert opener.head is not None
    kept = paced.enclave.book.find(opener.head.headers["x-receipt-id"])
    assert kept is not None
    assert not Receipt.parse(kept).served.complete


def test_a_revocation_midway_is_an_error_and_no_last_event(paced: Site) -> None:
    wire, opener = paced.seal(body(stream=True, max_tokens=400, temperature=2, seed=1))
    reply = paced.http.post(
        "/v1/sealed", data=wire, content_type="application/quotary-sealed", buffered=False
    )
    pieces = iter(reply.response)
    answer = opener.feed(next(pieces))
    paced.enclave.refuse("measurement_revoked", "revoked")
    answer += b"".join(map(opener.feed, pieces))
    opener.close()
    assert json.loads(events(answer)[-1])["error"]["code"] == "measurement_revoked"
    assert opener.receipt is not None
    assert not Receipt.parse(opener.receipt).served.complete
    assert len(opener.chains) % 16 == 1  # the chain starts before the first frame
