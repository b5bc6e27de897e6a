"""Posted evidence: the facts that its vendor signed, every check by name, and never a verdict."""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from quotary.attestation.kept import Kept
from quotary.attestation.nitro import NitroDocument
from quotary.attestation.quote import Terms, verify_quote
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.canonical import b64
from quotary.errors import CannotTell
from quotary.net.transport import HTTP
from quotary.net.vendors import Answer, DocumentSet, paths_of
from quotary.statements.facts import facts_document
from registry.app import create_app
from registry.collateral import Collateral, Refresher
from registry.errors import Busy
from registry.facts import AT_ONCE, COST, MAX_BODY, Bench
from tests.attestation import test_nitro as nitro
from tests.attestation import test_nvidia as nvidia
from tests.attestation import test_sgx as sgx
from tests.attestation import test_snp as snp
from tests.client.test_collateral import AT, QUOTE, Vendors, vendors
from tests.conftest import ROOT
from tests.fakes.inprocess import Local, local
from tests.fakes.vendor import Recipe, make
from tests.registry.test_api import check_problem
from tests.registry.test_collateral import settings

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

__all__ = ["settings", "vendors"]

PAGE = (ROOT / "docs" / "formats" / "api.md").read_text("utf-8")
ADDRESS = "/api/v1/evidence/facts"
INTEL = "collateral/tdx-b0c06f000000-eval17-2025-06-19.json"
GENOA = "genoa-v3-veraison-vcek"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("facts")) as found:
        yield found


@pytest.fixture(scope="module")
def client(log: Local) -> FlaskClient:
    return log.client()


def tdx_evidence(vectors: Path) -> Kept:
    members = json.loads((vectors / INTEL).read_text())
    return Kept((vectors / QUOTE).read_bytes(), members, AT, ())


def evidence_of(vectors: Path, platform: str) -> Kept:
    """One genuine piece of evidence of each kind, with what it needs and the time it was good at."""
    if platform == "tdx":
        return tdx_evidence(vectors)
    if platform == "sgx":
        (bundle, at), _ = sgx.REAL["v3-00606a-automata-swhardening"]
        data = sgx.read(vectors, "v3-00606a-automata-swhardening")
        return Kept(data, sgx.members_of(vectors, bundle), datetime.fromtimestamp(at, UTC), ())
    if platform == "snp":
        members = {"chain": snp.chain_pem(vectors, GENOA), "crl": "none"}
        return Kept(snp.report(vectors, GENOA), members, snp.NOW, ())
    if platform == "nitro":
        data = nitro.read(vectors, nitro.VALID[0])
        at = NitroDocument.parse(data).at.replace(microsecond=0) + timedelta(seconds=1)
        return Kept(data, {}, at, ())
    return Kept((vectors / "nvidia/hopper-590.12-ppcie-sdk.json").read_bytes(), {}, nvidia.NOW, ())


@pytest.mark.parametrize("platform", ["tdx", "sgx", "snp", "nitro", "nvidia"])
def test_the_facts_are_those_that_the_command_gives(
    client: FlaskClient, vectors: Path, platform: str
) -> None:
    kept = evidence_of(vectors, platform)
    answer = client.post(ADDRESS, data=bytes(kept))
    assert answer.status_code == 200, answer.data
    found = dict(answer.json)
    assert {source["source"] for source in found.pop("collateral")} <= {"request"}
    assert len(found.pop("evidence_sha256")) == 64
    terms = Terms(VENDOR_ROOTS, kept.judged_at, timedelta(minutes=5), kept.nonces)
    assert found == facts_document(verify_quote(kept.evidence, kept.collateral, terms))
    assert answer.headers["Cache-Control"] == "no-store"
    assert "verdict" not in answer.text


def test_the_pages_example_has_the_members_of_an_answer(client: FlaskClient, vectors: Path) -> None:
    example = re.search(r"```json example=facts\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    shown, found = (
        json.loads(example[1]),
        client.post(ADDRESS, data=bytes(evidence_of(vectors, "nitro"))).json,
    )
    assert shown.keys() == found.keys()
    assert shown["checks"][0].keys() == found["checks"][0].keys()


def test_what_was_not_checked_says_so_until_a_nonce_comes_with_it(client: FlaskClient, vectors: Path) -> None:
    kept = evidence_of(vectors, "nvidia")
    nonce = bytes.fromhex(json.loads(kept.evidence)[0]["nonce"])

    def outcome(body: Kept) -> str:
        checks = client.post(ADDRESS, data=bytes(body)).json["checks"]
        return next(check["outcome"] for check in checks if check["name"] == "device nonce")

    assert outcome(kept) == "not checked"
    assert outcome(replace(kept, nonces=(nonce,))) == "ok"
    answer = client.post(ADDRESS, data=bytes(replace(kept, nonces=(bytes(32),))))
    assert check_problem(answer, 422, "evidence-refused")["check"] == "device nonce"


def test_collateral_that_the_registry_keeps_need_not_be_sent(
    log: Local, client: FlaskClient, settings, vendors: Vendors, vectors: Path
) -> None:
    kept = tdx_evidence(vectors)
    bare = replace(kept, collateral={})
    found = check_problem(client.post(ADDRESS, data=bytes(bare)), 422, "collateral-missing")
    assert "tdx/b0c06f000000" in str(found["detail"])
    Refresher(settings, Collateral(log.config.collateral_folder), HTTP(), lambda: AT).round()
    ours, theirs = (client.post(ADDRESS, data=bytes(body)).json for body in (bare, kept))
    names = [(source["name"], source["sha256"]) for source in ours.pop("collateral")]
    assert names == [(source["name"], source["sha256"]) for source in theirs.pop("collateral")]
    assert ours == theirs


def test_amds_list_comes_from_the_registry_and_the_chips_certificate_from_the_sender(
    log: Local, client: FlaskClient, vectors: Path
) -> None:
    kept = evidence_of(vectors, "snp")
    at = datetime(2025, 6, 1, tzinfo=UTC)
    body = bytes(replace(kept, collateral={"chain": kept.collateral["chain"]}, judged_at=at))
    check_problem(client.post(ADDRESS, data=body), 422, "collateral-missing")
    crl = Answer({}, (vectors / "collateral/amd-genoa-vcek.crl").read_bytes(), snp.NOW)
    store = Collateral(log.config.collateral_folder)
    store.keep(DocumentSet("snp", "genoa", {paths_of("snp", "genoa")[0]: crl}))
    check_problem(client.post(ADDRESS, data=body), 422, "collateral-missing")
    store.keep(DocumentSet("snp", "genoa", {paths_of("snp", "genoa")[1]: crl}))
    answer = client.post(ADDRESS, data=body)
    assert answer.status_code == 200, answer.data
    outcomes = {check["name"]: check["outcome"] for check in answer.json["checks"]}
    assert outcomes["revocation"] == "ok"
    assert [source["source"] for source in answer.json["collateral"]] == ["request", "registry"]


def test_evidence_that_does_not_hold_is_refused_by_the_name_of_its_check(
    client: FlaskClient, vectors: Path
) -> None:
    kept = tdx_evidence(vectors)
    body = bytearray(kept.evidence)
    body[300] ^= 1
    answer = client.post(ADDRESS, data=bytes(replace(kept, evidence=bytes(body))))
    found = check_problem(answer, 422, "evidence-refused")
    assert (found["check"], found["wanted"]) == ("quote signature", "a signature over exactly these bytes")
    late = replace(kept, judged_at=AT + timedelta(days=365))
    answer = check_problem(client.post(ADDRESS, data=bytes(late)), 422, "evidence-refused")
    assert answer["check"] != "quote signature"


def test_evidence_of_a_vendor_of_ones_own_is_refused(client: FlaskClient) -> None:
    made = make(Recipe())
    body = bytes(Kept(made.quote, made.collateral, datetime(2026, 11, 21, 12, tzinfo=UTC), ()))
    assert check_problem(client.post(ADDRESS, data=body), 422, "evidence-refused")["check"] == "root"


def test_the_time_is_the_registrys_where_the_request_names_none(
    log: Local, client: FlaskClient, vectors: Path
) -> None:
    document = json.loads(bytes(tdx_evidence(vectors)))
    del document["judged_at"], document["v"]
    check_problem(client.post(ADDRESS, json=document), 422, "evidence-refused")
    then = create_app(log.config, now=lambda: AT).test_client()
    assert then.post(ADDRESS, json=document).json["judged_at"] == AT.isoformat()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"evidence":"AA==","evidence":"AA=="}',
        b'{"evidence":"AA==","more":1}',
        b'{"evidence":"AA==","v":2}',
        b'{"evidence":"AA==","collateral":{"chain":1}}',
        b'{"evidence":"AA==","collateral":{"chain":"/w=="}}',
        b'{"evidence":"AA==","nonces":["00"]}',
        b'{"evidence":"AA==","nonces":[1]}',
        b'{"evidence":"AA==","judged_at":"now"}',
        b'{"evidence":"AA=="}',
        b'{"evidence":1.5}',
        b"[" * 20_000,
    ],
)
def test_what_is_no_request_is_malformed(client: FlaskClient, body: bytes) -> None:
    check_problem(client.post(ADDRESS, data=body), 400, "malformed")


def test_a_kind_of_evidence_that_is_not_read_is_unsupported(client: FlaskClient) -> None:
    quote = b"\x09\0\x02\0\x81\0\0\0" + bytes(640)
    found = client.post(ADDRESS, json={"evidence": b64(quote), "collateral": {"tcb_info": b64(b"{}")}})
    check_problem(found, 415, "unsupported")


def test_a_body_above_the_limit_is_refused(client: FlaskClient) -> None:
    found = check_problem(client.post(ADDRESS, data=b" " * (MAX_BODY + 1)), 413, "too-large")
    assert found["limit"] == MAX_BODY


def test_evidence_counts_for_the_address_that_sends_it(log: Local, vectors: Path) -> None:
    config = replace(log.config, address_burst=2 * COST, address_per_second=0.001)
    client = create_app(config, now=log.clock).test_client()
    body = bytes(tdx_evidence(vectors))
    assert [client.post(ADDRESS, data=body).status_code for _ in range(3)] == [200, 200, 429]
    assert int(client.post(ADDRESS, data=body).headers["Retry-After"]) >= 1


class Slow(Collateral):
    """A store that answers when told."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.asked, self.answer = threading.Semaphore(0), threading.Event()

    def find(self, platform: str, product: str) -> tuple[bytes, datetime]:
        self.asked.release()
        self.answer.wait(30)
        return super().find(platform, product)


def test_no_more_evidence_is_looked_at_at_once_than_the_bench_has_places(vectors: Path) -> None:
    store = Slow()
    bench = Bench(store, lambda: AT)
    body = bytes(replace(tdx_evidence(vectors), collateral={}))
    failed: list[str] = []

    def work() -> None:
        try:
            bench.facts(body)
        except CannotTell as error:
            failed.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    assert all(store.asked.acquire(timeout=30) for _ in threads)
    with pytest.raises(Busy):
        bench.facts(bytes(tdx_evidence(vectors)))
    store.answer.set()
    for thread in threads:
        thread.join(30)
    assert failed == ["CollateralMissing"] * AT_ONCE
    # A place is free again whatever became of the work on it.
    assert bench.facts(bytes(tdx_evidence(vectors)))["platform"] == "tdx"


def test_the_most_devices_that_one_request_may_hold_cost_a_bounded_time(
    client: FlaskClient, vectors: Path
) -> None:
    kept = evidence_of(vectors, "nvidia")
    many = json.dumps(json.loads(kept.evidence) * 64).encode()
    before = time.process_time()
    answer = client.post(ADDRESS, data=bytes(replace(kept, evidence=many)))
    # It is refused only after each of them was verified.
    assert check_problem(answer, 422, "evidence-refused")["check"] == "device identity"
    assert time.process_time() - before < 5
    more = json.dumps(json.loads(kept.evidence) * 65).encode()
    check_problem(client.post(ADDRESS, data=bytes(replace(kept, evidence=more))), 400, "malformed")
