"""Both readers and writers of JSON give one answer: the same documents are accepted, with the same meaning."""

import subprocess
import sys

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from quotary import canonical as form
from quotary import codec
from quotary.errors import Malformed
from tests.conftest import ROOT
from tests.test_canonical import documents

COMPILED = codec.compiled()
assert COMPILED is not None, "the suite runs with msgspec"
CODECS = {"standard": codec.standard(), "compiled": COMPILED}
# What texts of JSON are made of, and what they are spoiled with.
PIECES = [
    *"{}[]:,", '"', '"a"', '"b":', '"a":1', "true", "false", "null", "0", "-", "1", "12", "9007199254740991", "9" * 40,
    "1.0", "1e3", "E", "+", ".", "NaN", "Infinity", "\\", "\\u0041", "\\ud83d", "\\ude00", "\\n", "\n", " ", "\x7f", "\x85",
    "é", "\u2028", "\U0001f600", "\ufeff", "\x00", "tru",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode())


def accepted(found: codec.Codec, data: bytes) -> object:
    """Read as ``parse_canonical`` does, with a codec of our choice; ``None``, which no document is, if refused."""
    try:
        value = found.read(data)
        form._check(value)
        if found.write(value) != data:
            return None
        form._check_strings(value, form._CONTROL)
    except (ValueError, RecursionError, Malformed):
        return None
    return value


@pytest.mark.parametrize("name", CODECS)
@given(value=documents)
def test_a_document_is_written_as_rfc8785_says_and_reads_back(name: str, value: object) -> None:
    data = CODECS[name].write(value)
    assert data == rfc8785.dumps(value)  # type: ignore[arg-type]  # Hypothesis gives objects
    assert CODECS[name].read(data) == value


@given(texts)
@example(b'{"a":1,"b":2,"a":1}')
@example(b'{"a":1.0}')
@example(b"-0")
@example(b'"\xed\xa0\x80"')
@example(b'"\\ud83d\\ude00"')
@example(b"[" * 17 + b"]" * 17)
@example(b"[" * 100_000)
@example(b"9" * 5_000)
def test_no_text_is_accepted_by_one_alone(data: bytes) -> None:
    one, other = (accepted(found, data) for found in CODECS.values())
    assert (type(one), one) == (type(other), other)


@given(documents, st.data())
def test_no_spoiled_document_is_accepted_by_one_alone(value: object, draw: st.DataObject) -> None:
    data = bytearray(rfc8785.dumps(value))  # type: ignore[arg-type]
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.sampled_from(PIECES)).encode()
    one, other = (accepted(found, bytes(data)) for found in CODECS.values())
    assert (type(one), one) == (type(other), other)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"{}x", b"[1,]", b"01", b"NaN", b"Infinity", b"-Infinity", b'"\n"', b'"\\x"', b"\xff", b'"\xc0\xaf"', b"\xef\xbb\xbf1",
        b'"\xed\xa0\x80"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000,
    ],
)  # fmt: skip
def test_what_is_not_json_raises_what_the_reader_promises(name: str, data: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        CODECS[name].read(data)


@pytest.mark.parametrize("name", CODECS)
def test_a_surrogate_is_not_written(name: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        CODECS[name].write({"a": "\ud800"})


def test_the_compiled_one_is_taken_where_it_is_installed() -> None:
    assert type(codec.CODEC.write) is not type(codec.standard().write)


def test_documents_vectors_and_signatures_are_the_same_without_the_compiled_libraries() -> None:
    """In a process that can import neither, as in the enclave."""
    files = [
        f"tests/{name}.py" for name in ("test_canonical", "statements/test_f1_vectors", "tlog/test_note")
    ]
    code = f"""
import sys
sys.modules["msgspec"] = sys.modules["nacl"] = None
import pytest
from quotary import codec, ed25519
assert ed25519.libsodium() is None
assert codec.compiled() is None
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:randomly", *{files!r}]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stdout
