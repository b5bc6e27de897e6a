"""The HTTP surface with a real model and real keys: what a client gets, and what an attacker gets."""

import json
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path

import pytest
import torch
from flask.testing import FlaskClient

from builder.model import MadeModel
from enclave.api import create_app
from enclave.lifecycle import Phase
from enclave.runtime import Enclave, Terms
from enclave.serve import drain_on_term
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.attestation.document import AttestationDocument
from quotary.client.policy import EnclaveRules, StreamRules
from quotary.client.receipt import (
    Exchange,
    Receipt,
    verify_exchange,
    verify_origin,
    verify_signature,
)
from quotary.client.sealed import MEDIA_TYPE, Head, ResponseOpener, seal_request
from quotary.errors import CannotTell, Refused
from tests.enclave.machine import NOW, SERVICE, SteppedClock, ToldMachine
from tests.fakes.processes import until

ASK = {
    "model": SERVICE,
    "messages": [{"role": "user", "content": "What is a log?"}],
    "max_tokens": 12,
    "temperature": 0,
}


@dataclass(slots=True)
class Site:
    """A running enclave and its parts."""

    enclave: Enclave
    machine: ToldMachine
    clock: SteppedClock
    http: FlaskClient

    def head(self, method: str = "POST", path: str = "/v1/chat/completions", **changes: object) -> Head:
        values: dict[str, object] = {"at": int(self.clock.now().timestamp()), "min_log_size": 10}
        return Head.new(method, path, **(values | changes))  # type: ignore[arg-type]

    def seal(self, body: bytes, head: Head | None = None) -> tuple[bytes, ResponseOpener]:
        keyset = self.enclave.keys.current()
        assert keyset is not None
        return seal_request(head or self.head(), body, keyset.channel.public, keyset.digest)

    def post(self, wire: bytes):  # type: ignore[no-untyped-def]
        return self.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE)

    def ask(self, body: bytes, head: Head | None = None) -> tuple[ResponseOpener, bytes]:
        wire, opener = self.seal(body, head)
        reply = self.post(wire)
        assert reply.status_code == 200, reply.data
        answer = opener.feed(reply.data)
        opener.close()
        return opener, answer


@pytest.fixture(scope="module")
def loaded(model: MadeModel) -> TransformerModel:
    return TransformerModel(read_weights(model.folder, model.digest), threads=1)


def build(model: MadeModel, *, plaintext: bool = False, stream: StreamRules | None = None) -> Site:
    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, plaintext, stream=stream), 600), machine, clock)
    return Site(enclave, machine, clock, create_app(enclave).test_client())


@pytest.fixture
def site(model: MadeModel, loaded: TransformerModel) -> Iterator[Site]:
    made = build(model)
    made.enclave.start(lambda digest: loaded)
    yield made
    made.enclave.close()


def body(**changes: object) -> bytes:
    return json.dumps(ASK | changes).encode()


def code(data: bytes) -> str:
    return str(json.loads(data)["error"]["code"])


def events(stream: bytes) -> list[str]:
    assert stream.endswith(b"\n\n")
    return [event.removeprefix(b"data: ").decode() for event in stream.split(b"\n\n")[:-1]]


def check_receipt(site: Site, opener: ResponseOpener, asked: bytes, answer: bytes) -> Receipt:
    keyset = site.enclave.keys.current()
    assert keyset is not None
    assert opener.receipt is not None
    receipt = Receipt.parse(opener.receipt)
    verify_signature(receipt, {keyset.receipt_key_id: keyset.receipt.public_key().public_bytes_raw()})
    verify_origin(
        receipt, service=SERVICE, measurement=b"M" * 32, keyset=keyset.digest, weights=site.machine.weights
    )
    verify_exchange(receipt, Exchange(opener.wire_digest, asked, answer, opener.chains, 10))
    return receipt


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


def test_nothing_is_served_before_the_check(model: MadeModel) -> None:
    site = build(model, plaintext=True)
    reply = site.http.post("/v1/chat/completions", data=body())
    assert (reply.status_code, code(reply.data)) == (503, "starting")
    assert site.http.get("/v1/attestation").status_code == 503
    state = site.http.get("/v1/state")
    assert (state.status_code, state.json["phase"]) == (503, "starting")
    assert site.http.get("/healthz").status_code == 200
    assert site.http.get("/v1/models").json["data"] == []


def test_a_check_that_fails_ends_the_start_before_the_model_is_loaded(model: MadeModel) -> None:
    site = build(model)
    site.machine.error = Refused("status", "revoked", "active")
    with pytest.raises(Refused):
        site.enclave.start(lambda digest: pytest.fail("the model was loaded"))
    assert site.enclave.state.phase is Phase.REFUSING
    assert site.enclave.keys.current() is None


def test_an_unreachable_log_makes_it_stale_and_a_new_bundle_ready_again(site: Site) -> None:
    site.machine.error = CannotTell("no answer")
    site.enclave.poll()
    opener, answer = site.ask(body())
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (503, "log_stale")
    assert opener.head.headers["retry-after"] == "10"
    assert site.http.get("/v1/state").status_code == 503
    site.machine.error, site.machine.size = None, 11
    site.enclave.poll()
    assert site.http.get("/v1/state").json["log"]["size"] == 11
    assert site.ask(body())[0].receipt is not None


def test_an_internal_mistake_in_a_poll_closes_the_door(site: Site) -> None:
    site.machine.error = KeyError("mistake")
    site.enclave.poll()
    assert site.enclave.state.phase is Phase.STALE


def test_a_checkpoint_grows_old_by_the_monotonic_clock(site: Site) -> None:
    site.clock.seconds = 601
    opener, answer = site.ask(body())
    assert opener.head is not None
    assert (opener.head.status, code(answer)) == (503, "log_stale")


def test_revocation_is_final_and_the_channel_keys_are_gone(site: Site) -> None:
    wire, _ = site.seal(body())
    site.machine.error = Refused("status", "revoked: key lost", "active")
    site.enclave.poll()
    reply = site.post(wire)
    assert (reply.status_code, code(reply.data)) == (503, "measurement_revoked")
    assert site.enclave.keys.current() is None
    assert site.http.get("/v1/attestation").status_code == 503
    site.machine.error = None
    site.enclave.poll()
    assert site.enclave.state.phase is Phase.REFUSING


def test_suspension_is_not_final(site: Site) -> None:
    site.machine.error = Refused("status", "suspended until 2026-11-22T00:00:00Z", "active")
    site.enclave.poll()
    assert site.enclave.state.phase is Phase.STALE
    site.machine.error = None
    site.enclave.poll()
    assert site.enclave.state.phase is Phase.READY


def test_a_stream_that_is_revoked_midway_says_so_and_its_receipt_is_incomplete(site: Site) -> None:
    asked = body(stream=True, max_tokens=400, temperature=2, seed=1)
    wire, opener = site.seal(asked)
    with site.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE, buffered=False) as reply:
        pieces = iter(reply.response)
        answer = opener.feed(next(pieces)) + opener.feed(next(pieces)) + opener.feed(next(pieces))
        site.machine.error = Refused("status", "revoked: key lost", "active")
        site.enclave.poll()
        answer += b"".join(opener.feed(piece) for piece in pieces)
    opener.close()
    last = events(answer)[-1]
    assert json.loads(last)["error"]["code"] == "measurement_revoked"
    assert opener.receipt is not None
    receipt = Receipt.parse(opener.receipt)
    assert not receipt.served.complete
    assert receipt.served.finish_reason == "revoked"
    with pytest.raises(Refused, match="receipt complete"):
        verify_exchange(receipt, Exchange(opener.wire_digest, asked, answer, opener.chains, 10))


def test_an_enclave_that_is_told_to_stop_lets_answers_finish_and_then_ends_them_by_name(site: Site) -> None:
    asked = body(stream=True, max_tokens=400, temperature=2, seed=1)
    wire, opener = site.seal(asked)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        drain_on_term(site.enclave, 0.05)
        with site.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE, buffered=False) as reply:
            pieces = iter(reply.response)
            answer = opener.feed(next(pieces)) + opener.feed(next(pieces)) + opener.feed(next(pieces))
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: site.enclave.state.draining or None, "draining", 10)
            refused, told = site.ask(body())
            answer += b"".join(opener.feed(piece) for piece in pieces)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert refused.head is not None
    assert (refused.head.status, code(told)) == (503, "draining")
    opener.close()
    last = events(answer)[-1]
    assert opener.receipt is not None
    served = Receipt.parse(opener.receipt).served
    assert json.loads(last)["error"]["code"] == "stopping"
    assert (served.complete, served.finish_reason) == (False, "cancelled")


def test_nothing_that_changes_after_the_start_changes_an_answer(
    model: MadeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(model.folder, tmp_path / "model"))
    site = build(model)
    site.enclave.start(lambda digest: TransformerModel(read_weights(folder, digest), threads=1))
    asked = body(temperature=1, seed=3)
    before = json.loads(site.ask(asked)[1])["choices"]
    for path in folder.iterdir():
        path.write_bytes(b"changed")
    for name in ("HF_HUB_OFFLINE", "LD_PRELOAD", "OMP_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, "changed")
    site.enclave.poll()
    opener, answer = site.ask(asked)
    assert json.loads(answer)["choices"] == before
    assert check_receipt(site, opener, asked, answer).origin.weights == model.digest
    with pytest.raises(FrozenInstanceError):
        site.enclave.terms.service = "other"  # type: ignore[misc]
    site.enclave.close()


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


def test_how_much_of_the_model_was_read_is_in_the_state(model: MadeModel, loaded: TransformerModel) -> None:
    site, seen = build(model), []

    def load(digest: bytes) -> TransformerModel:
        for done in (0, 7, 20):
            site.enclave.loaded(done, 20)
            state = site.http.get("/v1/state")
            seen.append((state.status_code, state.json["step"], state.json["model"]))
        return loaded

    site.enclave.start(load)
    wanted = [{"read_bytes": done, "of_bytes": 20} for done in (0, 7, 20)]
    assert seen == [(503, "model", progress) for progress in wanted]
    assert "model" not in site.http.get("/v1/state").json
    site.enclave.close()


@pytest.mark.parametrize(
    ("error", "phase", "wanted"),
    [
        (Refused("gpu", "a GPU was reset or exchanged", "the GPUs of the start"), Phase.STALE, "gpu_lost"),
        (Refused("gpu confidential mode", "devtools", "on"), Phase.REFUSING, "gpu_refused"),
    ],
)
def test_a_gpu_that_is_no_longer_what_it_was_stops_admission(
    model: MadeModel, loaded: TransformerModel, error: Refused, phase: Phase, wanted: str
) -> None:
    found: list[Refused] = []

    def gpus() -> None:
        for each in found:
            raise each

    clock = SteppedClock()
    machine = ToldMachine(clock, model.digest)
    enclave = Enclave(Terms(SERVICE, EnclaveRules(30, False), 600), machine, clock, gpus)
    enclave.start(lambda digest: loaded)
    assert enclave.state.phase is Phase.READY
    found.append(error)
    enclave.poll()
    assert (enclave.state.phase, enclave.state.code) == (phase, wanted)
    assert (enclave.keys.current() is None) == (phase is Phase.REFUSING)
    found.clear()
    enclave.poll()
    assert (enclave.state.phase is Phase.READY) == (phase is Phase.STALE)
    enclave.close()


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


def test_a_client_that_goes_away_leaves_an_incomplete_receipt(site: Site) -> None:
    wire, opener = site.seal(body(stream=True, max_tokens=400, temperature=2, seed=1))
    with site.http.post("/v1/sealed", data=wire, content_type=MEDIA_TYPE, buffered=False) as reply:
        pieces = iter(reply.response)
        opener.feed(next(pieces) + next(pieces) + next(pieces))
    assert opener.head is not None
    receipt = Receipt.parse(site.http.get(f"/v1/receipts/{opener.head.headers['x-receipt-id']}").data)
    assert (receipt.served.complete, receipt.served.finish_reason) == (False, "cancelled")
    assert receipt.channel is not None
    assert opener.chains[receipt.channel.frames] == receipt.channel.chain


def test_keys_rotate_with_overlap_and_expire(site: Site) -> None:
    old = site.enclave.keys.current()
    assert old is not None
    _wire, _opener = site.seal(body())
    site.clock.seconds = 2701
    site.enclave.poll()
    new = site.enclave.keys.current()
    assert new is not None
    assert new.digest != old.digest
    assert len(site.machine.checked) == 2
    late, late_opener = seal_request(site.head(), body(), old.channel.public, old.digest)
    assert late_opener.feed(site.post(late).data)
    site.clock.seconds = 3301
    site.enclave.poll()
    expired, _ = seal_request(site.head(), body(), old.channel.public, old.digest)
    reply = site.post(expired)
    assert (reply.status_code, code(reply.data)) == (422, "keyset_changed")
    assert site.ask(body())[0].receipt is not None


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
