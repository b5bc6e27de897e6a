"""Rows I5 and I6: CBOR, DER and PEM with two readings are malformed at every door, in little time and memory."""

import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import cbor, der
from quotary.attestation.certificates import RevocationList, parse_certificate, parse_chain
from quotary.attestation.dcap import PCK_EXTENSION, PCKExtension
from quotary.attestation.nitro import MAX_DOCUMENT, NitroDocument
from quotary.attestation.ocsp import Answer
from quotary.errors import Malformed
from tests.fakes import aws, ocsp, vendor
from tests.fakes.vendor import Recipe
from tests.hostile.encodings import cbor_cases, der_cases, replaced, tlv

LIMIT = 1 << 16
MOST_SECONDS = 0.02
MOST_BYTES = 4 << 20
# Where they stand in a certificate of version 3, and in the answer of an OCSP responder.
SERIAL, KEY, BASIC = (0, 0, 1), (0, 0, 6), (0, 1, 0, 1)

Reader = Callable[[bytes], object]


def accepted(read: Reader, cases: Iterator[tuple[str, bytes]]) -> list[str]:
    """The cases that a reader takes; anything but ``Malformed`` is an error."""
    found = []
    for name, data in cases:
        try:
            read(data)
        except Malformed:
            continue
        found.append(name)
    return found


def test_i5_cbor_outside_our_profile_is_malformed() -> None:
    cases = list(cbor_cases())
    assert len(cases) > 300
    assert accepted(lambda data: cbor.decode(data, LIMIT), iter(cases)) == []


def test_i5_a_nitro_document_holds_no_cbor_outside_our_profile() -> None:
    machine = aws.hypervisor()
    good = machine.payload()
    assert NitroDocument.parse(machine.document()).module_id == good["module_id"]

    def spoiled(data: bytes) -> bytes:
        """The one value of ``nonce``, which is the payload's last, is what a hostile host wrote."""
        whole = aws.encode(good)
        assert whole.endswith(aws.encode("nonce") + aws.encode(None))
        return machine.document(whole[:-1] + data)

    small = [(name, data) for name, data in cbor_cases() if len(data) < MAX_DOCUMENT - 8000]
    assert accepted(lambda data: NitroDocument.parse(spoiled(data)), iter(small)) == []
    assert accepted(NitroDocument.parse, iter(small)) == []


def test_i5_what_is_read_is_written_again_as_it_was() -> None:
    """Two spellings of one document would be two digests of it: 20,000 changed bytes find none."""
    source = random.Random(5)
    whole = aws.encode(aws.hypervisor().payload())
    small = aws.encode({"a": [1, -1, b"\0" * 30, "text", None, True], 2: {"b": 300, "c": [70000, {}]}})
    read = 0
    for number in range(20_000):
        data = bytearray(small if number % 20 else whole)
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            value = cbor.decode(bytes(data), LIMIT)
        except Malformed:
            continue
        read += 1
        # Only a map may say that it ends where a break stands, because AWS writes them so.
        assert aws.encode(value) == bytes(data) or b"\xbf" in data
    assert read > 1000


def certificate() -> bytes:
    return vendor.certificates(Recipe())["pck"].public_bytes(Encoding.DER)


def revocations() -> bytes:
    made = vendor.certificates(Recipe())
    return vendor.revocation_list(Recipe(revoked={"ca": "ca"}), "root", made, ("ca",))


@pytest.mark.parametrize(
    ("read", "make"),
    [(parse_certificate, certificate), (RevocationList.parse, revocations)],
    ids=["certificate", "revocation list"],
)
def test_i6_ber_in_the_place_of_der_is_malformed(read: Reader, make: Callable[[], bytes]) -> None:
    good = make()
    read(good)
    cases = list(der_cases(good))
    assert len(cases) > 100
    assert accepted(read, iter(cases)) == []


def test_i6_ber_in_an_ocsp_answer_is_malformed() -> None:
    root = aws.issue("root")
    whole = ocsp.answer(aws.issue("device", root, ca=False), root, by=ocsp.responder(root))
    ((_, inner),) = der.items(whole)
    _, (_, wrapped) = der.items(inner)
    ((_, parts),) = der.items(wrapped)
    basic = der.items(parts)[1][1]
    assert replaced(whole, BASIC, tlv(der.OCTETS, basic)) == whole
    within = ((name, replaced(whole, BASIC, tlv(der.OCTETS, data))) for name, data in der_cases(basic))
    assert accepted(Answer.parse, chain(der_cases(whole), within)) == []


def test_i6_what_a_vendor_adds_to_a_certificate_is_der_too() -> None:
    read = parse_certificate(certificate())

    def values(extension: bytes) -> PCKExtension:
        return PCKExtension.parse(replace(read, extensions={PCK_EXTENSION: extension}))

    good = vendor.sgx_extension({})
    taken = []
    for name, data in der_cases(good):
        try:
            assert values(data) == values(good)
        except Malformed:
            continue
        taken.append(name)
    # Nobody reads the kind of machine (part 5) and the copy of the TCB's components (number 18).
    assert [name for name in taken if not name.endswith((" (0, 4, 1)", " (0, 1, 1, 17, 1)"))] == []


@pytest.mark.parametrize("piece", [b"\x02\x01\x01", b"\x30\x00", b"\x06\x01\x2a", b"\x04\x00"])
@pytest.mark.parametrize(
    "read", [parse_certificate, RevocationList.parse, Answer.parse, der.items, der.members]
)
def test_i6_64_kib_of_small_or_deep_elements_take_no_time(read: Reader, piece: bytes) -> None:
    nested = piece
    while len(nested) < LIMIT - 8:
        nested = tlv(0x30, nested)
    for data in (
        tlv(0x30, piece * (65_000 // len(piece))),
        piece * (65_000 // len(piece)),
        nested,
        b"\x30\x80" * 32_000,
    ):
        assert_bounded(read, data)


def test_i5_64_kib_of_small_or_deep_items_take_no_time() -> None:
    for data in (
        b"\x81" * LIMIT,
        b"\xbf\x00" * 32_000,
        b"\x99\xff\xff" + bytes(LIMIT),
        b"\xbf" + b"\x18\x18\x00" * 20_000,
    ):
        assert_bounded(lambda data: cbor.decode(data, 2 * LIMIT), data)


def test_i6_a_serial_number_and_an_rsa_key_have_a_greatest_length() -> None:
    good = certificate()
    assert parse_certificate(replaced(good, SERIAL, tlv(2, b"\x7f" * 20))).serial.bit_length() == 159
    with pytest.raises(Malformed, match="serial number has 161 bits"):
        parse_certificate(replaced(good, SERIAL, tlv(2, b"\1" + bytes(20))))
    assert parse_certificate(replaced(good, KEY, rsa_key(4096)))
    with pytest.raises(Malformed, match="RSA key has 4104 bits"):
        parse_certificate(replaced(good, KEY, rsa_key(4104)))


@pytest.mark.parametrize(
    "text",
    [
        b"x",
        b"# a comment\n",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        b"\xef\xbb\xbf",
        b"=\n",
    ],
)
def test_i6_a_chain_in_pem_holds_nothing_but_certificates(text: bytes) -> None:
    pem = vendor.text(vendor.certificates(Recipe())["root"]).encode()
    first, rest = pem.split(b"\n", 1)
    parse_chain(pem.replace(b"\n", b"\r\n") + b"\n \n" + pem, 2)
    for odd in (text + pem + pem, pem + text + pem, pem + pem + text, pem + first + b"\n" + text + rest):
        with pytest.raises(Malformed):
            parse_chain(odd, 2)


def assert_bounded(read: Reader, data: bytes) -> None:
    """20 ms of processor time, the best of five, and 4 MiB are enough to refuse or read it."""
    took = []
    for _ in range(5):
        started = time.process_time()
        accepted(read, iter([("", data)]))
        took.append(time.process_time() - started)
        if took[-1] <= MOST_SECONDS:
            break
    tracemalloc.start()
    accepted(read, iter([("", data)]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(took) <= MOST_SECONDS
    assert peak <= MOST_BYTES


def rsa_key(bits: int) -> bytes:
    algorithm = tlv(0x30, bytes.fromhex("06092a864886f70d010101 0500"))
    numbers = tlv(2, b"\0" + b"\xff" * (bits // 8)) + tlv(2, b"\1\0\1")
    return tlv(0x30, algorithm + tlv(3, b"\0" + tlv(0x30, numbers)))
