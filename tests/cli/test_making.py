"""Keys, delegations, floors and policies from the command line: what is written is what a log and a verifier read."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary.client.policy import Policy
from quotary.statements.delegation import Delegation
from quotary.statements.envelope import Envelope, verify
from quotary.statements.floor import TCBFloor
from quotary.statements.location import parse_location
from quotary.statements.notice import Notice
from quotary.statements.schema import Statement, parse_statement
from tests.cli.conftest import Run
from tests.fakes import authority
from tests.fakes.log import WITNESS, tlog_policy

ORIGIN = "log.example.org/simulation"


@pytest.fixture
def keys(run: Run, tmp_path: Path) -> Path:
    for name in ("owner", "builder"):
        ran = run("keys", "new", tmp_path / f"{name}.key", "--public", tmp_path / f"{name}.pub")
        assert ran.code == 0, ran.err
    return tmp_path


def read(path: Path) -> tuple[Statement, Envelope]:
    envelope = Envelope.parse(path.read_bytes())
    return parse_statement(envelope.payload), envelope


def test_keys_are_made_once_and_shown(run: Run, keys: Path) -> None:
    secret = run("keys", "show", keys / "owner.key")
    assert secret.out == run("keys", "show", keys / "owner.pub").out
    assert json.loads(run("keys", "show", keys / "owner.key", "--json").out)["algorithm"] == "ed25519"
    assert run("keys", "new", keys / "owner.key").code == 11
    assert run("keys", "new", keys / "third.key", "--public", keys / "owner.pub").code == 11
    assert not (keys / "third.key").exists()


def delegate(run: Run, keys: Path, *words: object) -> int:
    return run(
        "delegate", "--service", "chat", "--origin", ORIGIN, "--expires", "2027-01-01", "--sequence", "2",
        "--previous", "sha256:" + "ab" * 32, "--role", f"owner={keys / 'owner.pub'}",
        "--role", f"builder={keys / 'builder.pub'}", *words,
    ).code  # fmt: skip


def test_a_delegation_is_made_and_signed(run: Run, keys: Path) -> None:
    out = keys / "delegation.entry"
    lost = "sha256:" + "cd" * 32
    assert delegate(run, keys, "--key", keys / "owner.key", "--compromised", f"{lost}@7", "--out", out) == 0
    statement, envelope = read(out)
    assert isinstance(statement.predicate, Delegation)
    assert statement.predicate.roles["owner"].threshold == 1
    assert statement.predicate.compromised[0].from_index == 7
    [signature] = envelope.signatures
    verify(statement.predicate.keys[signature.keyid], signature, envelope.payload)
    assert delegate(run, keys, "--key", keys / "owner.key", "--out", out) == 2


def test_a_delegation_may_be_left_unsigned_for_its_owners(run: Run, keys: Path) -> None:
    assert delegate(run, keys, "--out", keys / "delegation.json") == 0
    assert parse_statement((keys / "delegation.json").read_bytes()).kind == "delegation"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--submit"],
        ["--submit", "--url", "http://127.0.0.1:1"],
        ["--out", "x", "--threshold", "builder"],
        ["--out", "x", "--threshold", "auditor=1"],
        ["--out", "x", "--role", "owner"],
        ["--out", "x", "--compromised", "7"],
    ],
)
def test_words_that_do_not_fit_are_usage_errors(run: Run, keys: Path, words: list[str]) -> None:
    assert delegate(run, keys, *words) == 2
    assert not Path("x").exists()


def test_a_number_must_be_given_or_asked_for(run: Run, keys: Path) -> None:
    ran = run(
        "delegate", "--service", "chat", "--origin", ORIGIN, "--expires", "2027-01-01", "--out", keys / "x",
        "--role", f"owner={keys / 'owner.pub'}",
    )  # fmt: skip
    assert ran.code == 2
    assert "give --sequence, or --url" in ran.err


def test_a_threshold_no_role_can_reach_is_malformed(run: Run, keys: Path) -> None:
    assert delegate(run, keys, "--out", keys / "x", "--threshold", "builder=2") == 30


def test_a_floor_is_made_and_signed(run: Run, keys: Path) -> None:
    floor = keys / "floor.json"
    floor.write_text(json.dumps(dict(authority.FLOOR), indent=2))
    words = (
        "floor", "--platform", "tdx", "--product", "50806f000000", "--floor", floor, "--origin", ORIGIN,
        "--sequence", "1", "--expires", "2027-01-01T12:00:00Z",
    )  # fmt: skip
    ran = run(*words, "--key", keys / "owner.key", "--out", keys / "floor.entry", "--json")
    assert ran.code == 0, ran.err
    statement, _ = read(keys / "floor.entry")
    assert json.loads(ran.out)["statement_id"] == statement.statement_id
    assert isinstance(statement.predicate, TCBFloor)
    assert statement.predicate.floor.evaluation_number == 17
    floor.write_text("not json")
    assert run(*words, "--out", keys / "x").code == 30


def policy(run: Run, keys: Path, *words: object) -> int:
    (keys / "log.policy").write_text(tlog_policy(ORIGIN, "https://log.example.org"))
    ran = run(
        "policy", "new", "--tlog-policy", keys / "log.policy", "--genesis", "ab" * 32, "--service", "chat",
        "--owner", keys / "owner.pub", "--max-age", "900", "--out", keys / "policy.json", *words,
    )  # fmt: skip
    return ran.code


SIMULATION = ("--platform", "sim-tdx", "--floors", "log", "--simulator-root", "11" * 32)
NOBODY = ("--map-auditor", "none", "--rebuilders", "none")


def test_a_policy_gives_an_enclave_its_cadence_and_the_size_of_its_caches(run: Run, keys: Path) -> None:
    words = ("--poll", "30", "--stream", "50", "64", "--cache", "4096")
    assert policy(run, keys, *SIMULATION, *NOBODY, *words) == 0
    found = Policy.parse((keys / "policy.json").read_bytes()).enclave
    assert found is not None
    assert found.stream is not None
    assert (found.stream.interval_ms, found.stream.frames, found.cache_mib) == (50, 64, 4096)


def test_a_policy_is_written_checked_and_explained(run: Run, keys: Path) -> None:
    assert policy(run, keys, *SIMULATION, *NOBODY, "--poll", "30") == 0
    found = Policy.parse((keys / "policy.json").read_bytes())
    assert found.simulation
    assert found.enclave is not None
    ran = run("policy", "lint", keys / "policy.json")
    assert ran.code == 0
    assert "weak: map auditor none" in ran.out
    assert "weak: one owner key alone" in ran.out
    ran = run("policy", "lint", keys / "policy.json", "--json")
    assert json.loads(ran.out)["sha256"] == found.digest.hex()
    ran = run("policy", "explain", keys / "policy.json")
    assert "A release that demands GPUs is refused." in ran.out
    assert "proves nothing about hardware" in ran.out or "proving nothing of hardware" in ran.out
    assert len(json.loads(run("policy", "explain", keys / "policy.json", "--json").out)["demands"]) > 5
    assert policy(run, keys, *SIMULATION, *NOBODY) == 2


def test_a_policy_takes_what_its_log_showed_last_by_default(run: Run, keys: Path) -> None:
    before = datetime.now(UTC)
    assert policy(run, keys, *SIMULATION, *NOBODY) == 0
    found = Policy.parse((keys / "policy.json").read_bytes())
    oldest = before - timedelta(seconds=found.max_age_seconds)
    assert timedelta(0) <= found.minimum_at - oldest.replace(microsecond=0) < timedelta(minutes=1)


def test_a_policy_that_demands_everything_has_fewer_weaknesses(run: Run, keys: Path) -> None:
    floors = keys / "floors.json"
    floors.write_text(json.dumps({"50806f000000": dict(authority.FLOOR)}))
    words = ("--platform", "sim-tdx", "--floors", floors, "--simulator-root", "11" * 32)
    more = ("--map-auditor", WITNESS, "--rebuilders", keys / "builder.pub", "--minimum-time", "2026-01-01")
    assert policy(run, keys, *words, *more, "--plaintext", "allowed", "--poll", "30") == 0
    ran = run("policy", "lint", keys / "policy.json")
    assert "map auditor" not in ran.out
    assert "plaintext allowed" in ran.out
    assert WITNESS in run("policy", "explain", keys / "policy.json").out


def test_a_policy_counts_rebuilders_by_the_organisations_that_it_names(run: Run, keys: Path) -> None:
    pair = [keys / "builder.pub", keys / "owner.pub"]
    words = [*SIMULATION, "--map-auditor", "none", "--rebuilders-needed", "2"]
    named = [f"{name}={path}" for name, path in zip(("Us", "audit.example.org"), pair, strict=True)]
    mixed = [*words, "--rebuilders", named[0], "--rebuilders", pair[1]]
    assert policy(run, keys, *mixed) == 2
    assert policy(run, keys, *words, "--rebuilders", f"Us={pair[0]}", "--rebuilders", f"Us={pair[1]}") == 30
    assert policy(run, keys, *words, "--rebuilders", named[0], "--rebuilders", named[1]) == 0
    found = Policy.parse((keys / "policy.json").read_bytes()).rebuilders
    assert found is not None
    assert sorted(found.organisations.values()) == ["Us", "audit.example.org"]
    assert "the organisations Us, audit.example.org" in run("policy", "explain", keys / "policy.json").out
    assert "organisations" not in run("policy", "lint", keys / "policy.json").out
    (keys / "policy.json").unlink()
    assert policy(run, keys, *words, "--rebuilders", pair[0], "--rebuilders", pair[1]) == 0
    assert "without organisations" in run("policy", "lint", keys / "policy.json").out


def test_a_policy_says_what_gpus_must_show(run: Run, keys: Path) -> None:
    rules = {
        "floors": "log",
        "modes": ["single-gpu", "unreported"],
        "revocation": "any",
        "simulator_root_sha256": "22" * 32,
        "simulator_rim_root_sha256": "33" * 32,
    }
    (keys / "devices.json").write_text(json.dumps(rules))
    assert policy(run, keys, *SIMULATION, *NOBODY, "--devices", keys / "devices.json") == 0
    found = Policy.parse((keys / "policy.json").read_bytes())
    assert found.devices is not None
    assert found.devices.modes == ("single-gpu", "unreported")
    said = run("policy", "explain", keys / "policy.json").out
    assert "be in the mode single-gpu or unreported" in said
    assert "logged floors of sim-nvidia; answers that none was revoked need not be there" in said
    weak = run("policy", "lint", keys / "policy.json").out
    assert weak.count("weak: devices:") == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((*SIMULATION, "--map-auditor", "none", "--map-auditor", "x", "--rebuilders", "none"), 2),
        ((*SIMULATION[:4], *NOBODY), 30),
        (("--platform", "tdx", "--floors", "log", *NOBODY), 30),
        ((*SIMULATION, "--map-auditor", "stranger", "--rebuilders", "none"), 30),
    ],
)
def test_a_policy_that_says_nothing_sensible_is_not_written(
    run: Run, keys: Path, words: tuple[str, ...], code: int
) -> None:
    assert policy(run, keys, *words) == code
    assert not (keys / "policy.json").exists()


def test_anchors_must_come_from_somewhere(run: Run, keys: Path) -> None:
    ran = run(
        "policy", "new", "--service", "chat", "--owner", keys / "owner.pub", "--max-age", "900", "--out",
        keys / "policy.json", *SIMULATION, *NOBODY,
    )  # fmt: skip
    assert ran.code == 2
    assert "--tlog-policy and --genesis, or --from-log" in ran.err


def test_a_location_is_written_with_what_it_rests_on(run: Run, keys: Path) -> None:
    (keys / "report.pdf").write_bytes(b"seen on Monday")
    words: tuple[object, ...] = (
        "location",
        "--machine",
        "ff00",
        "--machine",
        "ee00",
        "--place",
        "de-fra-1",
        "--days",
        7,
    )
    words += ("--service", "example.org/auditor", "--origin", ORIGIN, "--sequence", 3)
    words += ("--class", "auditors-visit", "--out", keys / "location.json")
    assert run(*words).code == 30, "every class but an operator's word rests on a document"
    ran = run(*words, "--document", keys / "report.pdf")
    assert ran.code == 0, ran.err
    notice = parse_statement((keys / "location.json").read_bytes()).predicate
    assert isinstance(notice, Notice)
    said = parse_location(notice)
    assert (said.machines, said.place) == (("ee00", "ff00"), "de-fra-1")
    assert said.document == hashlib.sha256(b"seen on Monday").digest()
    assert said.not_after - said.not_before == timedelta(days=7)
