"""``quotary verify`` and its relatives on every kind of file."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from quotary.canonical import b64, canonical, unb64
from quotary.client.files import EvidenceFile
from tests.cli.conftest import Live, Ran, Run
from tests.fakes import authority
from tests.fakes.machine import NONCE, World, registers


def verify(run: Run, live: Live, file: Path, *words: object) -> Ran:
    return run("verify", file, "--policy", live.policy, "--simulation", "--offline", *words)


def evidence(world: World) -> EvidenceFile:
    return EvidenceFile(world.document().encode(), world.bundle(), NONCE, None, world.now)


def test_an_evidence_file_is_judged(run: Run, live: Live) -> None:
    ran = verify(run, live, live.file("evidence.json", evidence(live.world).encode()))
    assert ran.code == 0, ran.err
    assert "ok" in ran.out
    assert "SIMULATED evidence, proves nothing about hardware" in ran.out
    assert "not checked  receipt" in ran.out


def test_simulated_evidence_never_ends_well_unasked(run: Run, live: Live) -> None:
    file = live.file("evidence.json", evidence(live.world).encode())
    ran = run("verify", file, "--policy", live.policy, "--offline")
    assert ran.code == 11
    assert "simulation" in ran.err
    assert ran.out == ""


def test_json_lists_every_check_with_its_anchor(run: Run, live: Live) -> None:
    ran = verify(run, live, live.file("evidence.json", evidence(live.world).encode()), "--json")
    document = json.loads(ran.out)
    assert (document["schema"], document["outcome"], document["exit_code"]) == (
        "quotary/verdict/v1",
        "proven",
        0,
    )
    assert document["simulated"] is True
    for check in document["checks"]:
        assert set(check) == {"name", "outcome", "found", "wanted", "anchor", "checked_by"}


def test_a_refusal_shows_what_held_before_it(run: Run, live: Live) -> None:
    file = replace(evidence(live.world), nonce=bytes(32))
    ran = verify(run, live, live.file("evidence.json", file.encode()))
    assert ran.code == 10
    assert "FAILED" in ran.out
    assert ran.err.startswith("error: nonce: found ")
    ran = verify(run, live, live.file("evidence.json", file.encode()), "--json")
    document = json.loads(ran.out)
    assert (document["outcome"], document["exit_code"]) == ("Rejected", 10)
    assert document["checks"][-1]["outcome"] == "failed"


def test_an_attestation_document_is_judged_with_a_bundle(run: Run, live: Live) -> None:
    bundle = live.file("bundle.json", live.world.bundle())
    file = live.file("document.json", live.world.document().encode())
    ran = verify(run, live, file, "--bundle", bundle, "--nonce", NONCE.hex())
    assert ran.code == 0, ran.err
    shown = replace(live.world.document(), bundle=live.world.bundle())
    ran = verify(run, live, live.file("document.json", shown.encode()))
    assert ran.code == 0, ran.err
    assert "not checked  nonce" in ran.out


def test_a_machine_that_is_not_in_the_log_has_its_own_code(run: Run, live: Live) -> None:
    absence = live.world.log.absence(authority.measurement("unknown"), ts=live.world.ts)
    bundle = live.file("absence.json", absence.encode())
    document = live.world.document(found=registers("unknown"))
    ran = verify(run, live, live.file("document.json", document.encode()), "--bundle", bundle)
    assert ran.code == 12
    assert "has no measurement" in ran.err
    ran = verify(run, live, bundle, "--measurement", authority.measurement("unknown").hex())
    assert ran.code == 12


def test_a_bundle_is_judged(run: Run, live: Live) -> None:
    ran = verify(run, live, live.file("bundle.json", live.world.bundle()))
    assert ran.code == 0, ran.err
    assert "no machine was looked at" in ran.out
    assert "9 checks held, 6 not checked" in ran.out


def test_what_was_accepted_is_remembered_between_commands(run: Run, live: Live, tmp_path: Path) -> None:
    before = live.file("before.json", live.world.bundle())
    live.world.log.append(live.world.log.maker.notice())
    live.world.log.close(live.world.ts)
    assert verify(run, live, live.file("bundle.json", live.world.bundle())).code == 0
    ran = run("trust", "show", "--json")
    assert json.loads(ran.out)["logs"][0]["size"] == 9
    ran = verify(run, live, before)
    assert ran.code == 11
    assert "rollback" in ran.err
    assert run("trust", "show").out.startswith(live.world.log.origin)
    note = tmp_path / "newest.note"
    assert run("trust", "export", live.world.log.origin, "--out", note).code == 0
    assert note.read_bytes().startswith(live.world.log.origin.encode())
    assert run("trust", "export", live.world.log.origin, "--out", note).code == 2
    assert run("trust", "export", "other.example.org", "--out", tmp_path / "x").code == 40


def test_an_older_file_is_judged_at_its_own_time_and_says_so(run: Run, live: Live) -> None:
    before = live.file("before.json", live.world.bundle())
    live.world.log.append(live.world.log.maker.notice())
    live.world.log.close(live.world.ts)
    assert verify(run, live, live.file("bundle.json", live.world.bundle())).code == 0
    assert verify(run, live, before).code == 11
    ran = verify(run, live, before, "--at-its-time", "--offline")
    assert ran.code == 0, ran.err
    assert re.search(r"^at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ: ", ran.out, re.M)
    revoked = live.world.log.maker.revocation(live.world.release)
    live.world.log.append(revoked)
    live.world.log.close(live.world.ts)
    after = live.file("after.json", live.world.bundle())
    assert verify(run, live, after, "--at-its-time", "--offline").code == 11
    assert verify(run, live, before, "--at-its-time", "--offline").code == 0


def test_no_time_is_taken_from_a_checkpoint_that_the_policy_refuses(run: Run, live: Live) -> None:
    found = json.loads(live.world.bundle())
    note = unb64(found["checkpoint"])
    found["checkpoint"] = b64(note[: note.rindex("— ".encode())])
    ran = verify(run, live, live.file("bundle.json", canonical(found)), "--at-its-time", "--offline")
    assert ran.code in (10, 11)


def test_a_release_is_judged_by_a_bundle(run: Run, live: Live) -> None:
    bundle = live.file("bundle.json", live.world.bundle())
    ran = verify(run, live, live.file("release.entry", live.world.release), "--bundle", bundle)
    assert ran.code == 0, ran.err


def test_another_statement_is_judged_by_a_proof(run: Run, live: Live) -> None:
    entry = live.file("delegation.entry", live.world.log.entries[2])
    proof = live.file("2.tlog-proof", live.world.log.proof(2, live.world.ts))
    ran = verify(run, live, entry, "--proof", proof)
    assert ran.code == 0, ran.err
    assert "was not decided" in ran.out
    assert verify(run, live, proof, "--entry", entry).code == 0
    other = live.file("other.entry", live.world.log.entries[1])
    assert verify(run, live, proof, "--entry", other).code == 10


def test_a_receipt_needs_its_evidence(run: Run, live: Live) -> None:
    receipt = live.file("receipt.json", b'{"receipt_id":"x","sigs":[]}')
    ran = verify(run, live, receipt)
    assert ran.code == 2
    assert "add --evidence FILE" in ran.err
    file = live.file("evidence.json", evidence(live.world).encode())
    assert verify(run, live, receipt, "--evidence", file).code == 30
    ran = run("receipt", "verify", file, "--policy", live.policy, "--simulation")
    assert ran.code == 30
    assert "holds no receipt" in ran.err


def test_a_bare_quote_is_looked_at_or_verified_alone(run: Run, live: Live) -> None:
    document = live.world.document()
    quote = live.file("quote.bin", document.evidence)
    assert verify(run, live, quote).code == 20
    ran = run("quote", "inspect", quote)
    assert ran.code == 0
    assert "nothing is verified" in ran.out
    collateral = live.file("collateral.json", json.dumps(dict(document.collateral)).encode())
    root = live.world.pki.root_sha256.hex()
    assert run("quote", "verify", quote, "--collateral", collateral).code == 11
    assert run("quote", "verify", quote, "--collateral", collateral, "--simulator-root", root).code == 11
    words = ("quote", "verify", quote, "--collateral", collateral, "--simulator-root", root, "--simulation")
    ran = run(*words)
    assert ran.code == 0, ran.err
    assert "SIMULATED evidence" in ran.out
    assert authority.measurement("machine").hex() in ran.out
    assert json.loads(run(*words, "--json").out)["platform"] == "sim-tdx"
    hexed = live.file("quote.hex", document.evidence.hex().encode())
    assert run("quote", "inspect", hexed, "--json").code == 0
    assert run("quote", "verify", quote, "--collateral", live.file("list.json", b"[]")).code == 30


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff\xfe", b'{"payload":1}'])
def test_a_file_of_no_known_kind_is_malformed(run: Run, live: Live, data: bytes) -> None:
    assert verify(run, live, live.file("x", data)).code == 30


def test_a_file_that_is_not_there_cannot_be_judged(run: Run, live: Live) -> None:
    ran = verify(run, live, live.folder / "absent")
    assert ran.code == 40
    assert "cannot read" in ran.err
