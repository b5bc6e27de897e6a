"""A release as CoRIM: the layout of the published example, byte for byte, and a second reader."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from builder.release_cli import release_group
from quotary.errors import Malformed
from quotary.statements.corim import CoRIM, Measurement, corim_of
from quotary.statements.envelope import Envelope
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement
from tests.conftest import ROOT
from tests.fakes.authority import Authority


def released(*seeds: str) -> tuple[bytes, Release, str]:
    entry = Authority().release(*seeds)
    envelope = Envelope.parse(entry)
    found = parse_statement(envelope.payload).predicate
    assert isinstance(found, Release)
    return entry, found, envelope.statement_id


def test_the_published_example_is_written_byte_for_byte(vectors: Path) -> None:
    folder = vectors / "measure" / "statements"
    payload = json.loads((folder / "measurement-release.payload.jcs.json").read_text())
    snp, tdx, nitro = (row["values"] for row in payload["predicate"]["measurements"][:3])
    expected = (folder / "measurement-release.corim.cbor").read_bytes()
    launches = [bytes.fromhex(one["sha384"]) for one in snp["measurement"]]
    mrtds = [bytes.fromhex(one["sha384"]) for one in tdx["mrtd"]]
    found = CoRIM(
        expected[6:22],
        expected[35:51],
        "Example Publisher",
        "example.org",
        "inference-guest",
        (
            Measurement("snp/measurement", launches),
            Measurement("tdx/mrtd", mrtds),
            *(Measurement(f"nitro/{name}", [bytes.fromhex(nitro[name])]) for name in sorted(nitro)),
            Measurement("registers", registers={"mrtd": mrtds[:1]}),
        ),
    )
    assert found.encode() == expected


def test_every_register_of_every_row_is_in_it_once() -> None:
    _, release, name = released("a", "b")
    found = corim_of(release, name)
    keys = [one.key for one in found.measurements]
    ids = sorted(row.measurement.hex() for row in release.rows)
    assert keys == ["sim-tdx/mrtd", "sim-tdx/rtmr1", "sim-tdx/rtmr2", *ids]
    assert set(found.measurements[0].digests) == {row.registers["mrtd"] for row in release.rows}
    assert corim_of(release, name).encode() == found.encode()
    other = corim_of(release, "sha256:" + "00" * 32)
    assert other.identity != found.identity
    assert found.identity[6] >> 4 == 8


def test_another_library_reads_it() -> None:
    cbor2 = pytest.importorskip("cbor2")
    _, release, name = released("a")
    outer = cbor2.loads(corim_of(release, name).encode())
    assert outer.tag == 501
    (inner,) = outer.value[1]
    assert inner.tag == 506
    comid = cbor2.loads(inner.value)
    ((environment, measurements),) = comid[4][0]
    assert environment == {0: {1: release.header.log, 2: release.header.service}}
    (row,) = release.rows
    assert list(measurements[0][1][2][0]) == [7, row.registers["mrtd"]]
    together = measurements[-1][1][14]
    assert {key: digests[0][1] for key, digests in together.items()} == {
        f"sim-tdx/{register}": value for register, value in row.registers.items()
    }


def test_what_no_corim_can_say_is_malformed() -> None:
    one = Measurement("a", [bytes(48)])
    for broken in (
        CoRIM(b"", bytes(16), "e", "v", "m", (one,)),
        CoRIM(bytes(16), bytes(15), "e", "v", "m", (one,)),
        CoRIM(bytes(16), bytes(16), "e", "v", "m", ()),
        CoRIM(bytes(16), bytes(16), "e", "v", "m", (Measurement("a", [bytes(20)]),)),
    ):
        with pytest.raises(Malformed):
            broken.encode()


def test_the_command_writes_the_file_and_refuses_other_kinds(tmp_path: Path) -> None:
    entry, release, name = released("a")
    (tmp_path / "release.entry").write_bytes(entry)
    out = tmp_path / "release.corim"
    words = ["corim", str(tmp_path / "release.entry"), "--out", str(out), "--json"]
    done = CliRunner().invoke(release_group, words)
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == corim_of(release, name).encode()
    assert json.loads(done.output)["release"] == name
    (tmp_path / "release.entry").write_bytes(Authority().genesis())
    assert CliRunner().invoke(release_group, words).exit_code != 0
    (tmp_path / "release.entry").write_bytes(entry)
    words[3] = str(tmp_path / "no" / "folder")
    assert CliRunner().invoke(release_group, words).exit_code != 0


def test_the_page_is_what_the_code_writes() -> None:
    page = (ROOT / "docs/formats/corim.md").read_text()
    _, release, name = released("a")
    (given,) = (line for line in page.splitlines() if line.startswith("d901f5"))
    assert corim_of(release, name).encode().hex().startswith(given)
