"""The pages that show how things changed, without JavaScript: each says the same as its JSON twin."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from quotary.tlog.merkle import verify_consistency
from tests.fakes.authority import FLOOR, measurement, statement_id_of
from tests.fakes.processes import Log, start_log

ATOM = "{http://www.w3.org/2005/Atom}"
PAGES = ["/revocations", "/tcb", "/log", "/log/consistency", "/builders", "/compare", "/verify"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """Two releases; the second one replaces the first, which is revoked, and is then suspended itself."""
    found = start_log(tmp_path_factory.mktemp("timeline"))
    try:
        fill(found)
        yield found
    finally:
        found.stop()


def fill(log: Log) -> None:
    made = log.authority
    old = made.release("old")
    new = made.release("new", lock_sha256="0a" * 32)
    log.submit(made.allocation(), made.delegation(), made.floor(), old, new)
    why = {
        "reason": "keys <leaked> & \uffff",
        "advisory": "https://example.org/1",
        "replacement": statement_id_of(new),
    }
    lower = {**FLOOR, "evaluation_number": 16}
    log.submit(made.floor(("root1", "root2"), floor=lower))
    log.submit(made.revocation(old, **why), made.revocation(["new"], suspend=timedelta(days=1)))


@pytest.mark.parametrize("path", PAGES)
def test_each_page_has_a_twin_and_a_strict_policy(log: Log, path: str) -> None:
    answer = log.request("GET", path)
    assert answer.status == 200, answer.data
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.data.decode()) == []
    assert re.search(rf'href="{path}\.json["?]', answer.data.decode())
    assert log.json(f"{path}.json")


def test_revocations_stand_newest_first_with_reason_and_replacement(log: Log) -> None:
    suspended, revoked = log.json("/revocations.json")["revocations"]
    assert (suspended["action"], revoked["action"]) == ("suspend", "revoke")
    assert revoked["measurements"] == [measurement("old").hex()]
    page = log.get("/revocations").decode()
    assert f'href="/entries/{revoked["replacement"]["index"]}"' in page
    assert "keys &lt;leaked&gt; &amp;" in page


def test_the_feed_is_atom_and_its_ids_do_not_name_the_server(log: Log) -> None:
    root = ElementTree.fromstring(log.get("/revocations.atom"))
    ids = [found.text or "" for found in root.iter(f"{ATOM}id")]
    assert len(ids) == 3
    assert all(found.startswith("tag:log.example.org,") and "127.0.0.1" not in found for found in ids)
    assert ids[1:] == [f"{ids[0]}/{said['index']}" for said in log.json("/revocations.json")["revocations"]]


def test_older_revocations_are_reached_by_index(log: Log) -> None:
    suspended, revoked = log.json("/revocations.json")["revocations"]
    older = log.json(f"/revocations.json?before={suspended['index']}")
    assert [said["index"] for said in older["revocations"]] == [revoked["index"]]
    refused = log.request("GET", "/revocations?before=0")
    assert json.loads(refused.data)["type"] == "/problems/malformed"


def test_a_floor_shows_its_expiry_and_the_lowering_that_waits(log: Log) -> None:
    (found,) = log.json("/tcb.json")["floors"]
    assert (found["platform"], found["product"]) == ("sim-tdx", "50806f000000")
    assert found["floor"]["evaluation_number"] == FLOOR["evaluation_number"]
    assert not found["floor"]["expired"]
    assert found["next"]["weaker_in"] == ["evaluation_number"]
    page = log.get("/tcb").decode()
    assert "a lowering is pending" in page
    (matrix,) = log.json("/tcb.json")["matrices"]
    (line,) = matrix["lines"]
    assert matrix["platform"] == "sim-tdx"
    assert (line["product"], line["state"]) == ("50806f000000", "in force")
    assert line["lower_from"] == found["next"]["from"]
    held = dict(zip(matrix["components"], line["least"], strict=True))
    assert held == found["floor"]["minimum"]
    assert found["floor"]["expires"] in page


def test_the_newest_checkpoint_names_who_signed_it_and_when(log: Log) -> None:
    found = log.json("/log.json")
    said = [(line["role"], line["algorithm"], line["outcome"]) for line in found["signatures"]]
    assert said == [
        ("log", "Ed25519", "passed"),
        ("log", "ML-DSA-44", "passed"),
        ("witness", "Ed25519", "passed"),
    ]
    assert found["signatures"][2]["signed_at"] is not None
    assert found["missing"] == []
    sizes = [checkpoint["size"] for checkpoint in found["before"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < found["size"]


def test_a_consistency_page_gives_a_path_that_verifies(log: Log) -> None:
    new = log.json("/log.json")["size"]
    for old in (1, 5, new):
        found = log.json(f"/log/consistency.json?old={old}&new={new}")
        path = [bytes.fromhex(step["hash"]) for step in found["path"]]
        roots = [bytes.fromhex(found[name]["hex"]) for name in ("old_root", "new_root")]
        verify_consistency(old, new, *roots, path)
        assert all(
            step["hash"] in log.get(f"/log/consistency?old={old}&new={new}").decode()
            for step in found["path"]
        )


@pytest.mark.parametrize(
    "sizes", ["old=0&new=1", "old=3&new=2", "old=x&new=2", "old=1&new=99999999", "old=-1"]
)
def test_impossible_sizes_are_a_problem(log: Log, sizes: str) -> None:
    answer = log.request("GET", f"/log/consistency?{sizes}")
    assert answer.status in (400, 404)
    assert json.loads(answer.data)["type"].startswith("/problems/")


def test_builders_stand_with_roles_and_thresholds(log: Log) -> None:
    found = log.json("/builders.json")
    (service,) = found["services"]
    roles = {role["role"]: (role["threshold"], len(role["keys"])) for role in service["roles"]}
    assert roles == {"owner": (2, 3), "builder": (1, 1)}
    own = {role["role"]: (role["threshold"], len(role["keys"])) for role in found["own"]["roles"]}
    assert own == {"root": (2, 3), "tcb": (2, 2), "security": (1, 1), "rebuilder": (1, 2)}
    page = log.get("/builders").decode()
    assert all(key in page for role in service["roles"] for key in role["keys"])


def releases(log: Log) -> tuple[int, int]:
    found = log.json("/revocations.json")["revocations"][1]
    return found["release"]["index"], found["replacement"]["index"]


def test_two_releases_show_which_inputs_and_registers_changed(log: Log) -> None:
    old, new = releases(log)
    found = log.json(f"/compare.json?old={old}&new={new}")
    changed = {name: [item["name"] for item in part["changed"]] for name, part in found["parts"].items()}
    assert changed["inputs"] == ["lock"]
    assert changed["outputs"] == []
    assert changed["registers"]
    page = log.get(f"/compare?old={old}&new={new}").decode()
    assert found["sentence"] in page
    assert all(item["new"] in page for part in found["parts"].values() for item in part["changed"])


def test_a_release_compared_with_itself_is_the_same(log: Log) -> None:
    old, _ = releases(log)
    assert "same inputs, outputs and registers" in log.get(f"/compare?old={old}&new={old}").decode()


@pytest.mark.parametrize("indices", ["old=0&new=0", "old=x&new=1", "old=1&new=99999999"])
def test_what_is_not_a_release_is_a_problem(log: Log, indices: str) -> None:
    answer = log.request("GET", f"/compare?{indices}")
    assert answer.status in (400, 404)
    assert json.loads(answer.data)["type"].startswith("/problems/")
