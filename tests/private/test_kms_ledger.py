"""What each node of a key service writes down before it answers."""

import resource

import pytest

from private.kms.ledger import read_ledger, verify_lines
from private.kms.node import Announcer, head_entry
from quotary.canonical import parse_canonical
from quotary.errors import CannotTell, Malformed
from quotary.statements.envelope import Envelope
from quotary.statements.schema import parse_statement
from tests.conftest import ROOT
from tests.fakes.authority import SERVICE
from tests.fakes.key_nodes import answer_of, asked_of


def test_the_ledger_says_who_got_which_key_and_no_line_can_change(village):
    village.service().key("disk")
    village.service().key("acme")
    data = village.ledger(1)
    lines = [parse_canonical(line, 4096) for line in data.splitlines()]
    assert [(line["service"], line["label"], line["epoch"]) for line in lines] == [
        (SERVICE, "disk", 1),
        (SERVICE, "acme", 1),
    ]
    assert {line["release"] for line in lines} == {Envelope.parse(village.world.release).statement_id}
    head = read_ledger(village.node(1).path / "ledger.jsonl")
    assert head.size == 2
    changed_last = data.replace(b"acme", b"acne")
    assert verify_lines(changed_last.splitlines()).digest != head.digest
    for broken in (data.replace(b"disk", b"disc"), b"".join(data.splitlines(True)[1:]), b"{}\n"):
        with pytest.raises(Malformed, match="of the ledger"):
            verify_lines(broken.splitlines())


def test_a_head_that_the_log_does_not_take_is_sent_again_until_it_does(village, caplog):
    village.service().key("disk")
    ledger, sent = village.apps[1].extensions["ledger"], []

    def send(head):
        sent.append(head)
        if len(sent) == 1:
            raise CannotTell("no answer from the log")

    telling = Announcer(lambda: ledger.head, send, 60)
    for _ in range(3):
        telling.once()
    assert sent == [ledger.head, ledger.head]
    assert [record.message for record in caplog.records] == ["kms.head.not-logged"]
    entry = head_entry(village.node(1), village.policy, ledger.head)
    assert entry == head_entry(village.node(1), village.policy, ledger.head)
    notice = parse_statement(Envelope.parse(entry).payload).predicate
    assert (notice.items[0].sha256, notice.items[0].size) == (ledger.head.digest, 1)


def test_the_format_pages_example_is_a_ledger():
    page = (ROOT / "docs" / "formats" / "kms.md").read_text()
    line = page.partition("```json ledger\n")[2].partition("\n```")[0]
    assert verify_lines([line.encode()]).size == 1


def test_a_line_that_a_crash_cut_short_goes_and_any_other_damage_stops_the_node(village):
    village.service().key("disk")
    path = village.node(1).path / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    village.start(1)
    village.service().key("acme")
    assert len(path.read_bytes().splitlines()) == 2
    path.write_bytes(path.read_bytes().replace(b"disk", b"dusk"))
    with pytest.raises(Malformed, match="line 1 of the ledger"):
        village.start(1)


def test_a_full_disk_keeps_the_answer_back_and_half_a_line_goes(village):
    village.service().key("disk")
    before = village.ledger(1)
    asked, _ = asked_of(village)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        status, detail = answer_of(village, asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, "cannot write" in detail) == (502, True)
    assert village.ledger(1) == before
    village.service().key("disk")
    assert read_ledger(village.node(1).path / "ledger.jsonl").size == 2


def test_a_node_killed_while_it_answers_has_lost_nothing(village):
    key = village.service().key("disk")
    asked_of(village)  # a challenge that its death takes along
    village.start(1)
    assert village.service().key("disk") == key
    assert read_ledger(village.node(1).path / "ledger.jsonl").size == 2
