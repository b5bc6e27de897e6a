"""Feeds every parser changed real bytes: only errors that a parser may raise come out, in bounded time and memory.

Seeds are what the fakes make, and the real files where they are. One seed number gives the same cases again:

    python -m tests.soak.fuzz --seconds 60 --seed 1
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from quotary.attestation import cbor, devices, nitro, nras, ocsp, ratls, rim, sgx, snp, spdm, tdx
from quotary.attestation.binding import Binding
from quotary.attestation.certificates import RevocationList, parse_chain
from quotary.attestation.collateral import MEMBERS, Collateral
from quotary.attestation.document import AttestationDocument
from quotary.attestation.hcl import HCLReport
from quotary.attestation.intel_json import TDX, QEIdentityDocument, TCBInfo
from quotary.attestation.kept import Kept
from quotary.attestation.measure import ccel, dstack, eif
from quotary.canonical import canonical, parse_canonical
from quotary.client.ear import PROFILE, jwk, sign_result, verify_result
from quotary.client.policy import Policy
from quotary.client.receipt import Channel, Commitments, Origin, Receipt, Served, Signature
from quotary.client.sealed import Head, PrivateKey, ResponseHead, open_request, seal_request
from quotary.errors import InvalidProof, Malformed, NotAuthorised, QuotaryError, Rejected, Unsupported
from quotary.statements.bundle import parse_bundle
from quotary.statements.envelope import Envelope
from quotary.statements.keyset import Keyset
from quotary.statements.order import Order
from quotary.statements.records import parse_record
from quotary.statements.schema import parse_statement
from quotary.statements.state_entry import StateEntry
from quotary.tlog import trie
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.frontier import Frontier
from quotary.tlog.note import Note
from quotary.tlog.policy import TlogPolicy
from quotary.tlog.proof import TlogProof
from quotary.tlog.tiles import decode_entry_bundle
from quotary.tlog.witness import AddCheckpoint
from registry import facts
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.fakes import amd, aws, log, nvidia, vendor
from tests.fakes import nras as attestation
from tests.fakes import ocsp as responders
from tests.fakes import sgx as enclave
from tests.fakes.machine import World, hardware
from tests.soak.parts import parts
from tests.vectors.make_orders import CLOSED, FREEZE, ROTATION, order
from verifier import app

LARGEST = 64 * 1024
# 20 ms by the contract, five times that on a busy machine; the processor's time, not the wall's.
MOST_SECONDS = 0.1
MOST_BYTES = 64 * 1024 * 1024
# Tracing allocations costs more than most parsers do.
TRACED_EVERY = 50
ODD_BYTES = (0, 1, 0x0A, 0x20, 0x22, 0x2D, 0x39, 0x5B, 0x7B, 0x7F, 0x80, 0x9F, 0xBF, 0xFF)


@dataclass(frozen=True, slots=True)
class Parser:
    """What is fed: ``read`` takes bytes; ``may`` are the errors that it may raise."""

    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    may: tuple[type[QuotaryError], ...] = (Malformed, Unsupported)


class Broken(AssertionError):
    """A parser that let something else out, or took too much; ``case`` is the input."""

    def __init__(self, name: str, what: str, case: bytes) -> None:
        super().__init__(f"{name}: {what}, input of {len(case)} bytes {case[:200].hex()}")
        self.case = case


def parsers(made: tuple[PKI, Platform], vectors: Path | None) -> Mapping[str, Parser]:
    """Name every parser with good bytes for it; real files are added where the folder is."""
    found = {**_of_the_log(World(*made).publish()), **_of_vendors()}
    found |= {name: Parser(read, seeds) for name, (read, seeds) in parts().items()}
    for name, pattern in REAL.items() if vectors is not None and vectors.is_dir() else ():
        files = sorted(Path(vectors or "").glob(pattern), key=lambda path: path.stat().st_size)[:4]
        seeds = tuple(file.read_bytes()[: 4 * LARGEST] for file in files)
        found[name] = replace(found[name], seeds=(*found[name].seeds, *seeds))
    return found


REAL = {
    "tdx quote": "tdx/*.quote",
    "sgx quote": "sgx/*.quote",
    "snp report": "snp/*.report",
    "hcl report": "snp/*hcl-report.bin",
    "nitro document": "nitro/*.cose",
    "cbor": "nitro/*.cose",
    "spdm report": "nvidia/*.report",
    "rim": "nvidia/rim/*",
    "nras bundle": "nvidia/nras-detached-*",
    "eif": "measure/nitro/*.eif",
    "ccel": "**/*ccel.bin",
    "note": "tlog/notes/*.checkpoint",
    "tlog policy": "tlog/policies/*.policy",
}


def feed(name: str, parser: Parser, case: bytes, *, traced: bool = False) -> None:
    """Give one input to one parser, or raise ``Broken``."""
    if traced:
        tracemalloc.start()
    started = time.process_time()
    try:
        parser.read(case)
    except parser.may:
        pass
    except Exception as error:
        raise Broken(name, f"{type(error).__name__}: {error}", case) from error
    finally:
        took = time.process_time() - started
        most = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
    if most > MOST_BYTES:
        raise Broken(name, f"{most} bytes of memory", case)
    if took > MOST_SECONDS and not traced and len(case) <= LARGEST and _slow(parser, case):
        raise Broken(name, f"{took:.3f} s", case)


def cases(parser: Parser, source: random.Random) -> bytes:
    """Change one of the seeds in one to four ways."""
    data = bytearray(source.choice(parser.seeds))
    for _ in range(source.randint(1, 4)):
        _change(data, source, parser.seeds)
    return bytes(data[: max(LARGEST, 1)])


def fuzz(found: Mapping[str, Parser], seed: int, rounds: int, deadline: float | None = None) -> int:
    """Feed every parser its seeds and then changed ones; give the number of inputs."""
    source = random.Random(seed)
    count = 0
    for name, parser in found.items():
        for good in parser.seeds:
            feed(name, parser, good)
    for turn in range(rounds):
        for name, parser in found.items():
            feed(name, parser, cases(parser, source), traced=turn % TRACED_EVERY == 1)
            count += 1
        if deadline is not None and time.monotonic() > deadline:
            break
    return count


def main() -> int:
    """Feed for a while; the seed that was used is printed first, so that a failure can be made again."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options.add_argument("--vectors", type=Path, default=Path(__file__).parents[3] / "shared" / "vectors")
    said = options.parse_args()
    print(f"seed {said.seed}", flush=True)
    found = parsers(_hardware(), said.vectors)
    count = fuzz(found, said.seed, sys.maxsize, time.monotonic() + said.seconds)
    print(f"{count} inputs to {len(found)} parsers: nothing but the errors that they may raise")
    return 0


def _hardware() -> tuple[PKI, Platform]:
    with tempfile.TemporaryDirectory() as folder:
        return hardware(Path(folder))


def _slow(parser: Parser, case: bytes) -> bool:
    """Slow three times more: the collector or a neighbour is not the parser."""
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(QuotaryError):
            parser.read(case)
        if time.process_time() - started <= MOST_SECONDS:
            return False
    return True


def _change(data: bytearray, source: random.Random, seeds: Sequence[bytes]) -> None:
    at = source.randint(0, len(data))
    length = source.choice((1, 1, 2, 4, 8, 64, 1024))
    match source.randrange(9):
        case 0 if data:
            data[at % len(data)] ^= 1 << source.randrange(8)
        case 1 if data:
            data[at % len(data)] = source.choice(ODD_BYTES)
        case 2:
            del data[at : at + length]
        case 3:
            del data[at:]
        case 4:
            data[at:at] = bytes(source.choice(ODD_BYTES) for _ in range(length))
        case 5:
            data[at:at] = data[at : at + length]
        case 6:
            other = source.choice(seeds)
            start = source.randint(0, len(other))
            data[at : at + length] = other[start : start + length]
        case 7:
            data[at : at + length] = source.choice((b"\xff", b"\0", b"9", b"[", b'{"a":')) * length
        case _:
            data += bytes([source.choice(ODD_BYTES)]) * source.choice((1, 64, LARGEST))


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("latin-1"))


def _members(data: bytes) -> object:
    """Collateral as nine lines, so that bytes can be changed in any of its members."""
    parts = data.decode("latin-1").split("\0")
    return Collateral.parse(dict(zip(MEMBERS, parts, strict=False)))


def _proof(world: World) -> Parser:
    root = world.log.map_root
    key = next(iter(world.log.records))
    present, absent = (trie.prove(world.log.nodes, root, name) for name in (key, bytes(32)))

    def read(data: bytes) -> None:
        for check in (
            lambda: trie.verify_presence(root, key, bytes(32), data),
            lambda: trie.verify_absence(root, bytes(32), data),
        ):
            try:
                check()
            except (InvalidProof, Malformed):
                continue

    return Parser(read, (present, absent))


def _receipt(world: World) -> bytes:
    """A receipt with every member; what it is about does not matter here."""
    digest = bytes(32)
    return Receipt(
        sequence=3,
        served=Served("ab" * 16, "chatcmpl-1", "/v1/chat/completions", 1, 2, True, "stop"),
        commitments=Commitments(digest, digest, digest, digest, 5, 2),
        origin=Origin("chat", "tiny", digest, digest, "sim-tdx", digest, digest, world.log.origin, 42, 43),
        parameters={"dtype": "float32"},
        channel=Channel(digest, 2, digest),
        previous=digest,
        salt=digest,
        signatures=(Signature("receipt-1", bytes(64)),),
    ).encode()


def _of_the_log(world: World) -> dict[str, Parser]:
    made, entries = world.log, tuple(world.log.entries)
    document = world.document()
    policy = log.policy_bytes(world.policy())
    signed = tuple(entry for entry in entries if b"payload" in entry)
    payloads = tuple(Envelope.parse(entry).payload for entry in signed)
    head = Head.new("POST", "/v1/chat/completions", at=1, min_log_size=7, headers={"a": "b"})
    key = PrivateKey()
    wire, _ = seal_request(head, b"{}", key.public, bytes(32))
    joined = b"".join(len(entry).to_bytes(2) + entry for entry in entries)
    return {
        "canonical": Parser(lambda data: parse_canonical(data, LARGEST), (*payloads, canonical({"a": [1]}))),
        "envelope": Parser(Envelope.parse, signed),
        "statement": Parser(parse_statement, payloads),
        "state entry": Parser(StateEntry.parse, (entries[-1],)),
        "order": Parser(Order.parse, tuple(order(made).encode() for made in (ROTATION, FREEZE, CLOSED))),
        "record": Parser(parse_record, tuple(made.records.values())),
        "bundle": Parser(parse_bundle, (world.bundle(), made.absence(bytes(32)).encode())),
        "keyset": Parser(Keyset.parse, (document.keyset,)),
        "binding": Parser(Binding.parse, (document.binding,)),
        "attestation document": Parser(AttestationDocument.parse, (document.encode(),)),
        "note": Parser(Note.parse, (made.note(),)),
        "checkpoint": Parser(_text(Checkpoint.parse), (str(made.checkpoint).encode(),)),
        "proof": Parser(TlogProof.parse, (made.proof(0),)),
        "tlog policy": Parser(_text(TlogPolicy.parse), (log.tlog_policy().encode(),)),
        "policy": Parser(Policy.parse, (policy,)),
        "entry tile": Parser(decode_entry_bundle, (joined,)),
        "frontier": Parser(Frontier.parse, (bytes(8), (1).to_bytes(8) + bytes(32))),
        "add-checkpoint": Parser(
            AddCheckpoint.parse, (b"old 0\n\n" + made.note(),), (Malformed, NotAuthorised)
        ),
        "trie proof": _proof(world),
        "sealed head": Parser(Head.parse, (head.encode(),)),
        "response head": Parser(ResponseHead.parse, (ResponseHead(200, {"a": "b"}).encode(),)),
        # Which key opens it and whether it does is part of reading a sealed request.
        "sealed request": Parser(lambda data: open_request(data, key, bytes(32)), (wire,), (QuotaryError,)),
        "receipt": Parser(Receipt.parse, (_receipt(world),)),
    }


def _of_vendors() -> dict[str, Parser]:
    good = vendor.make(vendor.Recipe(version=5))
    members = "\0".join(good.collateral[name] for name in MEMBERS).encode("latin-1")
    report = amd.report(5, aws.issue("x").key, {})
    document = aws.hypervisor().document()
    gpu = nvidia.device(nvidia.authority(), bytes(8))
    listed = nvidia.evidence_list([gpu], [nvidia.NONCE])
    manifest = nvidia.rim(nvidia.rim_signer(), "GH100", "1", [nvidia.resource(1, [bytes(48)])])
    service = attestation.Service()
    signer = ec.generate_private_key(ec.SECP256R1())
    keys = json.dumps({"keys": [jwk(signer.public_key())]}).encode()
    issued = int(aws.NOW.timestamp())
    submodule = {"ear_status": "none", "ear_trustworthiness_vector": {"hardware": 0}}
    claims = {"eat_profile": PROFILE, "iat": issued, "exp": issued, "ear_status": "none"}
    result = sign_result({**claims, "submods": {"x": submodule}}, signer)
    image = eif.EIF(b"kernel" * 9, "console=ttyS0", (b"boot" * 7, b"root" * 5), b"{}", b"\x80").encode()
    return {
        "tdx quote": Parser(tdx.TDXQuote.parse, (good.quote, vendor.make(vendor.Recipe()).quote)),
        "sgx quote": Parser(sgx.SGXQuote.parse, (enclave.make(vendor.Recipe()).quote,)),
        "nras bundle": Parser(nras.Bundle.parse, (service.bundle(),)),
        "nras key set": Parser(
            _text(lambda text: nras.signing_chain(text, attestation.KEY_ID)),
            (service.key_set().encode(),),
            (Malformed, Rejected),
        ),
        "attestation result": Parser(
            _text(lambda text: verify_result(text, keys, None, aws.NOW)), (result.encode(),), (QuotaryError,)
        ),
        "question for a registry": Parser(
            lambda data: facts.parse_request(data, aws.NOW), (bytes(Kept(listed, {}, aws.NOW, ())),)
        ),
        "question for a verifier": Parser(
            lambda data: app.parse_request(data, aws.NOW),
            (b'{"report":"AAEC","platform":"intel-tdx","expected_user_data":"AQI="}',),
        ),
        "kept evidence": Parser(Kept.parse, (bytes(Kept(listed, {"a": "b"}, aws.NOW, (bytes(32),))),)),
        "attested certificate": Parser(
            ratls.AttestedCertificate.parse,
            (ratls.make_certificate(signer, good.quote, "chat", aws.NOW, aws.NOW + timedelta(hours=1)),),
            (Malformed, Rejected),
        ),
        "ocsp answer": Parser(ocsp.Answer.parse, (responders.answer(gpu.chain[1], gpu.chain[2]),)),
        "collateral": Parser(_members, (members,)),
        "tcb info": Parser(
            _text(lambda text: TCBInfo.parse(text, TDX)), (good.collateral["tcb_info"].encode(),)
        ),
        "qe identity": Parser(
            _text(lambda text: QEIdentityDocument.parse(text, TDX)),
            (good.collateral["qe_identity"].encode(),),
        ),
        "certificates": Parser(
            lambda data: parse_chain(data, 2), (good.collateral["tcb_info_issuer_chain"].encode(),)
        ),
        "revocation list": Parser(RevocationList.parse, (bytes.fromhex(good.collateral["root_ca_crl"]),)),
        "snp report": Parser(snp.SNPReport.parse, (report,)),
        "hcl report": Parser(HCLReport.parse, (b"HCLA" + bytes(28) + report + bytes(20),)),
        "nitro document": Parser(nitro.NitroDocument.parse, (document,)),
        "cbor": Parser(lambda data: cbor.decode(data, LARGEST), (document,)),
        "spdm report": Parser(spdm.DeviceReport.parse, (gpu.report(),)),
        "device evidence": Parser(devices.parse_evidence, (listed,)),
        "rim": Parser(rim.RIMDocument.parse, (manifest,)),
        "eif": Parser(eif.EIF.parse, (image,)),
        "ccel": Parser(ccel.parse, (ccel.encode([], 256),)),
        "dstack log": Parser(dstack.parse, (b"[]", b'[{"imr":0,"event_type":1,"digest":"00"}]')),
    }


if __name__ == "__main__":
    sys.exit(main())
