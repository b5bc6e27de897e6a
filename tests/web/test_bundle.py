"""web/static/bundle.js over bundles of a log: every proof is recomputed, and what was not is never shown as passed."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from quotary.canonical import b64, canonical, unb64
from tests.fakes.authority import TS, measurement
from tests.fakes.log import FakeLog
from tests.vectors.make_orders import FREEZE, order
from tests.web.test_verify import ed25519_policy, said

OWNERS = "who may sign for the service"


@pytest.fixture
def log() -> FakeLog:
    found = FakeLog()
    made = found.maker
    found.append(made.genesis(), made.allocation(), made.delegation(), made.floor(product="ff53494d0000"))
    found.append(made.release("a"), made.release("b"))
    found.close()
    return found


def judged(bundle: bytes, now: int = TS) -> tuple[str, dict[str, str]]:
    found = said("checkBundle", bundle.decode(), ed25519_policy(), now)
    assert isinstance(found, dict)
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}


def changed(bundle: bytes, change: Callable[[Any], None]) -> bytes:
    document = json.loads(bundle)
    change(document)
    return canonical(document)


def other(text: str) -> str:
    """The same base64 with another last byte."""
    data = unb64(text)
    return b64(data[:-1] + bytes([data[-1] ^ 1]))


def test_every_proof_of_a_good_bundle_holds_and_owners_are_not_checked(log: FakeLog) -> None:
    verdict, rows = judged(log.bundle(measurement("a")).encode())
    assert verdict == "could-not-check"
    assert [rows.pop(name) for name in (OWNERS, "age, floors, evidence of a machine")] == ["not checked"] * 2
    assert set(rows.values()) == {"passed"}
    assert {"state entry", "release signature", "record", "witness quorum"} <= set(rows)


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (lambda found: found["release"]["path"].__setitem__(0, other(found["release"]["path"][0])), "entry 4 is in the log"),
        (lambda found: found["release"].update(index=5), "entry 5 is in the log"),
        (lambda found: found["authority"][1]["path"].pop(), "entry 1 is in the log"),
        (lambda found: found["state"].update(index=2), "state entry"),
        (lambda found: found["state"]["path"].__setitem__(0, other(found["state"]["path"][0])), "state entry"),
        (lambda found: found["records"][0].update(proof=other(found["records"][0]["proof"])), "record"),
        (lambda found: found["records"][0].update(record=b64(unb64(found["records"][0]["record"]).replace(b'"count":1', b'"count":2'))), "record"),
        (lambda found: found["release"].update(entry=found["authority"][1]["entry"]), "entry 4 is in the log"),
    ],
)  # fmt: skip
def test_a_bundle_that_was_changed_is_a_mismatch(
    log: FakeLog, change: Callable[[Any], None], row: str
) -> None:
    bundle = changed(log.bundle(measurement("a")).encode(), change)
    found = said("checkBundle", bundle.decode(), ed25519_policy(), TS)
    assert isinstance(found, dict)
    assert found["verdict"] == "mismatch"
    assert "failed" in [line["outcome"] for line in found["results"] if line["name"] == row]


@pytest.mark.parametrize("suspend", [None, timedelta(hours=1)])
def test_a_measurement_that_was_withdrawn_is_refused(log: FakeLog, suspend: timedelta | None) -> None:
    log.append(log.maker.revocation(["a"], suspend=suspend))
    log.close()
    assert judged(log.bundle(measurement("a")).encode())[0] == "refused"
    if suspend:
        assert judged(log.bundle(measurement("a")).encode(), TS + 3600)[0] == "could-not-check"


def test_a_release_whose_time_is_over_is_refused(log: FakeLog) -> None:
    assert judged(log.bundle(measurement("a")).encode(), TS + 91 * 86_400)[0] == "refused"


def test_a_proven_absence_is_not_found_and_no_other_one_is(log: FakeLog) -> None:
    absence = log.absence(measurement("nobody")).encode()
    verdict, rows = judged(absence)
    assert (verdict, rows["absence"]) == ("not-found", "not found")
    lie = changed(absence, lambda found: found["absence"].update(key="11" * 32))
    assert judged(lie)[0] in ("not-found", "mismatch")
    proof = changed(absence, lambda found: found["absence"].update(proof=other(found["absence"]["proof"])))
    assert judged(proof)[0] == "mismatch"


def test_a_bundle_of_a_log_that_has_ended_is_refused(log: FakeLog) -> None:
    log.order(order(FREEZE))
    assert judged(log.bundle(measurement("a")).encode())[0] == "refused"


@pytest.mark.parametrize("text", [b"{}", b'{"v":1}', b"[]", b'{"checkpoint":"e30=","state":{},"v":1}'])
def test_what_is_no_bundle_could_not_be_checked(text: bytes) -> None:
    assert judged(text)[0] in ("could-not-check", "mismatch")


def test_a_statement_says_what_it_is_and_not_that_it_is_believed(log: FakeLog) -> None:
    found = said("checkStatement", log.entries[4].decode())
    assert isinstance(found, dict)
    assert found["verdict"] == "could-not-check"
    assert [row["outcome"] for row in found["results"]] == ["passed", "not checked"]
    assert "a release of chat, sha256:" in found["results"][0]["detail"]
    broken = said("checkStatement", log.entries[4].decode().replace("payloadType", "payloadTypes"))
    assert isinstance(broken, dict)
    assert [row["outcome"] for row in broken["results"]] == ["not checked"]


@pytest.mark.parametrize(
    ("shown", "why"),
    [(4, "its newest release is"), (5, "its newest release is"), (7, "")],
    ids=["old", "other", "newest"],
)
def test_a_release_that_is_not_the_records_newest_is_a_mismatch(log: FakeLog, shown: int, why: str) -> None:
    log.append(log.maker.release("a"))
    log.close()
    found, entry = json.loads(log.bundle(measurement("a")).encode()), log.included(shown)
    path = [b64(item) for item in entry.path]
    found["release"] = {"index": shown, "entry": b64(entry.entry), "path": path}
    said_of = said("checkBundle", canonical(found).decode(), ed25519_policy(), TS)
    assert isinstance(said_of, dict)
    bad = [(row["name"], row["detail"]) for row in said_of["results"] if row["outcome"] == "failed"]
    assert [name for name, _ in bad] == (["record"] if why else [])
    assert all(why in detail for _, detail in bad)
