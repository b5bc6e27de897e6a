"""``POST /api/v1/evidence/facts``: what a vendor signed and which checks held, of evidence that is sent.

A log does not judge: there is no policy here, no status and no verdict, and simulated evidence is refused.
The work is bounded by the size of a body and by how many are looked at at once; nothing is kept and no
vendor is asked. What the sender leaves out of the collateral is taken from what this registry keeps.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from quotary.attestation.gather import Document, intel_members, product_of
from quotary.attestation.kept import Kept
from quotary.attestation.quote import SGX, SNP, TDX, Terms, recognise, verify_quote
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.attestation.sgx import SGXQuote
from quotary.attestation.tdx import TDXQuote
from quotary.canonical import canonical, parse_json, time_text
from quotary.errors import CannotTell, Judged, Malformed
from quotary.net.vendors import DocumentSet
from quotary.statements.facts import facts_document
from registry.collateral import Collateral
from registry.errors import Busy, CollateralMissing, EvidenceRefused, NotFound

MAX_BODY = 2 << 20
AT_ONCE = 2
COST = 20
"""What one piece of evidence takes from the address's quota: as much work as so many entries."""
NITRO_MAX_AGE = timedelta(minutes=5)

REQUEST, REGISTRY = "request", "registry"


class Bench:
    """Looks at evidence, at most ``AT_ONCE`` pieces at a time in one worker."""

    def __init__(self, kept: Collateral, now: Callable[[], datetime]) -> None:
        self._kept = kept
        self._now = now
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def facts(self, body: bytes) -> dict[str, object]:
        """Verify what a body holds, or raise the check that failed (``EvidenceRefused``)."""
        asked = parse_request(body, self._now())
        with self._place():
            try:
                return self._facts(asked)
            except Judged as error:
                raise EvidenceRefused(error) from error
            except CannotTell as error:
                raise CollateralMissing(str(error)) from error

    def _facts(self, asked: Kept) -> dict[str, object]:
        used = replace(asked, collateral=self._completed(asked))
        terms = Terms(VENDOR_ROOTS, used.judged_at, NITRO_MAX_AGE, used.nonces)
        found = facts_document(verify_quote(used.evidence, used.collateral, terms))
        return found | {"evidence_sha256": _digest(used.evidence), "collateral": _sources(asked, used)}

    def _completed(self, asked: Kept) -> dict[str, str]:
        kind, members = recognise(asked.evidence), dict(asked.collateral)
        if kind == TDX and not members:
            return intel_members(TDXQuote.parse(asked.evidence), self._documents(asked))
        if kind == SGX and not members:
            return intel_members(SGXQuote.parse(asked.evidence), self._documents(asked))
        if kind == SNP and "chain" in members and "crl" not in members:
            _, product = product_of(asked.evidence)
            members["crl"] = self._documents(asked)(f"amd/vcek/v1/{product.title()}/crl")[1].hex()
        return members

    def _documents(self, asked: Kept) -> Callable[[str], Document]:
        """Give what this registry keeps for the product of some evidence, by path."""
        try:
            data, _ = self._kept.find(*product_of(asked.evidence))
        except NotFound as error:
            raise CannotTell(f"the request has no collateral, and {error}") from error
        documents = DocumentSet.parse(data).documents

        def document(path: str) -> Document:
            if path not in documents:
                raise CannotTell(f"the request has no collateral, and this registry keeps no {path}")
            return documents[path].headers, documents[path].body

        return document

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy(f"{AT_ONCE} pieces of evidence are being looked at", 1)
        try:
            yield
        finally:
            self._places.release()


def parse_request(body: bytes, now: datetime) -> Kept:
    """Read a request: kept evidence in any spacing, whose collateral and time may be left out."""
    value = parse_json(body, "the request")
    if not isinstance(value, dict):
        raise Malformed("the request is not an object")
    usual = {"v": 1, "collateral": {}, "judged_at": time_text(now.replace(microsecond=0))}
    return Kept.parse(canonical(usual | value))


def _sources(asked: Kept, used: Kept) -> list[dict[str, str]]:
    """Name each document that the facts rest on; who wants to repeat them needs these very bytes."""
    return [
        {
            "name": name,
            "sha256": _digest(text.encode()),
            "source": REQUEST if name in asked.collateral else REGISTRY,
        }
        for name, text in sorted(used.collateral.items())
    ]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
