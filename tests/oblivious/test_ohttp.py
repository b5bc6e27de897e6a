"""Oblivious HTTP against the example of RFC 9458, broken capsules, and the standard library of another maker."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from quotary.client.oblivious import key_number
from quotary.errors import Malformed, Rejected, Unsupported
from quotary.oblivious import ohttp
from quotary.oblivious.binary_http import varint
from quotary.oblivious.ohttp import (
    MAX_CHUNK,
    Answer,
    GatewayKey,
    KeyConfig,
    RequestSealer,
    parse_keys,
    seal,
    seal_chunked,
)
from tests.conftest import ROOT

# RFC 9458, appendix A.
PRIVATE = bytes.fromhex("3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a")
CONFIG = bytes.fromhex(
    "01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003"
)
EPHEMERAL = bytes.fromhex("bc51d5e930bda26589890ac7032f70ad12e4ecb37abb1b65b1256c9c48999c73")
REQUEST = bytes.fromhex("00034745540568747470730b6578616d706c652e636f6d012f")
CAPSULE = bytes.fromhex(
    "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e1268c594"
    "d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
)
NONCE = bytes.fromhex("c789e7151fcba46158ca84b04464910d")
RESPONSE = bytes.fromhex("0140c8")
ANSWER = bytes.fromhex("c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd")


def gateway():
    return GatewayKey(1, X25519PrivateKey.from_private_bytes(PRIVATE))


def listed(*configs):
    return b"".join(len(item).to_bytes(2, "big") + item for item in configs)


def finish(answer, stream):
    return answer.feed(stream) + answer.close()


def test_the_example_of_the_specification_is_sealed_byte_for_byte():
    ephemeral = X25519PrivateKey.from_private_bytes(EPHEMERAL)
    sealer = RequestSealer(gateway().config, b"message/bhttp request", ephemeral)
    assert sealer.header + sealer.context.seal(REQUEST) == CAPSULE
    assert Answer(sealer.context, sealer.header[7:]).open(ANSWER) == RESPONSE


def test_the_example_of_the_specification_is_opened_and_answered_byte_for_byte():
    request, answer = gateway().open(CAPSULE)
    assert request == REQUEST
    assert answer.seal(RESPONSE, NONCE) == ANSWER


def test_the_key_of_the_specification_is_read():
    assert parse_keys(listed(CONFIG)) == (gateway().config,)
    assert parse_keys(gateway().config.encode_list()) == (gateway().config,)


def test_the_key_on_the_page_is_read():
    page = (ROOT / "docs" / "formats" / "oblivious.md").read_text()
    data = bytes.fromhex(page.partition("```ohttp-keys\n")[2].partition("\n")[0])
    private = X25519PrivateKey.from_private_bytes(b"\1" * 32)
    public = private.public_key().public_bytes_raw()
    assert parse_keys(data) == (KeyConfig(key_number(public), public),)


def test_keys_of_other_algorithms_are_passed_over():
    other_kem = b"\x01\x00\x10" + bytes(65) + bytes.fromhex("000400010001")
    other_aead = CONFIG[:35] + bytes.fromhex("000400010003")
    assert parse_keys(listed(other_kem, other_aead, CONFIG)) == (gateway().config,)
    assert parse_keys(b"") == ()


@pytest.mark.parametrize(
    "data",
    [b"\0", listed(CONFIG)[:-1], listed(CONFIG, b"\x01\x00"), listed(CONFIG[:-1]), listed(CONFIG[:35] + b"\0\0"),
     listed(CONFIG + b"\0")],
)  # fmt: skip
def test_one_broken_key_condemns_the_list(data):
    with pytest.raises(Malformed):
        parse_keys(data)


def test_a_capsule_opens_with_its_own_answer_only():
    key = GatewayKey(7)
    (first, one), (second, _) = seal(key.config, b"one"), seal(key.config, b"two")
    assert key.open(first)[0] == b"one"
    with pytest.raises(Rejected, match="oblivious answer"):
        one.open(key.open(second)[1].seal(b"answer"))


def test_every_changed_byte_of_a_capsule_is_refused():
    for at in range(len(CAPSULE)):
        changed = bytearray(CAPSULE)
        changed[at] ^= 1
        with pytest.raises((Rejected, Unsupported)):
            gateway().open(bytes(changed))


def test_every_changed_byte_of_an_answer_is_refused():
    wire, answer = seal(gateway().config, REQUEST)
    sealed = gateway().open(wire)[1].seal(RESPONSE)
    assert answer.open(sealed) == RESPONSE
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(Rejected):
            answer.open(bytes(changed))


@pytest.mark.parametrize("length", [0, 6, 38, 54])
def test_a_capsule_that_is_too_short_is_malformed(length):
    with pytest.raises(Malformed):
        gateway().open(CAPSULE[:length])


def test_an_answer_that_is_too_short_is_malformed():
    with pytest.raises(Malformed):
        seal(gateway().config, b"")[1].open(bytes(31))


@pytest.mark.parametrize("public", [bytes(32), (1).to_bytes(32, "little")])
def test_nothing_is_sealed_to_a_degenerate_key(public):
    with pytest.raises(Malformed, match="X25519"):
        seal(KeyConfig(1, public), b"")


def test_a_degenerate_encapsulation_is_refused():
    with pytest.raises(Rejected):
        gateway().open(CAPSULE[:7] + bytes(32) + CAPSULE[39:])


@pytest.mark.parametrize("length", [0, 1, MAX_CHUNK, MAX_CHUNK + 1, 3 * MAX_CHUNK])
def test_a_request_in_chunks_arrives_whole(length):
    key, data = GatewayKey(3), bytes(range(256)) * (length // 256 + 1)
    wire, _ = seal_chunked(key.config, data[:length])
    assert key.open_chunked(wire)[0] == data[:length]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_in_chunks_arrives_however_it_is_cut(size):
    key = GatewayKey(3)
    wire, answer = seal_chunked(key.config, b"?")
    sealing = key.open_chunked(wire)[1]
    pieces = [b"first ", b"x" * (MAX_CHUNK + 5), b"", b" last"]
    stream = sealing.start() + b"".join(map(sealing.data, pieces)) + sealing.end(b" final")
    found = b"".join(answer.feed(stream[at : at + size]) for at in range(0, len(stream), size))
    assert found + answer.close() == b"".join(pieces) + b" final"


def test_an_answer_in_chunks_that_was_cut_anywhere_is_refused():
    key = GatewayKey(3)
    wire, context = seal_chunked(key.config, b"?")
    sealing = key.open_chunked(wire)[1]
    stream = sealing.start() + sealing.data(b"some") + sealing.data(b"words") + sealing.end()
    for end in range(len(stream)):
        answer = ohttp.ChunkedAnswer(context._context, context._enc)
        with pytest.raises((Malformed, Rejected)):
            finish(answer, stream[:end])


def test_chunks_that_are_dropped_repeated_or_swapped_are_refused():
    key = GatewayKey(3)
    wire, context = seal_chunked(key.config, b"?")
    sealing = key.open_chunked(wire)[1]
    start, one, two, end = sealing.start(), sealing.data(b"one"), sealing.data(b"two"), sealing.end(b"!")
    for order in ((two, end), (one, end), (two, one, end), (one, one, two, end), (one, two, two, end)):
        answer = ohttp.ChunkedAnswer(context._context, context._enc)
        with pytest.raises(Rejected):
            finish(answer, start + b"".join(order))


def test_a_request_in_chunks_without_its_final_chunk_is_refused():
    key = GatewayKey(3)
    wire, _ = seal_chunked(key.config, b"a" * (MAX_CHUNK + 1))
    one = 7 + 32 + 4 + MAX_CHUNK + 16
    for cut in (wire[:one], wire[: one + 1], wire[:-1], wire[:39] + varint(0) + wire[43:one]):
        with pytest.raises((Malformed, Rejected)):
            key.open_chunked(cut)


def test_a_chunk_of_an_answer_that_is_too_long_is_refused_before_it_is_kept():
    key = GatewayKey(3)
    wire, answer = seal_chunked(key.config, b"?")
    start = key.open_chunked(wire)[1].start()
    with pytest.raises(Malformed, match="chunk"):
        answer.feed(start + varint(1 << 30))
    answer = seal_chunked(key.config, b"?")[1]
    with pytest.raises(Malformed, match="final chunk"):
        answer.feed(start + b"\0" + bytes(MAX_CHUNK + 17))


def test_chunked_and_whole_capsules_are_not_each_other():
    key = GatewayKey(3)
    with pytest.raises((Rejected, Malformed)):
        key.open(seal_chunked(key.config, b"")[0])
    with pytest.raises((Rejected, Malformed)):
        key.open_chunked(seal(key.config, bytes(40))[0])


@given(st.binary(max_size=120))
def test_bytes_are_a_capsule_or_an_error_of_ours(data):
    for opened in (gateway().open, gateway().open_chunked):
        with pytest.raises((Malformed, Rejected, Unsupported)):
            opened(data)


@given(st.binary(max_size=120))
def test_bytes_are_a_list_of_keys_or_malformed(data):
    try:
        found = parse_keys(data)
    except Malformed:
        return
    assert all(len(item.public) == 32 for item in found)
