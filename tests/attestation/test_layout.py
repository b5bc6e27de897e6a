"""Tables read what they write, and a table that is not sound says where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import tdx
from quotary.attestation.layout import Field, Layout, fields
from quotary.errors import Malformed


@given(st.binary(min_size=648, max_size=648))
def test_a_body_reads_back_as_it_was_written(data):
    assert tdx.TD_BODY_15.write(tdx.TD_BODY_15.read(data)) == data


def test_a_structure_of_another_length_is_malformed():
    for length in (0, 583, 585):
        with pytest.raises(Malformed):
            tdx.TD_BODY_10.read(bytes(length))


def test_writing_needs_every_field_in_its_length_and_no_other():
    table = Layout("pair", 4, fields(("a", 0, 2), ("reserved", 2, 1), ("b", 3, 1)))
    assert table.write({"a": b"xy", "b": b"z"}) == b"xy\0z"
    for values in ({"a": b"xy"}, {"a": b"xy", "b": b"z", "reserved": b"\0"}, {"a": b"x", "b": b"z"}):
        with pytest.raises(Malformed):
            table.write(values)
    with pytest.raises(Malformed):
        table.read(b"xy\1z")


def test_gaps_and_overlaps_are_named():
    gap = Layout("gap", 4, (Field("a", 0, 2), Field("b", 3, 1)))
    overlap = Layout("overlap", 4, (Field("a", 0, 3), Field("b", 2, 2)))
    short = Layout("short", 4, (Field("a", 0, 3),))
    assert gap.gaps_and_overlaps() == ("gap.b begins at 3, expected 2",)
    assert overlap.gaps_and_overlaps() == ("overlap.b begins at 2, expected 3",)
    assert short.gaps_and_overlaps() == ("short.end begins at 4, expected 3",)
