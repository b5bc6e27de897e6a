"""A key service in one process: real nodes with folders, a log that has their epochs, enclaves that ask."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from flask import Flask

from enclave.boot import Machine, Setup
from enclave.device import Evidence
from enclave.keys import OneTimeEvidence
from private.kms.conduct import Conductor, find_nodes
from private.kms.folder import LEDGER, TRUST, NodeFolder
from private.kms.node import open_node
from quotary.canonical import b64, canonical, parse_canonical
from quotary.client.clock import FixedClock
from quotary.client.key_epoch import KeyEpoch, read_epoch
from quotary.client.key_question import Asked, ask
from quotary.client.key_service import KeyService, OneTime
from quotary.client.policy import Policy
from quotary.client.trust import FileMemory, ProcessMemory
from quotary.errors import CannotTell
from quotary.net.transport import Reply, Request
from quotary.statements.envelope import key_id, spki
from quotary.threshold.group import Ceremony, Group
from simulator.pki import PKI, PPID_PREFIX
from simulator.tcb import CURRENT, LATEST
from simulator.tdx import Platform
from tests.fakes.authority import SERVICE
from tests.fakes.log import policy_bytes
from tests.fakes.machine import SEED, World, registers

KMS = "example.org/keys"
NODES, NEEDED = 5, 3


@dataclass(slots=True)
class Chip:
    """A simulated machine that measures the image of a seed; every one has a chip of its own."""

    world: World
    seed: str = SEED
    quotes: int = 0
    platform: Platform = field(init=False)

    def __post_init__(self) -> None:
        pki = self.world.pki
        assert isinstance(pki, PKI)
        chip = replace(pki, ppid=PPID_PREFIX + os.urandom(8))
        self.platform = Platform(chip, CURRENT, LATEST, self.world.now)

    def quote(self, report_data: bytes) -> Evidence:
        self.quotes += 1
        return Evidence(
            self.platform.quote(registers(self.seed), report_data), self.platform.collateral, None
        )


@dataclass(slots=True)
class Bundles:
    """The log as nodes ask it: the world's. kept: an old answer that it gives again."""

    world: World
    down: bool = False
    kept: bytes | None = None

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        if self.down:
            raise CannotTell("no answer from the log")
        if self.kept is not None:
            return self.kept
        if measurement_id == self.world.measurement:
            return self.world.bundle()
        return self.world.log.absence(measurement_id, ts=self.world.ts).encode()


@dataclass
class Village:
    """Five nodes behind one transport. down: nodes that do not answer; seen: requests, by node."""

    folder: Path
    world: World
    count: int = NODES
    needed: int = NEEDED
    down: set[int] = field(default_factory=set)
    seen: list[tuple[int, Request]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    log: Bundles = field(init=False)
    clock: FixedClock = field(init=False)
    rules: dict[str, object] = field(default_factory=dict)
    apps: dict[int, Flask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log, self.clock = Bundles(self.world), FixedClock(self.world.now)
        cards = [self.node(number).create(os.urandom) for number in range(1, self.count + 1)]
        nodes = tuple(keys.card(number) for number, keys in enumerate(cards, 1))
        self.group = Group(KMS, self.world.log.origin, self.needed, nodes)
        self.pin(self.group)

    def pin(self, group: Group) -> None:
        """Have policies name these nodes."""
        signers = {key_id(node.key): b64(spki(node.key)) for node in group.nodes}
        self.rules = {
            "service": KMS,
            "signers": {"keys": dict(sorted(signers.items())), "threshold": self.needed},
        }

    @property
    def policy(self) -> Policy:
        return Policy.parse(policy_bytes({**self.world.policy(), "kms": self.rules}))

    def node(self, number: int) -> NodeFolder:
        return NodeFolder(self.folder / f"node{number}")

    def start(self, *numbers: int) -> None:
        """Start nodes, or start them again with nothing but their folders."""
        for number in numbers or range(1, self.count + 1):
            self.close(number)
            folder = self.node(number)
            memory = FileMemory(folder.path / TRUST)
            self.apps[number] = open_node(folder, self.policy, self.log, memory, self.clock)

    def close(self, *numbers: int) -> None:
        """Let go of what these nodes, or all of them, have open."""
        for app in {self.apps.pop(number) for number in set(numbers or self.apps) & set(self.apps)}:
            app.extensions["ledger"].close()

    def send(self, request: Request) -> Reply:
        host, _, path = request.url.removeprefix("http://node").partition("/")
        number = int(host)
        self.seen.append((number, request))
        if number in self.down:
            raise CannotTell(f"node {number} does not answer")
        found = (
            self.apps[number]
            .test_client()
            .open(f"/{path}", method=request.method, data=request.body, headers=dict(request.headers))
        )
        return Reply(found.status_code, {}, found.data)

    @property
    def urls(self) -> list[str]:
        return [f"http://node{number}" for number in range(1, self.count + 1)]

    def proposal(self, epoch: int = 1, generation: int = 0, previous: str = "none") -> Ceremony:
        nonce = os.urandom(32)
        return Ceremony(self.group, epoch, generation, previous, 1, self.world.now, nonce)

    def approve(self, ceremony: Ceremony) -> Ceremony:
        for number in range(1, self.count + 1):
            self.node(number).approve(ceremony)
        return ceremony

    def conductor(self, ceremony: Ceremony) -> Conductor:
        return Conductor(ceremony, find_nodes(ceremony, self.urls, self), self, self.said.append)

    def publish(self, entry: bytes) -> bytes:
        """Log an entry; gives its proof."""
        self.world.log.append(entry)
        self.world.log.close(self.world.ts)
        return self.world.log.proof(self.world.log.entries.index(entry), ts=self.world.ts)

    def hold(
        self, ceremony: Ceremony, before: tuple[bytes, bytes] | None = None, without: Sequence[int] = ()
    ) -> tuple[bytes, bytes]:
        """A whole ceremony, up to the shares' use; gives entry and proof."""
        conductor = self.conductor(self.approve(ceremony))
        entry = conductor.hold(before, self.epoch(*before).before if before else None, without)
        proof = self.publish(entry)
        conductor.activate(entry, proof)
        return entry, proof

    def refresh(self, before: tuple[bytes, bytes], without: Sequence[int] = ()) -> tuple[bytes, bytes]:
        found = self.epoch(*before)
        ceremony = self.proposal(found.epoch, found.generation + 1, found.statement_id)
        return self.hold(ceremony, before, without)

    def epoch(self, entry: bytes, proof: bytes) -> KeyEpoch:
        return read_epoch(entry, proof, self.policy)

    def machine(self, seed: str = SEED) -> Machine:
        """A machine of its own that runs the image of a seed."""
        policy = self.policy
        assert policy.enclave is not None
        return Machine(
            Setup(
                policy, policy.enclave, SERVICE, Chip(self.world, seed), self.log, ProcessMemory(), self.clock
            )
        )

    def service(self, machine: Machine | None = None, one_time: OneTime | None = None) -> KeyService:
        asking = machine or self.machine()
        return KeyService(self.urls, self.policy, SERVICE, lambda: one_time or OneTimeEvidence(asking), self)

    def ledger(self, number: int) -> bytes:
        return (self.node(number).path / LEDGER).read_bytes()

    def later(self, seconds: float) -> None:
        """Let the world's time go by; the log refreshes its cosignatures."""
        self.world.now += timedelta(seconds=seconds)
        self.clock = FixedClock(self.world.now)
        self.start()


def asked_of(
    village: Village, number: int = 1, label: str = "disk", **changes
) -> tuple[Asked, OneTimeEvidence]:
    """A question for one node, made by hand."""
    app = village.apps[number].test_client()
    shown = parse_canonical(
        app.post("/kms/v1/challenges", data=canonical({"v": 1, "epoch": 0})).data, 1 << 20
    )
    challenge = bytes.fromhex(shown["challenge"])
    question = replace(ask(SERVICE, label, 1, 0, os.urandom).question, **changes)
    one_time = OneTimeEvidence(village.machine())
    (document,) = one_time.documents([question.nonce(challenge)])
    return Asked(challenge, question, document), one_time


def answer_of(village: Village, asked: Asked, number: int = 1) -> tuple[int, str]:
    found = village.apps[number].test_client().post("/kms/v1/releases", data=asked.encode())
    detail = parse_detail(found.data)
    return found.status_code, detail


def parse_detail(data: bytes) -> str:
    return json.loads(data).get("detail", "")
