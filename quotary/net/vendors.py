"""Where vendors publish what stands beside evidence, and how one of their documents is fetched.

Intel PCS v4 (and PCCS) and AMD 57230 (KDS). Nothing that comes back is believed here: it is signed, and
whoever uses it verifies that. So any mirror may serve it, and a registry does (docs/formats/collateral.md).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields, b64, canonical, parse_canonical, parse_time, time_text
from quotary.errors import CannotTell, Malformed, Unsupported
from quotary.net.transport import Limits, Request, Transport

MAX_DOCUMENT = 1 << 20
MAX_SET = 8 << 20
MAX_DOCUMENTS = 16

# Intel's, with the signers' certificates of what comes in the body.
HEADERS = ("tcb-info-issuer-chain", "sgx-enclave-identity-issuer-chain", "sgx-pck-crl-issuer-chain")

_FMSPC = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Services:
    """Where the vendors' documents are, without a slash at the end; a mirror's address does as well.

    intel_crl: the whole address of the root's revocation list
    """

    intel: str = "https://api.trustedservices.intel.com"
    intel_crl: str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    amd: str = "https://kdsintf.amd.com"
    nvidia: str = "https://rim.attestation.nvidia.com"
    ocsp: str = "https://ocsp.ndis.nvidia.com"
    nras: str = "https://nras.attestation.nvidia.com"

    def url(self, path: str) -> str:
        """Give the address of a document whose path begins with its service: ``intel/sgx/…``."""
        service, slash, rest = path.partition("/")
        return f"{getattr(self, service)}{slash}{rest}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One document as it came: the headers that carry its signers' certificates, and its body."""

    headers: Mapping[str, str]
    body: bytes
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """The documents of one product that do not depend on a single machine, by their paths."""

    platform: str
    product: str
    documents: Mapping[str, Answer]

    @classmethod
    def parse(cls, data: bytes) -> "DocumentSet":
        """Read what ``bytes`` made; the documents in it are not looked at."""
        fields = Fields(parse_canonical(data, MAX_SET), "set of documents")
        fields.integer("v", 1, 1)
        platform, product = fields.text("platform", 32), fields.text("product", 32)
        documents = dict(map(_document, fields.items("documents", MAX_DOCUMENTS)))
        fields.done()
        return cls(platform, product, documents)

    def __bytes__(self) -> bytes:
        documents = [
            {
                "path": path,
                "headers": dict(answer.headers),
                "body": b64(answer.body),
                "fetched": time_text(answer.fetched_at),
            }
            for path, answer in self.documents.items()
        ]
        return canonical({"v": 1, "platform": self.platform, "product": self.product, "documents": documents})


def paths_of(platform: str, product: str) -> tuple[str, ...]:
    """Give the paths of a product's documents, each beginning with its service.

    platform: ``tdx`` or ``sgx`` with an FMSPC (12 hex digits), or ``snp`` with AMD's name of the family
    """
    if platform in ("tdx", "sgx") and _FMSPC.fullmatch(product):
        crls = [f"intel/sgx/certification/v4/pckcrl?ca={ca}&encoding=der" for ca in ("platform", "processor")]
        return (
            f"intel/{platform}/certification/v4/tcb?fmspc={product}",
            f"intel/{platform}/certification/v4/qe/identity",
            *crls,
            "intel_crl",
        )
    if platform == "snp" and product.isascii() and product.isalpha() and product.islower():
        base = f"amd/vcek/v1/{product.title()}"
        return (f"{base}/cert_chain", f"{base}/crl")
    raise Unsupported(f"no vendor publishes documents of {platform}/{product} that we know")


def ask(transport: Transport, request: Request, now: datetime) -> Answer:
    """Get one document of at most 1 MiB, or raise ``CannotTell``."""
    reply = transport.send(request)
    if reply.status != 200:
        raise CannotTell(f"{request.url} answers with status {reply.status}, wanted 200")
    if len(reply.body) > MAX_DOCUMENT:
        raise CannotTell(f"{request.url} sent more than {MAX_DOCUMENT} bytes")
    headers = {name: value for name, value in reply.headers.items() if name in HEADERS}
    return Answer(headers, reply.body, now.replace(microsecond=0))


def ask_registry(transport: Transport, registry: str, platform: str, product: str) -> DocumentSet:
    """Get a product's documents from a registry that keeps them, or raise ``CannotTell``."""
    url = f"{registry.rstrip('/')}/api/v1/collateral/{platform}/{product}"
    reply = transport.send(Request(url, limits=Limits(length=MAX_SET)))
    if reply.status != 200:
        raise CannotTell(f"{url} answers with status {reply.status}, wanted 200")
    try:
        found = DocumentSet.parse(reply.body)
    except Malformed as error:
        raise CannotTell(f"{url} answers with something else than documents") from error
    if (found.platform, found.product) != (platform, product):
        raise CannotTell(f"{url} answers with documents of {found.platform}/{found.product}")
    return found


def _document(value: object) -> tuple[str, Answer]:
    fields = Fields(value, "document")
    path = fields.text("path", 256)
    headers = {name: str(text) for name, text in fields.mapping("headers", len(HEADERS)).items()}
    body = fields.base64("body", limit=2 * MAX_DOCUMENT)
    found = Answer(headers, body, parse_time(fields.text("fetched", 20)))
    fields.done()
    return path, found
