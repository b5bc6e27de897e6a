"""Five nodes of a key service, a log and enclaves, each a process of its own: keys survive every machine."""

import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from builder.model import MadeModel, make_model
from enclave.boot import Machine, Setup
from enclave.device import Evidence
from enclave.keys import key_service
from quotary.canonical import b64, canonical, parse_canonical
from quotary.client.clock import SystemClock
from quotary.client.key_epoch import KIND
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.trust import ProcessMemory
from quotary.errors import QuotaryError, Refused
from quotary.net.transport import HTTP
from quotary.statements.envelope import Envelope, key_id, spki
from quotary.statements.keyset import CHANNEL, DOOR, Keyset
from quotary.threshold.group import Node
from simulator.launch import MeasuredProcess
from simulator.pki import PKI, PPID_PREFIX, open_pki
from simulator.process import Snapshot, snapshot
from simulator.program import enclave_program as program_of
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform, Registers
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.processes import Log, Server, start_log, until
from tests.journeys.test_enclave import SERVICE, Caller, World, free_port, policy_of, published
from tests.journeys.test_private import run

KMS, NODES, NEEDED = "example.org/keys", 5, 3


@dataclass
class Nodes:
    """Five operators on one machine, driven as they would be: by the command."""

    folder: Path
    log: Log
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(NODES)])
    servers: dict[int, Server] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def named(self) -> list[str]:
        return [word for url in self.urls for word in ("--node", url)]

    def init(self) -> dict[str, object]:
        """Make five folders and a group; gives what policies say of the nodes."""
        cards = []
        for number in range(1, NODES + 1):
            card = self.folder / f"card{number}.json"
            done("kms", "init", "--dir", self.folder / f"node{number}", "--out", card)
            cards.append(card)
        named = [word for card in cards for word in ("--card", card)]
        done(
            "kms", "group", "--service", KMS, "--log", self.log.authority.origin, "--threshold", NEEDED,
            *named, "--out", self.folder / "group.json",
        )  # fmt: skip
        keys = [Node.read(parse_canonical(card.read_bytes(), 1 << 16)).key for card in cards]
        signers = {key_id(key): b64(spki(key)) for key in keys}
        return {"service": KMS, "signers": {"keys": dict(sorted(signers.items())), "threshold": NEEDED}}

    def start(self, stack: ExitStack, *numbers: int) -> None:
        for number in numbers or range(1, NODES + 1):
            words = (
                "kms", "serve", "--dir", self.folder / f"node{number}", "--policy", self.folder / "policy.json",
                "--simulation", "--url", self.log.address, "--bind", f"127.0.0.1:{self.ports[number - 1]}",
                "--announce-seconds", "1",
            )  # fmt: skip
            errors = self.folder / f"node{number}.err"
            server = Server([*map(str, words)], errors, module="quotary").start()
            assert server.address, server.log()
            self.servers[number] = server
            stack.callback(server.stop)

    def kill(self, *numbers: int) -> None:
        """Without a chance to write anything."""
        for number in numbers:
            process = self.servers[number].process
            assert process is not None
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for pid in (process.pid, *map(int, children)):
                os.kill(pid, signal.SIGKILL)
            process.wait(30)

    def hold(self, ceremony: Path, entry: Path, *more: object) -> None:
        for number in range(1, NODES + 1):
            done("kms", "approve", "--dir", self.folder / f"node{number}", "--ceremony", ceremony)
        self.conduct(ceremony, entry, *more)

    def conduct(self, ceremony: Path, entry: Path, *more: object) -> None:
        done(
            "kms", "run", "--ceremony", ceremony, "--out", entry, *self.named, *more,
            "--policy", self.folder / "policy.json", "--simulation", "--url", self.log.address,
        )  # fmt: skip


def done(*words: object) -> str:
    found = run(*words)
    assert found.returncode == 0, found.stderr
    return found.stdout


def another_chip(vendor: PKI, now: datetime) -> Platform:
    """A machine of the same vendor that is not the one before."""
    return Platform(replace(vendor, ppid=PPID_PREFIX + secrets.token_bytes(8)), CURRENT, LATEST, now)


@dataclass
class Town:
    world: World
    nodes: Nodes
    vendor: PKI
    now: datetime

    def machine(self, measured: Registers) -> Machine:
        """A machine in this process that measures these registers."""
        chip, policy = another_chip(self.vendor, self.now), Policy.parse(self.world.policy)

        class Device:
            def quote(self, report_data: bytes) -> Evidence:
                return Evidence(chip.quote(measured, report_data), chip.collateral, None)

        assert policy.enclave is not None
        log = LogClient(HTTP(plain_http=True), self.world.log.address)
        return Machine(Setup(policy, policy.enclave, SERVICE, Device(), log, ProcessMemory(), SystemClock()))

    def key(self, label: str, measured: Registers | None = None) -> bytes:
        machine = self.machine(measured or self.world.taken.registers)
        return key_service(machine, self.nodes.urls, HTTP(plain_http=True)).key(label)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A log with a key service and a released program that asks it."""
    log = start_log(tmp_path)
    try:
        now = datetime.now(UTC).replace(microsecond=0)
        vendor = open_pki(tmp_path / "pki", now)
        model: MadeModel = make_model(tmp_path / "model", source=ROOT / "quotary", steps=1)
        nodes = Nodes(tmp_path, log)
        document = json.loads(policy_of(log, vendor.root_sha256))
        document["kms"] = nodes.init()
        policy = canonical(document, multiline=True)
        (tmp_path / "policy.json").write_bytes(policy)
        address = f"127.0.0.1:{free_port()}"
        asks = tuple(word for url in nodes.urls for word in ("--kms", url))
        program = program_of(
            tmp_path / "policy.json", model.folder, log.address, SERVICE, address, None, asks
        )
        taken: Snapshot = snapshot(program)
        release = published(log, taken)
        delegated(log, document["kms"]["signers"]["keys"])
        world = World(
            tmp_path, log, Platform(vendor, CURRENT, LATEST, now), policy, taken, model, release, address
        )
        yield Town(world, nodes, vendor, now)
    finally:
        log.stop()


def delegated(log: Log, keys: dict[str, str]) -> None:
    """Give the key service a name, and its nodes the role to speak for it."""
    owners, builders = ("owner1", "owner2", "owner3"), ("builder1",)
    roles = {
        "owner": authority.role(owners, 2),
        "builder": authority.role(builders, 1),
        "key-release": {"keys": sorted(keys), "threshold": 1},
    }
    named = {**authority.keys(*owners, *builders), **keys}
    makes = log.authority
    log.submit(makes.allocation(KMS), makes.delegation(KMS, keys=named, roles=roles))


def served(town: Town, platform: Platform) -> Keyset:
    """Start the enclave on a machine, take its keyset, and let the machine die."""
    with MeasuredProcess(town.world.taken, platform, town.world.folder) as child:
        caller = Caller(town.world, urllib3.PoolManager())
        process = child.child.process
        until(lambda: process.poll() is not None or caller.phase() == "ready", "the enclave is ready", 150)
        assert process.poll() is None
        keyset, _ = caller.attest()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    return keyset


def publics(keyset: Keyset, role: str) -> set[bytes]:
    return {key.public for key in keyset.of_role(role)}


def test_keys_outlive_every_machine_and_nobody_else_gets_them(
    town: Town, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    nodes = town.nodes
    ceremony, first = tmp_path / "ceremony.json", tmp_path / "epoch-1.json"
    with ExitStack() as stack:
        nodes.start(stack)
        done("kms", "dkg", "--group", tmp_path / "group.json", "--out", ceremony)
        nodes.hold(ceremony, first)

        key = town.key("disk")
        before = served(town, town.world.platform)
        after = served(town, another_chip(town.vendor, town.now))
        assert publics(before, DOOR) == publics(after, DOOR) != set()
        assert publics(before, CHANNEL) != publics(after, CHANNEL)

        unlogged = replace(town.world.taken.registers, mrtd=bytes(48))
        with pytest.raises(QuotaryError, match="has no measurement"):
            town.key("disk", unlogged)

        nodes.kill(1, 2)
        assert town.key("disk") == key
        nodes.kill(3)
        with pytest.raises(QuotaryError, match="3 are needed"):
            town.key("disk")

        nodes.start(stack, 1, 2, 3)
        refresh, second = tmp_path / "refresh.json", tmp_path / "epoch-1-1.json"
        reading = ("--policy", tmp_path / "policy.json", "--simulation", "--url", town.world.log.address)
        done(
            "kms",
            "refresh",
            "--group",
            tmp_path / "group.json",
            "--before",
            first,
            *reading,
            "--out",
            refresh,
        )
        nodes.kill(5)
        for number in range(1, NODES + 1):
            done("kms", "approve", "--dir", tmp_path / f"node{number}", "--ceremony", refresh)
        broken = run(
            "kms", "run", "--ceremony", refresh, "--out", second, "--before", first, *nodes.named, *reading
        )
        assert broken.returncode == 40, broken.stderr
        assert town.key("disk") == key
        nodes.start(stack, 5)
        nodes.conduct(refresh, second, "--before", first)
        assert town.key("disk") == key
        status = json.loads(done("kms", "status", *nodes.named, "--json"))
        assert {json.dumps(node["shares"]) for node in status["nodes"]} == {'[{"epoch": 1, "generation": 1}]'}

        until(lambda: logged_heads(town) > 0, "the log has heads of ledgers", 60)
        assert re.match(r"[1-9][0-9]* releases, head", done("kms", "ledger", "--dir", tmp_path / "node1"))

        town.world.log.submit(town.world.log.authority.revocation(town.world.release))
        with pytest.raises(Refused, match="revoked"):
            town.key("disk")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    said = capfd.readouterr()
    for text in (written, (said.out + said.err).encode()):
        assert key not in text
        assert key.hex().encode() not in text


def logged_heads(town: Town) -> int:
    """How many heads of ledgers the log has."""
    results = LogClient(HTTP(plain_http=True), town.world.log.address).search(KMS).get("results")
    rows = results if isinstance(results, list) else []
    found = [town.world.log.get(f"/api/v1/entries/{row['index']}") for row in rows if row["kind"] == KIND]
    return sum(b'"kms/ledger/' in Envelope.parse(entry).payload for entry in found)
