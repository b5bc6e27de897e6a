"""The example statements of another program, under names older than ours: canonical bytes, ids and signatures hold,
and none of them is a statement of this log."""

import base64
import json
from pathlib import Path

import pytest

from quotary.canonical import canonical, parse_canonical
from quotary.errors import InvalidSignature, Malformed, Unsupported
from quotary.statements.envelope import Signature, key_id, parse_spki, statement_id, verify
from quotary.statements.schema import parse_statement

NAMES = ("delegation", "independent-rebuild", "measurement-release", "revocation", "tcb-policy")


@pytest.mark.parametrize("name", NAMES)
def test_bytes_id_and_signature_are_those_of_the_other_program(vectors: Path, name: str) -> None:
    folder = vectors / "measure" / "statements"
    expected = json.loads((folder / "index.json").read_text())[name]
    payload = (folder / f"{name}.payload.jcs.json").read_bytes()
    assert len(payload) == expected["bytes"]
    assert canonical(parse_canonical(payload, 1 << 16)) == payload
    assert statement_id(payload) == expected["statement_id"]
    envelope = json.loads((folder / f"{name}.dsse.json").read_bytes())
    assert base64.b64decode(envelope["payload"]) == payload
    (found,) = envelope["signatures"]
    key = keys(folder)[found["keyid"]]
    assert expected["keyid"] == found["keyid"] == key_id(key)
    signature = Signature(found["keyid"], base64.b64decode(found["sig"]))
    verify(key, signature, payload)
    with pytest.raises(InvalidSignature):
        verify(key, signature, payload + b" ")
    with pytest.raises((Malformed, Unsupported)):
        parse_statement(payload)


def keys(folder: Path) -> dict[str, bytes]:
    """The keys that the example delegation lists."""
    document = json.loads((folder / "delegation.payload.jcs.json").read_bytes())
    listed = document["predicate"]["keys"]
    return {name: parse_spki(base64.b64decode(key["spki"])) for name, key in listed.items()}
