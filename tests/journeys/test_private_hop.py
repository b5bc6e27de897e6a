"""Token, relay, capsule, attested enclave, RA-TLS to a second enclave, receipt: what each hop saw and wrote down.

All real processes and real sockets, with a listener on every wire between them; the enclaves are simulated.
"""

import json
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3

from builder.model import make_model
from quotary.canonical import canonical
from quotary.client.files import EvidenceFile
from quotary.client.receipt import Receipt
from quotary.statements.location import Location
from simulator.launch import MeasuredProcess
from simulator.pki import open_pki
from simulator.process import Snapshot, snapshot
from simulator.program import enclave_program as program_of
from simulator.row import describe
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.processes import Log, Server, start_log, until
from tests.fakes.tap import Tap, tapped
from tests.journeys.test_enclave import SERVICE, free_port, policy_of, published
from tests.journeys.test_private import ISSUER, is_ready, log_issuer, run, serve

SECOND, AUDITOR = "example.org/second", "example.org/auditor"


@dataclass(slots=True)
class Pair:
    """Two released programs: the first one forwards to the second one, which answers enclaves only.

    first, second: their plain addresses; wire: between the two
    """

    folder: Path
    log: Log
    platform: Platform
    programs: tuple[Snapshot, Snapshot]
    first: str
    second: str
    wire: Tap

    @contextmanager
    def started(self, which: int) -> Iterator[MeasuredProcess]:
        folder = self.folder / f"enclave{which}"
        folder.mkdir(exist_ok=True)
        with MeasuredProcess(self.programs[which], self.platform, folder) as child:
            state = f"http://{(self.first, self.second)[which]}/v1/state"
            until(
                lambda: child.child.process.poll() is not None or is_ready(state), "the enclave is ready", 200
            )
            assert child.child.process.poll() is None
            yield child


def policy_with(log: Log, root: bytes, **rules: object) -> bytes:
    """A policy under which either service may be run or asked."""
    document = json.loads(policy_of(log, root))
    document["services"][SECOND] = document["services"][SERVICE]
    signers = {"keys": authority.keys("builder2"), "threshold": 1}
    where = {"service": AUDITOR, "signers": signers, "places": ["here"], "classes": ["operators-word"]}
    document["require_location"] = where
    document["enclave"] = {"poll_seconds": 1, "plaintext": "refused", **rules}
    if "oblivious" in rules:
        document["issuer"] = {"name": "issuer.example.org", "service": ISSUER, "signers": signers}
    return canonical(document, multiline=True)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    # A log of its own, so a memory of its own.
    monkeypatch.setenv("QUOTARY_TRUST", str(tmp_path / "trust"))
    log = start_log(tmp_path, bind=f"127.0.0.1:{free_port()}")
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor = open_pki(tmp_path / "pki", now)
        model = make_model(tmp_path / "model", source=ROOT / "quotary", steps=1).folder
        (tmp_path / "policy.json").write_bytes(policy_with(log, vendor.root_sha256, oblivious="offered"))
        rules = {"ratls": "offered", "callers": "attested"}
        (tmp_path / "second.json").write_bytes(policy_with(log, vendor.root_sha256, **rules))
        first, second, door = (f"127.0.0.1:{free_port()}" for _ in range(3))
        with tapped(door) as wire:
            hop = ("--hop", f"{SECOND}=https://{wire.address}")
            where = tmp_path / "policy.json", model, log.address, SERVICE, first
            asks = snapshot(program_of(*where, None, hop))
            where = tmp_path / "second.json", model, log.address, SECOND, second
            answers = snapshot(program_of(*where, None, ("--ratls", door)))
            published(log, asks)
            log.submit(
                log.authority.allocation(SECOND), log.authority.delegation(SECOND), release_of(log, answers)
            )
            log_location(log, vendor.ppid.hex(), now)
            platform = Platform(vendor, CURRENT, LATEST, now)
            yield Pair(tmp_path, log, platform, (asks, answers), first, second, wire)
    finally:
        log.stop()


def release_of(log: Log, taken: Snapshot) -> bytes:
    described, _ = describe(taken)
    members = {name: described[name] for name in ("policy_sha256", "weights_sha256", "rows", "material")}
    return log.authority.release(service=SECOND, **members)  # type: ignore[arg-type]


def log_location(log: Log, machine: str, now: datetime) -> None:
    """Have somebody say where the one simulated machine is, on which both enclaves run."""
    makes, end = log.authority, now + timedelta(days=7)
    said = Location((machine,), "here", "operators-word", None, now - timedelta(hours=1), end)
    log.submit(
        makes.allocation(AUDITOR),
        makes.delegation(AUDITOR, builders=("builder2",), notices=("location",)),
        makes.notice("location", AUDITOR, ("builder2",), **said.members()),  # type: ignore[arg-type]
    )


def ask_words(pair: Pair, relay: str, issuer: str, canary: str) -> tuple[object, ...]:
    return (
        "chat", f"http://{pair.first}", "--policy", pair.folder / "policy.json", "--simulation",
        "--service", SERVICE, "--relay", f"http://{relay}/chat", "--issuer", issuer,
        "--account", pair.folder / "account", "--log", pair.log.address, "--model", SECOND,
        "--max-tokens", "8", "--prompt", canary, "--json",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """The services between, what a client asks with, and a listener on each wire.

    secret: of the account; canary: in the prompt
    """

    pair: Pair
    wires: Mapping[str, Tap]
    services: Mapping[str, Server]
    secret: str
    canary: str
    ask: tuple[object, ...]


@contextmanager
def way(pair: Pair) -> Iterator[Way]:
    """Issuer and relay run; the enclaves do not yet."""
    folder, canary = pair.folder, f"canary-{secrets.token_hex(8)}"
    secret = log_issuer(pair.log, folder / "issuer")
    (folder / "account").write_text(secret)
    with ExitStack() as stack:
        issuer = serve(stack, folder / "issuer.err", "issuer", "serve", "--dir", folder / "issuer")
        inner = stack.enter_context(tapped(pair.first))
        words = ("relay", "serve", "--gateway", f"chat=http://{inner.address}")
        relay = serve(stack, folder / "relay.err", *words)
        outer, bought = (stack.enter_context(tapped(end.address)) for end in (relay, issuer))
        wires = {"client to relay": outer, "relay to enclave": inner, "issuer": bought, "hop": pair.wire}
        ask = ask_words(pair, outer.address, f"http://{bought.address}", canary)
        yield Way(pair, wires, {"relay": relay, "issuer": issuer}, secret, canary, ask)


def test_a_question_goes_from_token_to_second_enclave_and_no_hop_knows_more_than_its_part(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    with way(pair) as asked, pair.started(0):
        check_refused_without_the_second(asked)
        with pair.started(1):
            check_answered(asked)
            check_bare_callers_are_refused(asked)
        check_nothing_leaked(asked, capfd.readouterr().err)


@pytest.mark.soak
def test_a_killed_enclave_and_a_killed_registry_lose_nothing_and_leak_nothing(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    with way(pair) as asked, pair.started(0):
        with pair.started(1) as killed:
            answered_again(asked)
            killed.child.process.send_signal(signal.SIGKILL)
            killed.child.process.wait(30)
            check_refused_without_the_second(asked)
        with pair.started(1):
            answered_again(asked)
            check_registry_killed(asked)
        check_nothing_leaked(asked, capfd.readouterr().err)


def answered_again(asked: Way) -> None:
    found = run(*asked.ask)
    assert found.returncode == 0, found.stderr


def check_nothing_leaked(asked: Way, enclaves: str) -> None:
    """Search what every hop wrote, and what was on every wire, for prompt, credential, token and addresses."""
    said = {name: server.log() for name, server in asked.services.items()}
    for name, text in said.items():
        assert "127.0.0.1" not in text, name
    said |= {"enclaves": enclaves, "registry": asked.pair.log.registry.log()}
    for name, text in said.items():
        assert asked.canary not in text, name
        assert asked.secret not in text, name
    for name, tap in asked.wires.items():
        assert tap.sent, name
        assert asked.canary.encode() not in tap.seen, name
        assert (asked.secret.encode() in tap.seen) == (name == "issuer"), name
        assert b"privatetoken" not in tap.seen.lower(), name
    assert b"forwarded" not in asked.wires["relay to enclave"].sent.lower()
    for part in ("issuer", "log", "enclave0", "enclave1"):
        for path in (asked.pair.folder / part).rglob("*"):
            assert not path.is_file() or asked.canary.encode() not in path.read_bytes(), path


def check_answered(asked: Way) -> None:
    """The answer's receipt names both enclaves, and the second one's receipt is the one that it names."""
    pair, folder = asked.pair, asked.pair.folder
    kept = folder / "evidence.json"
    answered = run(*asked.ask, "--keep", kept)
    assert answered.returncode == 0, answered.stderr
    words = ("verify", kept, "--policy", folder / "policy.json", "--simulation", "--offline")
    assert run(*words).returncode == 0
    file = EvidenceFile.parse(kept.read_bytes())
    assert file.receipt is not None
    receipt = Receipt.parse(file.receipt)
    found = receipt.parameters
    assert (receipt.origin.service, found["hop_service"]) == (SERVICE, SECOND)
    path = f"http://{pair.first}/v1/receipts/{found['hop_receipt_id']}"
    other = Receipt.parse(urllib3.request("GET", path, timeout=20).data)
    assert other.digest().hex() == found["hop_receipt"]
    assert other.origin.service == SECOND
    assert other.origin.measurement.hex() == found["hop_measurement"] != receipt.origin.measurement.hex()
    assert other.origin.keyset.hex() == found["hop_keyset"]
    assert other.commitments.tokens_out > 0
    assert receipt.commitments.tokens_out == 0, "the first one computed nothing"


def check_bare_callers_are_refused(asked: Way) -> None:
    """Who is no enclave gets no answer from the second one, by either door."""
    pair, folder = asked.pair, asked.pair.folder
    words = ("--policy", folder / "policy.json", "--simulation", "--service", SECOND, "--prompt", "me")
    for way in ((f"http://{pair.second}",), (f"https://{pair.wire.address}", "--ratls")):
        refused = run("chat", *way, *words)
        assert refused.returncode == 40
        assert "answers only enclaves" in refused.stderr


def check_refused_without_the_second(asked: Way) -> None:
    refused = run(*asked.ask)
    assert refused.returncode == 40
    assert "was not asked or did not answer" in refused.stderr


def check_registry_killed(asked: Way) -> None:
    """While the log is away nobody new is believed; what it held is there when it is back."""
    log, registry = asked.pair.log, asked.pair.log.registry
    size = int(log.get("/checkpoint").split(b"\n")[1])
    assert registry.process is not None
    assert registry.process.stdout is not None
    for verb in ("sequence", "sign", "serve"):
        registry.kill_child(verb)
    registry.process.kill()
    registry.process.wait(30)
    registry.process.stdout.close()
    assert run(*asked.ask).returncode == 40
    registry.start()
    log.wait_ready()
    assert int(log.get("/checkpoint").split(b"\n")[1]) >= size
    answered_again(asked)
