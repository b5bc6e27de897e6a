"""Proof files: real ones, our own, and every way to break them; and proofs inside other projects' bundles."""

import base64
import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidProof, InvalidSignature, Malformed, Refused
from quotary.tlog import merkle
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.note import ECDSA, ED25519, Note, VerifierKey
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from tests.tlog import keys

NOW = 1_795_000_000
ENTRIES = [b"entry %d" % index for index in range(13)]
HASHES = [merkle.leaf_hash(entry) for entry in ENTRIES]
SIGNERS = [keys.log_key(), keys.log_key_ml_dsa(), keys.witness_key("w.example.org")]
NOTE = sign_checkpoint(Checkpoint(keys.ORIGIN, 13, merkle.root_of(HASHES)), SIGNERS, NOW)
POLICY = TlogPolicy.parse(
    f"log {SIGNERS[0].verifier.vkey()}\nlog {SIGNERS[1].verifier.vkey()}\n"
    f"witness w {SIGNERS[2].verifier.vkey()}\nquorum w\n"
)


def proof(index, **changes):
    return dataclasses.replace(TlogProof(index, merkle.path_in(HASHES, index), NOTE), **changes)


def test_each_entry_is_proven_at_its_index_only():
    for index, entry in enumerate(ENTRIES):
        found = proof(index).verify(entry, POLICY)
        assert (found.checkpoint.size, found.quorum_time) == (13, NOW)
        for other in range(14):
            if other != index:
                with pytest.raises((InvalidProof, Malformed)):
                    dataclasses.replace(proof(index), index=other).verify(entry, POLICY)
        with pytest.raises(InvalidProof):
            proof(index).verify(entry + b"!", POLICY)


def test_a_proof_reads_back_with_and_without_extra():
    for extra in (None, b"", b"anything"):
        data = bytes(proof(3, extra=extra))
        assert TlogProof.parse(data) == proof(3, extra=extra)
        assert bytes(TlogProof.parse(data)) == data
        assert TlogProof.parse(data).verify(ENTRIES[3], POLICY).checkpoint.size == 13


def test_each_change_to_a_path_is_an_invalid_proof():
    path = merkle.path_in(HASHES, 5)
    for position in range(len(path)):
        for bit in range(256):
            changed = bytearray(path[position])
            changed[bit // 8] ^= 1 << bit % 8
            wrong = (*path[:position], bytes(changed), *path[position + 1 :])
            with pytest.raises(InvalidProof):
                merkle.verify_inclusion(5, 13, HASHES[5], wrong, merkle.root_of(HASHES))
    for wrong in ((), path[1:], path[:-1], (*path, path[0]), path[::-1]):
        with pytest.raises(InvalidProof):
            proof(5, path=wrong).verify(ENTRIES[5], POLICY)


def test_each_truncation_of_a_proof_is_refused():
    data = bytes(proof(5, extra=b"e"))
    for length in range(len(data)):
        with pytest.raises((Malformed, InvalidProof, InvalidSignature, Refused)):
            TlogProof.parse(data[:length]).verify(ENTRIES[5], POLICY)


HEAD = "c2sp.org/tlog-proof@v1\n"
HASH = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        HEAD + "\n",
        HEAD + "index 3",
        HEAD + "index 3\n",
        HEAD + f"index 3\n{HASH}\n",
        HEAD + "\nindex 3\n\n",
        HEAD + "extra AA==\n\nnote",
        HEAD + "extra\nindex 3\n\nnote",
        HEAD + "extra A===\nindex 3\n\nnote",
        HEAD + "extra AA==\nextra AA==\nindex 3\n\nnote",
        HEAD + "index 3\nextra AA==\n\nnote",
        HEAD + "index\n\nnote",
        HEAD + "index \n\nnote",
        HEAD + "index 03\n\nnote",
        HEAD + "index +3\n\nnote",
        HEAD + "index -3\n\nnote",
        HEAD + "index 3 \n\nnote",
        HEAD + "index  3\n\nnote",
        HEAD + "index 3_0\n\nnote",
        HEAD + f"index {2**63 - 1}\n\nnote",
        HEAD + "index 99999999999999999999\n\nnote",
        HEAD + "index \u0663\n\nnote",
        HEAD + "index 3\n" + HASH[:-1] + "\n\nnote",
        HEAD + "index 3\n" + HASH.replace("=", "") + "\n\nnote",
        HEAD + "index 3\n " + HASH + "\n\nnote",
        HEAD + "index 3\nAAAA\n\nnote",
        HEAD + "index 3\n" + (HASH + "\n") * 64 + "\nnote",
        HEAD.replace("v1", "v2") + "index 3\n\nnote",
        HEAD.replace("\n", "\r\n") + "index 3\r\n\r\nnote",
        " " + HEAD + "index 3\n\nnote",
        HEAD + "index 3\n\n" + "x" * 2_000_000,
    ],
)
def test_what_is_no_proof_is_malformed(text):
    with pytest.raises(Malformed):
        TlogProof.parse(text.encode())


def test_a_path_of_63_hashes_is_read():
    assert len(TlogProof.parse((HEAD + "index 3\n" + (HASH + "\n") * 63 + "\nnote").encode()).path) == 63


@given(
    st.integers(0, 2**63 - 2),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.binary(max_size=99),
    st.one_of(st.none(), st.binary(max_size=99)),
)
def test_any_proof_reads_back(index, path, note, extra):
    made = TlogProof(index, tuple(path), note, extra)
    assert TlogProof.parse(bytes(made)) == made


@given(st.binary(max_size=200))
def test_a_proof_parser_raises_nothing_but_malformed(data):
    for candidate in (data, HEAD.encode() + data, HEAD.encode() + b"index 1\n" + data + b"\n\n"):
        try:
            found = TlogProof.parse(candidate)
        except Malformed:
            continue
        assert bytes(found) == candidate


def test_a_production_proof_with_eleven_lines_verifies(vectors):
    folder = vectors / "tlog" / "tlog-proof" / "markovian-7271"
    vkeys = [line for line in (folder / "keys.txt").read_text().splitlines() if not line.startswith("#")]
    witnesses = [f"witness w{n} {vkey}" for n, vkey in enumerate(vkeys[1:])]
    names = " ".join(f"w{n}" for n in range(len(witnesses)))
    policy = TlogPolicy.parse(
        "\n".join([f"log {vkeys[0]}", *witnesses, f"group all-seven all {names}", "quorum all-seven"])
    )
    data, entry = (folder / "proof_7271.tlog-proof").read_bytes(), (folder / "leaf_7271.raw").read_bytes()
    found = TlogProof.parse(data)
    assert bytes(found) == data
    assert len(Note.parse(found.checkpoint_note).signatures) == 11
    verified = found.verify(entry, policy)
    assert (found.index, verified.checkpoint.size, verified.quorum_time) == (7271, 7341, 1786689302)
    assert sorted(verified.cosignatures.values()) == [(1786689302,)] * 3 + [(1786689303,)] * 3 + [
        (1786689304,)
    ]
    assert sorted(witness.key.alg for witness in policy.witnesses.values()) == [4, 4, 4, 4, 4, 6, 6]
    with pytest.raises(InvalidProof):
        found.verify(entry + b"\n", policy)
    for index in (7270, 7272, 0, 7340):
        with pytest.raises(InvalidProof):
            dataclasses.replace(found, index=index).verify(entry, policy)


def test_a_peer_verifiers_proof_and_policy_hold_and_break(vectors):
    folder = vectors / "tlog" / "tlog-proof" / "oak-3of4"
    data, entry = (folder / "test.tlog-proof").read_bytes(), (folder / "entry.bin").read_bytes()
    text = (folder / "policy.txt").read_text()
    policy, found = TlogPolicy.parse(text), TlogProof.parse(data)
    assert found.verify(entry, policy).quorum_time == 1771605822
    assert found.verify(entry, policy).cosignatures == {"w1": (1771605822,)}
    assert (found.index, found.verify(entry, policy).checkpoint.size) == (3, 4)
    with pytest.raises(InvalidProof):
        found.verify(b"test entry datb", policy)
    lines = data.decode().splitlines(keepends=True)
    without_witness = "".join(line for line in lines if not line.startswith("\u2014 test-witness")).encode()
    with pytest.raises(Refused, match="witness quorum"):
        TlogProof.parse(without_witness).verify(entry, policy)
    without_log = "".join(line for line in lines if not line.startswith("\u2014 fake.log")).encode()
    with pytest.raises(Refused, match="log keys"):
        TlogProof.parse(without_log).verify(entry, policy)
    for old, new in (
        ("CPv9", "CPv8"),
        ("\n4\n", "\n5\n"),
        ("fake.log.origin/log\n4", "fake.log.origin/lag\n4"),
    ):
        with pytest.raises((InvalidSignature, Refused)):
            TlogProof.parse(data.decode().replace(old, new).encode()).verify(entry, policy)
    renamed = text.replace("test-witness", "best-witness")
    with pytest.raises(Malformed, match="key id"):
        TlogPolicy.parse(renamed)


def rekor(vectors, name):
    """Return a bundle's log entry: index, size, root, entry bytes, path and note."""
    folder = vectors / "tlog" / "sigstore-bundles" / name
    entry = json.loads((folder / "bundle.sigstore.json").read_text())["verificationMaterial"]["tlogEntries"][
        0
    ]
    inclusion = entry["inclusionProof"]
    return (
        int(inclusion["logIndex"]),
        int(inclusion["treeSize"]),
        base64.b64decode(inclusion["rootHash"]),
        base64.b64decode(entry["canonicalizedBody"]),
        [base64.b64decode(node) for node in inclusion["hashes"]],
        inclusion["checkpoint"]["envelope"].encode(),
    )


def rekor2_key(vectors):
    trusted = json.loads((vectors / "tlog/sigstore-bundles/rekor2-happy-path/trusted_root.json").read_text())
    log = next(log for log in trusted["tlogs"] if log["publicKey"]["keyDetails"] == "PKIX_ED25519")
    raw = load_der_public_key(base64.b64decode(log["publicKey"]["rawBytes"])).public_bytes_raw()
    return VerifierKey.of("log2025-alpha1.rekor.sigstage.dev", ED25519, raw)


@pytest.mark.parametrize(
    "name", ["rekor2-happy-path", "rekor2-checkpoint-cosigned", "rekor2-checkpoint-multiple-cosigs"]
)
def test_proofs_of_a_tiled_production_log_verify(vectors, name):
    index, size, root, entry, path, note = rekor(vectors, name)
    parsed, key = Note.parse(note), rekor2_key(vectors)
    assert parsed.verify([key]) == {key: ()}
    assert Checkpoint.parse(parsed.text) == Checkpoint(key.name, size, root)
    policy = TlogPolicy.parse(f"log {key.vkey()}\nquorum none\n")
    TlogProof(index, tuple(path), note).verify(entry, policy)


def test_a_proof_of_an_older_production_log_verifies_with_its_own_index(vectors):
    index, size, root, entry, path, note = rekor(vectors, "happy-path-v0.3")
    merkle.verify_inclusion(index, size, merkle.leaf_hash(entry), path, root)
    parsed = Note.parse(note)
    assert Checkpoint.parse(parsed.text).root == root
    listed = (vectors / "tlog" / "witness-network" / "omniwitness-logs.yaml").read_text().split()
    key = VerifierKey.parse(next(word for word in listed if word.startswith("rekor.sigstore.dev+c0d23d6a")))
    assert key.alg == ECDSA
    assert parsed.verify([key]) == {key: ()}


def test_bundles_that_must_fail_fail(vectors):
    listed = (vectors / "tlog" / "witness-network" / "omniwitness-logs.yaml").read_text().split()
    old_key = VerifierKey.parse(
        next(word for word in listed if word.startswith("rekor.sigstore.dev+c0d23d6a"))
    )

    index, size, root, entry, path, note = rekor(vectors, "checkpoint-bad-keyhint_fail")
    merkle.verify_inclusion(index, size, merkle.leaf_hash(entry), path, root)
    with pytest.raises(InvalidSignature, match="no known key"):
        Note.parse(note).verify([old_key])
    with pytest.raises(Malformed):
        Checkpoint.parse(Note.parse(note).text)

    index, size, root, entry, path, note = rekor(vectors, "checkpoint-wrong-roothash_fail")
    checkpoint = Checkpoint.parse(Note.parse(note).text)
    with pytest.raises(InvalidProof, match="need"):
        merkle.verify_inclusion(index, checkpoint.size, merkle.leaf_hash(entry), path, checkpoint.root)

    index, size, root, entry, path, note = rekor(vectors, "inclusion-proof-corrupted-hash_fail")
    with pytest.raises(InvalidProof, match="does not lead"):
        merkle.verify_inclusion(index, size, merkle.leaf_hash(entry), path, root)

    *_, note = rekor(vectors, "rekor2-checkpoint-missing-log-signature_fail")
    with pytest.raises(Malformed):
        Note.parse(note)

    index, size, root, entry, path, note = rekor(vectors, "rekor2-checkpoint-no-matching-signature_fail")
    merkle.verify_inclusion(index, size, merkle.leaf_hash(entry), path, root)
    with pytest.raises(InvalidSignature, match="no known key"):
        Note.parse(note).verify([rekor2_key(vectors)])
