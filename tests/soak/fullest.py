"""The most work and memory that 64 KiB can ask of each parser of evidence: the fullest input of each kind.

Random changes (``fuzz.py``) find what breaks a parser, hardly what keeps it busy: that must be built.
"""

import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from quotary.attestation import cbor, devices, nitro, ocsp, rim, sgx, snp, spdm, tdx
from quotary.attestation.certificates import RevocationList, parse_certificate, parse_chain
from quotary.attestation.hcl import HCLReport
from quotary.attestation.intel_json import SGX, TDX, QEIdentityDocument, TCBInfo
from quotary.attestation.measure import ccel, dstack
from quotary.attestation.measure.events import Event
from quotary.errors import QuotaryError
from tests.fakes import amd, aws, nvidia, vendor
from tests.fakes import ocsp as responders
from tests.fakes import sgx as enclave

LARGEST = 64 * 1024
MOST_SECONDS, MOST_BYTES = 0.020, 64 * 1024 * 1024
REPEATS = 7

Read = Callable[[bytes], object]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def fullest() -> Mapping[str, tuple[Read, bytes]]:
    """Name a parser and what fills it, by what there is much of."""
    found: dict[str, tuple[Read, bytes]] = {}
    for name, read, data in _cases():
        # A parser with a lower limit of its own is filled up to that, and told more than that too.
        found[name] = (read, data[:LARGEST])
    return found


def feed(read: Read, data: bytes) -> None:
    """Let a parser read; its own refusals are answers too, only their time counts here."""
    try:
        read(data)
    except QuotaryError:
        return


def seconds(read: Read, data: bytes) -> float:
    """Processor time of the quickest of some readings: what is slower was the neighbours'."""
    took = []
    for _ in range(REPEATS):
        started = time.process_time()
        feed(read, data)
        took.append(time.process_time() - started)
    return min(took)


def _cases() -> Iterator[tuple[str, Read, bytes]]:
    yield from _manifests()
    yield from _documents()
    yield from _chains()
    yield from _logs()
    yield from _reports()


def _manifests() -> Iterator[tuple[str, Read, bytes]]:
    read = rim.RIMDocument.parse
    signer = nvidia.rim_signer()
    good = nvidia.rim(signer, "GH100", "1", [nvidia.resource(1, [bytes(48)])]).decode()
    room = LARGEST - len(good) - 64

    def inside(text: str) -> bytes:
        return good.replace("<Payload>", f"<Payload>{text}", 1).encode()

    values = [nvidia.resource(index, [bytes(48)] * 8) for index in range(2, 250)]
    levels = [
        "<a" + "".join(f' xmlns:p{level}_{number}="u"' for number in range(60)) + ">" for level in range(12)
    ]
    attributes = "".join(f' a{number}=""' for number in range(60))
    yield "rim, reference values", read, inside("".join(values)[:room].rpartition("/>")[0] + "/>")
    yield "rim, elements", read, inside("<a/>" * (room // 4))
    yield "rim, elements it may have", read, inside("<a/>" * 1000 + " " * (room - 4000))
    yield "rim, namespaces", read, inside("".join(levels) + "<a/>" * 4000 + "</a>" * 12)
    few = "".join(f' xmlns:p{number}="u"' for number in range(12))
    yield "rim, namespaces it may have", read, inside(f"<a{few}>{'<a/>' * 900}</a>")
    yield "rim, attributes", read, inside(f"<a{attributes}/>" * (room // (len(attributes) + 4)))
    yield "rim, text to escape", read, inside("&lt;" * (room // 4))
    yield "rim, carriage returns", read, inside("&#13;" * (room // 5))


def _documents() -> Iterator[tuple[str, Read, bytes]]:
    info, identity = vendor.tcb_info(), vendor.qe_identity()
    for tee, document, parse in (
        (TDX, info, TCBInfo.parse),
        (SGX, _for_enclaves(info), TCBInfo.parse),
        (TDX, identity, QEIdentityDocument.parse),
    ):
        full = deepcopy(document)
        level = full["tcbLevels"][0]
        full["tcbLevels"] = [level] * ((LARGEST - 4000) // len(json.dumps(level, separators=(",", ":"))))
        text = json.dumps(full, separators=(",", ":"))
        yield f"{document['id']} {len(full['tcbLevels'])} levels", _text(parse, tee), text.encode()
    modules = deepcopy(info)
    modules["tdxModuleIdentities"] = [
        {**info["tdxModuleIdentities"][0], "id": f"TDX_{number:02X}"} for number in range(200)
    ]
    yield "TDX modules", _text(TCBInfo.parse, TDX), json.dumps(modules)[:LARGEST].encode()
    yield "json, depth", _text(TCBInfo.parse, TDX), b"[" * LARGEST
    yield "hcl report", HCLReport.parse, _wrapper(json.dumps({"keys": [{"kid": "x"}] * 900}).encode())


def _chains() -> Iterator[tuple[str, Read, bytes]]:
    chain = vendor.certificates(vendor.Recipe())
    pem = vendor.text(chain["ca"]).encode()
    yield (
        "certificates, many",
        lambda data: parse_chain(data, len(data) // len(pem)),
        pem * (LARGEST // len(pem)),
    )
    yield "certificate, extensions", parse_certificate, _certificate(extensions=1800)
    yield "certificate, names", parse_certificate, _certificate(names=1400)
    yield "certificate, key", parse_certificate, _certificate(padding=60_000)
    serials = range(1, (LARGEST - 800) // 36)
    builder = x509.CertificateRevocationListBuilder().issuer_name(chain["ca"].subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial << 64).revocation_date(NOW)
        builder = builder.add_revoked_certificate(revoked.build())
    data = builder.sign(vendor.key("ca"), hashes.SHA256()).public_bytes(Encoding.DER)
    yield "revocation list", RevocationList.parse, data
    gpu = nvidia.device(nvidia.authority(), bytes(8))
    yield "ocsp answer", ocsp.Answer.parse, responders.answer(gpu.chain[1], gpu.chain[2])


def _logs() -> Iterator[tuple[str, Read, bytes]]:
    event = Event("rtmr1", 6, bytes(48), b"")
    yield "ccel, events", ccel.parse, ccel.encode([event] * 900, LARGEST)
    yield "ccel, data", ccel.parse, ccel.encode([Event("rtmr1", 6, bytes(48), bytes(60_000))], LARGEST)
    member = {"imr": 1, "event_type": 134217729, "digest": "00" * 48, "event": "x", "event_payload": ""}
    yield "dstack log", dstack.parse, json.dumps([member] * 330).encode()


def _reports() -> Iterator[tuple[str, Read, bytes]]:
    machine = aws.hypervisor()
    pcrs = {number: bytes(48) for number in range(32)}
    chain = [machine.root.der, *[machine.above[0].der] * 7]
    full = machine.payload(pcrs=pcrs, cabundle=chain, public_key=bytes(1024), user_data=bytes(512))
    yield "nitro document", nitro.NitroDocument.parse, machine.document(full)
    yield "cbor, items", lambda data: cbor.decode(data, LARGEST), aws.encode([0] * 4090)
    yield "cbor, more items", lambda data: cbor.decode(data, LARGEST), aws.encode([0] * 65_000)
    yield "cbor, maps", lambda data: cbor.decode(data, LARGEST), aws.encode({str(n): n for n in range(2000)})
    gpus = [nvidia.device(nvidia.authority(), number.to_bytes(8, "big")) for number in range(6)]
    yield "device evidence", devices.parse_evidence, nvidia.evidence_list(gpus, [nvidia.NONCE] * 6)
    opaque = b"".join(struct.pack("<HH", number, 0) for number in range(100, 3900))
    yield "spdm report", spdm.DeviceReport.parse, gpus[0].raw(nvidia.NONCE, b"", 0, opaque)
    quote = vendor.make(vendor.Recipe(version=5)).quote
    yield "tdx quote", tdx.TDXQuote.parse, quote + bytes(LARGEST - len(quote))
    small = enclave.make(vendor.Recipe()).quote
    yield "sgx quote", sgx.SGXQuote.parse, small + bytes(LARGEST - len(small))
    yield "snp report", snp.SNPReport.parse, amd.report(5, aws.issue("x").key, {})


def _text(parse: Callable[[str, str], object], tee: str) -> Read:
    return lambda data: parse(data.decode(), tee)


def _for_enclaves(info: dict) -> dict:
    found = deepcopy(info)
    enclave.as_tcb_info(found)
    return found


def _wrapper(runtime: bytes) -> bytes:
    length = 32 + 1184 + 20 + len(runtime)
    head = struct.pack("<4sIIII12x", b"HCLA", 1, length, 2, 0)
    return head + bytes(1184) + struct.pack("<5I", 20 + len(runtime), 1, 2, 1, len(runtime)) + runtime


def _certificate(*, extensions: int = 0, names: int = 0, padding: int = 0) -> bytes:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{number:06}") for number in range(names)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "full"), *attributes])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    )
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    for number in range(extensions):
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.99999.{number + 1}")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, b""), False)
    if padding:
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, bytes(padding)), False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
