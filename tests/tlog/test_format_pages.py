"""The examples of ``docs/formats/tlog.md`` and the log vectors: what a reader would copy is what the library reads."""

import pytest

from quotary.errors import InvalidSignature, Refused
from quotary.tlog import merkle, tiles
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Note, VerifierKey
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from tests.conftest import ROOT
from tests.vectors.tlog import make

PAGE = (ROOT / "docs" / "formats" / "tlog.md").read_text()


def block(language):
    """Return the one example of this kind."""
    _, text = PAGE.split(f"```{language}\n")
    return text.split("```")[0]


def read(name):
    return (make.FOLDER / name).read_bytes()


def test_the_script_makes_these_files():
    for name, data in make.reproducible().items():
        assert read(name) == data


def test_the_page_shows_the_vectors():
    assert block("tlog-proof").encode() == read("example.tlog-proof")
    assert block("policy").encode() == read("example.policy")
    assert block("checkpoint").encode() == TlogProof.parse(read("example.tlog-proof")).checkpoint_note
    assert VerifierKey.parse(block("vkey").strip()) == make.LOG.verifier


def test_the_examples_paths_are_paths():
    for path in block("paths").split():
        assert str(tiles.parse_tile_path(path)) == path


def test_the_examples_checkpoint_is_signed_by_the_examples_key():
    note = Note.parse(block("checkpoint").encode())
    key = VerifierKey.parse(block("vkey").strip())
    assert note.verify([key]) == {key: ()}
    assert Checkpoint.parse(note.text) == make.checkpoint()


def test_the_examples_proof_holds_under_the_examples_policy():
    found = TlogProof.parse(block("tlog-proof").encode())
    verified = found.verify(b'{"example":3}', TlogPolicy.parse(block("policy")))
    assert (found.index, verified.checkpoint, verified.quorum_time) == (3, make.checkpoint(), make.TIME)


def test_both_signature_algorithms_hold_together():
    entries = tiles.decode_entry_bundle(read("example.entries"), width=7)
    assert merkle.root_of([merkle.leaf_hash(entry) for entry in entries]) == make.checkpoint().root
    policy, found = TlogPolicy.parse(read("dual.policy").decode()), TlogProof.parse(read("dual.tlog-proof"))
    verified = found.verify(entries[found.index], policy)
    assert verified.quorum_time == make.TIME
    assert verified.cosignatures == {"a": (make.TIME,), "auditor": (make.TIME + 1,)}
    with pytest.raises(Refused, match="witness quorum"):
        found.verify(entries[found.index], TlogPolicy.parse(read("example.policy").decode()))
    with pytest.raises(Refused, match="log keys"):
        TlogProof.parse(read("example.tlog-proof")).verify(entries[found.index], policy)


def test_a_policy_that_lists_one_log_key_accepts_a_note_with_two():
    lines = read("dual.policy").decode().splitlines(keepends=True)
    found = TlogProof.parse(read("dual.tlog-proof"))
    logs = [line for line in lines if line.startswith("log ")]
    assert len(logs) == 2
    for log in logs:
        policy = TlogPolicy.parse("".join(line for line in lines if line != log))
        assert found.verify(make.ENTRIES[3], policy).checkpoint == make.checkpoint()


def test_a_changed_example_is_refused():
    changed = TlogProof.parse(block("tlog-proof").replace("\n7\n", "\n8\n").encode())
    with pytest.raises(InvalidSignature, match="does not hold"):
        changed.verify(b'{"example":3}', TlogPolicy.parse(block("policy")))
