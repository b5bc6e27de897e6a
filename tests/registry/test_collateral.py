"""Vendors' documents in the registry: as they came, refreshed on schedule, believed by nobody."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary.attestation.quote import Terms, verify_quote
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.client.collateral import Cache, Fetcher, gather
from quotary.errors import CannotTell, Malformed, QuotaryError, Unsupported
from quotary.net.transport import HTTP, Offline
from quotary.net.vendors import DocumentSet, Services, ask_registry, paths_of
from registry.app import create_app
from registry.collateral import Collateral, CollateralSettings, Refresher
from registry.config import load_config
from registry.errors import NotFound
from tests.client.test_collateral import AT, QUOTE, Vendors, intel, vendors
from tests.conftest import ROOT
from tests.fakes.inprocess import Local, local
from tests.fakes.processes import Server, command, start_log, until

PRODUCT = ("tdx", "b0c06f000000")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PAGE = (ROOT / "docs" / "formats" / "collateral.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"```\w+ example=(\w+)\n(.*?)```", PAGE, re.DOTALL))

__all__ = ["vendors"]


@pytest.fixture
def settings(vendors: Vendors, vectors: Path) -> CollateralSettings:
    intel(vendors, vectors)
    crl = vendors.documents["/sgx/certification/v4/pckcrl?ca=platform&encoding=der"]
    vendors.documents["/sgx/certification/v4/pckcrl?ca=processor&encoding=der"] = crl
    return CollateralSettings(
        (PRODUCT,), 3600.0, Services(vendors.url, f"{vendors.url}/root.crl", vendors.url)
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Local]:
    with local(tmp_path) as found:
        found.loop.round()
        yield found


def refreshed(settings: CollateralSettings, folder: Path, now: datetime = NOW) -> int:
    return Refresher(settings, Collateral(folder), HTTP(), lambda: now).round()


def test_documents_are_served_as_they_came_with_their_age(
    settings: CollateralSettings, vendors: Vendors, log: Local
) -> None:
    folder = log.config.collateral_folder
    assert refreshed(settings, folder) == 1
    log.clock.at = NOW + timedelta(seconds=90)
    client = create_app(log.config, now=log.clock).test_client()
    answer = client.get("/api/v1/collateral/tdx/b0c06f000000")
    found = DocumentSet.parse(answer.data)
    assert (answer.status_code, answer.headers["Age"]) == (200, "90")
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert set(found.documents) == set(paths_of(*PRODUCT))
    for path, document in found.documents.items():
        service, slash, rest = path.partition("/")
        body, _ = vendors.documents["/root.crl" if service == "intel_crl" else slash + rest]
        assert document.body == body
    etag = {"If-None-Match": answer.headers["ETag"]}
    assert client.get("/api/v1/collateral/tdx/b0c06f000000", headers=etag).status_code == 304


@pytest.mark.parametrize("product", ["tdx/000000000000", "tdx/..", "snp/genoa", "TDX/x", "a/b%2f..%2f.."])
def test_what_is_not_kept_is_not_found(log: Local, product: str) -> None:
    answer = log.client().get(f"/api/v1/collateral/{product}")
    assert (answer.status_code, answer.json["type"]) == (404, "/problems/not-found")


def test_a_vendor_that_is_away_costs_freshness_only(
    settings: CollateralSettings, vendors: Vendors, tmp_path: Path
) -> None:
    kept = Collateral(tmp_path)
    assert refreshed(settings, tmp_path) == 1
    before = kept.find(*PRODUCT)
    del vendors.documents["/root.crl"]
    assert refreshed(settings, tmp_path, NOW + timedelta(hours=2)) == 0
    assert kept.find(*PRODUCT) == before
    vendors.documents["/root.crl"] = (b"another", {})
    assert refreshed(settings, tmp_path, NOW + timedelta(hours=3)) == 1
    assert kept.find(*PRODUCT)[1] == NOW + timedelta(hours=3)
    vendors.documents["/root.crl"] = (bytes((1 << 20) + 1), {})
    assert refreshed(settings, tmp_path) == 0


def away(tmp_path: Path, registry: str, transport: HTTP | Offline | None = None) -> Fetcher:
    """A client whose only way leads to the registry."""
    nowhere = Services(*["http://127.0.0.1:1"] * 6)
    return Fetcher(transport or HTTP(), Cache(tmp_path / "cache"), nowhere, datetime.now(UTC), registry)


def test_a_client_verifies_with_what_a_running_registry_has_fetched(
    settings: CollateralSettings, vectors: Path, tmp_path: Path
) -> None:
    log = start_log(tmp_path)
    try:
        log.stop_registry()
        text = (log.folder / "registry.toml").read_text("utf-8")
        services = settings.services
        text += f'[collateral]\nproducts = ["tdx/b0c06f000000"]\nintel = "{services.intel}"\n'
        (log.folder / "registry.toml").write_text(f'{text}intel_crl = "{services.intel_crl}"\n', "utf-8")
        log.registry = Server(["serve", "--dir", str(log.folder)], tmp_path / "second.stderr").start()
        log.wait_ready()
        path = "/api/v1/collateral/tdx/b0c06f000000"
        until(lambda: log.request("GET", path).status == 200, "the documents are fetched")
        data = (vectors / QUOTE).read_bytes()
        terms = Terms(VENDOR_ROOTS, AT, timedelta(days=9999), ())
        members = gather(data, {}, terms, away(tmp_path, log.address))
        assert verify_quote(data, members, terms).facts is not None
        for position in (100, 400):
            lied = dict(members)
            text = lied["tcb_info"]
            lied["tcb_info"] = text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :]
            with pytest.raises(QuotaryError):
                verify_quote(data, lied, terms)
        done = command("collateral", "--dir", str(log.folder), "--once")
        assert (done.returncode, done.stdout) == (0, "fetched 1 of 1 products\n")
        assert "collateral.refreshed" in log.registry.log()
    finally:
        log.stop()


def test_documents_of_another_product_or_none_are_not_taken(tmp_path: Path, vendors: Vendors) -> None:
    other = DocumentSet("tdx", "000000000000", {})
    vendors.documents["/api/v1/collateral/tdx/b0c06f000000"] = (bytes(other), {})
    with pytest.raises(CannotTell, match="documents of tdx/000000000000"):
        ask_registry(HTTP(), vendors.url, *PRODUCT)
    vendors.documents["/api/v1/collateral/tdx/b0c06f000000"] = (b"{}", {})
    with pytest.raises(CannotTell, match="something else"):
        ask_registry(HTTP(), vendors.url, *PRODUCT)
    with pytest.raises(CannotTell, match="status 404"):
        ask_registry(HTTP(), vendors.url, "snp", "milan")


def test_a_registrys_document_of_tomorrow_or_of_a_strange_path_is_not_kept(
    settings: CollateralSettings, vectors: Path, vendors: Vendors, tmp_path: Path
) -> None:
    refreshed(settings, tmp_path / "kept")
    data, _ = Collateral(tmp_path / "kept").find(*PRODUCT)
    found = DocumentSet.parse(data)
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    first, *others = found.documents
    changed = {path: found.documents[path] for path in others}
    changed[first] = replace(found.documents[first], fetched_at=tomorrow)
    changed["nvidia/v1/rim/x"] = found.documents[first]
    address = "/api/v1/collateral/tdx/b0c06f000000"
    vendors.documents[address] = (bytes(replace(found, documents=changed)), {})
    client = away(tmp_path, vendors.url)
    client.take_from_registry((vectors / QUOTE).read_bytes())
    assert client.cache.find(client.services.url(first)) is None
    assert client.cache.find(client.services.url("nvidia/v1/rim/x")) is None
    assert client.cache.find(client.services.url(others[0])) is not None


@pytest.mark.parametrize(
    "table",
    [
        [],
        {},
        {"products": "tdx/b0c06f000000"},
        {"products": ["tdx/x"]},
        {"products": ["nitro/x"]},
        {"products": ["snp/Genoa"]},
        {"products": [], "refresh_seconds": 1},
        {"products": [], "refresh_seconds": True},
        {"products": [], "amd": 3},
        {"products": [], "url": "https://x"},
    ],
)
def test_settings_that_make_no_sense_are_refused(table: object) -> None:
    with pytest.raises(Malformed, match="collateral"):
        CollateralSettings.parse(table)


def test_the_pages_examples_are_read(log: Local, tmp_path: Path) -> None:
    found = DocumentSet.parse(EXAMPLES["set"].strip().encode())
    assert bytes(found).decode() == EXAMPLES["set"].strip()
    assert set(found.documents) == set(paths_of("snp", "genoa"))
    table = tomllib.loads(EXAMPLES["settings"])["collateral"]
    assert CollateralSettings.parse(table).products == (PRODUCT, ("snp", "genoa"))
    settings = log.config.folder / "registry.toml"
    settings.write_text(log.config.text() + EXAMPLES["settings"], "utf-8")
    assert load_config(log.config.folder).collateral.refresh_seconds == 3600


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", json.dumps({"v": 1, "platform": "x"}).encode()])
def test_what_is_no_set_of_documents_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        DocumentSet.parse(data)


def test_products_that_no_vendor_has_are_unsupported(tmp_path: Path) -> None:
    for platform, product in (("tdx", "B0C06F000000"), ("nitro", "x"), ("snp", "genoa9"), ("sgx", "00")):
        with pytest.raises(Unsupported):
            paths_of(platform, product)
    with pytest.raises(NotFound):
        Collateral(tmp_path).find("tdx", "../../x")
