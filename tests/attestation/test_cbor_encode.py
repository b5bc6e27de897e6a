"""What we write as CBOR is what we and others read, in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import cbor
from quotary.attestation.cbor_encode import Tagged, encode
from quotary.errors import Malformed

names = st.integers(-(1 << 64), (1 << 64) - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | names | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_is_read_back(value):
    if depth(value) <= cbor.MAX_DEPTH:
        assert cbor.decode(encode(value), 1 << 20) == value


def depth(value) -> int:
    if isinstance(value, tuple):
        return 1 + max(map(depth, value), default=0)
    return 1 + max(map(depth, value.values()), default=0) if isinstance(value, dict) else 0


# RFC 8949, appendix A.
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (256, "190100"),
        (1000000, "1a000f4240"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-18446744073709551616, "3bffffffffffffffff"),
        (-1, "20"),
        (False, "f4"),
        (None, "f6"),
        (b"\1\2\3\4", "4401020304"),
        ("ü", "62c3bc"),
        ([1, [2, 3]], "8201820203"),
        ({"b": 1, "a": 2, 10: 3}, "a30a03616102616201"),
        (Tagged(32, "x"), "d8206178"),
    ],
)
def test_the_examples_of_the_specification(value, expected):
    assert encode(value).hex() == expected


def test_the_order_of_a_mapping_does_not_matter():
    assert encode({2: 1, 1: 2, "z": 3, "aa": 4}) == encode({"aa": 4, "z": 3, 1: 2, 2: 1})


@pytest.mark.parametrize("value", [1 << 64, -(1 << 64) - 1, "\ud800", Tagged(1 << 64, 0)])
def test_what_cbor_cannot_hold_is_malformed(value):
    with pytest.raises(Malformed):
        encode(value)
