"""A few hundred changed inputs for every parser, the same ones each time; ``make fuzz`` goes on for longer."""

import contextlib
import importlib
import sys
import tracemalloc
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.conftest import ROOT
from tests.fakes.machine import hardware
from tests.soak.fullest import LARGEST, MOST_BYTES, MOST_SECONDS, fullest, seconds
from tests.soak.fullest import feed as feed_full
from tests.soak.fuzz import Broken, Parser, feed, fuzz, parsers


def _recursing(data: bytes) -> None:
    raise IndexError("list index out of range")


@pytest.mark.filterwarnings("ignore")
def test_changed_bytes_bring_out_nothing_but_a_parsers_own_errors(tmp_path: Path) -> None:
    found = parsers(hardware(tmp_path), ROOT.parent / "shared" / "vectors")
    assert fuzz(found, seed=7, rounds=200) == 200 * len(found)


def test_an_error_of_another_kind_is_reported() -> None:
    with pytest.raises(Broken, match="IndexError"):
        feed("broken", Parser(_recursing, (b"x",)), b"x")


def test_a_parser_that_takes_too_much_memory_is_reported() -> None:
    with pytest.raises(Broken, match="memory"):
        feed("greedy", Parser(lambda _: bytes(65 << 20), (b"x",)), b"x", traced=True)


def parsers_of_evidence() -> set[CodeType]:
    """The code of everything in the package that is called parse, or begins so."""
    found = set()
    for path in (ROOT / "quotary" / "attestation").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        owners = [module, *(value for value in vars(module).values() if isinstance(value, type))]
        for owner in owners:
            for said, value in vars(owner).items():
                function = getattr(value, "__func__", value)
                if said.startswith("parse") and isinstance(function, FunctionType):
                    found |= (
                        {function.__code__}
                        if function.__module__.startswith("quotary.attestation")
                        else set()
                    )
    return found


@pytest.mark.filterwarnings("ignore")
def test_no_parser_of_evidence_is_left_out(tmp_path: Path) -> None:
    found = parsers(hardware(tmp_path), None)
    entered: set[CodeType] = set()
    sys.setprofile(lambda frame, event, _: entered.add(frame.f_code) if event == "call" else None)
    try:
        for parser in found.values():
            for seed in parser.seeds:
                with contextlib.suppress(*parser.may):
                    parser.read(seed)
    finally:
        sys.setprofile(None)
    assert len(parsers_of_evidence()) > 30
    left = parsers_of_evidence() - entered
    assert {code.co_qualname for code in left} == set()


FULLEST = fullest()


@pytest.mark.parametrize("name", FULLEST)
def test_the_fullest_input_takes_bounded_memory(name: str) -> None:
    read, data = FULLEST[name]
    assert len(data) <= LARGEST
    tracemalloc.start()
    feed_full(read, data)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most <= MOST_BYTES


@pytest.mark.soak
@pytest.mark.parametrize("name", FULLEST)
def test_the_fullest_input_takes_twenty_milliseconds_of_the_processor(name: str) -> None:
    assert seconds(*FULLEST[name]) <= MOST_SECONDS
