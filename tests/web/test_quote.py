"""Evidence in the browser's words: every real file of the collection is read and judged as the library does.

What both are held to is the part without a vendor's further documents: what the evidence says, its signature, and
the chain of certificates to a pinned root. That the rest is named as not checked is a test too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import amd, dcap, nitro, nvidia, sgx, snp, spdm, tdx
from quotary.attestation.certificates import Certificate, verify_chain, verify_p256
from quotary.attestation.devices import parse_evidence, verify_devices
from quotary.attestation.facts import Facts
from quotary.attestation.layout import Layout
from quotary.attestation.roots import VENDOR_ROOTS, select_root
from quotary.canonical import b64, unb64
from quotary.errors import Judged, Malformed, Rejected, Unsupported
from quotary.statements.measurement import measurement_id
from tests.attestation import manifest
from tests.attestation.manifest import NOW, Entry
from tests.fakes import authority
from tests.fakes.machine import hardware, registers
from tests.fakes.node import node_says
from tests.web.test_verify import said as said_by_page

# AMD gives every VCEK the serial number 0, which the library that parses them announces to refuse one day.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

KINDS = ("quote", "snp-report", "nitro", "nvidia-report")
SWITCH = "nvidia/switch-ls10-96.10.55-sdk.report"
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "header": tdx.HEADER,
        "sgxHeader": sgx.HEADER,
        "bodyHead": tdx.BODY_HEAD,
        "td10": tdx.TD_BODY_10,
        "td15": tdx.TD_BODY_15,
        "sgxReport": dcap.SGX_REPORT,
        "signatureHead3": dcap.SIGNATURE_HEAD_3,
        "signatureHead": dcap.SIGNATURE_HEAD,
        "qeHead": dcap.QE_HEAD,
        "chainHead": dcap.CHAIN_HEAD,
        **{f"snp{version}": layout for version, layout in snp.LAYOUTS.items()},
        "spdmRequest": spdm.REQUEST,
        "spdmResponse": spdm.RESPONSE,
        "spdmBlock": spdm.BLOCK,
    }
)


def answers(questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the browser's module says of each, in node."""
    found: dict[str, Any] = node_says("tests/web/quote.mjs", questions)
    return found


def chain_of(entry: Entry) -> tuple[Certificate, ...]:
    """The certificates beside a report that carries none."""
    if entry.said["kind"] == "nvidia-report":
        derived = "derived" in entry.file
        return manifest.device_chain(manifest.entries(entry.vectors)[SWITCH] if derived else entry)
    missing = entry.said["kind"] != "snp-report" or "nocert" in entry.file
    return () if missing else manifest.chain_of(entry)


def question(entry: Entry) -> dict[str, Any]:
    pem = "".join(one.parsed.public_bytes(Encoding.PEM).decode() for one in chain_of(entry))
    return {"evidence": b64(entry.data), "pem": pem, "now": int(entry.inside.timestamp())}


def intel(entry: Entry) -> Facts | dict[str, bytes]:
    """An Intel quote's signature and chain, without the collateral that ``verify`` wants."""
    kind = sgx.SGXQuote if entry.file.startswith("sgx/") else tdx.TDXQuote
    quote = kind.parse(entry.data)
    section, chain = quote.section, quote.section.pck_chain
    root = select_root(VENDOR_ROOTS, "sgx" if kind is sgx.SGXQuote else "tdx", chain)
    verify_chain("pck chain", chain, root.fingerprint, entry.inside)
    if chain[0].is_ca:
        raise Rejected("pck chain", "a CA", "an end certificate")
    verify_p256("qe report signature", chain[0].key, section.qe_report_signature, section.qe_report)
    report = dcap.SGX_REPORT.read(section.qe_report)
    if report["report_data"][:32] != hashlib.sha256(section.attestation_key + section.qe_auth).digest():
        raise Rejected("qe report data", "another", "the attestation key's")
    key = dcap.attestation_public_key(section)
    verify_p256("quote signature", key, section.signature, quote.signed)
    dcap.PCKExtension.parse(chain[0])
    return dict(quote.body)


def facts(entry: Entry) -> Facts | nvidia.DeviceFacts | dict[str, bytes]:
    """What the library makes of a file, or what it raises."""
    match entry.said["kind"]:
        case "quote":
            return intel(entry)
        case "snp-report":
            collateral = amd.Collateral(chain_of(entry), None)
            return snp.verify(snp.SNPReport.parse(entry.data), collateral, entry.inside, VENDOR_ROOTS)
        case "nitro":
            document = nitro.NitroDocument.parse(entry.data)
            return nitro.verify(document, document.at, timedelta(0), VENDOR_ROOTS)
    report = spdm.DeviceReport.parse(entry.data)
    return nvidia.verify(report, chain_of(entry), report.nonce, (), NOW, VENDOR_ROOTS)


def word(entry: Entry) -> str:
    if entry.said["kind"] == "snp-report" and not chain_of(entry):
        snp.SNPReport.parse(entry.data)
        return "no chain"
    try:
        facts(entry)
    except Judged as error:
        return error.check
    except Malformed:
        return "malformed"
    except Unsupported:
        return "unsupported"
    return "accepted"


def is_debug(entry: Entry) -> bool:
    return "debug" in entry.file and "derived" not in entry.file


@pytest.fixture(scope="module")
def entries(vectors: Path) -> list[Entry]:
    return [entry for entry in manifest.entries(vectors).values() if entry.said["kind"] in KINDS]


@pytest.fixture(scope="module")
def said(entries: list[Entry]) -> dict[str, Any]:
    return answers([question(entry) for entry in entries])


def test_the_roots_are_the_librarys(said: dict[str, Any]) -> None:
    ours = [
        {"platform": root.platform, "fingerprint": root.fingerprint.hex(), "name": root.name}
        for root in VENDOR_ROOTS
        if root.platform in ("tdx", "sgx", "snp", "nitro", "nvidia")
    ]
    assert said["roots"] == ours


def test_the_tables_are_the_librarys(said: dict[str, Any]) -> None:
    for name, table in said["layouts"].items():
        layout = LAYOUTS[name]
        assert table["length"] == layout.length
        assert table["fields"] == [[field.name, field.offset, field.length] for field in layout.fields], name
    assert said["layouts"].keys() == LAYOUTS.keys()


def test_every_real_file_has_the_librarys_verdict(entries: list[Entry], said: dict[str, Any]) -> None:
    found = {entry.file: answer["word"] for entry, answer in zip(entries, said["answers"], strict=True)}
    wanted = {entry.file: "debug" if is_debug(entry) else word(entry) for entry in entries}
    assert found == wanted
    assert set(wanted.values()) >= {
        "accepted", "debug", "malformed", "unsupported", "no chain", "qe report data", "qe report signature",
        "quote signature", "report signature", "reported tcb", "nitro chain", "document signature", "device signature",
    }  # fmt: skip


def test_what_a_file_says_is_what_the_library_reads(entries: list[Entry], said: dict[str, Any]) -> None:
    read = 0
    for entry, answer in zip(entries, said["answers"], strict=True):
        if answer["word"] not in ("accepted", "debug"):
            continue
        found, shown = facts(entry), _all(answer)
        if isinstance(found, nvidia.DeviceFacts):
            wanted = {f"block{index}": block for index, block in enumerate(found.blocks)}
        elif isinstance(found, Facts):
            wanted = {**found.registers, **found.configuration, **found.attributes}
            assert answer["reportData"] == found.report_data.hex()
            registers = {name: bytes.fromhex(text) for name, text in answer["registers"].items()}
            assert answer["id"] == measurement_id(answer["kind"], _fixed(answer["kind"], registers)).hex()
        else:
            wanted = {**found, "mrtd": found.get("mr_td", b""), "mrenclave": found.get("mr_enclave", b"")}
            assert answer["reportData"] == found["report_data"].hex()
        different = {name: text for name, text in shown.items() if wanted.get(name, b"").hex() != text}
        assert different.keys() <= {"nonce", "firmware_id"}, (entry.file, different)
        read += 1
    assert read > 50


def test_what_is_not_checked_is_named_and_never_passed(entries: list[Entry], said: dict[str, Any]) -> None:
    for entry, answer in zip(entries, said["answers"], strict=True):
        if answer["word"] not in ("accepted", "no chain"):
            continue
        left = {row["name"] for row in answer["results"] if row["outcome"] == "not checked"}
        assert "freshness" in left, entry.file
        assert left & {"TCB level", "TCB floor", "golden values"}, entry.file
        assert "signature and chain" in left or answer["word"] == "accepted"


# One of each kind: the tests below break it in many places.
WHOLE = (
    "tdx/v4-90c06f-azure-live-uptodate.quote",
    "tdx/v5-90c06f-azure-nolevel.quote",
    "sgx/v3-00606a-automata-swhardening.quote",
    "snp/genoa-v3-veraison-vcek.report",
    "snp/turin-v5-microsoft-vcek.report",
    "nitro/dstack-2025-12-valid-indefinite.cose",
    "nvidia/hopper-570.124.03-sdk.report",
)
# Where the certificates begin that the evidence carries: two readers of DER may find another first mistake there.
CERTIFICATES = {"tdx": 48 + 584 + 4 + 134 + 450, "sgx": 48 + 384 + 4 + 128 + 450, "nitro": 900}


@pytest.mark.parametrize("name", WHOLE)
def test_a_changed_bit_or_a_cut_anywhere_is_refused_by_both(vectors: Path, name: str) -> None:
    entry = manifest.entries(vectors)[name]
    data, changed, asked = entry.data, [], question(entry)
    places = range(0, len(data), max(1, len(data) // 90))
    for at in places:
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        changed += [bytes(flipped), data[:at]] if at % 4 == 0 else [bytes(flipped)]
    found = answers([{**asked, "evidence": b64(spoiled)} for spoiled in changed])["answers"]
    limit = CERTIFICATES.get(name.partition("/")[0], len(data))
    for spoiled, answer in zip(changed, found, strict=True):
        wanted = word(replace(entry, changed=spoiled))
        assert (answer["word"] == "accepted") == (wanted == "accepted"), (name, answer, wanted)
        at = next((at for at, (a, b) in enumerate(zip(spoiled, data, strict=False)) if a != b), len(spoiled))
        # The first eight bytes say which reader reads the rest.
        if 8 <= at < limit and len(spoiled) == len(data):
            assert answer["word"] == wanted, (name, at, answer["detail"])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """A quote of the simulator, well signed, and the digest of the simulator's root."""
    pki, platform = hardware(tmp_path_factory.mktemp("vendor"))
    asked = {
        "evidence": b64(platform.quote(registers(), bytes(64))),
        "pem": "",
        "now": int(authority.NOW.timestamp()),
    }
    return asked, pki.root_sha256.hex()


def test_simulated_evidence_never_passes_where_hardware_is_asked_for(
    simulated: tuple[dict[str, Any], str],
) -> None:
    asked, root = simulated
    (plain, own) = answers([asked, {**asked, "simulator": root}])["answers"]
    assert (plain["word"], plain["results"][1]["outcome"]) == ("root", "refused")
    assert "a simulator marked" in plain["detail"]
    assert own["word"] == "accepted"
    assert "SIMULATED" in own["results"][1]["detail"]


def test_another_simulators_root_is_not_this_ones(simulated: tuple[dict[str, Any], str]) -> None:
    (found,) = answers([{**simulated[0], "simulator": "ab" * 32}])["answers"]
    assert (found["word"], found["results"][1]["outcome"]) == ("root", "failed")


def _all(answer: Mapping[str, Any]) -> dict[str, str]:
    return {**answer["registers"], **answer["configuration"], **answer["attributes"]}


def _fixed(kind: str, registers: Mapping[str, bytes]) -> dict[str, bytes]:
    names = {"snp": ("measurement",), "nitro": ("pcr0", "pcr1", "pcr2")}[kind]
    return {name: registers[name] for name in names}


LISTS = ("hopper-570.86.10-cert-hold-sdk", "hopper-590.12-ppcie-sdk", "switch-ls10-single-sdk")


def judged_list(text: str) -> tuple[str, dict[str, str], list[str]]:
    found = said_by_page("checkDeviceList", text, "", NOW.timestamp())
    assert isinstance(found, dict)
    failed = [f"{row['name']}: {row['detail']}" for row in found["results"] if row["outcome"] == "failed"]
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}, failed


def verify_list(text: str) -> int:
    evidence = parse_evidence(text.encode())
    return len(verify_devices(evidence, [item.report.nonce for item in evidence], (), NOW, VENDOR_ROOTS))


@pytest.mark.parametrize("name", LISTS)
def test_a_real_list_of_devices_is_judged_as_the_library_does(vectors: Path, name: str) -> None:
    text = (vectors / "nvidia" / f"{name}.json").read_text()
    verdict, rows, failed = judged_list(text)
    assert (verdict, rows["nonces"], rows["golden values"], failed) == (
        "could-not-check",
        *["not checked"] * 2,
        [],
    )
    assert [rows[f"device {index}"] for index in range(verify_list(text))] == ["passed"]


def test_a_real_list_that_shows_one_switch_four_times_is_a_mismatch(vectors: Path) -> None:
    text = (vectors / "nvidia" / "switch-ls10-multi-sdk.json").read_text()
    with pytest.raises(Rejected, match="device identity"):
        verify_list(text)
    verdict, rows, failed = judged_list(text)
    assert (verdict, rows["device 0"], len(failed)) == ("mismatch", "passed", 3)
    assert failed[0].startswith("device 1: device identity")


def test_a_device_that_was_changed_is_a_mismatch(vectors: Path) -> None:
    (one,) = json.loads((vectors / "nvidia" / f"{LISTS[1]}.json").read_text())
    report = bytearray(unb64(one["evidence"]))
    report[60] ^= 1
    verdict, _, failed = judged_list(json.dumps([{**one, "evidence": b64(bytes(report))}]))
    assert (verdict, [line[:28] for line in failed]) == ("mismatch", ["device 0: device signature: "])
