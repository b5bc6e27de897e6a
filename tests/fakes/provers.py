"""Two real enclaves on two kinds of simulated hardware, one log that knows both, and clients of them; in this process.

Each enclave judges itself, samples from a real model and signs receipts; what is not real is the hardware, the
log's process and the network between.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flask.testing import FlaskClient
from werkzeug.serving import WSGIRequestHandler, make_server

from enclave.api import create_app
from enclave.boot import Machine, Setup
from enclave.device import DeviceEvidence, Evidence
from enclave.job import LanguageModel
from enclave.runtime import Enclave, Terms
from quotary.client.clock import FixedClock
from quotary.client.policy import EnclaveRules, Policy
from quotary.client.session import Client
from quotary.client.trust import ProcessMemory
from quotary.net.transport import Reply, Request, Stream
from quotary.statements.measurement import measurement_id
from simulator.snp import SNPTCB, SNPPlatform, open_snp_vendor
from tests.fakes import authority
from tests.fakes.log import FakeLog, policy_bytes
from tests.fakes.machine import World, hardware
from tests.fakes.platforms import SMT, SNP_FLOOR, SNP_PRODUCT, SNPMachine

URL = "http://127.0.0.1:1"


@dataclass(frozen=True, slots=True)
class WorldDevice:
    """A device whose machine measures as its world says."""

    world: World

    def quote(self, report_data: bytes) -> Evidence:
        quote = self.world.platform.quote(self.world.registers(), report_data)
        return Evidence(quote, dict(self.world.platform.collateral))

    def devices(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        raise AssertionError("this machine has no GPU")


@dataclass(frozen=True, slots=True)
class WorldLog:
    """The bundle of a world's machine."""

    world: World

    def bundle(self, service: str, measurement_id: bytes) -> bytes:
        return self.world.bundle()


@dataclass(slots=True)
class Prover:
    """One enclave that serves, and the network to it, which remembers what it carried."""

    world: World
    enclave: Enclave
    http: FlaskClient
    prompts: int = 0

    def send(self, request: Request) -> Reply:
        found = self.http.get(request.url.removeprefix(URL))
        return Reply(found.status_code, dict(found.headers), found.data)

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        self.prompts += 1
        content_type = request.headers["Content-Type"]
        found = self.http.post(request.url.removeprefix(URL), data=request.body, content_type=content_type)
        yield Stream(found.status_code, dict(found.headers), iter([found.data]))

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve it on loopback."""
        app = create_app(self.enclave)
        server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A TDX machine and an SEV-SNP machine of one service, both released."""

    worlds: tuple[World, World]
    policy: bytes
    now: datetime

    @classmethod
    def made(cls, folder: Path, weights: Sequence[bytes], now: datetime = authority.NOW) -> "Pair":
        """Release both; weights: the digest that each one's release names, 32 bytes."""
        log = FakeLog(now=now)
        tdx = World(*hardware(folder, now=now), log=log, now=now)
        vendor = open_snp_vendor(folder / "snp", now)
        machine = SNPMachine(SNPPlatform(vendor, SNPTCB(), now))
        snp = World(vendor, machine, log=log, now=now, kind="sim-snp", product=SNP_PRODUCT, floor=SNP_FLOOR)
        maker = log.maker
        log.append(maker.genesis(), maker.allocation(), maker.delegation())
        for world in (tdx, snp):
            log.append(maker.floor(platform=world.kind, product=world.product, floor=world.floor))
        policy = policy_bytes(_policy(tdx, snp))
        for world, digest in zip((tdx, snp), weights, strict=True):
            _release(world, digest, Policy.parse(policy).digest)
        log.close(tdx.ts)
        return cls((tdx, snp), policy, now)

    @contextmanager
    def running(self, models: Sequence[LanguageModel]) -> Iterator[tuple[Prover, Prover]]:
        """Start both, each with its model, whatever its release says of the weights."""
        first, second = (self._start(*each) for each in zip(self.worlds, models, strict=True))
        try:
            yield first, second
        finally:
            first.enclave.close()
            second.enclave.close()

    def client(self, prover: Prover) -> Client:
        """A verifying client of one of them; its bundle is the one that the enclave shows."""
        clock = FixedClock(self.now)
        return Client(URL, Policy.parse(self.policy), transport=prover, clock=clock)

    def _start(self, world: World, model: LanguageModel) -> Prover:
        policy, clock = Policy.parse(self.policy), FixedClock(self.now)
        rules = EnclaveRules(30, False)
        setup = Setup(
            policy, rules, authority.SERVICE, WorldDevice(world), WorldLog(world), ProcessMemory(), clock
        )
        enclave = Enclave(Terms(authority.SERVICE, rules, policy.max_age_seconds), Machine(setup), clock)
        enclave.start(lambda digest: model)
        return Prover(world, enclave, create_app(enclave).test_client())


def _policy(tdx: World, snp: World) -> Mapping[str, object]:
    document, other = tdx.policy(), snp.policy()
    platforms = [document["platforms"], other["platforms"]]
    document["platforms"] = {name: rules for each in platforms for name, rules in each.items()}  # type: ignore[attr-defined]  # made as one
    document["minimum"] = {"size": 1, "time": "2026-01-01T00:00:00Z"}
    return document


def _release(world: World, weights: bytes, policy: bytes) -> None:
    maker = world.log.maker
    require = {} if world.kind == "sim-tdx" else {"guest_policy": SMT}
    row = authority.row("machine", world.kind, **require)
    entry = maker.release(rows=[row], weights_sha256=weights.hex(), policy_sha256=policy.hex())
    measured = measurement_id(
        world.kind,
        {name: bytes.fromhex(text) for name, text in authority.registers("machine", world.kind).items()},
    )
    same = {"measurement": measured.hex(), "match": True}
    world.log.append(entry, maker.rebuild(entry, {"machine": True}, rows=[same]))
