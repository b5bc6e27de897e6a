"""Make the log vectors: ``python -m tests.vectors.tlog.make`` writes the files beside this one.

Keys come from constants in ``tests/tlog/keys.py``; they are for tests only. ML-DSA-44 signatures are randomised, so the
``dual`` files get other bytes each time, the ``example`` files do not.
"""

from pathlib import Path

from quotary.tlog import merkle
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.proof import TlogProof
from quotary.tlog.tiles import encode_entry_bundle
from tests.tlog import keys

FOLDER = Path(__file__).resolve().parent
TIME = 1_795_000_000
INDEX = 3
ENTRIES = [b'{"example":%d}' % index for index in range(7)]
LOG, LOG_ML_DSA = keys.log_key(), keys.log_key_ml_dsa()
WITNESS_A = keys.witness_key("witness.example.com/a")
WITNESS_B = keys.witness_key("witness.example.net/b")
AUDITOR = keys.witness_key("auditor.example.net")
AUDITOR_ML_DSA = keys.witness_key_ml_dsa("auditor.example.net")


def checkpoint():
    return Checkpoint(
        keys.ORIGIN, len(ENTRIES), merkle.root_of([merkle.leaf_hash(entry) for entry in ENTRIES])
    )


def policy(logs, auditor):
    return "\n".join(
        [
            "# Keys of this example are for tests.",
            *(f"log {key.verifier.vkey()} https://log.example.org/measurements/" for key in logs),
            "",
            f"witness a {WITNESS_A.verifier.vkey()}",
            f"witness b {WITNESS_B.verifier.vkey()}",
            f"witness auditor {auditor.verifier.vkey()}",
            "",
            "group witnesses any a b",
            "group accepted all witnesses auditor",
            "quorum accepted",
            "",
        ]
    ).encode()


def proof(logs, auditor):
    path = merkle.path_in([merkle.leaf_hash(entry) for entry in ENTRIES], INDEX)
    note = sign_checkpoint(checkpoint(), [*logs, WITNESS_A], TIME)
    note += auditor.line(str(checkpoint()), TIME + 1).encode()
    return bytes(TlogProof(INDEX, path, note))


def reproducible():
    """Return the files that are the same each time."""
    return {
        "example.policy": policy([LOG], AUDITOR),
        "example.tlog-proof": proof([LOG], AUDITOR),
        "example.entries": encode_entry_bundle(ENTRIES),
        "dual.policy": policy([LOG, LOG_ML_DSA], AUDITOR_ML_DSA),
    }


if __name__ == "__main__":
    for file, data in {**reproducible(), "dual.tlog-proof": proof([LOG, LOG_ML_DSA], AUDITOR_ML_DSA)}.items():
        (FOLDER / file).write_bytes(data)
