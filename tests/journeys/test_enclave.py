"""A measured process under the simulator, checked against a real log, serving a real model to a real
client.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest
import urllib3
from eth_account import Account
from eth_account.messages import encode_defunct

from builder.model import MadeModel, make_model
from quotary import AsyncClient, Client
from quotary.attestation.document import AttestationDocument
from quotary.attestation.tdx import TDXQuote
from quotary.canonical import canonical
from quotary.client.clock import SystemClock
from quotary.client.policy import DOORS, Policy
from quotary.client.proxy import Proxy
from quotary.client.receipt import Exchange, Receipt, verify_exchange, verify_origin, verify_signature
from quotary.client.sealed import MEDIA_TYPE, Head, ResponseOpener, seal_request
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Verdict
from quotary.client.verify import judge
from quotary.statements.keyset import CHANNEL, RECEIPT, Keyset
from quotary.tlog.merkle import leaf_hash
from simulator.launch import MeasuredProcess
from simulator.pki import FMSPC, open_pki
from simulator.process import Snapshot, snapshot
from simulator.program import enclave_program as program_of
from simulator.row import describe
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.processes import Log, start_log, until

SERVICE = "chat"


@dataclass(slots=True)
class World:
    """A log, a vendor and a released program."""

    folder: Path
    log: Log
    platform: Platform
    policy: bytes
    taken: Snapshot
    model: MadeModel
    release: bytes
    address: str

    def start(self) -> MeasuredProcess:
        return MeasuredProcess(self.taken, self.platform, self.folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def policy_of(log: Log, root: bytes) -> bytes:
    entry = log.get("/api/v1/entries/0")
    owners = {"keys": authority.keys("owner1", "owner2", "owner3"), "threshold": 2}
    document = {
        "v": 1,
        "environment": "simulation",
        "tlog_policy": log.policy_text,
        "genesis": leaf_hash(entry).hex(),
        "services": {SERVICE: {"owner": owners}},
        "minimum": {"size": 1, "time": "2026-11-01T00:00:00Z"},
        "max_age_seconds": 600,
        "map_auditor": "none",
        "rebuilders": "none",
        "platforms": {
            "sim-tdx": {"floors": "log", "require": {"debug": "refused"}, "simulator_root_sha256": root.hex()}
        },
        "enclave": {"poll_seconds": 1, "plaintext": "refused", "doors": list(DOORS)},
    }
    return canonical(document, multiline=True)


def floor_of() -> dict[str, object]:
    return {
        "minimum": {
            "tee_tcb_svn": CURRENT.tee_tcb_svn.hex(),
            "sgx_tcb_svn": CURRENT.sgx_tcb_svn.hex(),
            "pce_svn": CURRENT.pce_svn,
        },
        "evaluation_number": LATEST.evaluation_number,
        "accepted_status": ["UpToDate"],
        "grace_seconds": 0,
        "denied_advisories": [],
        "denied_families": [],
        "denied_chips": [],
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world of its own for each test: what one revokes, another must find in force."""
    folder = tmp_path
    log = start_log(folder)
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor = open_pki(folder / "pki", now)
        model = make_model(folder / "model", source=ROOT / "quotary", steps=1)
        policy = policy_of(log, vendor.root_sha256)
        (folder / "policy.json").write_bytes(policy)
        address = f"127.0.0.1:{free_port()}"
        program = program_of(folder / "policy.json", model.folder, log.address, SERVICE, address, None, ())
        taken = snapshot(program)
        release = published(log, taken)
        platform = Platform(vendor, CURRENT, LATEST, now)
        yield World(folder, log, platform, policy, taken, model, release, address)
    finally:
        log.stop()


def published(log: Log, taken: Snapshot) -> bytes:
    described, _ = describe(taken)
    makes = log.authority
    release_members = {
        name: described[name] for name in ("policy_sha256", "weights_sha256", "rows", "material")
    }
    log.submit(makes.allocation(), makes.delegation(), makes.floor(product=FMSPC.hex(), floor=floor_of()))
    release = makes.release(**release_members)  # type: ignore[arg-type]
    log.submit(release)
    return release


@dataclass(slots=True)
class Caller:
    """A client of one enclave: attests, judges, asks."""

    world: World
    http: urllib3.PoolManager

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self.http.request("GET", f"http://{self.world.address}{path}", retries=False, timeout=20)

    def phase(self) -> str:
        try:
            return str(json.loads(self.get("/v1/state").data)["phase"])
        except urllib3.exceptions.HTTPError:
            return "unreachable"

    def attest(self) -> tuple[Keyset, Verdict]:
        nonce = secrets.token_bytes(32)
        reply = self.get(f"/v1/attestation?nonce={nonce.hex()}")
        assert reply.status == 200, reply.data
        document = AttestationDocument.parse(reply.data)
        assert document.bundle is not None
        policy = Policy.parse(self.world.policy)
        verdict = judge(document, nonce, document.bundle, policy, ProcessMemory(), SystemClock())
        return Keyset.parse(document.keyset), verdict

    def ask(self, keyset: Keyset, verdict: Verdict, body: bytes) -> tuple[bytes, ResponseOpener, bytes]:
        head = Head.new(
            "POST", "/v1/chat/completions", at=int(datetime.now(UTC).timestamp()), min_log_size=verdict.size
        )
        wire, opener = seal_request(head, body, keyset.of_role(CHANNEL)[0].public, keyset.digest)
        reply = self.post(wire)
        assert reply.status == 200, reply.data
        answer = opener.feed(reply.data)
        opener.close()
        return wire, opener, answer

    def post(self, wire: bytes) -> urllib3.BaseHTTPResponse:
        return self.http.request(
            "POST", f"http://{self.world.address}/v1/sealed", body=wire, headers={"content-type": MEDIA_TYPE},
            retries=False, timeout=60,
        )  # fmt: skip


def question(**changes: object) -> bytes:
    asked = {"model": SERVICE, "messages": [{"role": "user", "content": "What is a log?"}], "max_tokens": 8}
    return json.dumps(asked | changes).encode()


def code(reply: urllib3.BaseHTTPResponse) -> str:
    return str(json.loads(reply.data)["error"]["code"])


def check_going_away(caller: Caller, keyset: Keyset, verdict: Verdict) -> None:
    """A client that reads the first frames and hangs up leaves a receipt that says so."""
    now = int(datetime.now(UTC).timestamp())
    head = Head.new("POST", "/v1/chat/completions", at=now, min_log_size=verdict.size)
    asked = question(stream=True, max_tokens=450, temperature=2, seed=1)
    wire, opener = seal_request(head, asked, keyset.of_role(CHANNEL)[0].public, keyset.digest)
    host, port = caller.world.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        lines = f"POST /v1/sealed HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(wire)}\r\n\r\n"
        connection.sendall(lines.encode() + wire)
        stream = connection.makefile("rb")
        while stream.readline() != b"\r\n":
            pass
        while opener.head is None:
            opener.feed(stream.read(int(stream.readline(), 16)))
            stream.readline()
        stream.close()
    path = f"/v1/receipts/{opener.head.headers['x-receipt-id']}"
    until(lambda: caller.get(path).status == 200, "the receipt of the broken answer")
    receipt = Receipt.parse(caller.get(path).data)
    assert (receipt.served.complete, receipt.served.finish_reason) == (False, "cancelled")


def check_compatible_clients(world: World) -> None:
    """OpenAI's package, sync and async, and NanoGPT's script through the proxy: only the base URL is changed."""
    client = Client(f"http://{world.address}", Policy.parse(world.policy))
    proxy = Proxy(client)
    thread = proxy.start()
    ask = {
        "model": SERVICE,
        "messages": [{"role": "user", "content": "What is a log?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    try:
        with openai.OpenAI(base_url=proxy.url, api_key="sk-mine", max_retries=0) as plain:
            whole = plain.chat.completions.create(**ask).choices[0].message.content  # type: ignore[call-overload]
            chunks = plain.chat.completions.create(stream=True, **ask)  # type: ignore[call-overload]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
        assert asyncio.run(asked_at_once(proxy.url, ask)) == [whole] * 3
        assert (
            asyncio.run(AsyncClient(client).chat("What is a log?", max_tokens=8, temperature=0)).text == whole
        )
        check_nanogpt(proxy.page, ask | {"model": f"TEE/{SERVICE}"})
        found = json.loads(urllib3.request("GET", f"{proxy.page}verdict.json", timeout=60).data)
        assert (found["forwards"], found["simulated"], found["service"]) == (True, True, SERVICE)
    finally:
        proxy.close()
        thread.join()


async def asked_at_once(url: str, ask: dict[str, object]) -> list[str]:
    async with openai.AsyncOpenAI(base_url=url, api_key="sk-mine", max_retries=0) as client:
        found = await asyncio.gather(*(client.chat.completions.create(**ask) for _ in range(3)))  # type: ignore[call-overload]
    return [each.choices[0].message.content for each in found]


def check_nanogpt(root: str, ask: dict[str, object]) -> None:
    """Its script's steps; the prompt is sealed on the way, and so is the signature about it."""
    key = {"Authorization": "Bearer sk-mine"}
    nonce = base64.b64encode(secrets.token_bytes(16)).decode()
    query = {"model": str(ask["model"]), "nonce": nonce}
    report = json.loads(
        urllib3.request("GET", f"{root}api/v1/tee/attestation", fields=query, headers=key, timeout=60).data
    )
    body = json.dumps(ask).encode()
    answer = urllib3.request(
        "POST", f"{root}api/v1/chat/completions", body=body, headers=key, timeout=60
    ).data
    path = f"api/v1/tee/signature/{json.loads(answer)['id']}?signing_algo=ecdsa"
    signed = json.loads(urllib3.request("GET", root + path, headers=key, timeout=60).data)
    signer = Account.recover_message(encode_defunct(text=signed["text"]), signature=signed["signature"])
    assert signer == signed["signing_address"] == report["signing_address"]
    assert signed["text"] == f"{hashlib.sha256(body).hexdigest()}:{hashlib.sha256(answer).hexdigest()}"
    quote = TDXQuote.parse(bytes.fromhex(report["intel_quote"]))
    assert quote.body["report_data"][32:] == hashlib.sha256(nonce.encode()).digest()


def test_a_model_that_was_swapped_after_it_was_measured_is_not_served(world: World, capfd) -> None:  # type: ignore[no-untyped-def]
    path = world.model.folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with world.start() as child:
            assert child.child.process.wait(60) == 10
    finally:
        path.write_bytes(content)
    assert "weights file model.safetensors" in capfd.readouterr().err


def test_a_measured_process_serves_until_its_release_is_revoked(world: World, capfd) -> None:  # type: ignore[no-untyped-def]
    http = urllib3.PoolManager()
    caller = Caller(world, http)
    with world.start() as child:
        until(
            lambda: child.child.process.poll() is not None or caller.phase() == "ready",
            "the enclave is ready",
            150,
        )
        assert child.child.process.poll() is None, capfd.readouterr().err
        keyset, verdict = caller.attest()
        assert verdict.simulated
        assert verdict.predicate.weights_sha256 == world.model.digest
        for changes in ({}, {"stream": True}):
            asked = question(**changes)
            wire, opener, answer = caller.ask(keyset, verdict, asked)
            assert opener.head is not None
            assert opener.head.status == 200
            assert opener.receipt is not None
            receipt = Receipt.parse(opener.receipt)
            verify_signature(receipt, {key.id: key.public for key in keyset.of_role(RECEIPT)})
            verify_origin(
                receipt, service=SERVICE, measurement=verdict.measurement_id, keyset=keyset.digest,
                weights=world.model.digest,
            )  # fmt: skip
            verify_exchange(receipt, Exchange(opener.wire_digest, asked, answer, opener.chains, verdict.size))
            replayed = caller.post(wire)
            assert (replayed.status, code(replayed)) == (409, "replayed")
        check_going_away(caller, keyset, verdict)
        check_compatible_clients(world)
        plain = http.request(
            "POST", f"http://{world.address}/v1/chat/completions", body=question(), retries=False
        )
        assert (plain.status, code(plain)) == (403, "plaintext_refused")
        world.log.submit(world.log.authority.revocation(world.release))
        until(lambda: caller.phase() == "refusing", "the enclave refuses", 30)
        sealed = caller.post(wire)
        assert (sealed.status, code(sealed)) == (503, "measurement_revoked")
        assert caller.get("/v1/attestation").status == 503
        child.child.process.terminate()
        assert child.child.process.wait(30) == 11
    said = capfd.readouterr().err
    assert "What is a log?" not in said
    checked = [json.loads(line) for line in said.splitlines() if '"boot.checked"' in line]
    # Once in the parent, once with the keys that are served; both well within what a restart may cost.
    assert len(checked) == 2
    assert all(line["judge_seconds"] < 2 for line in checked)
    with world.start() as child:
        assert child.child.process.wait(60) == 11
    refusal = capfd.readouterr().err
    assert "revoked" in refusal
    assert "Traceback" not in said + refusal
    http.clear()
