"""web/static/boot.js: which rule of a policy is against a bundle; nothing is called good without a machine's evidence."""

import json
from typing import Any

import pytest

from tests.fakes.authority import TS, measurement
from tests.fakes.log import FakeLog, policy_document
from tests.web.test_verify import ed25519_policy, said


@pytest.fixture
def log() -> FakeLog:
    found = FakeLog()
    made = found.maker
    release = made.release("a")
    found.append(
        made.genesis(), made.allocation(), made.delegation(), made.floor(product="ff53494d0000"), release
    )
    found.append(made.rebuild(release, {"a": True}))
    found.close()
    return found


def judged(log: FakeLog, **changes: object) -> tuple[str, dict[str, str]]:
    policy: dict[str, Any] = {
        **policy_document(genesis=log.genesis),
        "tlog_policy": ed25519_policy(),
        **changes,
    }
    bundle = log.bundle(measurement("a")).encode().decode()
    found = said("wouldBoot", json.dumps(policy), bundle, TS)
    assert isinstance(found, dict)
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}


def test_what_no_rule_refuses_is_not_called_good(log: FakeLog) -> None:
    verdict, rows = judged(log)
    assert verdict == "not-refused"
    assert {name for name, outcome in rows.items() if outcome == "not checked"} == {
        "age, floors, evidence of a machine",
        "age of the checkpoint, map auditor",
        "TCB floor",
        "evidence of a machine",
    }
    assert "refused" not in rows.values()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"genesis": "11" * 32}, "entry 0"),
        ({"minimum": {"size": 99, "time": "2026-11-01T00:00:00Z"}}, "minimum size"),
        ({"services": {"another": {}}}, "service"),
        ({"platforms": {"tdx": {}}}, "platform"),
        ({"rebuilders": {"keys": {}, "k": 1}}, "rebuilders"),
        ({"v": 2}, "policy and bundle can be read"),
    ],
)
def test_the_rule_that_refuses_is_named(log: FakeLog, change: dict[str, object], rule: str) -> None:
    verdict, rows = judged(log, **change)
    assert (verdict, rows[rule]) == ("refused", "refused")


def test_a_rebuilder_who_got_something_else_refuses(log: FakeLog) -> None:
    log.append(log.maker.rebuild(log.entries[4], {"a": False}, signers=["rebuilder2"]))
    log.close()
    assert judged(log)[1]["rebuilders"] == "refused"


def test_a_revoked_measurement_is_refused(log: FakeLog) -> None:
    log.append(log.maker.revocation(["a"]))
    log.close()
    assert judged(log)[0] == "refused"


def test_a_policy_that_is_no_json_is_refused(log: FakeLog) -> None:
    found = said("wouldBoot", "policy", log.bundle(measurement("a")).encode().decode(), TS)
    assert isinstance(found, dict)
    assert found["verdict"] == "refused"
