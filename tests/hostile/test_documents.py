"""Bar A44: the same verdict on every document of ``documents.py``, in Python, in node and in Chromium."""

import base64
import random
from collections import Counter

import pytest

from quotary.canonical import parse_canonical
from quotary.errors import Malformed, Unsupported
from quotary.statements.envelope import MAX_ENTRY
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note, VerifierKey
from quotary.tlog.proof import TlogProof
from registry.admission import parse_entry
from registry.errors import TooLarge
from tests.conftest import ROOT
from tests.fakes.browser import chromium_says
from tests.fakes.node import node_says
from tests.hostile.documents import BAD, GOOD, UNKNOWN, Document, documents

CASES = documents()
ODD = b'\x00\n\r "\\{}[]0-+.,:=/\x7f\x80\xc2\xa0\xff'


def text(data: bytes) -> str:
    """Checkpoints and keys are read from text that somebody else has decoded."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("not UTF-8") from error


READERS = {
    "json": lambda data: parse_canonical(data, MAX_ENTRY),
    "entry": parse_entry,
    "note": Note.parse,
    "checkpoint": lambda data: Checkpoint.parse(text(data)),
    "proof": lambda data: Note.parse(TlogProof.parse(data).checkpoint_note),
    "vkey": lambda data: VerifierKey.parse(text(data)),
}


def verdict(case: Document) -> str:
    try:
        READERS[case.kind](case.data)
    except (Malformed, TooLarge):
        return BAD
    except Unsupported:
        return UNKNOWN
    return GOOD


def asked(cases: list[Document]) -> list[dict[str, str]]:
    return [{"kind": case.kind, "data": base64.b64encode(case.data).decode()} for case in cases]


def node_answers(cases: list[Document]) -> list[str]:
    found: list[str] = node_says("tests/hostile/verdicts.mjs", asked(cases), "run")
    return found


def changed(count: int) -> list[Document]:
    """Good documents with one byte replaced, removed or doubled, always the same ones."""
    source = random.Random(44)
    good = [case for case in CASES if case.verdict == GOOD and len(case.data) < 5000]
    found = []
    for number in range(count):
        case = source.choice(good)
        at = source.randrange(len(case.data))
        byte = source.choice(case.data[:1] + bytes([source.randrange(256)]) + ODD)
        piece = source.choice((bytes([byte]), b"", case.data[at : at + 1] * 2))
        data = case.data[:at] + piece + case.data[at + 1 :]
        found.append(Document(case.kind, f"change {number} at {at} of {case.name}", data, ""))
    return found


def differences(found: list[str]) -> list[str]:
    assert len(found) == len(CASES)
    return [
        f"{case.kind}: {case.name}: {said}, wanted {case.verdict}"
        for case, said in zip(CASES, found, strict=True)
        if said != case.verdict
    ]


def test_a44_the_corpus_has_more_than_three_hundred_documents_of_every_kind() -> None:
    kinds = Counter((case.kind, case.verdict == GOOD) for case in CASES)
    assert len(CASES) > 300
    assert (
        {kind for kind, good in kinds if good} == {kind for kind, good in kinds if not good} == set(READERS)
    )


def test_a44_python_gives_each_document_its_verdict() -> None:
    assert differences([verdict(case) for case in CASES]) == []


def test_a44_the_browsers_code_gives_each_document_the_same_verdict() -> None:
    assert differences(node_answers(CASES)) == []


@pytest.mark.parametrize(
    "count", [3000, pytest.param(100_000, marks=pytest.mark.soak)], ids=["a few", "a hundred thousand"]
)
def test_a44_changed_bytes_get_the_same_verdict_from_both(count: int) -> None:
    cases = changed(count)
    said = [(case, verdict(case), found) for case, found in zip(cases, node_answers(cases), strict=True)]
    assert [(case.kind, case.name, case.data) for case, ours, theirs in said if ours != theirs] == []
    assert {ours for _, ours, _ in said} >= {GOOD, BAD}


@pytest.mark.browser
def test_a44_chromium_gives_each_document_the_same_verdict() -> None:
    assert differences(chromium_says(ROOT / "tests/hostile/verdicts.mjs", "verdicts", asked(CASES))) == []
