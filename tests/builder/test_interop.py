"""What we write, read by the libraries of those who made the formats, where they are installed."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from builder.eif import write_eif
from builder.provenance import provenance
from quotary.attestation.measure import nitro
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.profiles import nitro_profile
from quotary.statements.envelope import Envelope
from tests.builder.test_statements import image
from tests.fakes.authority import Authority


def test_a_releases_statement_is_one_for_in_totos_own_library() -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    payload = Envelope.parse(Authority().release("a")).payload
    read = json_format.Parse(payload, statement.Statement([], "", {}).pb)
    statement.Statement.copy_from_pb(read).validate()
    assert json.loads(json_format.MessageToJson(read)) == json.loads(payload)


def test_provenance_is_one_for_slsas_own_messages(tmp_path: Path) -> None:
    json_format = pytest.importorskip("google.protobuf.json_format")
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    slsa = pytest.importorskip("in_toto_attestation.predicates.provenance.v1.provenance_pb2")
    written = json.loads(
        provenance(image(tmp_path / "image"), "https://example.org/src", "https://example.org/ci")
    )
    read = json_format.ParseDict(written, statement.Statement([], "", {}).pb)
    statement.Statement.copy_from_pb(read).validate()
    # Unknown members are errors here, and reading back gives what was written.
    predicate = json_format.ParseDict(written["predicate"], slsa.Provenance())
    assert json_format.MessageToDict(predicate) == written["predicate"]


def test_an_enclave_image_is_one_for_a_parser_that_is_not_ours(tmp_path: Path) -> None:
    """``QUOTARY_EIF_PARSER``: a program that takes an EIF and prints its PCRs, e.g. ``main.py`` of
    fabienpe/aws-nitro-verify-pcr-signature, or ``nitro-cli describe-eif --eif-path``."""
    program = os.environ.get("QUOTARY_EIF_PARSER")
    if program is None:
        pytest.skip("no second parser: set QUOTARY_EIF_PARSER")
    made, data = write_eif(image(tmp_path / "image"), tmp_path / "image.eif")
    assert EIF.parse(data) == made
    words = [*program.split(), str(tmp_path / "image.eif")]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    for value in nitro.measure(made, nitro_profile("nitro/eif-v4/v1")).registers.values():
        assert value.hex() in said
