"""The commands: what they make, and how they say that something is in the way."""

import hashlib
import json
import re
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quotary.errors import CannotTell, Malformed, PortInUse, Refused, Usage
from quotary.net.listen import open_listener
from quotary.tlog.policy import TlogPolicy
from registry import flush
from registry.cli import registry
from registry.config import load_config
from registry.errors import FlushFailed, WrongSchema
from registry.store import open_store
from registry.store.schema import REVISION
from tests.fakes.reboot import restart_machine

ORIGIN = "log.example.org/simulation"


def run(*words: str) -> Result:
    """Run a command; what it raises is raised here."""
    result = CliRunner().invoke(registry, list(words), catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run("init", "--dir", str(tmp_path / "log"), "--origin", ORIGIN)
    return tmp_path / "log"


def test_the_saved_verifier_is_written_with_the_item_that_a_statement_names_it_by(tmp_path: Path) -> None:
    page = tmp_path / "verify.html"
    said = json.loads(run("verifier", "--out", str(page)).stdout)
    digest = hashlib.sha256(page.read_bytes()).hexdigest()
    assert said == {"name": "verify/standalone.html", "sha256": digest, "size": page.stat().st_size}


def test_init_makes_keys_policy_database_and_genesis(tmp_path: Path) -> None:
    made = run("init", "--dir", str(tmp_path / "log"), "--origin", ORIGIN, "--publish-interval", "0.2")
    config = load_config(tmp_path / "log")
    policy = TlogPolicy.parse(config.policy.read_text("utf-8"))
    assert made.stdout.splitlines()[:2] == [key.vkey() for key in policy.logs]
    assert (policy.quorum, config.publish_interval_seconds, config.origin) == ("none", 0.2, ORIGIN)
    names = {path.name: path.stat().st_mode & 0o777 for path in config.keys.iterdir()}
    assert {mode for name, mode in names.items() if name.endswith(".pem")} == {0o600}
    roles = {"root.pem", "tcb.pem", "security.pem", "rebuilder.pem"}
    assert set(names) == roles | {
        "log-ed25519.pem",
        "log-mldsa44.pem",
        "promise-ed25519.pem",
        "public",
        "signed-head.json",
    }
    store = open_store(config.database_url)
    assert store.read.waiting_count() == 1
    store.close()


def test_init_never_touches_a_registry_that_exists(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(Refused, match="holds a registry"):
        run("init", "--dir", str(folder), "--origin", ORIGIN)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_init_refuses_a_genesis_of_another_log(tmp_path: Path, folder: Path) -> None:
    store = open_store(load_config(folder).database_url)
    (tmp_path / "genesis").write_bytes(store.read.waiting(1)[0].data)
    store.close()
    with pytest.raises(Refused, match="other-log"):
        run(
            *("init", "--dir", str(tmp_path / "two"), "--origin", "other.example.org"),
            *("--genesis", str(tmp_path / "genesis")),
        )


def test_witnesses_are_added_to_the_policy_with_a_majority_as_quorum(tmp_path: Path, folder: Path) -> None:
    (log_key, *_) = run("witness", "list", "--dir", str(folder)).stdout.split()[1:]
    for number in range(3):
        words = ("--dir", str(tmp_path / f"w{number}"), "--name", f"w{number}.example.org", "--log", log_key)
        vkey = run("witness", "init", *words).stdout.strip()
        run("witness", "add", "--dir", str(folder), f"https://w{number}.example.org", vkey)
    policy = TlogPolicy.parse(run("witness", "list", "--dir", str(folder)).stdout)
    assert list(policy.witnesses) == ["w0.example.org", "w1.example.org", "w2.example.org"]
    assert policy.groups["witnesses"].threshold == 2
    assert policy.witnesses["w1.example.org"].url == "https://w1.example.org"
    run("witness", "follow", "--dir", str(tmp_path / "w0"), "--log", log_key)
    with pytest.raises(Malformed):
        run("witness", "add", "--dir", str(folder), "https://w0.example.org", vkey)
    with pytest.raises(Usage, match="http or https"):
        run("witness", "add", "--dir", str(folder), "ftp://w", vkey)


def test_a_missing_registry_names_the_command_that_makes_one(tmp_path: Path) -> None:
    for words in (["fsck"], ["serve"], ["doctor"], ["witness", "list"], ["sequence"], ["sign"]):
        with pytest.raises(CannotTell) as caught:
            run(*words, "--dir", str(tmp_path / "nothing"))
        assert "registry init" in str(caught.value.next_command)


@pytest.mark.parametrize(
    "line",
    [
        "publish_interval_seconds = 0.0",
        "publish_interval_seconds = true",
        "worker = 3",
        'origin = ""',
        "origin = 3",
        "no toml",
        'bind = "a\\"b"',
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(folder: Path, line: str) -> None:
    name = line.split(" ")[0]
    text = (folder / "registry.toml").read_text("utf-8")
    kept = "".join(row + "\n" for row in text.splitlines() if not row.startswith(name))
    (folder / "registry.toml").write_text(kept + line + "\n", "utf-8")
    with pytest.raises(Malformed):
        load_config(folder)


def test_serve_refuses_a_database_of_another_schema_before_it_starts_anything(folder: Path) -> None:
    connection = sqlite3.connect(folder / "log.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(WrongSchema) as caught:
        run("serve", "--dir", str(folder))
    assert caught.value.next_command == "install the newer Quotary"


def test_upgrade_brings_an_empty_database_to_the_schema(folder: Path) -> None:
    for name in ("log.db", "log.db-wal", "log.db-shm"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(WrongSchema) as caught:
        run("serve", "--dir", str(folder))
    assert caught.value.next_command == "quotary registry upgrade"
    assert run("upgrade", "--dir", str(folder)).stdout == f"schema {REVISION}\n"
    with pytest.raises(CannotTell, match="no log"):
        run("fsck", "--dir", str(folder))


def test_t22_fsck_withdraws_the_notes_of_failed_flushes_after_a_restart_of_the_machine(folder: Path) -> None:
    for name in ("log.db", "keys/signed-head.json"):
        flush.remember(folder / name, FlushFailed("a flush that failed"))
    with pytest.raises(FlushFailed, match="a flush that failed"):
        run("fsck", "--dir", str(folder))
    assert len(restart_machine(folder)) == 2
    assert run("fsck", "--dir", str(folder)).stdout.startswith("equal: ")
    assert list(folder.rglob("*.flush-failed")) == []


@pytest.mark.parametrize("bind", ["nowhere", ":80", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x"])
def test_an_address_that_is_none_is_a_usage_error(bind: str) -> None:
    with pytest.raises(Usage, match="host:port"):
        open_listener(bind, "--bind")


def test_an_address_that_is_taken_is_named() -> None:
    taken = open_listener("127.0.0.1:0", "--bind")
    try:
        with pytest.raises(PortInUse, match="in use"):
            open_listener(f"127.0.0.1:{taken.getsockname()[1]}", "--bind")
    finally:
        taken.close()


def test_every_command_shows_an_example_and_the_exit_codes() -> None:
    def commands(group, path):  # type: ignore[no-untyped-def]
        for name, command in group.commands.items():
            yield [*path, name]
            if hasattr(command, "commands"):
                yield from commands(command, [*path, name])

    for words in commands(registry, []):
        text = re.sub(r"\s+", " ", CliRunner().invoke(registry, [*words, "--help"]).output)
        assert "Exit codes:" in text, words
        if words != ["witness"]:
            assert re.search(rf"Examples?: quotary registry {' '.join(words)}\b", text), words


def test_no_option_takes_a_secret() -> None:
    text = "".join(CliRunner().invoke(registry, [name, "--help"]).output for name in registry.commands)
    assert not re.search(r"--\S*(secret|password|private|token)", text)
