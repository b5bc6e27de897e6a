"""Other systems' clients against an enclave with open doors: their checks, rewritten from what they document."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import openai
import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from eth_account import Account
from eth_account.messages import encode_defunct

from builder.model import MadeModel
from enclave.boot import Shown
from enclave.chat import APIError
from enclave.doors import ethereum
from enclave.doors.book import Asker
from enclave.doors.keys import BROWSER, NANOGPT, DoorKeys
from enclave.doors.routes import WAITING, Doors
from enclave.transformer import TransformerModel
from enclave.weights import read_weights
from quotary.attestation.tdx import TDXQuote
from quotary.client.policy import DOORS
from quotary.client.sealed import MEDIA_TYPE
from quotary.statements.keyset import DOOR, RECEIPT, Keyset
from tests.enclave.door_site import MODEL, DoorSite, opened
from tests.enclave.machine import SERVICE
from tests.fakes.processes import until

KEY = {"Authorization": "Bearer sk-mine"}
ASK = {"messages": [{"role": "user", "content": "What is a log?"}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def loaded(model: MadeModel) -> TransformerModel:
    return TransformerModel(read_weights(model.folder, model.digest), threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vendor")


@pytest.fixture
def site(folder: Path, loaded: TransformerModel, model: MadeModel) -> Iterator[DoorSite]:
    with opened(folder, loaded, model.digest) as found:
        yield found


def get(site: DoorSite, path: str, headers: Mapping[str, str] = KEY, **query: str) -> tuple[int, Any]:
    reply = urllib3.request(
        "GET", f"{site.url}{path}?{urlencode(query)}", headers=dict(headers), retries=False
    )
    return reply.status, json.loads(reply.data)


def ask(site: DoorSite, path: str, model: str, **changes: object) -> tuple[bytes, bytes, str]:
    """Ask in clear; give the bytes sent, the bytes received and the answer's id."""
    body = json.dumps({"model": model} | ASK | changes).encode()
    headers = KEY | {"Content-Type": "application/json"}
    reply = urllib3.request("POST", site.url + path, body=body, headers=headers, retries=False)
    assert reply.status == 200, reply.data
    first = reply.data.split(b"\n\n")[0].removeprefix(b"data: ")
    return body, reply.data, json.loads(first)["id"]


def report_data(report: Mapping[str, Any]) -> bytes:
    return TDXQuote.parse(bytes.fromhex(report["intel_quote"])).body["report_data"]


def code(found: Mapping[str, Any]) -> str:
    return str(found["error"]["code"])


@pytest.mark.parametrize("streamed", [False, True])
def test_nanogpts_script_finds_what_it_checks(site: DoorSite, streamed: bool) -> None:
    nonce = base64.b64encode(os.urandom(16)).decode()
    status, report = get(site, "/api/v1/tee/attestation", model=MODEL, nonce=nonce)
    assert status == 200
    assert report["nonce"] == nonce
    # The script cuts an SGX report out of the quote and reads its registers; the bytes must be there.
    assert len(bytes.fromhex(report["intel_quote"])[48:432]) == 384
    assert json.loads(report["nvidia_payload"])["evidence_list"] == []
    sent, received, chat_id = ask(site, "/api/v1/chat/completions", MODEL, stream=streamed)
    status, signed = get(site, f"/api/v1/tee/signature/{chat_id}", model=MODEL, signing_algo="ecdsa")
    assert status == 200
    signer = Account.recover_message(encode_defunct(text=signed["text"]), signature=signed["signature"])
    assert signer == signed["signing_address"] == report["signing_address"]
    # What the script does not do: the nonce inside the quote, and the text against its own bytes.
    assert report_data(report)[32:] == hashlib.sha256(nonce.encode()).digest()
    assert report_data(report)[:32] == bytes.fromhex(signer[2:]).ljust(32, b"\0")
    assert signed["text"] == f"{hashlib.sha256(sent).hexdigest()}:{hashlib.sha256(received).hexdigest()}"


@pytest.mark.parametrize("algorithm", ["ecdsa", "ed25519"])
def test_the_vllm_proxys_verifier_finds_what_it_checks(site: DoorSite, algorithm: str) -> None:
    sent, received, chat_id = ask(site, "/v1/chat/completions", SERVICE)
    _, signed = get(site, f"/v1/signature/{chat_id}", model=SERVICE, signing_algo=algorithm)
    request_hash, response_hash = signed["text"].split(":")
    assert request_hash == hashlib.sha256(sent).hexdigest()
    assert response_hash == hashlib.sha256(received).hexdigest()
    if algorithm == "ecdsa":
        text = encode_defunct(text=signed["text"])
        address = Account.recover_message(text, signature=signed["signature"])
        bound = bytes.fromhex(address[2:]).ljust(32, b"\0")
    else:
        address = signed["signing_address"]
        bound = bytes.fromhex(address)
        signature = bytes.fromhex(signed["signature"])
        Ed25519PublicKey.from_public_bytes(bound).verify(signature, signed["text"].encode())
    nonce = os.urandom(32)
    query = {"model": SERVICE, "nonce": nonce.hex(), "signing_algo": algorithm, "signing_address": address}
    _, report = get(site, "/v1/attestation/report", {}, **query)
    (one,) = report["all_attestations"]
    assert one["signing_address"] == address
    assert one["request_nonce"] == nonce.hex()
    assert report_data(one) == bound + nonce


def test_the_keys_of_doors_stand_in_the_attested_keyset_and_in_no_other_role(site: DoorSite) -> None:
    live = site.enclave.keys.current()
    assert live is not None
    keyset = Keyset.parse(live.document)
    keys = {key.alg: key.public for key in keyset.of_role(DOOR)}
    assert keys.keys() == {"ed25519", "p-256", "secp256k1"}
    _, report = get(site, "/v1/attestation/report")
    assert base64.b64decode(report["quotary"]["keyset"]) == live.document
    assert report["signing_public_key"] == keys["secp256k1"][1:].hex()
    _, report = get(site, "/v1/attestation/report", signing_algo="ed25519")
    assert report["signing_address"] == keys["ed25519"].hex()
    assert keys["ed25519"] not in [key.public for key in keyset.of_role(RECEIPT)]


def test_simulated_evidence_says_so(site: DoorSite) -> None:
    assert get(site, "/v1/attestation/report")[1]["quotary"]["simulated"] is True


@pytest.mark.parametrize(
    ("path", "query", "status", "wanted"),
    [
        ("/v1/attestation/report", {"nonce": "ab"}, 400, "invalid_value"),
        ("/v1/attestation/report", {"nonce": "zz" * 32}, 400, "invalid_value"),
        ("/v1/attestation/report", {"signing_address": "0x" + "00" * 20}, 404, "not_found"),
        ("/v1/attestation/report", {"signing_algo": "rsa"}, 400, "invalid_value"),
        ("/v1/attestation/report", {"model": "other"}, 404, "model_not_found"),
        ("/v1/attestation/report", {"include_tls_fingerprint": "true"}, 400, "unknown_parameter"),
        ("/api/v1/tee/attestation", {"nonce": "n" * 257}, 400, "invalid_value"),
        ("/api/v1/tee/attestation", {"nonce": ""}, 400, "invalid_value"),
        ("/v1/signature/chatcmpl-none", {}, 404, "not_found"),
        ("/v1/browser/quote", {"nonce": "1"}, 400, "unknown_parameter"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    site: DoorSite, path: str, query: dict[str, str], status: int, wanted: str
) -> None:
    found, body = get(site, path, **query)
    assert (found, code(body)) == (status, wanted)


def test_a_parameter_that_is_named_twice_is_refused(site: DoorSite) -> None:
    url = f"{site.url}/v1/attestation/report?nonce={'00' * 32}&nonce={'11' * 32}"
    assert urllib3.request("GET", url, retries=False).status == 400


def test_a_nonce_in_hex_is_bound_as_it_is(site: DoorSite) -> None:
    nonce = os.urandom(32).hex()
    _, report = get(site, "/api/v1/tee/attestation", nonce=nonce)
    assert (report["nonce"], report["request_nonce"]) == (nonce, nonce)
    assert report_data(report)[32:].hex() == nonce
    _, first = get(site, "/api/v1/tee/attestation")
    _, second = get(site, "/api/v1/tee/attestation")
    assert first["nonce"] == report_data(first)[32:].hex() != second["nonce"]


def test_a_signature_is_given_to_the_credential_that_asked_alone(site: DoorSite) -> None:
    chat_id = ask(site, "/v1/chat/completions", SERVICE)[2]
    for path in (f"/v1/signature/{chat_id}", f"/v1/browser/receipt/{chat_id}"):
        assert get(site, path)[0] == 200
        assert get(site, path, {"x-api-key": "sk-mine"})[0] == 200
        assert get(site, path, {"Authorization": "Bearer sk-other"})[0] == 404
        assert get(site, path, {})[0] == 404


def test_what_came_sealed_is_signed_for_the_channel_alone(site: DoorSite) -> None:
    body = json.dumps({"model": MODEL} | ASK).encode()
    wire, opener = site.seal("POST", "/api/v1/chat/completions", body, {"authorization": "Bearer sk-mine"})
    received = opener.feed(post(site, wire))
    chat_id = json.loads(received)["id"]
    assert get(site, f"/api/v1/tee/signature/{chat_id}")[0] == 404
    path = f"/api/v1/tee/signature/{chat_id}?signing_algo=ecdsa"
    wire, opener = site.seal("GET", path, headers={"authorization": "Bearer sk-mine"})
    signed = json.loads(opener.feed(post(site, wire)))
    assert signed["text"] == f"{hashlib.sha256(body).hexdigest()}:{hashlib.sha256(received).hexdigest()}"


@pytest.mark.parametrize(
    "path", ["//[", "/v1/signature/", "/v1/signature/x/y", "/v1/attestation/report/", "/?", "//"]
)
def test_a_path_that_is_none_is_told_so_inside_the_channel(site: DoorSite, path: str) -> None:
    wire, opener = site.seal("GET", path)
    found = json.loads(opener.feed(post(site, wire)))
    assert opener.head is not None
    assert (opener.head.status, code(found)) == (404, "not_found")


def post(site: DoorSite, wire: bytes) -> bytes:
    headers = {"Content-Type": MEDIA_TYPE}
    reply = urllib3.request("POST", f"{site.url}/v1/sealed", body=wire, headers=headers, retries=False)
    assert reply.status == 200, reply.data
    return reply.data


def test_an_answer_that_broke_off_has_no_signature(site: DoorSite) -> None:
    body = json.dumps(
        {"model": SERVICE, "stream": True} | ASK | {"max_tokens": 400, "temperature": 2, "seed": 1}
    )
    headers = KEY | {"Content-Type": "application/json"}
    with urllib3.request(
        "POST", f"{site.url}/v1/chat/completions", body=body, headers=headers, preload_content=False
    ) as reply:
        chat_id = json.loads(next(reply.stream(4096)).split(b"\n\n")[0].removeprefix(b"data: "))["id"]
        site.enclave.refuse("measurement_revoked", "revoked")
    assert get(site, f"/v1/signature/{chat_id}")[0] == 404


def test_after_a_refusal_doors_show_and_sign_nothing(site: DoorSite) -> None:
    chat_id = ask(site, "/v1/chat/completions", SERVICE)[2]
    site.enclave.refuse("measurement_revoked", "revoked")
    for path in (
        "/v1/attestation/report",
        "/api/v1/tee/attestation",
        "/v1/browser/quote",
        f"/v1/signature/{chat_id}",
    ):
        assert get(site, path)[0] == 503, path


def test_the_browsers_quote_and_receipt_verify_as_webcrypto_does(site: DoorSite) -> None:
    _, quote = get(site, "/v1/browser/quote")
    public = base64.b64decode(quote["key"])
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)

    def verify(document: Mapping[str, Any], signed: bytes) -> None:
        raw = base64.b64decode(document["signature"])
        numbers = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(SHA256()))

    assert quote["measurement"] == (b"M" * 32).hex()
    verify(quote, bytes.fromhex(quote["measurement"]) + public + quote["time"].to_bytes(8, "big"))
    live = site.enclave.keys.current()
    assert live is not None
    assert public in [k.public for k in Keyset.parse(live.document).of_role(DOOR) if k.alg == "p-256"]
    sent, received, chat_id = ask(site, "/v1/chat/completions", SERVICE)
    _, receipt = get(site, f"/v1/browser/receipt/{chat_id}")
    digests = hashlib.sha256(sent).digest() + hashlib.sha256(received).digest()
    assert receipt["request"] + receipt["response"] == digests.hex()
    verify(receipt, digests + receipt["time"].to_bytes(8, "big"))


def test_openais_package_speaks_through_nanogpts_door(site: DoorSite) -> None:
    with openai.OpenAI(base_url=f"{site.url}/api/v1", api_key="sk-mine", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        whole = client.chat.completions.create(model=MODEL, **ASK)  # type: ignore[call-overload]
        chunks = list(client.chat.completions.create(model=MODEL, stream=True, **ASK))  # type: ignore[call-overload]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    status, _ = get(site, f"/api/v1/tee/signature/{chunks[0].id}", model=MODEL)
    assert status == 200


CLOSED = {
    "vllm-proxy": ("/v1/attestation/report", "/v1/signature/x"),
    "nanogpt": ("/api/v1/tee/attestation", "/api/v1/tee/signature/x", "/api/v1/models"),
    "browser": ("/v1/browser/quote", "/v1/browser/receipt/x"),
}


@pytest.mark.parametrize("closed", DOORS)
def test_a_closed_door_is_a_path_that_nobody_knows_and_has_no_key(
    folder: Path, loaded: TransformerModel, model: MadeModel, closed: str
) -> None:
    others = tuple(door for door in DOORS if door != closed)
    with opened(folder, loaded, model.digest, others) as site:
        for path in CLOSED[closed]:
            assert get(site, path) == (404, get(site, "/nothing")[1])
            wire, opener = site.seal("GET", path)
            opener.feed(post(site, wire))
            assert opener.head is not None
            assert opener.head.status == 404
        algorithms = {key.alg for key in site.enclave.doors.keys.public}
        assert ("p-256" in algorithms) == (closed != "browser")


def test_without_doors_there_are_no_keys_and_no_digests_of_prompts(
    folder: Path, loaded: TransformerModel, model: MadeModel
) -> None:
    with opened(folder, loaded, model.digest, ()) as site:
        ask(site, "/v1/chat/completions", SERVICE)
        assert site.enclave.doors.keys.public == ()
        assert not site.enclave.doors.book._found
        body = json.dumps({"model": MODEL} | ASK)
        reply = urllib3.request("POST", f"{site.url}/api/v1/chat/completions", body=body, retries=False)
        assert reply.status == 404


def test_an_open_door_takes_no_prompt_in_clear_unless_the_policy_allows_it(
    folder: Path, loaded: TransformerModel, model: MadeModel
) -> None:
    with opened(folder, loaded, model.digest, plaintext=False) as site:
        for path in ("/api/v1/chat/completions", "/v1/chat/completions"):
            body = json.dumps({"model": MODEL} | ASK)
            reply = urllib3.request("POST", site.url + path, body=body, retries=False)
            assert (reply.status, code(json.loads(reply.data))) == (403, "plaintext_refused")


@dataclass(slots=True)
class Slow:
    """A house whose hardware answers when it is told to."""

    service: str = SERVICE
    platform: str = "sim-tdx"
    measurement: bytes = b"M" * 32
    go_on: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def now(self) -> int:
        return 0

    def show(self, report_data: bytes, nonce: bytes) -> Shown:
        self.asked.append("in")
        assert self.go_on.wait(20)
        self.asked.append("out")
        return Shown(self.platform, {}, b"", report_data, None)


def test_c23_reports_wait_for_one_another_and_only_so_many_may_wait() -> None:
    doors, house, asker = Doors(DOORS), Slow(), Asker(b"", sealed=False)
    with ThreadPoolExecutor(WAITING) as pool:
        waiting = [pool.submit(doors.get, house, "/v1/attestation/report", asker) for _ in range(WAITING)]
        until(lambda: doors._places._value == 0, "all places are taken")
        with pytest.raises(APIError, match="8 reports wait"):
            doors.get(house, "/v1/attestation/report", asker)
        house.go_on.set()
        assert all(report.result() is not None for report in waiting)
    assert house.asked == ["in", "out"] * WAITING
    assert doors.get(house, "/v1/attestation/report", asker) is not None


@pytest.mark.parametrize("platform", ["sim-snp", "sim-nitro"])
def test_evidence_that_has_no_place_in_a_report_is_refused_and_everything_else_is_answered(
    folder: Path, loaded: TransformerModel, model: MadeModel, platform: str
) -> None:
    with opened(folder, loaded, model.digest, platform=platform) as site:
        for path in ("/v1/attestation/report", "/api/v1/tee/attestation"):
            status, found = get(site, path)
            assert (status, code(found)) == (501, "unsupported_platform")
            message = found["error"]["message"]
            assert platform in message
            assert "/v1/attestation" in message
        chat_id = ask(site, "/v1/chat/completions", SERVICE)[2]
        signed = get(site, f"/v1/signature/{chat_id}")[1]
        live = site.enclave.keys.current()
        assert live is not None
        keys = [key.public for key in Keyset.parse(live.document).of_role(DOOR) if key.alg == "secp256k1"]
        assert signed["signing_address"] == ethereum.checksummed(ethereum.address(keys[0]))


def test_a_seed_makes_the_same_keys_again_and_another_seed_or_none_makes_others() -> None:
    doors = (BROWSER, NANOGPT)
    first, again = DoorKeys(doors, b"s" * 32), DoorKeys(doors, b"s" * 32)
    assert first.public == again.public
    assert first.sign_text("ecdsa", "x") == again.sign_text("ecdsa", "x")
    for other in (DoorKeys(doors, b"S" * 32), DoorKeys(doors)):
        assert not {key.public for key in other.public} & {key.public for key in first.public}
    assert len({first.of(alg) for alg in ("ed25519", "p-256", "secp256k1")}) == 3
