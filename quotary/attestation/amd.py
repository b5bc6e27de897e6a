"""AMD's products, their TCB versions, and the certificates that endorse a SEV-SNP report.

AMD 57230 (VCEK certificate and KDS interface), section 3: extensions; AMD 56860 (SEV-SNP ABI), section 2.2:
TCB version. A TCB version is 8 bytes, one component's security version each, never one number to compare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from quotary.attestation import der
from quotary.attestation.certificates import Certificate, RevocationList, parse_chain, verify_chain
from quotary.attestation.roots import AMD_ARK_GENOA, AMD_ARK_MILAN, AMD_ARK_TURIN, Root
from quotary.canonical import hexbytes
from quotary.errors import Malformed, Rejected, Unsupported

COMPONENTS = ("bootloader", "fmc", "microcode", "snp", "tee")
VCEK, VLEK = "vcek", "vlek"
MEMBERS = ("chain", "crl")
NO_CRL = "none"

_OID = "1.3.6.1.4.1.3704.1"
_IA5_STRING = 0x16
_CSP_ID_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Product:
    """One family of processors with its own root key.

    name:        as floors and facts call it, e.g. ``milan``
    title:       as AMD writes it into certificates, e.g. ``Milan``
    ark:         the root that certificates of the product end in
    tcb:         the component that each byte of a TCB version counts; empty for a reserved byte
    extensions:  the certificate extension (last number below ``.3``) of each byte
    structure:   version of the certificates' extensions
    chip_length: bytes of the hardware id in a VCEK; a report's chip id is that and zeros
    """

    name: str
    title: str
    ark: Root
    tcb: tuple[str, ...]
    extensions: tuple[int, ...]
    structure: int
    chip_length: int

    def components(self, version: bytes) -> dict[str, int]:
        """Read a TCB version of 8 bytes; a reserved byte that is not zero is ``Malformed``."""
        found = dict.fromkeys(COMPONENTS, 0)
        for name, value in zip(self.tcb, version, strict=True):
            if name:
                found[name] = value
            elif value:
                raise Malformed(f"TCB version {version.hex()} of {self.title} has a reserved byte set")
        return found


_EARLY_TCB = ("bootloader", "tee", "", "", "", "", "snp", "microcode")
_EARLY_EXTENSIONS = (1, 2, 4, 5, 6, 7, 3, 8)
MILAN = Product("milan", "Milan", AMD_ARK_MILAN, _EARLY_TCB, _EARLY_EXTENSIONS, 0, 64)
GENOA = Product("genoa", "Genoa", AMD_ARK_GENOA, _EARLY_TCB, _EARLY_EXTENSIONS, 0, 64)
TURIN = Product(
    "turin",
    "Turin",
    AMD_ARK_TURIN,
    ("fmc", "bootloader", "tee", "snp", "", "", "", "microcode"),
    (9, 1, 2, 3, 5, 6, 7, 8),
    1,
    8,
)
# As AMD writes them; a stepping behind the name is Milan's habit alone.
_TITLES: Mapping[str, Product] = MappingProxyType(
    {"Milan-B0": MILAN, "Milan-B1": MILAN, "Milan": MILAN, "Genoa": GENOA, "Turin": TURIN}
)


def product_of_cpuid(family: int, model: int) -> Product:
    """Name the product of a CPUID family and model; one that is not listed is ``Unsupported``."""
    if family == 0x19 and model <= 0x0F:
        return MILAN
    if family == 0x19 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return GENOA
    if family == 0x1A and model <= 0x11:
        return TURIN
    raise Unsupported(f"no product is known with CPUID family {family:#x} model {model:#x}")


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """What AMD wrote into a VCEK (one chip) or VLEK (one cloud) certificate.

    kind:   ``vcek`` or ``vlek``
    tcb:    8 bytes: the TCB version that the key is derived from
    hwid:   the chip's id (VCEK; 64 bytes, on Turin 8), empty in a VLEK
    csp_id: the cloud that AMD issued the key to (VLEK), empty in a VCEK
    """

    kind: str
    product: Product
    tcb: bytes
    hwid: bytes
    csp_id: str

    @classmethod
    def parse(cls, certificate: Certificate) -> "EndorsementKey":
        """Read a leaf's extensions; one that is neither a VCEK nor a VLEK is ``Malformed``."""
        found = certificate.extensions
        product = _product(_text(found, "2"))
        structure = _number(found, "1")
        if structure != product.structure:
            raise Malformed(f"certificate structure {structure}, {product.title} has {product.structure}")
        hwid, csp = found.get(f"{_OID}.4", b""), f"{_OID}.5" in found
        if len(hwid) != (0 if csp else product.chip_length):
            raise Malformed(f"certificate has a hardware id of {len(hwid)} bytes, CSP id: {csp}")
        return cls(
            VLEK if csp else VCEK,
            product,
            bytes(_number(found, f"3.{number}") for number in product.extensions),
            hwid,
            _text(found, "5") if csp else "",
        )


@dataclass(frozen=True, slots=True)
class Collateral:
    """AMD's certificates beside a report, well formed and not yet believed.

    chain: VCEK or VLEK, its issuer (ASK or ASVK), ARK
    crl:   the ARK's revocation list, or None where none is given
    """

    chain: tuple[Certificate, ...]
    crl: RevocationList | None

    @classmethod
    def parse(cls, members: Mapping[str, str]) -> "Collateral":
        """Read ``chain`` (three PEM certificates, leaf first) and ``crl`` (DER in lower-case hex, or
        ``none``)."""
        if set(members) != set(MEMBERS):
            raise Malformed("collateral of a SEV-SNP report has exactly the members chain and crl")
        text = members["crl"]
        crl = None if text == NO_CRL else RevocationList.parse(hexbytes(text, len(text) // 2))
        return cls(parse_chain(members["chain"].encode(), 3), crl)


def verify_endorsement(collateral: Collateral, root: Root, now: datetime) -> EndorsementKey:
    """Believe the endorsement certificate under ``root``, or raise ``Rejected``.

    1. Leaf, issuer and root are a chain in force at ``now`` (check ``endorsement chain``).
    2. The root is the one of the leaf's product (``product root``); a simulator has one for all.
    3. Issuer and leaf are of one kind: ASK and VCEK, or ASVK and VLEK (``endorsement kind``).
    4. The root's revocation list, where there is one, is in date and does not name the issuer
       (``revocation list``, ``revocation``).
    """
    leaf, issuer, ark = collateral.chain
    verify_chain("endorsement chain", collateral.chain, root.fingerprint, now)
    key = EndorsementKey.parse(leaf)
    if not root.simulated and root.fingerprint != key.product.ark.fingerprint:
        raise Rejected("product root", root.name, key.product.ark.name)
    wanted = f"SEV-{key.kind.upper()}", f"SEV-{'VLEK-' if key.kind == VLEK else ''}{key.product.title}"
    if (leaf.common_name, issuer.common_name) != wanted or leaf.is_ca:
        raise Rejected("endorsement kind", f"{leaf.common_name} by {issuer.common_name}", " by ".join(wanted))
    if collateral.crl is not None:
        collateral.crl.verify("revocation list", ark, now)
        collateral.crl.refuse("revocation", issuer)
    return key


def _product(title: str) -> Product:
    if title not in _TITLES:
        raise Unsupported(f"no product is known by the name {title!r}")
    return _TITLES[title]


def _value(extensions: Mapping[str, bytes], name: str) -> tuple[int, bytes]:
    found = der.items(extensions.get(f"{_OID}.{name}", b""))
    if len(found) != 1:
        raise Malformed(f"certificate has no extension {_OID}.{name}")
    return found[0]


def _number(extensions: Mapping[str, bytes], name: str) -> int:
    return der.integer(_value(extensions, name), 255)


def _text(extensions: Mapping[str, bytes], name: str) -> str:
    tag, content = _value(extensions, name)
    if tag != _IA5_STRING or not 1 <= len(content) <= _CSP_ID_LENGTH or not content.isascii():
        raise Malformed(f"extension {_OID}.{name} is not a short ASCII string")
    return content.decode("ascii")
