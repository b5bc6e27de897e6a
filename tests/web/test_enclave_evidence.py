"""web/enclave/evidence.js on good and on broken documents: each check is the one that stops what it is for."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from quotary.attestation.document import AttestationDocument
from quotary.canonical import b64, canonical, time_text, unb64
from quotary.client.policy import Policy
from quotary.client.receipt import Receipt, commitment
from tests.client.test_receipt import SALT, made
from tests.fakes import authority
from tests.fakes.log import policy_bytes
from tests.fakes.machine import NONCE, SEED, World, hardware, keyset, registers
from tests.fakes.node import node_says
from tests.fakes.platforms import nitro_vendor, nitro_world, snp_vendor, snp_world

# Offsets into a quote of version 4: a register, its signature, the attestation key, the quoting enclave's report and its signature.
MRTD, SIGNATURE, KEY, REPORT, REPORT_SIGNATURE = 48 + 136, 636, 700, 770 + 100, 770 + 384

# What only the vendor's further documents, or a policy's and a row's other rules, show.
LEFT = {
    "tdx": {
        "TCB level",
        "TDX module",
        "identity of the quoting enclave",
        "the row's other rules",
        "TCB floor",
    },
    "snp": {"revocation of certificates", "TCB floor", "the row's other rules", "map auditor, rebuilders"},
    "nitro": {"TCB level", "TCB floor", "the row's other rules", "map auditor, rebuilders"},
}
DECISIVE = (
    "root", "binding", "nonce", "age of the checkpoint", "log: record", "log: release signature",
    "log: who may sign for the service", "row",
)  # fmt: skip

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


def said(question: Asked) -> Any:
    (found,) = node_says("tests/web/enclave.mjs", [question])
    return found


def stopped_by(question: Asked) -> str:
    """The check for which a machine was not believed, with its detail; empty where it was believed."""
    found = said(question)
    bad = [row for row in found["rows"] if row["outcome"] not in ("passed", "not checked")]
    stops = bad or [row for row in found["rows"] if row["undecided"]]
    assert found["believed"] is not bool(stops), found
    return f"{stops[0]['name']}: {stops[0]['detail']}" if stops else ""


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
            document["bundle"] = b64(canonical(found))

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


def another_owner(world: World, question: Asked) -> None:
    (rules,) = question["policy"]["services"].values()
    rules["owner"]["threshold"] += 1


def cut_bundle(document: dict[str, Any]) -> None:
    del document["bundle"]


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
    outcomes = held(world)
    assert LEFT["tdx"] <= {name for name, outcome in outcomes.items() if outcome == "not checked"}
    assert {"qe report signature", "quote signature"} <= outcomes.keys()
    assert Policy.parse(policy_bytes(world.policy())).simulation


@pytest.mark.parametrize("platform", ["snp", "nitro"])
def test_other_platforms_are_read_as_tdx_is(platform: str, tmp_path: Path) -> None:
    world = snp_world(snp_vendor(tmp_path)) if platform == "snp" else nitro_world(nitro_vendor(tmp_path))
    assert LEFT[platform] <= {name for name, outcome in held(world).items() if outcome == "not checked"}
    question = asked(world)
    question["nonce"] = b64(bytes(32))
    assert stopped_by(question).startswith("nonce: the hardware answered")
    assert stopped_by(asked(world, replace(world.document(), evidence=b"HCLA"))).startswith(
        "evidence can be read: Azure"
    )
    question = asked(world, world.document(found=world.registers("malware")))
    assert stopped_by(question).startswith("row: the machine measures")
    flip(-1)(world, question := asked(world))
    assert stopped_by(question).startswith("document signature" if platform == "nitro" else "evidence can be")


def held(world: World) -> dict[str, str]:
    """The outcomes of a good document, by row: the machine is believed, and what decides has passed."""
    found = said(asked(world))
    outcomes: dict[str, str] = {row["name"]: row["outcome"] for row in found["rows"]}
    assert found["believed"], found
    assert found["measurement"] == world.measurement.hex()
    assert {outcomes[name] for name in DECISIVE} == {"passed"}
    return outcomes


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (flip(MRTD), "quote signature"),
        (flip(SIGNATURE), "quote signature"),
        (flip(KEY), "qe report data"),
        (flip(REPORT), "qe report signature"),
        (flip(REPORT_SIGNATURE + 1000), "pck chain: SIM SGX PCK Certificate is not signed"),
        (flip(REPORT_SIGNATURE), "qe report signature"),
        (lambda world, question: question.update(nonce=b64(bytes(32))), "nonce"),
        (other_keyset, "binding"),
        (lambda world, question: question.update(now=world.ts + 1000), "age of the checkpoint: found 1000 s"),
        (lambda world, question: question.update(now=world.ts + 3600), "binding: the keyset is in force"),
        (lambda world, question: question.update(now=world.ts + 3650 * 86_400 * 4), "pck chain"),
        (no_service, "log: who may sign for the service"),
        (another_owner, "log: who may sign for the service: no delegation names exactly the owners"),
        (bundle(cut_signatures), "log: log key"),
        (bundle(lambda found: found["state"].update(index=found["release"]["index"])), "log: state entry"),
        (bundle(lambda found: found.update(state=found["release"])), "log: state entry"),
        (bundle(lambda found: found["release"]["path"].__setitem__(0, another(found["release"]["path"][0]))), "log: entry"),
        (bundle(lambda found: found["release"]["path"].__setitem__(0, "AAAA")), "log: entry"),
        (bundle(lambda found: found.update(release=found["authority"][0])), "log: release signature"),
        (bundle(lambda found: found.update(v=2)), "log: the bundle can be read"),
        (lambda world, question: edit(question, cut_bundle), "log: no bundle"),
        (record(lambda own: own.update(proof=another(own["proof"]))), "log: record"),
        (record(lambda own: own.update(record=b64(unb64(own["record"]).replace(b"active", b"active ")))), "log: record"),
    ],
)  # fmt: skip
def test_a_broken_document_is_stopped_by_its_own_check(world: World, change: Change, wanted: str) -> None:
    question = asked(world)
    change(world, question)
    assert stopped_by(question).startswith(wanted)


def test_another_vendors_root_is_refused(world: World) -> None:
    question = asked(world)
    question["policy"]["platforms"]["sim-tdx"]["simulator_root_sha256"] = "11" * 32
    assert stopped_by(question).startswith("root: found the root")


def test_simulated_evidence_is_none_under_a_production_policy(world: World) -> None:
    question = asked(world)
    rules = question["policy"]["platforms"].pop("sim-tdx")
    question["policy"] |= {"environment": "production", "platforms": {"tdx": rules}}
    assert stopped_by(question).startswith("root: simulated evidence")


def test_a_machine_that_runs_something_else_is_not_in_the_release(world: World) -> None:
    assert stopped_by(asked(world, world.document(found=registers("malware")))).startswith(
        "row: the machine measures"
    )


def test_a_revoked_release_is_refused(world: World) -> None:
    world.log.append(world.log.maker.revocation(world.release))
    world.log.close(world.ts)
    assert stopped_by(asked(world)).startswith("log: record: measurement")


def test_a_release_that_a_newer_one_replaced_is_refused(world: World) -> None:
    old = json.loads(world.bundle())["release"]["index"]
    maker = world.log.maker
    world.run(authority.row(SEED))
    assert maker is world.log.maker
    question = asked(world)
    replaced = world.log.included(old)
    shown = {"index": old, "entry": b64(replaced.entry), "path": [b64(item) for item in replaced.path]}
    bundle(lambda found: found.update(release=shown))(world, question)
    assert stopped_by(question).startswith("log: record: its newest release is")


def test_a_guest_that_may_be_debugged_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.tdx.TD_ATTRIBUTES", bytes.fromhex("0100001000000000"))
    assert stopped_by(asked(world)).startswith("debug")


def test_a_suspended_release_is_refused_until_its_time(world: World) -> None:
    world.log.append(world.log.maker.revocation(world.release, suspend=timedelta(minutes=10)))
    world.log.close(world.ts)
    assert "is suspended until" in stopped_by(asked(world))
    assert stopped_by(asked(world, now=world.ts + 601)) == ""


def test_a_release_is_refused_from_its_end_on(world: World) -> None:
    maker = world.log.maker
    ends = time_text(world.now + timedelta(minutes=5))
    world.release = maker.release(rows=[authority.row(SEED)], not_after=ends)
    world.log.append(world.release, maker.rebuild(world.release, {SEED: True}))
    world.log.close(world.ts)
    assert stopped_by(asked(world, now=world.ts + 299)) == ""
    assert "was to be believed until" in stopped_by(asked(world, now=world.ts + 300))


RESPONSE = b'{"id":"chatcmpl-1"}'


def failed(
    receipt: Receipt | None = None,
    request: bytes = b"question",
    response: bytes = RESPONSE,
    salt: bytes = SALT,
) -> list[str]:
    """What does not hold of a receipt's public copy over an exchange that this page had."""
    whole = receipt or made()
    answered = replace(whole.commitments, response=commitment("response", SALT, RESPONSE))
    public = replace(whole, commitments=answered, salt=None).encode()
    found = said(
        {"receipt": b64(public), "request": b64(request), "response": b64(response), "salt": b64(salt)}
    )
    assert [row["outcome"] for row in found[-2:]] == ["not checked"] * 2
    return [row["name"] for row in found if row["outcome"] == "failed"]


def test_a_receipt_is_about_what_this_page_sent_and_received_under_its_salt() -> None:
    assert failed() == []
    assert failed(request=b"question ") == ["request of the receipt"]
    assert failed(response=RESPONSE + b" ") == ["response of the receipt"]
    assert failed(salt=bytes(31) + b"1") == ["request of the receipt", "response of the receipt"]
    assert failed(replace(made(), served=replace(made().served, complete=False))) == ["answer of the receipt"]
    assert failed(replace(made(), served=replace(made().served, chat_id="x"))) == ["answer of the receipt"]


def test_a_machine_that_the_log_proves_not_to_know_is_not_believed(world: World) -> None:
    question = asked(world)
    absent = b64(world.log.absence(bytes(32), ts=world.ts).encode())
    edit(question, lambda document: document.update(bundle=absent))
    assert stopped_by(question).startswith("log: absence: proven: the map has nothing")
