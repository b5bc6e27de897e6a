"""The verifier over HTTP: the SDK's question and answer, the key beside it, and a problem where there is none."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask.testing import FlaskClient

from quotary.attestation.kept import Kept
from quotary.attestation.quote import NITRO, Terms, recognise
from quotary.canonical import b64, unb64
from quotary.client.ear import verify_result
from quotary.client.policy import Policy
from quotary.errors import CannotTell
from tests.client.test_collateral import AT
from tests.conftest import ROOT
from tests.fakes.log import FakeLog, policy_bytes
from tests.fakes.machine import World, hardware
from tests.registry.test_api import check_problem
from tests.verifier.test_judge import production, report_data, tdx_kept
from verifier.app import MAX_BODY, PATHS, create_app
from verifier.keys import key_set
from verifier.problems import KINDS

KEY = ec.generate_private_key(ec.SECP256R1())
PATH = "/api/verify/tee-attestation"
PAGE = (ROOT / "docs" / "formats" / "verifier.md").read_text("utf-8")
# What the SDK's documentation shows of an answer.
OF_THE_SDK = (
    "valid", "platform", "firmware_version", "signature_verified", "certificate_chain_verified",
    "freshness_verified",
)  # fmt: skip


def given(kept: Kept, terms: Terms) -> Mapping[str, str]:
    """A source that has nothing beside what came with the request."""
    if recognise(kept.evidence) != NITRO and not kept.collateral:
        raise CannotTell("the vendor's service does not answer")
    return kept.collateral


def client_of(policy: Policy, now: datetime, gather=given) -> FlaskClient:
    return create_app(KEY, policy, gather, lambda: now).test_client()


@pytest.fixture
def client() -> FlaskClient:
    return client_of(production(), AT)


def request(kept: Kept, challenge: bytes | None, **more: object) -> dict[str, object]:
    asked: dict[str, object] = {"report": b64(kept.evidence), "platform": "intel-tdx", **more}
    if challenge is not None:
        asked["expected_user_data"] = b64(challenge)
    collateral = {name: b64(text.encode()) for name, text in kept.collateral.items()}
    return asked | ({"collateral": collateral} if collateral else {})


@pytest.mark.parametrize("path", PATHS)
def test_the_sdks_question_gets_the_sdks_answer_and_a_signed_result(
    client: FlaskClient, vectors: Path, path: str
) -> None:
    kept = tdx_kept(vectors)
    challenge = report_data(kept)
    answer = client.post(path, json=request(kept, challenge))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    found = answer.json
    assert tuple(found)[: len(OF_THE_SDK)] == OF_THE_SDK
    assert [type(found[name]) for name in OF_THE_SDK] == [bool, str, str, bool, bool, bool]
    assert found["valid"] is True
    keys = client.get("/.well-known/jwks.json").data
    statement = verify_result(found["ear"], keys, challenge, AT)
    assert (statement.status, set(statement.statuses)) == ("affirming", {"intel-tdx"})


def test_what_is_not_valid_has_a_signed_result_too(client: FlaskClient, vectors: Path) -> None:
    kept = tdx_kept(vectors)
    found = client.post(PATH, json=request(kept, None)).json
    assert (found["valid"], found["freshness_verified"]) == (False, False)
    assert verify_result(found["ear"], key_set(KEY.public_key()), None, AT).status == "warning"
    found = client.post(PATH, json=request(kept, b"\1" * 64)).json
    assert found["valid"] is False
    assert verify_result(found["ear"], key_set(KEY.public_key()), b"\1" * 64, AT).status == "contraindicated"


def test_the_documents_are_fetched_where_they_do_not_come_along(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    bare = Kept(kept.evidence, {}, AT, ())
    client = client_of(production(), AT, lambda asked, terms: kept.collateral)
    assert client.post(PATH, json=request(bare, report_data(kept))).json["valid"] is True
    client = client_of(production(), AT)
    found = check_problem(client.post(PATH, json=request(bare, None)), 503, "unavailable")
    assert "does not answer" in str(found["detail"])


def test_who_asks_for_it_can_repeat_the_verdict(client: FlaskClient, vectors: Path) -> None:
    kept = tdx_kept(vectors)
    assert "kept" not in client.post(PATH, json=request(kept, None)).json
    found = client.post(PATH, json=request(kept, None, keep=True)).json
    assert Kept.parse(unb64(found["kept"])) == kept


def test_a_simulators_evidence_is_answered_under_its_own_name_only(tmp_path: Path) -> None:
    world = World(*hardware(tmp_path), log=FakeLog()).publish()
    policy = Policy.parse(policy_bytes(world.policy()))
    client = client_of(policy, world.now)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, world.now, ())
    asked = request(kept, b"\5" * 64)
    assert client.post(PATH, json=asked).json["valid"] is False
    found = client.post(PATH, json=asked | {"platform": "simulated-intel-tdx"}).json
    assert (found["valid"], found["simulated"]) == (True, True)


GOOD = {"report": "AA==", "platform": "intel-tdx"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"report":"AA==","report":"AA==","platform":"intel-tdx"}',
        json.dumps({"report": "AA=="}).encode(),
        json.dumps({"platform": "intel-tdx"}).encode(),
        json.dumps(GOOD | {"more": 1}).encode(),
        json.dumps(GOOD | {"report": "A"}).encode(),
        json.dumps(GOOD | {"platform": "Intel TDX"}).encode(),
        json.dumps(GOOD | {"expected_user_data": ""}).encode(),
        json.dumps(GOOD | {"expected_user_data": b64(bytes(64))}).encode(),
        json.dumps(GOOD | {"expected_user_data": 1}).encode(),
        json.dumps(GOOD | {"collateral": {"a": 1}}).encode(),
        json.dumps(GOOD | {"collateral": {"ü": "AA=="}}).encode(),
        json.dumps(GOOD | {"collateral": [1]}).encode(),
        json.dumps(GOOD | {"keep": "yes"}).encode(),
        json.dumps(GOOD).encode(),
    ],
)
def test_what_is_no_request_is_malformed(client: FlaskClient, body: bytes) -> None:
    check_problem(client.post(PATH, data=body), 400, "malformed")


def test_other_addresses_methods_and_sizes_are_problems(client: FlaskClient) -> None:
    check_problem(client.get("/nowhere"), 404, "not-found")
    check_problem(client.get("/problems/nothing"), 404, "not-found")
    answer = client.get(PATH)
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "POST"
    check_problem(client.options(PATH), 405, "method-not-allowed")
    check_problem(client.post(PATH, data=b" " * (MAX_BODY + 1)), 413, "too-large")
    check_problem(client.post(PATH, data=b" " * MAX_BODY), 400, "malformed")
    check_problem(client.post(PATH, data=b" " * (MAX_BODY * 2)), 413, "too-large")
    quote = b"\x09\0\x02\0\x81\0\0\0" + bytes(640)
    check_problem(
        client.post(PATH, json=GOOD | {"report": b64(quote), "collateral": {"a": "AA=="}}), 415, "unsupported"
    )
    assert client.get("/healthz").data == b"ok\n"


def test_our_own_mistake_tells_nothing_but_its_number(vectors: Path) -> None:
    def broken(kept: Kept, terms: Terms) -> Mapping[str, str]:
        raise RuntimeError("a secret")

    answer = client_of(production(), AT, broken).post(PATH, json=request(tdx_kept(vectors), None))
    assert len(str(check_problem(answer, 500, "internal")["request_id"])) == 16
    assert b"secret" not in answer.data


def test_every_problem_type_is_a_page(client: FlaskClient) -> None:
    for name, kind in KINDS.items():
        answer = client.get(f"/problems/{name}")
        assert (answer.status_code, kind.advice in answer.text) == (200, True)
        assert f"| {name} |" in PAGE


def test_the_page_shows_a_request_and_an_answer_as_they_are(client: FlaskClient, vectors: Path) -> None:
    import re

    examples = dict(re.findall(r"```json example=(\w+)\n(.*?)```", PAGE, re.DOTALL))
    kept = tdx_kept(vectors)
    asked, answer = json.loads(examples["request"]), json.loads(examples["answer"])
    assert set(asked) == {"report", "platform", "expected_user_data"}
    assert set(answer) == set(client.post(PATH, json=request(kept, report_data(kept))).json)
    claims = json.loads(examples["result"])
    found = verify_result(
        client.post(PATH, json=request(kept, report_data(kept))).json["ear"],
        key_set(KEY.public_key()),
        None,
        AT,
    )
    assert set(claims) == set(found.claims)
    (ours,), (theirs,) = claims["submods"].values(), found.claims["submods"].values()  # type: ignore[attr-defined]
    assert set(ours) == set(theirs)
    assert set(ours["ear_verifier_claims"]) == set(theirs["ear_verifier_claims"])
