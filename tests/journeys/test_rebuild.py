"""An independent rebuilder with nothing but a log's address and policy: real registry, git and Nix.

The source is one in miniature (``tests/fakes/recipe.py``); the ci image itself is rebuilt in
``tests/builder/test_images.py``.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from builder.measure import measure_image
from builder.release import release_predicate
from builder.statement import Head, write
from quotary.attestation.measure.shape import Shape
from quotary.statements.envelope import Envelope, sign
from quotary.statements.revocation import Rebuild
from quotary.statements.schema import parse_statement, statement_payload
from quotary.tlog.merkle import leaf_hash
from tests.builder.test_measure import FILES
from tests.builder.test_statements import image
from tests.cli.conftest import Ran, Run, run
from tests.fakes import authority
from tests.fakes.log import policy_bytes, policy_document
from tests.fakes.processes import Log, start_log
from tests.fakes.recipe import claim, commit, write_source

__all__ = ["run"]
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed"),
]


@dataclass(frozen=True, slots=True)
class Ground:
    """A log with releases by what a rebuild of the commit that they name gives: their index."""

    log: Log
    folder: Path
    repository: Path
    releases: dict[str, int] = field(default_factory=dict)

    def key(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        if not path.exists():
            pem = authority.key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            path.touch(0o600)
            path.write_bytes(pem)
        return path

    def policy(self) -> Path:
        genesis = leaf_hash(self.log.get("/api/v1/entries/0")).hex()
        document = policy_document(genesis=genesis) | {
            "tlog_policy": self.log.policy_text,
            "map_auditor": "none",
        }
        path = self.folder / "policy.json"
        path.write_bytes(policy_bytes(document))
        return path

    def image(self, name: str) -> Path:
        return self.folder / f"image-{name}"

    def release(self, revision: str, name: str) -> None:
        """Log a release of an image that says it was built from a commit."""
        folder = self.image(name)
        claim(folder, self.repository, revision)
        rows, material = measure_image(folder, ["sim-tdx"], None, [Shape()])
        members = self.log.authority.head("release", "chat", None)
        head = Head(authority.ORIGIN, "chat", int(str(members["sequence"])), self.log.authority.now)
        uri = "https://source.invalid/quotary.git"
        predicate = release_predicate(folder, rows, material, head, days=90, source_uri=uri)
        entry = sign(statement_payload("release", predicate), [authority.key("builder1")])
        (self.releases[name],) = self.log.submit(entry)

    def rebuild(self, run: Run, name: object, out: Path, *more: object) -> Ran:
        return run(
            "rebuild", "run", name, "--organisation", "Us", "--policy", self.policy(), "--simulation", "--url",
            self.log.address, "--source-url", f"file://{self.repository}", "--out", out, *more,
        )  # fmt: skip

    def follow(self, run: Run, *more: object) -> Ran:
        return run(
            "rebuild", "follow", "--organisation", "Us", "--policy", self.policy(), "--simulation", "--url",
            self.log.address, "--source-url", f"file://{self.repository}", "--key", self.key("rebuilder1"),
            "--state", self.folder / "state", "--once", *more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("rebuild")
    log = start_log(folder)
    try:
        log.submit(log.authority.allocation(), log.authority.delegation())
        found = Ground(log, folder, folder / "repository")
        for name in ("match", "mismatch", "failed", "away", "other"):
            image(found.image(name), FILES | {"initrd.img": name.encode()})
        write_source(found.repository, found.image("match"))
        same = commit(found.repository)
        found.release(same, "match")
        found.release(same, "match")  # the newer one counts: of the older no log takes a verdict
        write_source(found.repository, found.image("other"))
        found.release(commit(found.repository), "mismatch")
        write_source(found.repository, found.image("failed"), copy="echo no such tool >&2\nexit 7\n")
        found.release(commit(found.repository), "failed")
        found.release("ab" * 20, "away")
        yield found
    finally:
        log.stop()


def statement_at(log: Log, index: int) -> Rebuild:
    predicate = parse_statement(Envelope.parse(log.get(f"/api/v1/entries/{index}")).payload).predicate
    assert isinstance(predicate, Rebuild)
    return predicate


def test_an_entry_alone_is_enough_to_build_sign_and_submit(ground: Ground, run: Run, tmp_path: Path) -> None:
    index, out = ground.releases["match"], tmp_path / "r.json"
    ran = ground.rebuild(run, index, out, "--key", ground.key("rebuilder1"), "--json")
    assert ran.code == 0, ran.err
    assert f"entry {index} of {authority.ORIGIN}: proven to stand in the log" in ran.err
    found = statement_at(ground.log, json.loads(ran.out)["index"])
    assert (found.verdict, found.organisation) == ("match", "Us")
    assert found.release == Envelope.parse(ground.log.get(f"/api/v1/entries/{index}")).statement_id


def test_an_entry_is_found_by_each_of_its_names_and_a_source_that_is_away_leaves_no_statement(
    ground: Ground, run: Run, tmp_path: Path
) -> None:
    index = ground.releases["away"]
    entry = ground.log.get(f"/api/v1/entries/{index}")
    for name in (index, leaf_hash(entry).hex(), Envelope.parse(entry).statement_id):
        ran = ground.rebuild(run, name, tmp_path / "r.json")
        assert ran.code == 40
        assert f"entry {index} of" in ran.err
        assert "the source cannot be fetched" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["trust"]


def test_a_scheduled_rebuilder_answers_every_release_once(ground: Ground, run: Run) -> None:
    """Also when the first release was answered by ``rebuild run`` with the same key: tests come in any order."""
    ran = ground.follow(run, "--json", "--tries", "1")
    assert ran.code == 10, ran.err
    said = {item["index"]: item for item in json.loads(ran.out)["releases"]}
    verdicts = {name: said[index] for name, index in ground.releases.items() if index in said}
    assert verdicts.keys() >= {"mismatch", "failed", "away"}
    assert said.keys() <= set(ground.releases.values())
    for name, item in verdicts.items():
        assert item["verdict"] == ("failed" if name == "away" else name)
    assert verdicts["failed"]["detail"].startswith("build: ")
    assert "no such tool" in verdicts["failed"]["detail"]
    assert verdicts["away"]["detail"].startswith("source-missing: ")
    ran = ground.follow(run, "--json")
    assert (ran.code, json.loads(ran.out)["releases"]) == (0, [])
    # A rebuilder that lost its folder finds its own statements in the log.
    shutil.rmtree(ground.folder / "state")
    ran = ground.follow(run, "--json")
    assert (ran.code, json.loads(ran.out)["releases"]) == (0, [])


@pytest.mark.parametrize("uri", ["file:///srv/source", "/srv/source", "ext::sh -c id", "ssh://example.org/x"])
def test_an_entry_cannot_send_a_rebuilder_elsewhere(run: Run, tmp_path: Path, uri: str) -> None:
    """The address in an entry is anybody's: only https, never a file or a command of git's."""
    folder = image(tmp_path / "image", FILES)
    head = Head(authority.ORIGIN, "chat", 1, authority.NOW)
    rows, material = measure_image(folder, ["sim-tdx"], None, [Shape()])
    predicate = release_predicate(folder, rows, material, head, days=90, source_uri=uri)
    write("release", predicate, tmp_path / "release.json")
    words = ("--organisation", "Us", "--sequence", "9", "--out", tmp_path / "r.json")
    ran = run("rebuild", "run", tmp_path / "release.json", *words)
    assert ran.code == 20
    assert "only https is fetched on an entry's word" in ran.err
