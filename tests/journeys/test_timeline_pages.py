"""The pages that show how things changed, without JavaScript: each says the same as its JSON twin."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from tests.fakes.authority import measurement, statement_id_of
from tests.fakes.processes import Log, start_log

ATOM = "{http://www.w3.org/2005/Atom}"
PAGES = ["/revocations"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """Two releases; the second one replaces the first, which is revoked, and is then suspended itself."""
    found = start_log(tmp_path_factory.mktemp("timeline"))
    made = found.authority
    old = made.release("old")
    new = made.release("new", lock_sha256="0a" * 32)
    found.submit(made.allocation(), made.delegation(), made.floor(), old, new)
    why = {
        "reason": "keys <leaked> & \uffff",
        "advisory": "https://example.org/1",
        "replacement": statement_id_of(new),
    }
    found.submit(made.revocation(old, **why), made.revocation(["new"], suspend=timedelta(days=1)))
    yield found
    found.stop()


@pytest.mark.parametrize("path", PAGES)
def test_each_page_has_a_twin_and_a_strict_policy(log: Log, path: str) -> None:
    answer = log.request("GET", path)
    assert answer.status == 200, answer.data
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//', answer.data.decode()) == []
    assert f'href="{path}.json"' in answer.data.decode()
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
