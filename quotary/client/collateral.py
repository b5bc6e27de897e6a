"""Fetching what vendors publish beside evidence: certificates, levels, revocation lists, reference values.

Nothing fetched is believed: it is signed, and ``verify`` checks it at a time that the caller names. So any
mirror may serve it, answers are kept on disk, and an old one is used where no newer one can be had. Services:
Intel PCS v4 (and PCCS), AMD 57230 (KDS), NVIDIA's RIM service and its OCSP responder (RFC 6960).
"""

import hashlib
import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from quotary.attestation import ocsp
from quotary.attestation.certificates import Certificate
from quotary.attestation.gather import Document, endorsable, intel_members, product_of
from quotary.attestation.hcl import HCLReport
from quotary.attestation.nvidia import DeviceFacts, driver_rim_id, vbios_rim_id
from quotary.attestation.quote import (
    AZURE,
    KEY_SET,
    NVIDIA_LIST,
    NVIDIA_REPORT,
    NVIDIA_TOKEN,
    OCSP,
    QUOTE,
    SGX,
    SNP,
    TDX,
    Terms,
    device_evidence,
    manifests_of,
    recognise,
    verify_quote,
)
from quotary.attestation.sgx import SGXQuote
from quotary.attestation.snp import SNPReport
from quotary.attestation.tdx import TDXQuote
from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical, parse_time, time_text
from quotary.client.trust import write_private
from quotary.errors import CannotTell, Malformed
from quotary.net.transport import Request, Transport
from quotary.net.vendors import (
    MAX_DOCUMENT,
    Answer,
    Services,
    ask,
    ask_registry,
    paths_of,
)

MAX_ANSWER = 4 << 20
# Levels and lists change; a certificate of one chip and TCB version, or one manifest, does not.
FRESH, FOR_GOOD = timedelta(hours=1), timedelta(days=3650)

_SPL = {"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL", "fmc": "fmcSPL"}


class Answers(Protocol):
    """What vendors answered before, by address."""

    def find(self, url: str) -> Answer | None: ...
    def keep(self, url: str, answer: Answer) -> None: ...


class Cache:
    """A folder with one file an address (0600, replaced atomically)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, url: str) -> Answer | None:
        """Give what was kept for an address; a damaged file counts as none, for it can be fetched again."""
        try:
            data = self._path(url).read_bytes()
            fields = Fields(parse_canonical(data, MAX_ANSWER), "kept answer")
            fields.integer("v", 1, 1)
            if fields.text("url", 2048) != url:
                return None
            headers = {name: str(value) for name, value in fields.mapping("headers", 8).items()}
            return Answer(
                headers, fields.base64("body", limit=2 * MAX_DOCUMENT), parse_time(fields.text("fetched", 20))
            )
        except (OSError, Malformed):
            return None

    def keep(self, url: str, answer: Answer) -> None:
        document = {
            "v": 1,
            "url": url,
            "headers": dict(answer.headers),
            "body": b64(answer.body),
            "fetched": time_text(answer.fetched_at),
        }
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotTell(f"cannot make the folder {self._folder}: {error.strerror}") from error
        write_private(self._path(url), canonical(document))

    def _path(self, url: str) -> Path:
        return self._folder / f"{hashlib.sha256(url.encode()).hexdigest()}.json"


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Gets collateral from vendors' services, or from what was kept of them.

    registry: asked first for what does not depend on one machine; empty where there is none
    """

    transport: Transport
    cache: Answers
    services: Services
    now: datetime
    registry: str = ""

    def take_from_registry(self, data: bytes) -> None:
        """Keep what the registry has for the product of some evidence, where it is newer than what is kept.

        It is as little believed as what a vendor's server says; who lies here only makes verification fail.
        """
        platform, product = product_of(data)
        found = ask_registry(self.transport, self.registry, platform, product)
        for path, answer in found.documents.items():
            kept = self.cache.find(url := self.services.url(path))
            newer = kept is None or kept.fetched_at < answer.fetched_at
            if newer and answer.fetched_at <= self.now and path in paths_of(platform, product):
                self.cache.keep(url, answer)

    def intel(self, quote: TDXQuote | SGXQuote) -> dict[str, str]:
        """Give the nine members of a quote's collateral, for its TEE, its machine and its PCK CA."""
        return intel_members(quote, self._document)

    def amd(self, report: SNPReport) -> dict[str, str]:
        """Give ``chain`` and ``crl`` of a SEV-SNP report that a chip's own key signed."""
        product = endorsable(report)
        base = f"{self.services.amd}/vcek/v1/{product.title}"
        numbers = product.components(report.fields["reported_tcb"])
        query = "&".join(f"{_SPL[name]}={numbers[name]:02}" for name in product.tcb if name)
        chip = report.fields["chip_id"][: product.chip_length].hex()
        leaf = self._get(f"{base}/{chip}?{query}", FOR_GOOD).body
        above = self._get(f"{base}/cert_chain", FOR_GOOD).body
        crl = self._get(f"{base}/crl", FRESH).body
        try:
            pem = load_der_x509_certificate(leaf).public_bytes(Encoding.PEM) + above
            return {"chain": pem.decode("ascii"), "crl": crl.hex()}
        except ValueError as error:
            raise CannotTell(f"{base} answers with something else than certificates") from error

    def nvidia(self, device: DeviceFacts) -> dict[str, str]:
        """Give the signed manifests of a device's versions, by their ids."""
        ids = [vbios_rim_id(device)] + ([driver_rim_id(device)] if device.kind == "gpu" else [])
        return {name: self._manifest(name) for name in ids}

    def key_set(self) -> dict[str, str]:
        """Give the keys of NVIDIA's attestation service; each is there for about two days only."""
        try:
            return {
                KEY_SET: self._get(f"{self.services.nras}/.well-known/jwks.json", FRESH).body.decode("utf-8")
            }
        except UnicodeDecodeError as error:
            raise CannotTell("NVIDIA's service answers with something else than a key set") from error

    def answers(self, chain: Sequence[Certificate]) -> dict[str, str]:
        """Give what NVIDIA's responder says of each certificate below the root of a chain.

        What it does not answer is left out: the facts then say that revocation was not checked.
        """
        found = {}
        for certificate, issuer in pairwise(chain):
            try:
                answer = self._get(self.services.ocsp, FRESH, ocsp.request(certificate, issuer))
                ocsp.Answer.parse(answer.body)
            except (CannotTell, Malformed):
                continue
            if self.now - answer.fetched_at < ocsp.MAX_AGE:
                found[f"{OCSP}{certificate.serial:x}"] = b64(answer.body)
        return found

    def _manifest(self, name: str) -> str:
        url = f"{self.services.nvidia}/v1/rim/{name}"
        try:
            found = json.loads(self._get(url, FOR_GOOD).body)
            return b64decode(found["rim"], validate=True).decode("utf-8")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CannotTell(f"{url} answers with something else than a manifest") from error

    def _document(self, path: str) -> Document:
        answer = self._get(self.services.url(path), FRESH)
        return answer.headers, answer.body

    def _get(self, url: str, keep: timedelta, question: bytes | None = None) -> Answer:
        name = url if question is None else f"{url}#{hashlib.sha256(question).hexdigest()}"
        kept = self.cache.find(name)
        if kept is not None and timedelta(0) <= self.now - kept.fetched_at < keep:
            return kept
        try:
            answer = ask(self.transport, _request(url, question), self.now)
        except CannotTell:
            # What a vendor signed does not become false because his server is away; its dates still count.
            if kept is None:
                raise
            return kept
        self.cache.keep(name, answer)
        return answer


def gather(data: bytes, members: Mapping[str, str], terms: Terms, source: Fetcher) -> dict[str, str]:
    """Complete the collateral of some evidence; what ``members`` has is not asked for again.

    A Nitro document needs none. NVIDIA devices are verified first, for their versions name the manifests.
    """
    kind, found = recognise(data), dict(members)
    if source.registry and not members and kind in (TDX, SGX, SNP):
        source.take_from_registry(data)
    if kind == TDX and not members:
        return source.intel(TDXQuote.parse(data))
    if kind == SGX and not members:
        return source.intel(SGXQuote.parse(data))
    if kind == SNP and not members:
        return source.amd(SNPReport.parse(data))
    if kind == AZURE and not members:
        report = HCLReport.parse(data)
        if report.platform == SNP:
            return source.amd(SNPReport.parse(report.hardware))
    if kind == AZURE and members.keys() == {QUOTE}:
        return found | source.intel(TDXQuote.parse(hexbytes(text := members[QUOTE], len(text) // 2)))
    if kind == NVIDIA_TOKEN and not members:
        return source.key_set()
    if kind in (NVIDIA_REPORT, NVIDIA_LIST):
        for device in verify_quote(data, members, terms).devices:
            found = source.nvidia(device) | found
        # The responder knows no leaf, which a device makes by itself.
        chains = [item.chain[1:] for item in device_evidence(data, members)]
        for chain in (*chains, *(manifest.chain for manifest in manifests_of(found))):
            found = source.answers(chain) | found
    return found


def _request(url: str, question: bytes | None) -> Request:
    if question is None:
        return Request(url)
    return Request(url, "POST", question, {"Content-Type": "application/ocsp-request"})
