"""The HTTP surface with a real model and real keys: what a client gets, and what an attacker gets."""

import json
import secrets

import pytest
import torch

from builder.model import MadeModel
from enclave.transformer import TransformerModel
from quotary.attestation.document import AttestationDocument
from quotary.client.receipt import Receipt
from quotary.client.sealed import MEDIA_TYPE
from tests.enclave.api_site import Site, body, build, check_receipt, code, events
from tests.enclave.machine import NOW, SERVICE


def test_a_sealed_question_is_answered_with_a_receipt(site: Site) -> None:
    asked = body()
    opener, answer = site.ask(asked)
    assert opener.head is not None
    assert opener.head.status == 200
    document = json.loads(answer)
    assert document["object"] == "chat.completion"
    assert document["usage"]["completion_tokens"] <= 12
    receipt = check_receipt(site, opener, asked, answer)
    assert receipt.served.chat_id == document["id"]
    assert receipt.parameters["sampler"] == "greedy"
    assert receipt.parameters["max_tokens"] == 12
    public = site.http.get(f"/v1/receipts/{receipt.served.receipt_id}")
    assert Receipt.parse(public.data).salt is None


def test_a_streamed_answer_is_the_same_answer_in_events(site: Site) -> None:
    whole = json.loads(site.ask(body())[1])["choices"][0]["message"]["content"]
    asked = body(stream=True, stream_options={"include_usage": True})
    opener, answer = site.ask(asked)
    parts = events(answer)
    assert parts[-1] == "[DONE]"
    chunks = [json.loads(part) for part in parts[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert text == whole
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert chunks[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    check_receipt(site, opener, asked, answer)


def test_a_seeded_answer_can_be_repeated_from_its_receipt(site: Site) -> None:
    opener, answer = site.ask(body(temperature=1.2))
    assert opener.receipt is not None
    seed = Receipt.parse(opener.receipt).parameters["seed"]
    again = site.ask(body(temperature=1.2, seed=seed))[1]
    assert json.loads(again)["choices"] == json.loads(answer)["choices"]


def test_a_client_that_wants_no_receipt_gets_none_in_the_stream(site: Site) -> None:
    opener, _ = site.ask(body(), site.head(want=()))
    assert opener.receipt is None
    assert opener.head is not None
    assert site.http.get(f"/v1/receipts/{opener.head.headers['x-receipt-id']}").status_code == 200


def test_the_same_sealed_request_is_refused_the_second_time(site: Site) -> None:
    wire, _ = site.seal(body())
    assert site.post(wire).status_code == 200
    again = site.post(wire)
    assert (again.status_code, code(again.data)) == (409, "replayed")


@pytest.mark.parametrize("off", [-301, 301])
def test_a_request_outside_the_window_is_refused(site: Site, off: int) -> None:
    wire, _ = site.seal(body(), site.head(at=int(NOW.timestamp()) + off))
    reply = site.post(wire)
    assert (reply.status_code, code(reply.data)) == (400, "outside_window")


def test_the_path_is_the_one_inside(site: Site) -> None:
    opener, answer = site.ask(b"", site.head("GET", "/v1/models"))
    assert [model["id"] for model in json.loads(answer)["data"]] == [SERVICE, f"TEE/{SERVICE}"]
    opener, answer = site.ask(b"", site.head("GET", f"/v1/models/TEE%2F{SERVICE}"))
    assert json.loads(answer)["id"] == f"TEE/{SERVICE}"
    wire, _ = site.seal(b"", site.head("GET", "/v1/models"))
    assert site.http.post("/v1/chat/completions", data=wire, content_type=MEDIA_TYPE).status_code == 403
    opener, answer = site.ask(b"", site.head("GET", "/v1/state"))
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (404, "not_found")


def test_a_changed_request_says_nothing_about_why(site: Site) -> None:
    wire, _ = site.seal(body())
    for at in (20, 1200, len(wire) - 1):
        broken = wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :]
        reply = site.post(broken)
        assert (reply.status_code, code(reply.data)) == (400, "not_opened")
    reply = site.post(wire[:-1])
    assert (reply.status_code, code(reply.data)) == (400, "not_opened")


def test_a_request_to_another_key_asks_the_client_to_attest_again(site: Site) -> None:
    wire, _ = site.seal(body())
    reply = site.post(wire[:7] + b"\0" * 8 + wire[15:])
    assert (reply.status_code, code(reply.data)) == (422, "keyset_changed")


def test_a_client_ahead_of_the_enclave_is_told_inside_the_channel(site: Site) -> None:
    opener, answer = site.ask(body(), site.head(min_log_size=11))
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (412, "log_behind")
    assert opener.receipt is None


def test_a_client_ahead_makes_the_enclave_look_at_once_but_not_at_every_request(site: Site) -> None:
    site.machine.size = 11
    assert site.ask(body(), site.head(min_log_size=11))[0].receipt is not None
    site.machine.size = 12
    opener, _ = site.ask(body(), site.head(min_log_size=12))
    assert opener.head is not None
    assert opener.head.status == 412
    site.clock.seconds += 1
    assert site.ask(body(), site.head(min_log_size=12))[0].receipt is not None


def test_errors_of_the_request_come_inside_the_channel(site: Site) -> None:
    for changes, status, wanted in (
        ({"n": 2}, 400, "unsupported_value"),
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "context_length_exceeded"),
    ):
        opener, answer = site.ask(body(**changes))
        assert opener.head is not None
        assert (opener.head.status, code(answer)) == (status, wanted)


def test_plain_prompts_are_refused_unless_the_measured_policy_allows_them(
    site: Site, model: MadeModel, loaded: TransformerModel
) -> None:
    reply = site.http.post("/v1/chat/completions", data=body())
    assert (reply.status_code, code(reply.data)) == (403, "plaintext_refused")
    open_site = build(model, plaintext=True)
    open_site.enclave.start(lambda digest: loaded)
    reply = open_site.http.post("/v1/chat/completions", data=body())
    assert json.loads(reply.data)["object"] == "chat.completion"
    receipt = Receipt.parse(open_site.http.get(f"/v1/receipts/{reply.headers['x-receipt-id']}").data)
    assert receipt.channel is None
    assert receipt.served.complete
    open_site.enclave.close()


def test_a_log_that_grows_during_an_answer_shows_in_both_sizes_of_its_receipt(site: Site) -> None:
    wire, opener = site.seal(body(stream=True, max_tokens=200, temperature=2, seed=1))
    with site.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE, buffered=False) as reply:
        pieces = iter(reply.response)
        opener.feed(next(pieces) + next(pieces) + next(pieces))
        site.machine.size = 17
        site.enclave.poll()
        for piece in pieces:
            opener.feed(piece)
    assert opener.receipt is not None
    origin = Receipt.parse(opener.receipt).origin
    assert (origin.size_at_admit, origin.size_at_end) == (10, 17)


def test_a_conversation_that_does_not_fit_is_refused_and_the_next_is_answered(
    site: Site, loaded: TransformerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loaded._rows, "_forward", full)
        opener, answer = site.ask(body())
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (503, "memory_full")
    assert opener.receipt is not None
    served = Receipt.parse(opener.receipt).served
    assert (served.complete, served.finish_reason) == (False, "error")
    assert site.ask(body())[0].head.status == 200  # type: ignore[union-attr]


def test_attestation_is_given_for_a_nonce_and_without(site: Site) -> None:
    document = AttestationDocument.parse(site.http.get("/v1/attestation?nonce=" + "ab" * 32).data)
    keyset = site.enclave.keys.current()
    assert keyset is not None
    assert document.keyset == keyset.document
    assert site.http.get("/v1/attestation").status_code == 200
    for wrong in ("", "ab", "AB" * 32, "zz" * 32):
        assert site.http.get(f"/v1/attestation?nonce={wrong}").status_code == 400
    assert site.http.get("/v1/attestation?nonse=" + "ab" * 32).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/v1/sealed", 405), ("POST", "/v1/sealed", 415), ("GET", "/v1/receipts/" + "0" * 32, 404),
        ("DELETE", "/v1/models", 405), ("GET", "/static/x", 404), ("POST", "/load_model", 404),
    ],
)  # fmt: skip
def test_every_error_has_openais_shape(site: Site, method: str, path: str, status: int) -> None:
    reply = site.http.open(path, method=method)
    assert reply.status_code == status
    assert json.loads(reply.data)["error"].keys() == {"message", "type", "param", "code"}


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(site: Site) -> None:
    reply = site.http.post("/v1/sealed", data=b"x" * ((1 << 20) + 1), content_type=MEDIA_TYPE)
    assert reply.status_code == 413


def test_canary_prompts_appear_in_no_log_line_and_no_error(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    canary = secrets.token_hex(16)
    caplog.set_level("DEBUG")
    for changes in ({}, {"stream": True}, {"n": 2}, {"model": canary}, {canary: 1}, {"stop": canary}):
        asked = {"messages": [{"role": "user", "content": canary}]} | changes
        _, answer = site.ask(body(**asked))
        if canary not in changes:
            assert canary.encode() not in answer
    site.post(canary.encode())
    assert canary not in caplog.text
