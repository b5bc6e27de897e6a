"""The few values of DER that certificate extensions hold: one form each, and nothing that is like it."""

import pytest

from quotary.attestation import der
from quotary.errors import Malformed
from tests.fakes import vendor

NAME = b"\x06\x01\x2a"


def named(name: bytes = NAME, value: bytes = b"\x02\x01\x07", outer: int = 0x30) -> bytes:
    return bytes([outer, len(name + value)]) + name + value


def test_items_fill_the_bytes_exactly() -> None:
    long = b"\x04\x81\x80" + bytes(128)
    longer = b"\x04\x82\x01\x00" + bytes(256)
    assert der.items(b"\x05\x00" + long + longer) == [(5, b""), (4, bytes(128)), (4, bytes(256))]
    assert der.items(b"") == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x05", "no tag and length"),
        (b"\x1f\x01\x00", "no tag and length"),
        (b"\x3f\x01\x00", "no tag and length"),
        (b"\x04\x80\x00\x00", "shortest form"),
        (b"\x04\x81\x7f" + bytes(127), "shortest form"),
        (b"\x04\x82\x00\x80" + bytes(128), "shortest form"),
        (b"\x04\x82\x00\xff" + bytes(255), "shortest form"),
        (b"\x04\x83\x01\x00\x00" + bytes(65536), "shortest form"),
        (b"\x04\x02\x00", "shorter than it says"),
        (b"\x04\x81\x80" + bytes(127), "shorter than it says"),
    ],
)
def test_another_form_is_malformed(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        der.items(data)


def test_an_object_identifier_is_in_its_shortest_form() -> None:
    for odd in (b"", b"\x80\x2a", b"\x2a\x80\x01", b"\x2a\x81"):
        with pytest.raises(Malformed, match="shortest form"):
            der.members(named(vendor.tlv(der.OID, odd)))
    assert der.members(named(vendor.tlv(der.OID, b"\x2a\x81\x80\x01")))


def test_only_so_many_items_stand_in_a_row() -> None:
    assert len(der.items(b"\x05\x00" * der.MAX_ITEMS)) == der.MAX_ITEMS
    with pytest.raises(Malformed, match="more than 64 items"):
        der.items(b"\x05\x00" * (der.MAX_ITEMS + 1))


def test_members_are_different_named_values() -> None:
    other = named(b"\x06\x01\x2b")
    assert der.members(named() + other) == {b"\x2a": (2, b"\7"), b"\x2b": (2, b"\7")}
    for odd in (
        named() + named(),
        named(b"\x04\x01\x2a"),
        named(value=b""),
        named(value=b"\x05\x00\x05\x00"),
        named(outer=0x31),
    ):
        with pytest.raises(Malformed, match="different named values"):
            der.members(odd)


def test_an_integer_has_its_tag_and_is_in_its_range() -> None:
    assert der.integer((2, b"\x7f"), 127) == 127
    assert der.integer((10, b"\x00"), 0) == 0
    for odd in ((2, b"\xff"), (2, b"\x00\x80"), (4, b"\x01")):
        with pytest.raises(Malformed, match="integer from 0 to 127"):
            der.integer(odd, 127)
    assert der.integer((2, b"\x00\x80"), 128) == 128
    for odd in ((2, b""), (2, b"\x00\x7f"), (2, b"\x00\x00"), (10, b"\x00\x00\x80")):
        with pytest.raises(Malformed, match="shortest form"):
            der.integer(odd, 128)


def test_octets_have_their_tag_and_length() -> None:
    assert der.octets((4, b"ab"), 2) == b"ab"
    for odd in ((4, b"abc"), (4, b"a"), (12, b"ab")):
        with pytest.raises(Malformed, match="octet string of 2 bytes"):
            der.octets(odd, 2)
