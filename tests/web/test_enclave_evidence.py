"""web/enclave/evidence.js on good and on broken documents: each check is the one that stops what it is for."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from quotary.attestation.document import AttestationDocument
from quotary.canonical import b64, time_text, unb64
from quotary.client.policy import Policy
from tests.fakes import authority
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, SEED, World, hardware, keyset, registers
from tests.fakes.node import node_says

# Offsets into a quote of version 4: a register, its signature, the attestation key, the quoting enclave's report and its signature.
MRTD, SIGNATURE, KEY, REPORT, REPORT_SIGNATURE = 48 + 136, 636, 700, 770 + 100, 770 + 384

Asked = dict[str, Any]
Change = Callable[[World, Asked], None]


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(*hardware(tmp_path_factory.mktemp("vendor"))).publish()


def asked(world: World, document: AttestationDocument | None = None, **changes: object) -> Asked:
    shown = replace(document or world.document(), bundle=world.bundle())
    policy = json.loads(policy_bytes(world.policy()))
    found = {"document": b64(shown.encode()), "policy": policy, "nonce": b64(NONCE), "now": world.ts + 60}
    return found | changes


def rows(*questions: Asked) -> list[list[dict[str, str]]]:
    found: list[list[dict[str, str]]] = node_says("tests/web/enclave.mjs", questions)
    return found


def stopped_by(question: Asked) -> str:
    """The check that stopped a judgement, with its detail; empty where nothing did."""
    (found,) = rows(question)
    bad = [row for row in found if row["outcome"] in ("failed", "refused")]
    return f"{bad[0]['name']}: {bad[0]['detail']}" if bad else ""


def edit(question: Asked, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(unb64(question["document"]))
    change(document)
    question["document"] = b64(json.dumps(document).encode())


def flip(at: int) -> Change:
    """Change one bit of the quote."""

    def change(world: World, question: Asked) -> None:
        def quote(document: dict[str, Any]) -> None:
            data = bytearray(unb64(document["cpu"]["evidence"]))
            data[at] ^= 1
            document["cpu"]["evidence"] = b64(bytes(data))

        edit(question, quote)

    return change


def bundle(change: Callable[[dict[str, Any]], None]) -> Change:
    def whole(world: World, question: Asked) -> None:
        def part(document: dict[str, Any]) -> None:
            found = json.loads(unb64(document["bundle"]))
            change(found)
            document["bundle"] = b64(json.dumps(found).encode())

        edit(question, part)

    return whole


def another(text: str) -> str:
    data = bytearray(unb64(text))
    data[0] ^= 1
    return b64(bytes(data))


def cut_signatures(found: dict[str, Any]) -> None:
    text, _, _ = unb64(found["checkpoint"]).decode().partition("\n\n")
    found["checkpoint"] = b64(f"{text}\n\n— somebody AAAAAAA=\n".encode())


def other_keyset(world: World, question: Asked) -> None:
    other = b64(keyset(world.channel.public, at=world.now - timedelta(minutes=1)).encode())
    edit(question, lambda document: document.update(keyset=other))


def set_policy(**members: object) -> Change:
    return lambda world, question: question["policy"].update(members)


def no_service(world: World, question: Asked) -> None:
    question["policy"]["services"] = {"other": {}}


def record(change: Callable[[dict[str, Any]], None]) -> Change:
    """Change the measurement's record, or its proof."""

    def of(found: dict[str, Any]) -> None:
        (own,) = [
            item
            for item in found["records"]
            if json.loads(unb64(item["record"])).get("kind") == "measurement"
        ]
        change(own)

    return bundle(of)


def test_a_good_document_holds_and_what_was_not_checked_is_named(world: World) -> None:
    (found,) = rows(asked(world))
    outcomes = {row["name"]: row["outcome"] for row in found}
    assert {"failed", "refused"}.isdisjoint(outcomes.values()), found
    for name in (
        "hardware root",
        "keys and nonce",
        "age of the checkpoint",
        "inclusion of the release",
        "status",
    ):
        assert outcomes[name] == "passed"
    assert (outcomes["firmware"], outcomes["who may release"]) == ("not checked", "not checked")
    assert Policy.parse(policy_bytes(world.policy())).simulation


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (flip(MRTD), "quote signature"),
        (flip(SIGNATURE), "quote signature"),
        (flip(KEY), "quoting enclave: the attestation key in its report"),
        (flip(REPORT), "quoting enclave: the report of the quoting enclave"),
        (flip(REPORT_SIGNATURE + 1000), "hardware root"),
        (flip(REPORT_SIGNATURE), "quoting enclave: the report of the quoting enclave"),
        (lambda world, question: question.update(nonce=b64(bytes(32))), "keys and nonce"),
        (other_keyset, "keys and nonce"),
        (lambda world, question: question.update(now=world.ts + 1000), "age of the checkpoint"),
        (lambda world, question: question.update(now=world.ts + 3600), "keyset in force"),
        (lambda world, question: question.update(now=world.ts + 3650 * 86_400 * 4), "hardware root"),
        (no_service, "service"),
        (bundle(cut_signatures), "checkpoint: log key"),
        (bundle(lambda found: found["state"].update(index=found["release"]["index"])), "state of the log"),
        (bundle(lambda found: found.update(state=found["release"])), "state of the log"),
        (bundle(lambda found: found["release"]["path"].__setitem__(0, another(found["release"]["path"][0]))), "inclusion of the release"),
        (bundle(lambda found: found.update(release=found["authority"][0])), "inclusion of the release"),
        (record(lambda own: own.update(proof=another(own["proof"]))), "status"),
        (record(lambda own: own.update(record=b64(unb64(own["record"]).replace(b"active", b"active ")))), "status"),
    ],
)  # fmt: skip
def test_a_broken_document_is_stopped_by_its_own_check(world: World, change: Change, wanted: str) -> None:
    question = asked(world)
    change(world, question)
    assert stopped_by(question).startswith(wanted)


def test_another_vendors_root_is_refused(world: World) -> None:
    question = asked(world)
    question["policy"]["platforms"]["sim-tdx"]["simulator_root_sha256"] = "11" * 32
    assert stopped_by(question).startswith("hardware root: the chain ends in")


def test_simulated_evidence_is_none_under_a_production_policy(world: World) -> None:
    question = asked(world)
    rules = question["policy"]["platforms"].pop("sim-tdx")
    question["policy"] |= {"environment": "production", "platforms": {"tdx": rules}}
    assert stopped_by(question).startswith("hardware root: the chain ends in")


def test_a_machine_that_runs_something_else_is_not_in_the_release(world: World) -> None:
    assert stopped_by(asked(world, world.document(found=registers("malware")))).startswith(
        "measurement: found"
    )


def test_a_revoked_release_is_refused(world: World) -> None:
    world.log.append(world.log.maker.revocation(world.release))
    world.log.close(world.ts)
    assert stopped_by(asked(world)).startswith("status: found revoked")


def test_a_release_that_a_newer_one_replaced_is_refused(world: World) -> None:
    old = json.loads(world.bundle())["release"]["index"]
    maker = world.log.maker
    world.run(authority.row(SEED))
    assert maker is world.log.maker
    question = asked(world)
    replaced = world.log.included(old)
    shown = {"index": old, "entry": b64(replaced.entry), "path": [b64(item) for item in replaced.path]}
    bundle(lambda found: found.update(release=shown))(world, question)
    assert stopped_by(question).startswith("status: found active, release")


def test_a_guest_that_may_be_debugged_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.tdx.TD_ATTRIBUTES", bytes.fromhex("0100001000000000"))
    assert stopped_by(asked(world)).startswith("no debugger")


def test_a_suspended_release_is_refused_until_its_time(world: World) -> None:
    world.log.append(world.log.maker.revocation(world.release, suspend=timedelta(minutes=10)))
    world.log.close(world.ts)
    assert stopped_by(asked(world)).startswith("status: suspended until")
    assert stopped_by(asked(world, now=world.ts + 601)) == ""


def test_a_release_is_refused_from_its_end_on(world: World) -> None:
    maker = world.log.maker
    ends = time_text(world.now + timedelta(minutes=5))
    world.release = maker.release(rows=[authority.row(SEED)], not_after=ends)
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    assert stopped_by(asked(world, now=world.ts + 299)) == ""
    assert stopped_by(asked(world, now=world.ts + 300)).startswith("status: ended at")
