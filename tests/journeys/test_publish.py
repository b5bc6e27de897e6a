"""One command from an image to the log, as a CI job runs it, against a real registry."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from quotary.client.log import LogClient
from quotary.net.transport import HTTP
from quotary.statements.envelope import Envelope, verify
from quotary.statements.release import Release
from quotary.statements.schema import parse_statement
from tests.builder.test_measure import FILES
from tests.builder.test_statements import image
from tests.cli.conftest import Run, run
from tests.fakes import authority
from tests.fakes.processes import Log, start_log

__all__ = ["run"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    running = start_log(tmp_path_factory.mktemp("registry"))
    running.submit(running.authority.allocation(), running.authority.delegation())
    yield running
    running.stop()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "builder.key"
    pem = authority.key("builder1").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.touch(0o600)
    path.write_bytes(pem)
    return path


def words(log: Log, folder: Path, key: Path, out: Path) -> list[object]:
    place = ["--service", "chat", "--origin", authority.ORIGIN, "--url", log.address]
    named = ["--source-uri", "https://example.org/src", "--builder-id", "https://example.org/ci"]
    machines = ["--platform", "sim-tdx", "--platform", "sim-snp", "--vcpus", "1", "--vcpus", "2"]
    start = ["release", "publish", "--image", folder, "--out", out, "--key", key]
    return [*start, *place, *named, *machines]


def test_an_image_is_measured_signed_and_published_by_one_command(
    log: Log, key: Path, run: Run, tmp_path: Path
) -> None:
    folder, out = image(tmp_path / "image", FILES), tmp_path / "release"
    ran = run(*words(log, folder, key, out), "--json")
    assert ran.code == 0, ran.err
    answer = json.loads(ran.out)
    entry = (out / "release.entry").read_bytes()
    assert LogClient(HTTP(), log.address).entry(answer["index"]) == entry
    release = parse_statement(Envelope.parse(entry).payload).predicate
    assert isinstance(release, Release)
    assert [row.platform for row in release.rows] == ["sim-tdx", "sim-snp", "sim-snp"]
    assert release.material["nix"] == {
        "kernel": {
            "derivation": "/nix/store/b-kernel.drv",
            "path": "/nix/store/a-kernel",
            "nar_sha256": bytes(range(32)).hex(),
        }
    }
    assert run("measure", "check", out / "release.entry").code == 0
    said = Envelope.parse((out / "provenance.dsse.json").read_bytes())
    assert release.material["provenance_sha256"] == hashlib.sha256(said.payload).hexdigest()
    public = authority.key("builder1").public_key().public_bytes_raw()
    verify(public, said.signatures[0], said.payload)


def test_devices_that_every_row_demands_come_from_a_file(
    log: Log, key: Path, run: Run, tmp_path: Path
) -> None:
    demand = [{"architecture": "gh100", "count": 1, "drivers": ["550.1"], "vbios": ["96.00"]}]
    (tmp_path / "devices.json").write_text(json.dumps(demand))
    given = words(log, image(tmp_path / "image", FILES), key, tmp_path / "release")
    assert run(*given, "--devices", tmp_path / "devices.json").code == 0
    written = json.loads((tmp_path / "release" / "release.json").read_bytes())
    assert [row["require"]["devices"] for row in written["predicate"]["rows"]] == [demand] * 3


def test_nothing_is_made_twice_and_a_second_release_has_the_next_number(
    log: Log, key: Path, run: Run, tmp_path: Path
) -> None:
    folder, out = image(tmp_path / "image", FILES), tmp_path / "release"
    assert run(*words(log, folder, key, out)).code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    ran = run(*words(log, folder, key, out))
    assert ran.code == 2
    assert "folder of its own" in ran.err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run(*words(log, folder, key, tmp_path / "next")).code == 0
    numbers = [
        json.loads((folder / "release.json").read_bytes())["predicate"]["sequence"]
        for folder in (out, tmp_path / "next")
    ]
    assert numbers[1] == numbers[0] + 1
    found = run("release", "diff", out / "release.entry", tmp_path / "next" / "release.entry")
    assert found.out.startswith("the same source")


def test_a_source_that_no_commit_names_is_refused_before_anything_is_signed(
    log: Log, key: Path, run: Run, tmp_path: Path
) -> None:
    folder, out = image(tmp_path / "image", FILES), tmp_path / "release"
    record = json.loads((folder / "build.json").read_bytes())
    for revision in ("unknown", "0" * 40 + "+changes"):
        record["source"]["revision"] = revision
        (folder / "build.json").write_text(json.dumps(record))
        ran = run(*words(log, folder, key, out))
        assert ran.code == 11
        assert "source revision" in ran.err
        assert list(out.iterdir()) == []
        out.rmdir()


def test_a_key_that_may_not_release_leaves_the_entry_for_a_person_to_look_at(
    log: Log, run: Run, tmp_path: Path
) -> None:
    assert run("keys", "new", tmp_path / "other.key").code == 0
    out = tmp_path / "release"
    ran = run(*words(log, image(tmp_path / "image", FILES), tmp_path / "other.key", out))
    assert ran.code == 41
    assert (out / "release.entry").exists()


def test_a_log_that_is_away_or_a_key_that_is_not_there_is_found_before_the_build(
    log: Log, key: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "release"
    given = words(log, image(tmp_path / "image", FILES), key, out)
    away = ["http://127.0.0.1:9" if word == log.address else word for word in given]
    assert run(*away).code == 40
    key.chmod(0o644)
    assert run(*given).code == 11
    assert not out.exists()
