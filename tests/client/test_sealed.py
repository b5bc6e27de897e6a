"""The sealed channel: round trips, and every attack on the wire that we can name."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.client import frames
from quotary.client.frames import BUCKETS, DirectionKey, FrameOpener, FrameSealer, StreamTruncated
from quotary.client.sealed import (
    Head,
    PrivateKey,
    ResponseHead,
    ResponseOpener,
    UnknownKey,
    key_id,
    open_request,
    seal_request,
    sealed_key_id,
)
from quotary.errors import Malformed, QuotaryError, Rejected

NOW = 1_795_000_000
KEYSET = bytes(range(32))
BODY = b'{"messages":[{"content":"a secret question","role":"user"}]}'
KEY = PrivateKey()


def head(**changes: object) -> Head:
    values: dict[str, object] = {"at": NOW, "min_log_size": 7, "headers": {"authorization": "Bearer t"}}
    return Head.new("POST", "/v1/chat/completions", **(values | changes))  # type: ignore[arg-type]


def exchange(answer=(b"one", b"two"), receipt=b"{}", **changes):  # type: ignore[no-untyped-def]
    """One whole exchange; returns the opener of the response and the response's wire pieces."""
    wire, opener = seal_request(head(**changes), BODY, KEY.public, KEYSET)
    sealer = open_request(wire, KEY, KEYSET).respond()
    pieces = [sealer.start(ResponseHead(200, {"content-type": "text/event-stream"}))]
    pieces += [sealer.data(part) for part in answer]
    return opener, [*pieces, sealer.end(receipt)]


def read_all(opener: ResponseOpener, stream: bytes) -> bytes:
    body = opener.feed(stream)
    opener.close()
    return body


def test_a_request_arrives_whole_and_the_response_comes_back_whole() -> None:
    asked = head()
    wire, opener = seal_request(asked, BODY, KEY.public, KEYSET)
    found = open_request(wire, KEY, KEYSET)
    assert (found.head, found.body) == (asked, BODY)
    assert sealed_key_id(wire) == key_id(KEY.public)
    sealer = found.respond()
    stream = sealer.start(ResponseHead(200, {"x": "y"})) + sealer.data(b"answer " * 20_000)
    covered = sealer.frames, sealer.chain
    stream += sealer.end(b'{"v":1}')
    body = b"".join(opener.feed(stream[at : at + 1000]) for at in range(0, len(stream), 1000))
    opener.close()
    assert body == b"answer " * 20_000
    assert opener.head == ResponseHead(200, {"x": "y"})
    assert opener.receipt == b'{"v":1}'
    assert opener.chains[covered[0]] == covered[1]


def test_a_proxy_sees_neither_prompt_nor_credential_nor_path() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    for secret in (b"secret", b"Bearer", b"chat", b"POST"):
        assert secret not in wire


@given(st.binary(max_size=100_000), st.sampled_from(BUCKETS))
@settings(max_examples=30)
def test_any_body_survives_in_any_bucket(body: bytes, pad: int) -> None:
    wire, _ = seal_request(head(pad=pad), body, KEY.public, KEYSET)
    assert open_request(wire, KEY, KEYSET).body == body


def test_bodies_of_one_bucket_have_one_length_on_the_wire() -> None:
    lengths = {len(seal_request(head(), b"x" * n, KEY.public, KEYSET)[0]) for n in range(0, 232, 33)}
    assert len(lengths) == 1


@pytest.mark.parametrize("pad", BUCKETS)
def test_a_frame_is_a_whole_number_of_buckets_on_the_wire(pad: int) -> None:
    keys = DirectionKey(bytes(32), bytes(12), frames.RESPONSE)
    lengths = [0, 1, pad - 25, pad - 24, 2 * pad - 25]
    sealer = FrameSealer(keys, pad, bytes(32))
    assert [len(sealer.seal(bytes(length))) for length in lengths] == [pad, pad, pad, 2 * pad, 2 * pad]


def test_a_bucket_is_the_smallest_that_takes_the_data_in_one_frame() -> None:
    assert [frames.bucket_for(length) for length in (0, 231, 232, 295, 296, 999, 16_359)] == [
        256, 256, 320, 320, 1024, 1024, 16_384,
    ]  # fmt: skip
    assert frames.bucket_for(16_360) == 256


def test_a_request_cut_at_any_byte_is_truncated() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    for length in range(len(wire)):
        with pytest.raises(StreamTruncated):
            open_request(wire[:length], KEY, KEYSET)


def test_a_response_cut_at_any_byte_is_truncated() -> None:
    opener, pieces = exchange()
    stream = b"".join(pieces)
    for byte in stream[:-1]:
        opener.feed(bytes([byte]))
        with pytest.raises(StreamTruncated):
            opener.close()
    opener.feed(stream[-1:])
    opener.close()


def test_a_flipped_bit_anywhere_in_a_request_is_refused() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    for at in range(len(wire)):
        broken = wire[:at] + bytes([wire[at] ^ (1 << at % 8)]) + wire[at + 1 :]
        # A changed length field may also ask for bytes that never come; a changed key id is somebody else's.
        with pytest.raises((Rejected, Malformed, UnknownKey, StreamTruncated)):
            open_request(broken, KEY, KEYSET)


def test_a_flipped_bit_anywhere_in_a_response_is_refused() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    request = open_request(wire, KEY, KEYSET)
    sealer = request.respond()
    stream = sealer.start(ResponseHead(200, {})) + sealer.data(b"answer") + sealer.end()
    for at in range(len(stream)):
        broken = stream[:at] + bytes([stream[at] ^ (1 << at % 8)]) + stream[at + 1 :]
        with pytest.raises((Rejected, Malformed, StreamTruncated)):
            read_all(ResponseOpener(request.head, request.transcript, wire), broken)


def test_frames_in_another_order_are_refused() -> None:
    opener, (start, one, two, end) = exchange()
    with pytest.raises(Rejected, match="frame 1 does not open"):
        opener.feed(start + two + one + end)


def test_a_frame_left_out_or_sent_twice_is_refused() -> None:
    for wrong in ((0, 2, 3), (0, 1, 3), (0, 1, 1, 2, 3), (0, 0, 1, 2, 3)):
        opener, pieces = exchange()
        with pytest.raises((Rejected, Malformed)):
            opener.feed(b"".join(pieces[n] for n in wrong))


def test_a_frame_of_another_exchange_cannot_be_spliced_in() -> None:
    opener, mine = exchange()
    _, other = exchange()
    with pytest.raises(Rejected):
        opener.feed(mine[0] + other[1] + mine[2] + mine[3])


def test_a_whole_response_to_another_request_is_refused() -> None:
    opener, _ = exchange()
    _, other = exchange()
    with pytest.raises(Rejected):
        opener.feed(b"".join(other))


def test_a_request_body_of_another_request_cannot_be_spliced_in() -> None:
    mine, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    other, _ = seal_request(head(), b"another body entirely", KEY.public, KEYSET)
    cut = len(mine) - 256
    with pytest.raises(Rejected, match="frame 0"):
        open_request(mine[:cut] + other[cut:], KEY, KEYSET)


def test_a_request_frame_is_no_response_frame() -> None:
    secret = DirectionKey(bytes(32), bytes(12), frames.REQUEST)
    frame = FrameSealer(secret, 256, bytes(32)).seal(b"x", final=True)
    with pytest.raises(Rejected):
        FrameOpener(DirectionKey(bytes(32), bytes(12), frames.RESPONSE), bytes(32)).feed(frame)


def test_bytes_after_the_authenticated_end_are_refused() -> None:
    opener, pieces = exchange()
    with pytest.raises(Malformed, match="after the final frame"):
        opener.feed(b"".join(pieces) + b"x")
    opener, pieces = exchange()
    opener.feed(b"".join(pieces))
    with pytest.raises(Malformed, match="after the final frame"):
        opener.feed(b"x")


def test_a_stream_stays_dead_after_a_bad_frame() -> None:
    opener, (start, one, two, end) = exchange()
    with pytest.raises(Rejected):
        opener.feed(start + two)
    with pytest.raises(Malformed, match="given up"):
        opener.feed(one + two + end)


def test_another_key_does_not_open_a_request() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    other = PrivateKey()
    with pytest.raises(UnknownKey):
        open_request(wire, other, KEYSET)
    renamed = wire[:7] + key_id(other.public) + wire[15:]
    with pytest.raises(Rejected, match="sealed head"):
        open_request(renamed, other, KEYSET)


def test_a_request_sealed_under_another_keyset_does_not_open() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    with pytest.raises(Rejected, match="sealed head"):
        open_request(wire, KEY, bytes(32))


def test_a_degenerate_key_share_is_refused_like_any_other() -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    start = 17 + 1088
    with pytest.raises(Rejected, match="sealed head"):
        open_request(wire[:start] + bytes(32) + wire[start + 32 :], KEY, KEYSET)


@pytest.mark.parametrize("public", [b"", bytes(1215), b"\xff" * 1216])
def test_a_key_that_is_no_channel_key_is_malformed(public: bytes) -> None:
    with pytest.raises(Malformed, match="channel key"):
        seal_request(head(), BODY, public, KEYSET)


@pytest.mark.parametrize(
    ("at", "value"), [(0, b"\x02"), (1, b"\x00\x20"), (3, b"\x00\x02"), (5, b"\x00\x01"), (15, b"\x00\x10")]
)
def test_another_version_suite_or_head_length_is_malformed(at: int, value: bytes) -> None:
    wire, _ = seal_request(head(), BODY, KEY.public, KEYSET)
    with pytest.raises(Malformed):
        open_request(wire[:at] + value + wire[at + len(value) :], KEY, KEYSET)


def test_a_response_of_another_version_is_malformed() -> None:
    opener, pieces = exchange()
    with pytest.raises(Malformed, match="version 9"):
        opener.feed(b"\x09" + pieces[0][1:])


@pytest.mark.parametrize(
    "wrong",
    [{"path": "relative"}, {"path": "/with space"}, {"method": "PUT"}, {"pad": 100}, {"headers": {"X": "y"}}],
)
def test_a_head_outside_the_grammar_is_malformed(wrong: dict[str, object]) -> None:
    values = {"method": "POST", "path": "/v1/models", "at": NOW, "min_log_size": 0} | wrong
    made = Head.new(**values)  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        Head.parse(made.encode())


@given(st.binary(max_size=600))
def test_any_bytes_give_a_named_error(data: bytes) -> None:
    with pytest.raises(QuotaryError):
        open_request(data, KEY, KEYSET)
    with pytest.raises(QuotaryError):
        Head.parse(data)
    with pytest.raises(QuotaryError):
        ResponseHead.parse(data)


def sealed_plaintext(plaintext: bytes) -> FrameOpener:
    """An opener, already fed one frame whose sealed plaintext is exactly these bytes."""
    keys = DirectionKey(bytes(32), bytes(12), frames.REQUEST)
    aead, length = frames.AESGCM(keys.key), len(plaintext) + 16
    wire = struct.pack(">I", length) + aead.encrypt(keys.nonce(0), plaintext, keys.associated(length, 0))
    opener = FrameOpener(keys, bytes(32))
    opener.feed(wire)
    return opener


@pytest.mark.parametrize(
    "plaintext", [b"\x04" + bytes(4), b"\x01\x00\x00\x00\x05four", b"\x01\x00\x00\x00\x01x" + b"\x00\x01"]
)
def test_a_frame_layout_no_sender_makes_is_malformed(plaintext: bytes) -> None:
    with pytest.raises(Malformed):
        sealed_plaintext(plaintext)


@pytest.mark.parametrize("length", [0, 20, 2**32 - 1])
def test_a_frame_length_outside_the_limits_is_refused_before_any_buffering(length: int) -> None:
    opener = FrameOpener(DirectionKey(bytes(32), bytes(12), frames.REQUEST), bytes(32))
    with pytest.raises(Malformed, match="frame of"):
        opener.feed(struct.pack(">I", length))
