"""Collateral from services of our own that serve the real documents, from the disk, and from one file."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote as percent

import pytest

from quotary.attestation import snp
from quotary.attestation.kept import Kept
from quotary.attestation.quote import Terms, verify_quote
from quotary.attestation.roots import simulator_root
from quotary.attestation.snp import SNPReport
from quotary.attestation.tdx import TDXQuote
from quotary.client.collateral import Cache, Fetcher, gather
from quotary.errors import CannotTell
from quotary.net.transport import HTTP, Offline, Transport
from quotary.net.vendors import Services
from tests.attestation import test_nvidia as nvidia
from tests.attestation import test_sgx as sgx
from tests.attestation.test_snp import NOW, VENDOR_ROOTS, chain_pem, report
from tests.fakes import nvidia as fake
from tests.fakes import ocsp

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

AT = datetime.fromtimestamp(1750332747, UTC)
QUOTE = "tdx/v4-b0c06f-dcapqvl-uptodate.quote"
NAME = "genoa-v3-microsoft-vcek"


class Vendors:
    """One server for all vendors: documents by path, and what was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body, headers = outer.documents.get(self.path, (b"", {}))
                self.send_response(200 if self.path in outer.documents else 404)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def vendors() -> Iterator[Vendors]:
    found = Vendors()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def fetcher(vendors: Vendors, folder: Path, now: datetime, transport: Transport | None = None) -> Fetcher:
    services = Services(vendors.url, f"{vendors.url}/root.crl", *[vendors.url] * 4)
    return Fetcher(transport or HTTP(), Cache(folder / "kept"), services, now)


def intel(vendors: Vendors, vectors: Path) -> TDXQuote:
    found = json.loads((vectors / "collateral/tdx-b0c06f000000-eval17-2025-06-19.json").read_text())
    intel_documents(vendors, found, "tdx", "b0c06f000000")
    return TDXQuote.parse((vectors / QUOTE).read_bytes())


def intel_documents(vendors: Vendors, found: dict[str, str], tee: str, fmspc: str) -> None:
    def signed(name: str, member: str) -> bytes:
        return f'{{"{member}":{found[name]},"signature":"{found[f"{name}_signature"]}"}}'.encode()

    def chain(name: str) -> str:
        return percent(found[f"{name}_issuer_chain"])

    vendors.documents |= {
        f"/{tee}/certification/v4/tcb?fmspc={fmspc}": (
            signed("tcb_info", "tcbInfo"),
            {"TCB-Info-Issuer-Chain": chain("tcb_info")},
        ),
        f"/{tee}/certification/v4/qe/identity": (
            signed("qe_identity", "enclaveIdentity"),
            {"SGX-Enclave-Identity-Issuer-Chain": chain("qe_identity")},
        ),
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": (
            bytes.fromhex(found["pck_crl"]),
            {"SGX-PCK-CRL-Issuer-Chain": chain("pck_crl")},
        ),
        "/root.crl": (bytes.fromhex(found["root_ca_crl"]), {}),
    }


def amd_services(vendors: Vendors, vectors: Path) -> SNPReport:
    found = SNPReport.parse(report(vectors, NAME))
    numbers = snp.amd.GENOA.components(found.fields["reported_tcb"])
    query = "&".join(
        f"{spl}={numbers[name]:02}"
        for spl, name in (
            ("blSPL", "bootloader"),
            ("teeSPL", "tee"),
            ("snpSPL", "snp"),
            ("ucodeSPL", "microcode"),
        )
    )
    above = chain_pem(vectors, NAME).split("-----END CERTIFICATE-----\n", 1)[1]
    base = "/vcek/v1/Genoa"
    vendors.documents |= {
        f"{base}/{found.fields['chip_id'].hex()}?{query}": (
            (vectors / "snp" / f"{NAME}.vcek.der").read_bytes(),
            {},
        ),
        f"{base}/cert_chain": (above.encode(), {}),
        f"{base}/crl": ((vectors / "collateral/amd-genoa-vcek.crl").read_bytes(), {}),
    }
    return found


def test_intels_documents_verify_the_quote(vendors: Vendors, vectors: Path, tmp_path: Path) -> None:
    members = fetcher(vendors, tmp_path, AT).intel(intel(vendors, vectors))
    terms = Terms(VENDOR_ROOTS, AT, timedelta(0), ())
    found = verify_quote((vectors / QUOTE).read_bytes(), members, terms)
    assert found.facts is not None
    assert found.facts.tcb.status == "UpToDate"
    file = vectors / "collateral/tdx-b0c06f000000-eval17-2025-06-19.json"
    assert members == json.loads(file.read_text())


def test_an_enclaves_documents_come_from_the_services_for_sgx(
    vendors: Vendors, vectors: Path, tmp_path: Path
) -> None:
    (bundle, at), status = sgx.REAL["v3-00606a-automata-swhardening"]
    data = sgx.read(vectors, "v3-00606a-automata-swhardening")
    found = sgx.members_of(vectors, bundle)
    intel_documents(vendors, found, "sgx", "00606a000000")
    now = datetime.fromtimestamp(at, UTC)
    terms = Terms(VENDOR_ROOTS, now, timedelta(0), ())
    members = gather(data, {}, terms, fetcher(vendors, tmp_path, now))
    assert members == found
    verified = verify_quote(data, members, terms)
    assert verified.facts is not None
    assert (verified.kind, verified.facts.tcb.status) == ("sgx", status)


def test_what_was_fetched_is_asked_for_once_and_kept_private(
    vendors: Vendors, vectors: Path, tmp_path: Path
) -> None:
    quote = intel(vendors, vectors)
    first = fetcher(vendors, tmp_path, AT).intel(quote)
    assert len(vendors.asked) == 4
    assert fetcher(vendors, tmp_path, AT + timedelta(minutes=59)).intel(quote) == first
    assert len(vendors.asked) == 4
    assert fetcher(vendors, tmp_path, AT + timedelta(minutes=61)).intel(quote) == first
    assert len(vendors.asked) == 8
    files = list((tmp_path / "kept").iterdir())
    assert {(file.stat().st_mode & 0o777, file.suffix) for file in files} == {(0o600, ".json")}


def test_offline_and_a_service_that_is_away_use_what_was_kept(
    vendors: Vendors, vectors: Path, tmp_path: Path
) -> None:
    quote = intel(vendors, vectors)
    with pytest.raises(CannotTell, match="offline"):
        fetcher(vendors, tmp_path, AT, Offline()).intel(quote)
    first = fetcher(vendors, tmp_path, AT).intel(quote)
    later = AT + timedelta(days=20)
    assert fetcher(vendors, tmp_path, later, Offline()).intel(quote) == first
    vendors.documents.clear()
    assert fetcher(vendors, tmp_path, later).intel(quote) == first
    with pytest.raises(CannotTell, match="status 404"):
        fetcher(vendors, tmp_path / "other", later).intel(quote)


def test_a_damaged_file_is_fetched_again(vendors: Vendors, vectors: Path, tmp_path: Path) -> None:
    quote = intel(vendors, vectors)
    first = fetcher(vendors, tmp_path, AT).intel(quote)
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert fetcher(vendors, tmp_path, AT).intel(quote) == first
    assert len(vendors.asked) == 8


@pytest.mark.parametrize(
    ("path", "body", "headers", "said"),
    [
        ("/tdx/certification/v4/qe/identity", b"{}", {}, "signed enclaveIdentity"),
        ("/tdx/certification/v4/qe/identity", b"\xff", {}, "signed enclaveIdentity"),
        ("/sgx/certification/v4/pckcrl?ca=platform&encoding=der", b"x", {}, "no header"),
    ],
)
def test_another_answer_than_intels_is_no_collateral(
    vendors: Vendors, vectors: Path, tmp_path: Path, path, body, headers, said
) -> None:
    quote = intel(vendors, vectors)
    vendors.documents[path] = (body, headers)
    with pytest.raises(CannotTell, match=said):
        fetcher(vendors, tmp_path, AT).intel(quote)


def test_amds_certificates_verify_the_report(vendors: Vendors, vectors: Path, tmp_path: Path) -> None:
    members = fetcher(vendors, tmp_path, NOW).amd(amd_services(vendors, vectors))
    assert members["chain"] == chain_pem(vectors, NAME)
    assert bytes.fromhex(members["crl"]) == (vectors / "collateral/amd-genoa-vcek.crl").read_bytes()
    without = members | {"crl": "none"}
    assert verify_quote(report(vectors, NAME), without, Terms(VENDOR_ROOTS, NOW, timedelta(0), ())).facts


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("milan-v3-aws-vlek-vmpl1", "its cloud hands it out"),
        ("milan-v2-virtee-vcek", "version 2"),
    ],
)
def test_a_report_that_amd_has_no_certificate_for_says_why(
    vendors: Vendors, vectors: Path, tmp_path: Path, name: str, said: str
) -> None:
    with pytest.raises(CannotTell, match=said):
        fetcher(vendors, tmp_path, NOW).amd(SNPReport.parse(report(vectors, name)))
    assert vendors.asked == []


def test_a_page_instead_of_a_certificate_is_no_collateral(
    vendors: Vendors, vectors: Path, tmp_path: Path
) -> None:
    found = amd_services(vendors, vectors)
    leaf = next(path for path in vendors.documents if "blSPL" in path)
    vendors.documents[leaf] = (b"<html>", {})
    with pytest.raises(CannotTell, match="something else than certificates"):
        fetcher(vendors, tmp_path, NOW).amd(found)


def test_manifests_come_by_the_ids_of_a_device(vendors: Vendors, vectors: Path, tmp_path: Path) -> None:
    device = nvidia.judge(*nvidia.read(vectors, nvidia.SWITCH))
    name = nvidia.GENUINE[nvidia.SWITCH][2]
    text = (vectors / "nvidia/rim/switch-5612_0002_890-96.10.55.00.01.xml").read_bytes()
    body = json.dumps({"id": name, "rim": base64.b64encode(text).decode()}).encode()
    vendors.documents[f"/v1/rim/{name}"] = (body, {})
    assert fetcher(vendors, tmp_path, NOW).nvidia(device) == {name: text.decode()}
    vendors.documents[f"/v1/rim/{name}"] = (b"[]", {})
    with pytest.raises(CannotTell, match="something else than a manifest"):
        fetcher(vendors, tmp_path / "other", NOW).nvidia(device)


def test_the_responders_answers_verify_the_device_and_are_asked_for_once(tmp_path: Path) -> None:
    authority = fake.authority()
    device = fake.device(authority, b"\1\2\3\4\5\6\7\x08")
    members = {"chain": device.pem.decode()}
    terms = Terms((simulator_root("nvidia", fake.fingerprint(authority.root)),), fake.NOW, timedelta(0), ())
    with ocsp.service([device.chain]) as service:
        source = Fetcher(HTTP(), Cache(tmp_path), Services(ocsp=service.url), fake.NOW)
        found = source.answers(nvidia.parse_device_chain(device.pem)[1:])
        assert len(service.asked) == 3
        assert source.answers(nvidia.parse_device_chain(device.pem)[1:]) == found
        assert len(service.asked) == 3
    verified = verify_quote(device.report(), members | found, terms)
    assert verified.devices[0].good_until is not None
    checks = {check.name: check.found for check in verified.checks}
    assert checks["device revocation"].startswith("good until")


def test_what_the_responder_does_not_answer_is_left_out(tmp_path: Path) -> None:
    device = fake.device(fake.authority(), b"\1\2\3\4\5\6\7\x08")
    chain = nvidia.parse_device_chain(device.pem)[1:]
    with ocsp.service([device.chain]) as service:
        service.silent.add(chain[1].serial)
        source = Fetcher(HTTP(), Cache(tmp_path), Services(ocsp=service.url), fake.NOW)
        assert set(source.answers(chain)) == {f"ocsp:{chain[number].serial:x}" for number in (0, 2)}
    away = replace(source, now=fake.NOW + timedelta(hours=23))
    assert len(away.answers(chain)) == 2
    # A kept answer of the day before says nothing about today.
    assert replace(source, now=fake.NOW + timedelta(hours=24)).answers(chain) == {}


def test_kept_evidence_gives_the_same_verdict_again(vectors: Path) -> None:
    members = json.loads((vectors / "collateral/tdx-b0c06f000000-eval17-2025-06-19.json").read_text())
    kept = Kept((vectors / QUOTE).read_bytes(), members, AT, ())
    again = Kept.parse(bytes(kept))
    assert again == kept
    terms = Terms(VENDOR_ROOTS, again.judged_at, timedelta(0), ())
    assert verify_quote(again.evidence, again.collateral, terms).facts


def test_whatever_the_evidence_its_collateral_is_gathered(
    vendors: Vendors, vectors: Path, tmp_path: Path
) -> None:
    intel(vendors, vectors)
    amd_services(vendors, vectors)
    name = nvidia.GENUINE[nvidia.SWITCH][2]
    text = (vectors / "nvidia/rim/switch-5612_0002_890-96.10.55.00.01.xml").read_bytes()
    body = json.dumps({"id": name, "rim": base64.b64encode(text).decode()}).encode()
    vendors.documents[f"/v1/rim/{name}"] = (body, {})
    switch, chain = nvidia.read(vectors, nvidia.SWITCH)
    nitro = (vectors / "nitro/evervault-2022-10-valid.cose").read_bytes()
    terms, source = Terms(VENDOR_ROOTS, nvidia.NOW, timedelta(0), ()), fetcher(vendors, tmp_path, NOW)
    assert set(gather((vectors / QUOTE).read_bytes(), {}, terms, source)) >= {"tcb_info", "root_ca_crl"}
    assert set(gather(report(vectors, NAME), {}, terms, source)) == {"chain", "crl"}
    assert gather(report(vectors, NAME), {"chain": "", "crl": "none"}, terms, source)["crl"] == "none"
    assert set(gather(switch, {"chain": chain.decode()}, terms, source)) == {"chain", name}
    assert gather(nitro, {}, terms, source) == {}
    # A registry has nothing for it, and is not asked.
    assert gather(nitro, {}, terms, replace(source, registry=vendors.url)) == {}
    vendors.documents["/.well-known/jwks.json"] = (b'{"keys":[]}', {})
    token = (vectors / "nvidia/nras-detached-eat-hopper-v3.json").read_bytes()
    assert gather(token, {}, terms, source) == {"jwks": '{"keys":[]}'}
    wrapper = (vectors / "snp/milan-v2-azure-hcl-report.bin").read_bytes()
    with pytest.raises(CannotTell, match="version 2"):
        gather(wrapper, {}, terms, source)
    azure, inside = (vectors / "tdx/azure-hcl-report.bin").read_bytes(), (vectors / QUOTE).read_bytes().hex()
    assert gather(azure, {}, terms, source) == {}
    whole = gather(azure, {"quote": inside}, terms, source)
    assert (whole["quote"], "tcb_info" in whole) == (inside, True)
