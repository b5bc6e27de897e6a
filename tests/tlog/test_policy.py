"""Policies: what they demand of a checkpoint, and what is no policy."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidSignature, Malformed, Refused
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.policy import Group, TlogPolicy, Witness
from tests.tlog import keys

NOW = 1_795_000_000
ROOT = bytes(range(32))
CHECKPOINT = Checkpoint(keys.ORIGIN, 42, ROOT)
LOGS = [keys.log_key(), keys.log_key_ml_dsa()]
WITNESSES = {name: keys.witness_key(f"{name}.example.org") for name in ("one", "two", "three", "four")}
WITNESSES["five"] = keys.witness_key_ml_dsa("five.example.org")
LINES = [
    *(f"log {key.verifier.vkey()} https://log.example.org/" for key in LOGS),
    *(f"witness {name} {key.verifier.vkey()}" for name, key in WITNESSES.items()),
]


def policy(*lines):
    return TlogPolicy.parse("\n".join([*LINES, *lines, ""]))


def note(times, *, logs=LOGS, checkpoint=CHECKPOINT):
    """Return a checkpoint that each named witness signed at its time."""
    data = sign_checkpoint(checkpoint, logs, NOW)
    return (
        data + "".join(WITNESSES[name].line(str(checkpoint), time) for name, time in times.items()).encode()
    )


def test_a_policy_gives_back_what_it_says():
    found = policy(
        "# a comment",
        "  # another",
        "",
        " \t ",
        "group g 2 one two three",
        "\tgroup\tall-of  all g five ",
        "quorum all-of",
    )
    assert found.logs == tuple(key.verifier for key in LOGS)
    assert set(found.urls.values()) == {"https://log.example.org/"}
    assert found.witnesses["five"] == Witness("five", WITNESSES["five"].verifier)
    assert found.groups == {
        "g": Group("g", 2, ("one", "two", "three")),
        "all-of": Group("all-of", 2, ("g", "five")),
    }
    assert found.quorum == "all-of"
    assert TlogPolicy.parse(found.text) == found


def test_a_quorum_accepts_and_says_when():
    data = note({"one": NOW, "three": NOW + 7})
    found = policy("group g 2 one two three", "quorum g").verify(data)
    assert found.checkpoint == CHECKPOINT
    assert bytes(found.note) == data
    assert found.cosignatures == {"one": (NOW,), "three": (NOW + 7,)}
    assert found.quorum_time == NOW


@pytest.mark.parametrize(
    ("lines", "times", "expected"),
    [
        (["quorum one"], {"one": 10}, 10),
        (["group g any one two", "quorum g"], {"one": 10}, 10),
        (["group g any one two", "quorum g"], {"one": 10, "two": 30}, 30),
        (["group g all one two", "quorum g"], {"one": 10, "two": 30}, 10),
        (["group g 1 one two three", "quorum g"], {"one": 10, "two": 30, "three": 20}, 30),
        (["group g 2 one two three", "quorum g"], {"one": 10, "two": 30, "three": 20}, 20),
        (["group g 3 one two three", "quorum g"], {"one": 10, "two": 30, "three": 20}, 10),
        (
            ["group g any one two", "group h any three four", "group q all g h", "quorum q"],
            {"one": 10, "two": 40, "three": 20},
            20,
        ),
        (
            ["group g all one two", "group h all three four", "group q any g h", "quorum q"],
            {"one": 10, "two": 40, "three": 90},
            10,
        ),
        (["group g all one five", "quorum g"], {"one": 10, "five": 5}, 5),
        (["quorum none"], {"one": 10}, None),
        (["quorum none"], {}, None),
    ],
)
def test_the_quorum_time_is_that_of_the_design(lines, times, expected):
    assert policy(*lines).verify(note(times)).quorum_time == expected


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        (["quorum one"], {}),
        (["quorum one"], {"two": 10}),
        (["group g all one two", "quorum g"], {"one": 10}),
        (["group g 2 one two three", "quorum g"], {"three": 10, "four": 10, "five": 10}),
        (
            ["group g any one two", "group h any three four", "group q all g h", "quorum q"],
            {"one": 10, "two": 40},
        ),
        (["quorum one"], {"one": 0}),
    ],
)
def test_a_missing_quorum_is_refused(lines, times):
    with pytest.raises(Refused, match="witness quorum") as caught:
        policy(*lines).verify(note(times))
    assert caught.value.check == "witness quorum"
    assert caught.value.exit_code == 11


def test_the_refusal_says_who_signed_and_who_should_have():
    with pytest.raises(Refused) as caught:
        policy("group g 2 one two three", "group q all g five", "quorum q").verify(
            note({"one": 1, "five": 1})
        )
    assert caught.value.found == "one, five"
    assert caught.value.wanted == "2 of (2 of (one, two, three), five)"
    with pytest.raises(Refused, match="no witness of the policy"):
        policy("quorum one").verify(note({}))


def test_cosignatures_far_ahead_of_the_clock_count_as_absent():
    with_witness = policy("quorum one")
    ahead = note({"one": NOW + 301})
    assert with_witness.verify(ahead).quorum_time == NOW + 301
    assert with_witness.verify(note({"one": NOW + 300}), now=NOW).quorum_time == NOW + 300
    with pytest.raises(Refused, match="witness quorum"):
        with_witness.verify(ahead, now=NOW)
    both = ahead + WITNESSES["one"].line(str(CHECKPOINT), NOW - 5).encode()
    found = with_witness.verify(both, now=NOW)
    assert (found.quorum_time, found.cosignatures) == (NOW - 5, {"one": (NOW - 5,)})
    assert with_witness.verify(both).cosignatures == {"one": (NOW + 301, NOW - 5)}


def test_every_listed_log_key_must_have_signed():
    with_none = policy("quorum none")
    for logs in ([], LOGS[:1], LOGS[1:]):
        with pytest.raises((Refused, Malformed, InvalidSignature)) as caught:
            with_none.verify(note({"one": 1}, logs=logs))
        assert caught.value.check == "log keys"
    single = TlogPolicy.parse("\n".join([LINES[0], "quorum none"]))
    assert single.verify(note({})).checkpoint == CHECKPOINT


def test_a_checkpoint_of_another_origin_is_refused():
    other = dataclasses.replace(CHECKPOINT, origin="other.example.org")
    for logs in (LOGS[:1], [keys.log_key("other.example.org", "log")]):
        with pytest.raises((Refused, InvalidSignature)):
            policy("quorum none").verify(note({}, logs=logs, checkpoint=other))
    with pytest.raises(Refused, match="log origin"):
        policy("quorum one").verify(note({"one": 1}, logs=LOGS[:1], checkpoint=other))


def test_each_origin_of_a_policy_answers_for_itself():
    second = keys.log_key("second.example.org", "second")
    two = TlogPolicy.parse("\n".join([*LINES, f"log {second.verifier.vkey()}", "quorum none"]))
    other = dataclasses.replace(CHECKPOINT, origin="second.example.org")
    assert two.verify(note({}, logs=[second], checkpoint=other)).checkpoint == other
    assert two.verify(note({})).checkpoint == CHECKPOINT
    with pytest.raises(Refused, match="log keys"):
        two.verify(note({}, logs=LOGS[:1], checkpoint=other))


def test_a_bad_line_of_a_listed_key_refuses_the_note():
    data = note({"one": NOW})
    bad = WITNESSES["two"].line("other text\n", NOW).encode()
    with pytest.raises(InvalidSignature):
        policy("quorum one").verify(data + bad)
    with pytest.raises(InvalidSignature, match="no known key"):
        policy("quorum one").verify(note({}, logs=[keys.log_key(keys.ORIGIN, "other")]))
    with pytest.raises(Malformed):
        policy("quorum one").verify(data[:-1])


def test_a_log_key_never_counts_as_a_witness():
    for vkey in (
        keys.SigningKey.cosigner(keys.ORIGIN, keys.ed25519_private("own witness")).verifier.vkey(),
        keys.SigningKey.cosigner("w.example.org", keys.ed25519_private("log")).verifier.vkey(),
    ):
        with pytest.raises(Malformed, match="name or key of a log"):
            policy(f"witness own {vkey}", "quorum own")


WITNESS = WITNESSES["one"].verifier.vkey()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["quorum"],
        ["quorum one two"],
        ["quorum nobody"],
        ["quorum one", "quorum one"],
        ["quorum one", "quorum none"],
        ["quorum g", "group g any one"],
        ["log", "quorum none"],
        ["log not-a-key", "quorum none"],
        [f"log {WITNESS}", "quorum none"],
        [LINES[0], "quorum none"],
        [f"log {keys.log_key('x.example', 'x').verifier.vkey()} https://x y", "quorum none"],
        ["witness six", "quorum none"],
        ["witness six not-a-key", "quorum none"],
        [f"witness six {keys.log_key('x.example', 'x').verifier.vkey()}", "quorum none"],
        [f"witness six {WITNESS}", "quorum none"],
        [f"witness six {WITNESS} https://x y", "quorum none"],
        [f"witness one {keys.witness_key('six').verifier.vkey()}", "quorum none"],
        [f"witness none {keys.witness_key('six').verifier.vkey()}", "quorum none"],
        ["group g any one", f"witness g {keys.witness_key('six').verifier.vkey()}", "quorum none"],
        ["group g", "quorum none"],
        ["group g any", "quorum none"],
        ["group g one two", "quorum none"],
        ["group g 0 one", "quorum none"],
        ["group g 2 one", "quorum none"],
        ["group g 01 one", "quorum none"],
        ["group g -1 one", "quorum none"],
        ["group g 99999 one", "quorum none"],
        ["group g \u0661 one", "quorum none"],
        ["group g any none", "quorum none"],
        ["group g any nobody", "quorum none"],
        ["group g any g", "quorum none"],
        ["group g any one one", "quorum none"],
        ["group g any one", "group h any one", "quorum none"],
        ["group g any one", "group h any g", "group i any g", "quorum none"],
        ["group one any two", "quorum none"],
        ["group none any two", "quorum none"],
        ["group g any one", "group g any two", "quorum none"],
        ["groups g any one", "quorum none"],
        ["QUORUM none"],
        ["quorum none\r"],
        ["quorum\u00a0none"],
        ["quorum none", "# \x7f"],
    ],
)
def test_what_is_no_policy_is_malformed(lines):
    with pytest.raises(Malformed):
        policy(*lines)


def test_a_key_is_listed_once_whatever_its_name():
    renamed = [keys.SigningKey.log("other.example", LOGS[0].private).verifier.vkey()]
    renamed.append(keys.SigningKey.cosigner("other.example", WITNESSES["one"].private).verifier.vkey())
    for line in (f"log {renamed[0]}", f"witness six {renamed[1]}"):
        with pytest.raises(Malformed, match="listed twice"):
            policy(line, "quorum none")


def test_names_are_octets_and_no_letters():
    """A Kelvin sign is no K, and neither is a letter with its accent beside it the letter with its accent."""
    for name, other in (
        ("K", "\u212a"),
        ("\u00e9", "e\u0301"),
        ("a", "A"),
        ("ss", "\u00df"),
        ("x", "x\u200b"),
    ):
        lines = (f"witness {name} {keys.witness_key('six').verifier.vkey()}", f"group {other} any {name}")
        assert policy(*lines, f"quorum {other}").groups[other].members == (name,)
        with pytest.raises(Malformed, match="not defined above"):
            policy(lines[0], f"quorum {other}")


def test_the_text_of_a_note_that_no_listed_key_signed_is_not_read():
    """Whoever reads it first can be told anything by anybody."""
    text = "neither an origin nor a size\n"
    stranger = keys.log_key("stranger.example", "stranger")
    for data in (
        (text + "\n" + stranger.line(text, NOW)).encode(),
        sign_checkpoint(CHECKPOINT, [stranger], NOW),
    ):
        with pytest.raises(InvalidSignature, match="no known key"):
            policy("quorum none").verify(data)
    with pytest.raises(Malformed, match="checkpoint"):
        policy("quorum none").verify((text + "\n" + LOGS[0].line(text, NOW)).encode())


def test_a_policy_without_a_log_is_malformed():
    with pytest.raises(Malformed, match="no log"):
        TlogPolicy.parse("quorum none\n")
    with pytest.raises(Malformed, match="characters"):
        TlogPolicy.parse("#" * 1_000_001)


def test_a_malformed_line_is_named():
    with pytest.raises(Malformed, match="line 8: quorum nobody is not defined above"):
        policy("quorum nobody")


def test_the_number_of_lines_is_limited_above_what_the_specification_asks():
    def with_witnesses(count):
        names = [f"w{n}" for n in range(count)]
        lines = [f"witness {name} {keys.witness_key(name).verifier.vkey()}" for name in names]
        return TlogPolicy.parse("\n".join([LINES[0], *lines, f"group g all {' '.join(names)}", "quorum g"]))

    def with_groups(count):
        groups = [f"group g{n} any {f'g{n - 1}' if n else 'one'}" for n in range(count)]
        return policy(*groups, f"quorum g{count - 1}")

    def with_logs(count):
        lines = [f"log {keys.log_key(f'log{n}', f'log{n}').verifier.vkey()}" for n in range(count)]
        return TlogPolicy.parse("\n".join([*lines, "quorum none"]))

    assert len(with_witnesses(128).witnesses) == 128
    assert with_groups(128).verify(note({"one": 9})).quorum_time == 9
    with pytest.raises(Refused):
        with_groups(128).verify(note({}))
    assert len(with_logs(128).logs) == 128
    for build in (with_witnesses, with_groups, with_logs):
        with pytest.raises(Malformed, match="more than 128"):
            build(129)


def test_another_dialect_is_malformed(vectors):
    files = sorted((vectors / "tlog" / "policies").glob("*.policy"))
    assert len(files) == 2
    for file in files:
        with pytest.raises(Malformed, match="policy line"):
            TlogPolicy.parse(file.read_text())


def test_every_combination_of_witnesses_meets_exactly_its_quorum():
    two_of_three = policy("group g 2 one two three", "quorum g")
    for count in range(4):
        for names in itertools.combinations(("one", "two", "three"), count):
            data = note(dict.fromkeys(names, NOW))
            if count >= 2:
                assert two_of_three.verify(data).quorum_time == NOW
            else:
                with pytest.raises(Refused):
                    two_of_three.verify(data)


@given(st.text(max_size=120))
def test_a_policy_parser_raises_nothing_but_malformed(text):
    for candidate in (text, "\n".join([*LINES, text, "quorum none"])):
        try:
            found = TlogPolicy.parse(candidate)
        except Malformed:
            continue
        assert TlogPolicy.parse(found.text) == found
