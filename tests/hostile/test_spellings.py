"""Row I9: one meaning has one spelling, so that it has one digest; every other spelling of it is refused."""

import json
import random
import re
from collections.abc import Callable

import pytest

from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed

CASES = 100_000
LIMIT = 1 << 16
LETTERS = 'abcXYZ019 .:/-_"\\<&\u00a0\u00e9\u0301\u2028\u202e\ufeff\uffff\U0001f600'
NAMES = "abcXYZ019._:/-"


def document(source: random.Random, depth: int) -> object:
    """Some document, of any shape; deeper ones are rarer."""
    kind = source.randrange(7 if depth < 4 else 4)
    if kind == 0:
        return source.choice((True, False))
    if kind == 1:
        return source.choice((0, -1, 1, source.randint(-(2**53) + 1, 2**53 - 1)))
    if kind in (2, 3):
        return "".join(source.choices(LETTERS, k=source.randrange(6)))
    if kind == 4:
        return [document(source, depth + 1) for _ in range(source.randrange(4))]
    names = ["".join(source.choices(NAMES, k=source.randint(1, 4))) for _ in range(source.randrange(4))]
    return {name: document(source, depth + 1) for name in names}


def reordered(value: object) -> object:
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in sorted(value, reverse=True)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


# Each gives a text that a usual JSON reader takes for the same document (or, with a float, for an equal one).
SPELLINGS: dict[str, Callable[[object, bytes], str]] = {
    "spaces": lambda value, _: json.dumps(value, ensure_ascii=False, sort_keys=True),
    "lines": lambda value, _: json.dumps(value, ensure_ascii=False, sort_keys=True, indent=0),
    "escapes": lambda value, _: json.dumps(value, sort_keys=True, separators=(",", ":")),
    "order": lambda value, _: json.dumps(reordered(value), ensure_ascii=False, separators=(",", ":")),
    "a slash escaped": lambda _, data: data.decode().replace("/", "\\/"),
    "a letter escaped": lambda _, data: data.decode().replace("a", "\\u0061"),
    "a float": lambda _, data: re.sub(r"(?<=[\[:,])(-?[0-9]+)(?=[\],}])", r"\1.0", data.decode()),
    "an exponent": lambda _, data: re.sub(r"(?<=[\[:,])(-?[0-9]+)(?=[\],}])", r"\1e0", data.decode()),
    "minus zero": lambda _, data: re.sub(r"(?<=[\[:,])0(?=[\],}])", "-0", data.decode()),
    "a member twice": lambda _, data: re.sub(r'\{("[^"]+":)', r"{\g<1>0,\g<1>", data.decode()),
    "a line feed behind": lambda _, data: data.decode() + "\n",
}


def test_i9_a_hundred_thousand_documents_have_one_spelling_each() -> None:
    source = random.Random(9)
    refused = dict.fromkeys(SPELLINGS, 0)
    names = list(SPELLINGS)
    for number in range(CASES):
        value = [document(source, 0), {"a": document(source, 1)}]
        data = canonical(value)
        assert canonical(parse_canonical(data, LIMIT)) == data
        name = names[number % len(names)]
        other = SPELLINGS[name](value, data).encode()
        if other != data and _same(other, value):
            refused[name] += 1
            with pytest.raises(Malformed):
                parse_canonical(other, LIMIT)
    assert all(count > 100 for count in refused.values()), refused


def _same(text: bytes, value: object) -> bool:
    """Whether a reader that is not ours takes the text for this document: a float is equal to its integer."""
    try:
        return bool(json.loads(text) == value)
    except ValueError:
        return False
