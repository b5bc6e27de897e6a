"""Every page of the route table says in words, in JSON and as a picture with a table, what the log holds."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient

from quotary.canonical import b64
from registry.pages.checkpoints import subtrees, tile_levels
from registry.pages.digests import NIX32, reading
from tests.fakes.authority import keyid, measurement, registers
from tests.fakes.inprocess import Local, local
from tests.fakes.queries import counted
from tests.fakes.site import addresses, feed_addresses, history
from tests.web.payloads import payloads

ATOM = "{http://www.w3.org/2005/Atom}"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("pages")) as found:
        found.loop.round()
        for entry in history(found.authority):
            found.clock.forward(60)
            found.append(entry)
        yield found


@pytest.fixture(scope="module")
def client(log: Local) -> FlaskClient:
    return log.client()


def said(client: FlaskClient, path: str) -> dict[str, object]:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.data)
    assert isinstance(answer.json, dict)
    return answer.json


def releases(client: FlaskClient) -> list[int]:
    return [line["index"] for line in said(client, "/releases.json")["releases"]][::-1]


def every(client: FlaskClient) -> list[tuple[str, str, str]]:
    return list(addresses(releases(client), said(client, "/log.json")["before"][0]["size"]))


def test_every_page_answers_and_names_its_twin_which_answers_too(client: FlaskClient) -> None:
    for rule, page, twin in every(client):
        answer = client.get(page)
        assert (answer.status_code, answer.content_type) == (200, "text/html; charset=utf-8"), page
        text = answer.get_data(as_text=True)
        assert re.search(rf'href="{re.escape(twin)}["?]', text), (rule, "does not link its JSON")
        assert "<h1>" in text
        found = said(client, twin)
        assert not [name for name in found if name.endswith("picture")]


def test_every_picture_has_a_title_a_description_and_a_table_beside_it(client: FlaskClient) -> None:
    drawn = 0
    for _, page, _ in every(client):
        text = client.get(page).get_data(as_text=True)
        for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            root = ElementTree.fromstring(picture)
            names = root.attrib["aria-labelledby"].split()
            assert [root.findtext("title"), root.findtext("desc")] != [None, None]
            assert {found.attrib.get("id") for found in root} >= set(names)
            assert "<table" in text[text.index(picture) :] or "<table" in text[: text.index(picture)]
            assert "style" not in picture
            drawn += 1
    assert drawn >= 9


def test_no_id_stands_twice_on_a_page(client: FlaskClient) -> None:
    for _, page, _ in every(client):
        ids = re.findall(r'\bid="([^"]+)"', client.get(page).get_data(as_text=True))
        assert len(ids) == len(set(ids)), (page, sorted(ids))


def test_every_link_of_every_page_leads_somewhere(client: FlaskClient) -> None:
    links = set()
    for _, page, _ in every(client):
        text = client.get(page).get_data(as_text=True)
        links |= set(re.findall(r'(?:href|src)="(/[^"#]*)"', text))
    assert len(links) > 40
    for link in links:
        assert client.get(link.replace("&amp;", "&")).status_code == 200, link


def test_every_feed_is_atom_with_unique_ids_that_do_not_name_the_server(client: FlaskClient) -> None:
    for path in feed_addresses():
        answer = client.get(path)
        assert answer.content_type == "application/atom+xml; charset=utf-8"
        root = ElementTree.fromstring(answer.data)
        ids = [found.text or "" for found in root.iter(f"{ATOM}id")]
        assert len(ids) >= 2, path
        assert len(set(ids)) == len(ids)
        assert all(found.startswith("tag:log.example.org,2026-11-21:") for found in ids)
        times = [found.text or "" for found in root.iter(f"{ATOM}updated")]
        assert times[0] == max(times)


def test_a_release_says_who_rebuilt_it_and_what_became_of_it(client: FlaskClient) -> None:
    old, new = releases(client)
    found = said(client, f"/releases/{old}.json")
    assert [(one["organisation"], one["state"]) for one in found["rebuilds"]] == [
        ("Example Rebuilders", "matched")
    ]
    assert [event["what"] for event in found["timeline"]] == [
        "logged",
        "matched by Example Rebuilders",
        "revoked: keys <leaked> & gone",
        "not to be believed after this time",
    ]
    (row,) = found["rows"]
    assert row["state"] == "revoked"
    assert row["inputs"]["rtmr2"] == ["command line", "environment", "policy", "weights"]
    assert said(client, f"/releases/{new}.json")["previous"] == old
    assert client.get("/releases/0").status_code == 404


def test_the_matrix_tells_what_rebuilders_found_from_what_the_builder_says(client: FlaskClient) -> None:
    found = said(client, "/rebuilds.json")
    assert found["organisations"] == ["Doubters", "Example Rebuilders", "Without a compiler"]
    states = [[cell["state"] for cell in line["cells"]] for line in found["releases"]]
    by_design = "not reproducible by design"
    assert states == [["differed", by_design, "failed"], ["unchecked", "matched", "unchecked"]]
    why = {"image.raw": "its driver comes signed by its vendor"}
    assert [line["not_reproducible"] for line in found["releases"]] == [why, {}]
    page = client.get("/rebuilds").get_data(as_text=True)
    assert "image.raw: its driver comes signed by its vendor" in page


def test_a_service_shows_releases_events_and_keys(client: FlaskClient) -> None:
    found = said(client, "/services/chat/index.json")
    assert [line["state"] for line in found["releases"]] == ["active", "revoked"]
    assert found["events"][0]["kind"] == "revocation"
    assert {role["role"] for role in found["authority"]["roles"]} == {"owner", "builder"}
    assert client.get("/services/nobody/").status_code == 404
    assert client.get("/services/nobody/feed.atom").status_code == 404


@pytest.mark.parametrize(
    ("digest", "role"),
    [
        (measurement("new").hex(), "measurement (sim-tdx)"),
        (registers("new")["rtmr1"], "register rtmr1 (sim-tdx)"),
        ("03" * 32, "output image.raw"),
        ("02" * 32, "lock"),
        ("01" * 20, "source revision"),
        (keyid("builder1"), "key of role builder"),
        (keyid("owner1"), "key that signed"),
        ("00" * 32, None),
    ],
)
def test_a_digest_has_every_role_in_which_an_entry_names_it(
    client: FlaskClient, digest: str, role: str | None
) -> None:
    roles = said(client, f"/digests/{digest}.json")["roles"]
    assert role in roles if role else roles == []


def test_a_digest_has_the_status_of_now_and_of_then(client: FlaskClient) -> None:
    digest = measurement("old").hex()
    size = int(said(client, "/log.json")["size"])
    now = said(client, f"/digests/{digest}.json")["measurements"]
    then = said(client, f"/digests/{digest}.json?at={size - 2}")["measurements"]
    assert [one["state"] for one in now + then] == ["revoked", "active"]
    assert client.get(f"/digests/{digest}?at={size + 1}").status_code == 400


def nix32(data: bytes) -> str:
    number = int.from_bytes(data, "little")
    return "".join(NIX32[number >> 5 * place & 31] for place in reversed(range(52)))


@pytest.mark.parametrize(
    ("pasted", "word"),
    [
        ("#12", "12"),
        ("007", "7"),
        ("ab" * 32, "ab" * 32),
        ("AB:" * 31 + "AB", "ab" * 32),
        ("0x" + "ab" * 48, "ab" * 48),
        ("sha256:" + "ab" * 32, "ab" * 32),
        ("sha256-" + b64(b"\xab" * 32), "ab" * 32),
        (b64(b"\xab" * 32), "ab" * 32),
        (nix32(bytes(range(32))), bytes(range(32)).hex()),
        ("chat@2.4", "chat"),
        ("tools/chat", "tools/chat"),
    ],
)
def test_what_is_pasted_is_read_as_what_it_is(pasted: str, word: str) -> None:
    assert reading(pasted)[1] == word


def test_a_pasted_document_is_sent_to_the_page_that_keeps_it(client: FlaskClient) -> None:
    found = said(client, "/search.json?q=%7B%22payload%22%3A1%7D")
    assert "sends it nowhere" in str(found["read_as"])


def test_entries_of_one_kind_are_listed_alone(client: FlaskClient) -> None:
    found = said(client, "/entries.json?kind=rebuild")["entries"]
    assert [line["kind"] for line in found] == ["rebuild"] * 3
    assert client.get("/entries?kind=state").status_code == 400


def test_a_checkpoint_of_the_past_is_shown_with_the_logs_signatures(client: FlaskClient) -> None:
    lines = said(client, "/log/checkpoints.json")["checkpoints"]
    assert [line["size"] for line in lines] == sorted((line["size"] for line in lines), reverse=True)
    found = said(client, f"/log/checkpoints/{lines[-1]['size']}.json")
    assert [line["outcome"] for line in found["signatures"]] == ["passed", "passed"]
    assert client.get("/log/checkpoints/3").status_code == 404
    assert client.get("/log/checkpoints/999").status_code == 404


def test_growth_ends_at_the_published_size_and_never_goes_down(client: FlaskClient) -> None:
    found = said(client, "/log/growth.json")
    sizes = [point["size"] for point in found["points"]]
    assert sizes == sorted(sizes)
    assert sizes[-1] == found["size"] == sum(tree["entries"] for tree in found["subtrees"])


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 65_536, 65_537, 1_000_000])
def test_subtrees_and_tiles_cover_every_entry_once(size: int) -> None:
    trees = subtrees(size)
    assert [tree["first"] for tree in trees] == [0, *(tree["last"] + 1 for tree in trees[:-1])]
    assert trees[-1]["last"] == size - 1
    levels = tile_levels(size)
    assert [level["full"] * 256 + level["open"] for level in levels] == [
        size >> 8 * number for number in range(len(levels))
    ]
    assert size >> 8 * len(levels) == 0


def test_what_is_late_is_called_late(log: Local, client: FlaskClient) -> None:
    assert said(client, "/status.json")["working"]
    try:
        log.clock.forward(601)
        found = said(client, "/status.json")
        assert [part["name"] for part in found["parts"] if not part["works"]] == ["publication"]
        assert "something is late" in client.get("/status").get_data(as_text=True)
    finally:
        log.clock.at -= timedelta(seconds=601)


def test_the_keys_to_pin_are_those_of_the_policy(log: Local, client: FlaskClient) -> None:
    found = said(client, "/trust.json")
    policy = log.config.policy.read_text("utf-8")
    assert len(found["vkeys"]) == 2
    assert all(key in policy for key in found["vkeys"])


def test_the_page_of_the_interface_has_every_route(client: FlaskClient) -> None:
    described = json.loads(client.get("/openapi.json").data)["paths"]
    assert {route["path"] for route in said(client, "/api.json")["routes"]} == set(described)


def test_a_log_without_witnesses_says_so(client: FlaskClient) -> None:
    assert said(client, "/witnesses.json")["witnesses"] == []
    assert "This log demands no witness" in client.get("/witnesses").get_data(as_text=True)


def test_a_page_asks_the_database_a_bounded_number_of_times(client: FlaskClient) -> None:
    """At most fifty lines on a page, and a few questions for each."""
    for _, page, _ in every(client):
        with counted(client.application.extensions["registry"].store) as texts:
            assert client.get(page).status_code == 200
        assert len(texts) <= 200, page


class Shape(HTMLParser):
    """The elements and attribute names of a page, without its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def asked_with(text: str) -> list[str]:
    """Addresses that take a text from whoever asks, in each place where one can stand."""
    fields = [
        ("/search", "q"),
        ("/entries", "before"),
        ("/entries", "kind"),
        ("/compare", "old"),
        ("/log/consistency", "new"),
        ("/log/checkpoints", "before"),
        ("/digests/00", "at"),
    ]
    word = quote(text, safe="")
    places = [f"/digests/{word}", f"/services/{word}/", f"/entries/{word}", f"/problems/{word}"]
    return [f"{path}?{urlencode({name: text})}" for path, name in fields] + places


def test_no_text_of_two_hundred_changes_the_shape_of_a_page(client: FlaskClient) -> None:
    known = {
        tag for _, page, _ in every(client) for tag in Shape(client.get(page).get_data(as_text=True)).tags
    }
    plain = Shape(client.get("/digests/x").get_data(as_text=True)).tags
    for number, text in enumerate(payloads()):
        asked = asked_with(text)
        # What echoes a text is asked with every one, the others with some.
        for path in {asked[0], asked[7], asked[number % len(asked)]}:
            answer = client.get(path)
            assert answer.status_code < 500, path
            if answer.content_type.startswith("text/html"):
                shape = Shape(answer.get_data(as_text=True))
                assert not [name for name in shape.names if name.startswith("on")], path
                assert set(shape.tags) <= known - {"script"} | {"title"}, path
                if path == asked[7]:
                    assert shape.tags == plain, path
