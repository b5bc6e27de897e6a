"""An enclave over its life, as its clients see it: start, poll, revocation, rotation, end."""

import json
import os
import shutil
import signal
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from builder.model import MadeModel
from enclave.lifecycle import Phase
from enclave.runtime import Enclave, Terms
from enclave.serve import drain_on_term
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.client.policy import EnclaveRules
from quotary.client.receipt import Exchange, Receipt, verify_exchange
from quotary.client.sealed import MEDIA_TYPE, seal_request
from quotary.errors import CannotTell, Refused
from tests.enclave.api_site import Site, body, build, check_receipt, code, events
from tests.enclave.machine import SERVICE, SteppedClock, ToldMachine
from tests.fakes.processes import until


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
