"""Make the trie vectors: ``python -m tests.vectors.trie.make`` writes the .json files beside this one.

Roots come from the definition in ``docs/formats/trie.md`` (recursion over sorted keys), written here a second time, so
that the vectors do not merely repeat what ``quotary.tlog.trie`` does; proofs are read off that recursion.
"""

import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def sha256(data):
    return hashlib.sha256(data).digest()


def uv(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def bit(key, position):
    return key[position // 8] >> (7 - position % 8) & 1


def leaf_body(key, value):
    return uv(32) + key + uv(32) + value


def root_and_steps(pairs, key):
    """Return the root over sorted pairs, the leaf where ``key`` ends, and the steps from there to the root."""
    if len(pairs) == 1:
        return sha256(b"\x00" + leaf_body(*pairs[0])), pairs[0], []
    fork = next(
        position for position in range(256) if bit(pairs[0][0], position) != bit(pairs[-1][0], position)
    )
    sides = [[pair for pair in pairs if bit(pair[0], fork) == side] for side in (0, 1)]
    (left, *_), (right, *_) = found = [root_and_steps(side, key) for side in sides]
    _, leaf, steps = found[bit(key, fork)]
    sibling = found[1 - bit(key, fork)][0]
    return sha256(b"\x01" + uv(fork) + left + right), leaf, [*steps, (fork, sibling)]


def proof_of(pairs, key):
    if not pairs:
        return sha256(b""), b""
    root, leaf, steps = root_and_steps(sorted(pairs.items()), key)
    prefix = b"" if leaf[0] == key else leaf_body(*leaf)
    return root, prefix + b"".join(uv(fork) + sibling for fork, sibling in steps)


def digest(text):
    return sha256(text.encode())


MAPS = {
    "empty": {},
    "one pair": {digest("key 0"): digest("value 0")},
    "two pairs": {digest(f"key {n}"): digest(f"value {n}") for n in range(2)},
    "the first bit differs": {bytes(32): digest("a"), b"\x80" + bytes(31): digest("b")},
    "the last bit differs": {bytes(32): digest("a"), bytes(31) + b"\x01": digest("b")},
    "bit 128 has a varint of two bytes": {
        bytes(32): digest("a"),
        bytes(16) + b"\x80" + bytes(15): digest("b"),
    },
    "a deep chain": {(1 << n).to_bytes(32): digest(str(n)) for n in range(0, 256, 5)},
    "forty pairs": {digest(f"key {n}"): digest(f"value {n}") for n in range(40)},
}


def map_vector(name, pairs):
    shown = list(pairs)[:4] + list(pairs)[-1:]
    absent = [digest("absent 0"), digest("absent 1"), b"\xff" * 32]
    return {
        "name": name,
        "pairs": [{"key": key.hex(), "value": value.hex()} for key, value in pairs.items()],
        "root": proof_of(pairs, bytes(32))[0].hex(),
        "presence": [
            {"key": key.hex(), "value": pairs[key].hex(), "proof": proof_of(pairs, key)[1].hex()}
            for key in dict.fromkeys(shown)
        ],
        "absence": [
            {"key": key.hex(), "proof": proof_of(pairs, key)[1].hex()} for key in absent if key not in pairs
        ],
    }


def refused_vectors():
    pairs = MAPS["forty pairs"]
    key, absent = digest("key 3"), digest("absent 0")
    root, presence = proof_of(pairs, key)
    _, absence = proof_of(pairs, absent)
    empty = sha256(b"")
    first, second = presence[:33], presence[33:66]
    cases = [
        ("another value", "presence", root, key, digest("value 4"), presence, "invalid-proof"),
        ("another key", "presence", root, digest("key 4"), digest("value 3"), presence, "invalid-proof"),
        ("another root", "presence", empty, key, pairs[key], presence, "invalid-proof"),
        ("a step is missing", "presence", root, key, pairs[key], presence[33:], "invalid-proof"),
        ("the proof ends within a step", "presence", root, key, pairs[key], presence[:-1], "malformed"),
        ("a byte too many", "presence", root, key, pairs[key], presence + b"\x00", "malformed"),
        ("two steps swapped", "presence", root, key, pairs[key], second + first + presence[66:], "malformed"),
        ("a step twice", "presence", root, key, pairs[key], first + presence, "malformed"),
        (
            "a varint that is not minimal",
            "presence",
            root,
            key,
            pairs[key],
            b"\x80\x00" + bytes(32),
            "malformed",
        ),
        ("bit 256", "presence", root, key, pairs[key], b"\x80\x02" + bytes(32), "malformed"),
        (
            "a varint of three bytes",
            "presence",
            root,
            key,
            pairs[key],
            b"\xff\x81\x00" + bytes(32),
            "malformed",
        ),
        ("presence in the empty map", "presence", empty, key, pairs[key], b"", "invalid-proof"),
        (
            "absence of a present key, shown by itself",
            "absence",
            root,
            key,
            None,
            leaf_body(key, pairs[key]) + presence,
            "invalid-proof",
        ),
        ("absence shown at another place", "absence", root, digest("key 5"), None, absence, "invalid-proof"),
        ("absence from a full map by an empty proof", "absence", root, absent, None, b"", "invalid-proof"),
        ("absence under another root", "absence", empty, absent, None, absence, "invalid-proof"),
        ("a leaf of a 31-byte key", "absence", root, absent, None, b"\x1f" + absence[1:], "malformed"),
        ("a leaf cut short", "absence", root, absent, None, absence[:65], "malformed"),
        ("a leaf without its steps", "absence", root, absent, None, absence[:66], "invalid-proof"),
        ("a key of 31 bytes", "absence", root, absent[:31], None, absence, "malformed"),
        ("a value of 33 bytes", "presence", root, key, pairs[key] + b"\x00", presence, "malformed"),
    ]
    for name, kind, root, key, value, proof, error in cases:
        case = {
            "name": name,
            "kind": kind,
            "root": root.hex(),
            "key": key.hex(),
            "proof": proof.hex(),
            "error": error,
        }
        yield case if value is None else case | {"value": value.hex()}


def contents():
    """Return each file's name and text."""
    return {
        "maps.json": [map_vector(name, pairs) for name, pairs in MAPS.items()],
        "refused.json": list(refused_vectors()),
    }


def text_of(value):
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    for file, value in contents().items():
        (FOLDER / file).write_text(text_of(value))
