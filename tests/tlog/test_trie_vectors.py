"""The trie's own vectors: reproduced byte for byte, and made again to the same files."""

import json

import pytest

from quotary.errors import InvalidProof, Malformed
from quotary.tlog import trie
from tests.conftest import ROOT
from tests.vectors.trie import make

ERRORS = {"malformed": Malformed, "invalid-proof": InvalidProof}
MAPS = json.loads((make.FOLDER / "maps.json").read_text())
REFUSED = json.loads((make.FOLDER / "refused.json").read_text())


def unhex(case, name):
    return bytes.fromhex(case[name])


def test_the_script_makes_these_files():
    for name, value in make.contents().items():
        assert (make.FOLDER / name).read_text() == make.text_of(value)


@pytest.mark.parametrize("case", MAPS, ids=lambda case: case["name"])
def test_roots_and_proofs_are_reproduced(case):
    store, root = trie.MemoryStore(), trie.EMPTY
    for pair in case["pairs"]:
        root = trie.insert(store, root, unhex(pair, "key"), unhex(pair, "value"))
    assert root == unhex(case, "root")
    for proof in case["presence"]:
        assert trie.prove(store, root, unhex(proof, "key")) == unhex(proof, "proof")
        trie.verify_presence(root, unhex(proof, "key"), unhex(proof, "value"), unhex(proof, "proof"))
    for proof in case["absence"]:
        assert trie.prove(store, root, unhex(proof, "key")) == unhex(proof, "proof")
        trie.verify_absence(root, unhex(proof, "key"), unhex(proof, "proof"))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_each_refusal_has_its_reason(case):
    root, key, proof = (unhex(case, name) for name in ("root", "key", "proof"))

    def check():
        if case["kind"] == "presence":
            trie.verify_presence(root, key, unhex(case, "value"), proof)
        else:
            trie.verify_absence(root, key, proof)

    with pytest.raises(ERRORS[case["error"]]) as caught:
        check()
    assert type(caught.value) is ERRORS[case["error"]]


def test_the_example_of_the_format_page_holds():
    page = (ROOT / "docs" / "formats" / "trie.md").read_text()
    block = page.split("```json\n")[1].split("```")[0]
    case = json.loads(block)
    test_roots_and_proofs_are_reproduced(case)
    assert case == next(found for found in MAPS if found["name"] == case["name"])
