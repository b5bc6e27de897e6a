"""The examples on the pages of docs/formats are what the code reads, and the pages name what the code knows."""

import json
import re
from pathlib import Path

import pytest

from quotary.canonical import canonical
from quotary.statements.bundle import AbsenceBundle, Bundle
from quotary.statements.delegation import LOG_ROLES, SERVICE_ROLES, Delegation
from quotary.statements.envelope import Envelope, raw_public_key, verify
from quotary.statements.keyset import Keyset
from quotary.statements.order import ORDER_TYPES, Order, check_order
from quotary.statements.outcome import CODES
from quotary.statements.schema import KINDS, parse_statement, statement_payload
from quotary.statements.state_entry import StateEntry
from tests.fakes.authority import ORIGIN, TS, Authority, key

PAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "formats"
FENCE = re.compile(r"```json ([a-z-]+)\n(.*?)\n```", re.DOTALL)


def parse_genesis() -> Delegation:
    predicate = parse_statement(Envelope.parse(Authority().genesis()).payload).predicate
    assert isinstance(predicate, Delegation)
    return predicate


def examples(page: str) -> dict[str, str]:
    found = dict(FENCE.findall((PAGES / page).read_text(encoding="utf-8")))
    assert found
    return found


def test_the_examples_of_statements_are_statements() -> None:
    found = examples("statements.md")
    entry = found.pop("envelope").encode()
    envelope = Envelope.parse(entry)
    verify(raw_public_key(key("a")), envelope.signatures[0], envelope.payload)
    for kind, text in found.items():
        assert parse_statement(statement_payload(kind, json.loads(text))).kind == kind
    assert set(found) == {"artefact", "delegation", "rebuild", "release", "revocation", "tcb-floor"}


def test_the_other_examples_are_read() -> None:
    assert StateEntry.parse(examples("f1.md")["state"].encode()).index == 3
    for kind, text in examples("orders.md").items():
        made = Order.parse(text.encode())
        check_order(made, ORIGIN, parse_genesis(), TS)
        assert made.kind == kind
    assert set(examples("orders.md")) == set(ORDER_TYPES)
    assert Bundle.parse(examples("bundle.md")["bundle"].encode()).state.index == 4
    assert AbsenceBundle.parse(examples("bundle.md")["absence"].encode()).proof == b""
    keyset = examples("keyset.md")["keyset"].encode()
    assert Keyset.parse(keyset).encode() == keyset


@pytest.mark.parametrize("word", [*KINDS, *LOG_ROLES, *SERVICE_ROLES])
def test_every_kind_and_role_is_on_the_page(word: str) -> None:
    assert word in (PAGES / "statements.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_in_the_specification(code: str) -> None:
    assert f"`{code}`" in (PAGES / "f1.md").read_text(encoding="utf-8")


def test_canonical_examples_are_canonical() -> None:
    for page in ("f1.md", "orders.md", "bundle.md", "keyset.md"):
        for text in examples(page).values():
            assert canonical(json.loads(text)) == text.encode()
