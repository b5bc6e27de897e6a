"""The strict CBOR reader: what it reads, and everything that it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import cbor
from quotary.errors import Malformed
from tests.fakes.aws import encode

SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=40)
)
KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=10)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=5).map(tuple) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


def depth(value: object) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return 1 + max(map(depth, items), default=0)


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    if depth(value) <= cbor.MAX_DEPTH:
        found = cbor.decode(encode(value), 1 << 16)
        assert found == value
        assert type(found) is type(value)


@given(st.binary(max_size=200))
def test_bytes_from_anywhere_are_read_or_malformed(data: bytes) -> None:
    try:
        cbor.decode(data, 200)
    except Malformed:
        return


@given(VALUES, st.data())
def test_a_prefix_is_never_a_document(value: object, data: st.DataObject) -> None:
    whole = encode(value)
    with pytest.raises(Malformed):
        cbor.decode(whole[: data.draw(st.integers(0, len(whole) - 1))], 1 << 16)


def test_maps_may_be_of_indefinite_length() -> None:
    assert cbor.decode(bytes.fromhex("bf616101616202ff"), 100) == {"a": 1, "b": 2}
    assert cbor.decode(bytes.fromhex("bfff"), 100) == {}
    assert cbor.decode(bytes.fromhex("a161 61bf 01 20 ff"), 100) == {"a": {1: -1}}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "early"),
        ("0000", "behind its end"),
        ("1817", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("5801", "shortest"),
        ("1c", "indefinite or reserved"),
        ("1f", "indefinite or reserved"),
        ("5f4100ff", "indefinite or reserved"),
        ("7f6161ff", "indefinite or reserved"),
        ("9f01ff", "indefinite or reserved"),
        ("bc", "indefinite or reserved"),
        ("c000", "tag 0"),
        ("d28443a10126", "tag 18"),
        ("f7", "simple"),
        ("f0", "simple"),
        ("f90000", "float"),
        ("fb0000000000000000", "float"),
        ("ff", "break"),
        ("61ff", "UTF-8"),
        ("62c328", "UTF-8"),
        ("a201010102", "twice"),
        ("bf01010102ff", "twice"),
        ("a1f501", "map key"),
        ("a1410101", "map key"),
        ("a1f601", "map key"),
        ("a18001", "map key"),
        ("bf01ff", "break"),
        ("bf0101", "early"),
        ("bf", "early"),
        ("9b7fffffffffffffff", "items"),
        ("bb7fffffffffffffff", "items"),
        ("5b7fffffffffffffff", "early"),
        ("81" * 9 + "00", "deeper"),
        ("81" * 5000, "deeper"),
        ("99" + "1000" + "00" * 4096, "more than 4096"),
    ],
)
def test_anything_else_is_malformed(data: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        cbor.decode(bytes.fromhex(data), 1 << 16)


def test_a_limit_is_kept() -> None:
    assert cbor.decode(b"\x43abc", 4) == b"abc"
    with pytest.raises(Malformed, match="at most 3"):
        cbor.decode(b"\x43abc", 3)


def test_true_is_not_one() -> None:
    assert cbor.decode(b"\xf5", 1) is True
    assert cbor.decode(b"\x01", 1) == 1
