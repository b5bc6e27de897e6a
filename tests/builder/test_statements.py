"""From an image folder to signed entries: release, rebuild, revocation, and the files they travel in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from builder import statement
from builder.build import Recipe, inputs_sha256
from builder.cli import release as release_group
from builder.cli import revoke, sign
from builder.image import Image, publish
from builder.lock import lock_sha256
from builder.measure import load_rows, save_rows
from builder.rebuild import compare, rebuild_predicate, recipe_of, settings_of
from builder.release import NO_WEIGHTS, release_predicate
from builder.statement import Head
from builder.store import base32
from quotary.canonical import canonical
from quotary.errors import Malformed, Refused, Unsupported, Usage
from quotary.statements.envelope import Envelope, pae
from quotary.statements.release import Release
from quotary.statements.revocation import Rebuild, Revocation
from quotary.statements.row import Row
from quotary.statements.schema import parse_statement, statement_payload
from tests.builder.test_image import FILES, document, parts
from tests.conftest import ROOT
from tests.fakes.authority import NOW, key, registers

HEAD = Head("log.example.org/simulation", "chat", 1, NOW)
LOCK = ROOT / "nix" / "lock"
RECIPE = Recipe(ROOT, "ci", LOCK)
LINE = "quiet quotary.rootfs=aa:1:bb quotary.policy=cc quotary.listen=8080 quotary.tee=virtio:quotary.tee"


def row(seed: str) -> dict[str, object]:
    return {
        "platform": "sim-tdx",
        "profile": "tdx/simulated-direct-boot/v1",
        "profile_sha256": "ab" * 32,
        "registers": registers(seed),
        "require": {"configuration": "none", "rtmr0": {"exact": ["cd" * 48]}},
        "shape": {"memory_bytes": 1 << 29},
    }


def image(folder: Path, files: dict[str, bytes] = FILES, policy: str = "ef" * 32) -> Path:
    boot = document(files, LINE) | {"policy_sha256": policy}
    given = parts(folder.with_name("parts-" + folder.name), files, LINE)
    given["boot.json"].write_text(json.dumps(boot))
    publish(given, {}, None, folder)
    (folder / "lock").mkdir()
    for name in ("debian.json", "pypi.json"):
        (folder / "lock" / name).write_bytes((LOCK / name).read_bytes())
    debs, wheels = RECIPE.groups()
    derived = {"path": "/nix/store/a-kernel", "derivation": "/nix/store/b-kernel.drv"}
    record = {
        "source": {"revision": "0" * 40},
        "lock_sha256": lock_sha256(LOCK),
        "inputs": {"sha256": inputs_sha256(RECIPE), "debs": debs, "wheels": wheels},
        "nix": {"version": "2.8.0"},
        "outputs": {"kernel": derived | {"nar_sha256": "sha256:" + base32(bytes(range(32)))}},
    }
    (folder / "build.json").write_text(json.dumps(record))
    lines = [f"/bin/{name}\t100755\t{len(data)}\t{data.hex()}" for name, data in files.items()]
    (folder / "files.tsv").write_text("".join(f"{line}\n" for line in lines))
    return folder


def release(folder: Path, seeds: str = "a") -> Release:
    rows = [row(seed) for seed in seeds]
    predicate = release_predicate(
        folder, rows, {"launch": {}}, HEAD, days=90, source_uri="https://example.org/src"
    )
    found = parse_statement(statement_payload("release", predicate)).predicate
    assert isinstance(found, Release)
    return found


def test_a_release_names_every_file_and_what_it_was_built_from(tmp_path: Path) -> None:
    found = release(image(tmp_path / "image"))
    assert {output.name for output in found.outputs} == {*FILES, "boot.json", "cmdline"}
    assert found.lock_sha256.hex() == lock_sha256(LOCK)
    assert found.weights_sha256.hex() == NO_WEIGHTS
    assert found.policy_sha256.hex() == "ef" * 32
    assert found.material["command_line"] == LINE


def test_a_release_says_which_output_nobody_can_make_again_and_why(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    why = {"rootfs.img": "signed by a service"}

    def said(irreproducible: dict[str, str]) -> Release:
        predicate = release_predicate(
            folder, [row("a")], {}, HEAD, days=9, source_uri="https://x", irreproducible=irreproducible
        )
        found = parse_statement(statement_payload("release", predicate)).predicate
        assert isinstance(found, Release)
        return found

    assert said(why).irreproducible == why
    assert said({}).irreproducible == {}
    with pytest.raises(Usage, match=r"no output other\.img"):
        said({"other.img": "x"})


@pytest.mark.parametrize(
    "material", [{}, {"not_reproducible": "all"}, {"not_reproducible": {"absent.img": "x", "rootfs.img": 1}}]
)
def test_what_is_no_reason_for_an_output_says_nothing(tmp_path: Path, material: dict[str, object]) -> None:
    folder = image(tmp_path / "image")
    predicate = release_predicate(folder, [row("a")], material, HEAD, days=9, source_uri="https://x")
    found = parse_statement(statement_payload("release", predicate)).predicate
    assert isinstance(found, Release)
    assert found.irreproducible == {}


def test_an_image_without_a_policy_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="no policy"):
        release(image(tmp_path / "image", policy="none"))


def test_a_folder_that_was_changed_after_the_build_is_no_release(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    (folder / "rootfs.img").write_bytes(b"other")
    with pytest.raises(Exception, match="rootfs"):
        release(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"source": 1}', '{"source": {"revision": 1}, "lock_sha256": "a", "inputs": {"sha256": "b"}}'],
)
def test_a_broken_build_record_is_malformed(tmp_path: Path, text: str) -> None:
    folder = image(tmp_path / "image")
    (folder / "build.json").write_text(text)
    with pytest.raises(Malformed):
        release(folder)


def same(seed: str) -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in registers(seed).items()}


def test_a_rebuild_of_the_same_bytes_matches(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    found = compare(release(folder), Image.load(folder), folder, lambda _, row: row.registers)
    assert (found.verdict, found.different, found.detail) == ("match", (), None)
    predicate = rebuild_predicate(HEAD, "sha256:" + "ab" * 32, "Us", "quotary", found)
    parsed = parse_statement(statement_payload("rebuild", predicate)).predicate
    assert isinstance(parsed, Rebuild)
    assert parsed.verdict == "match"


def test_a_rebuild_of_other_bytes_names_the_first_cause_and_the_registers(tmp_path: Path) -> None:
    logged = release(image(tmp_path / "image"))
    other = image(tmp_path / "other", FILES | {"rootfs.img": b"newer"})
    found = compare(logged, Image.load(other), other, lambda *_: same("b"))
    assert found.verdict == "mismatch"
    assert found.different == ("rootfs.img", "boot.json")
    assert found.detail == "first differing artefact: rootfs.img"
    assert set(found.rows[0]["found"]) == {"mrtd", "rtmr1", "rtmr2"}  # type: ignore[call-overload]  # free object
    predicate = rebuild_predicate(HEAD, "sha256:" + "ab" * 32, "Us", "quotary", found)
    parsed = parse_statement(statement_payload("rebuild", predicate)).predicate
    assert isinstance(parsed, Rebuild)
    assert parsed.verdict == "mismatch"


def test_a_row_that_cannot_be_computed_does_not_match(tmp_path: Path) -> None:
    def cannot(folder: Path, row: Row) -> dict[str, bytes]:
        raise Unsupported("no such profile")

    folder = image(tmp_path / "image")
    assert compare(release(folder), Image.load(folder), folder, cannot).verdict == "mismatch"


def test_a_rebuild_takes_its_words_from_the_release_and_the_pins_from_the_build() -> None:
    assert settings_of(LINE) == {"listen": "8080", "tee": "virtio:quotary.tee"}


def test_another_lock_or_model_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    logged = release(image(tmp_path / "image"))
    recipe = Recipe(ROOT, "ci", LOCK)
    assert recipe_of(logged, recipe).settings == settings_of(LINE)
    with pytest.raises(Refused, match="lock"):
        recipe_of(replace(logged, lock_sha256=bytes(32)), recipe)
    with pytest.raises(Refused, match="weights"):
        recipe_of(replace(logged, weights_sha256=bytes(32)), recipe)


def test_rows_come_back_from_their_file(tmp_path: Path) -> None:
    save_rows(tmp_path / "rows.json", [row("a")], {"launch": {}})
    assert load_rows(tmp_path / "rows.json") == ([row("a")], {"launch": {}})
    (tmp_path / "rows.json").write_text('{"rows": [{"platform": "tdx"}], "material": {}}')
    with pytest.raises(Malformed):
        load_rows(tmp_path / "rows.json")


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    found = []
    for name in ("builder-1", "builder-2"):
        path = tmp_path / f"{name}.key"
        path.write_bytes(key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        found.append(path)
    return found


def revocation(path: Path) -> bytes:
    words = ["--release", "sha256:" + "ab" * 32, "--service", "chat", "--reason", "wrong weights"]
    words += ["--origin", "log.example.org/simulation", "--sequence", "1", "--out", str(path)]
    done = CliRunner().invoke(revoke, words, catch_exceptions=False)
    assert done.exit_code == 0
    return path.read_bytes()


def test_signatures_are_added_one_after_the_other_and_stay_sorted(tmp_path: Path, keys: list[Path]) -> None:
    payload = revocation(tmp_path / "revoke.json")
    for number, path in enumerate(keys):
        source = tmp_path / ("revoke.json" if number == 0 else "entry")
        done = CliRunner().invoke(
            sign, [str(source), "--key", str(path), "--out", str(tmp_path / "entry")], catch_exceptions=False
        )
        assert done.exit_code == 0
    envelope = Envelope.parse((tmp_path / "entry").read_bytes())
    assert envelope.payload == payload
    assert len(envelope.signatures) == 2
    for name in ("builder-1", "builder-2"):
        assert any(
            key(name).sign(pae(payload)) == signature.sig for signature in envelope.signatures
        )  # Ed25519 is deterministic


def test_a_suspension_ends_and_a_revocation_does_not(tmp_path: Path) -> None:
    found = parse_statement(revocation(tmp_path / "revoke.json")).predicate
    assert isinstance(found, Revocation)
    assert found.suspend_until is None
    words = ["--measurement", "ab" * 32, "--service", "chat", "--reason", "looking", "--suspend-hours", "72"]
    words += ["--origin", "log.example.org/simulation", "--sequence", "2", "--out", str(tmp_path / "s.json")]
    assert CliRunner().invoke(revoke, words, catch_exceptions=False).exit_code == 0
    found = parse_statement((tmp_path / "s.json").read_bytes()).predicate
    assert isinstance(found, Revocation)
    assert found.suspend_until is not None


def test_a_statement_file_is_never_overwritten(tmp_path: Path) -> None:
    revocation(tmp_path / "revoke.json")
    with pytest.raises(Usage, match="never overwritten"):
        revocation(tmp_path / "revoke.json")


def test_what_is_no_statement_is_not_signed(tmp_path: Path) -> None:
    for data in (b"", b"{}", canonical({"payload": "x"})):
        with pytest.raises((Malformed, Unsupported)):
            statement.sign_file(data, [key("a")])
    (tmp_path / "big").write_bytes(bytes(70_000))
    with pytest.raises(Malformed, match="more than"):
        statement.read(tmp_path / "big")


def test_releases_are_made_and_compared_from_the_shell(tmp_path: Path) -> None:
    folder = image(tmp_path / "image")
    save_rows(tmp_path / "rows.json", [row("a")], {"launch": {}})
    words = [
        "new",
        str(folder),
        "--rows",
        str(tmp_path / "rows.json"),
        "--service",
        "chat",
        "--sequence",
        "1",
    ]
    words += ["--origin", "log.example.org/simulation", "--source-uri", "https://example.org/src"]
    done = CliRunner().invoke(
        release_group, [*words, "--out", str(tmp_path / "r.json")], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "next: quotary sign" in done.stdout
    pair = [str(tmp_path / "r.json")] * 2
    done = CliRunner().invoke(release_group, ["diff", *pair], catch_exceptions=False)
    assert done.stdout.startswith("the same source, lock, outputs")
