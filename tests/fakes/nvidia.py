"""NVIDIA with keys of its own: devices, machines and manifests, every field at the test's will."""

import base64
import hashlib
import json
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import c14n, spdm
from tests.fakes.aws import NOW as NOW
from tests.fakes.aws import Signer, issue, sign

NONCE = b"\5" * 32
FWID = b"\6" * 48


def seq(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    return bytes([tag]) + (bytes([length]) if length < 128 else bytes([0x81, length])) + content


def digest(value: bytes = FWID, oid: bytes = bytes.fromhex("0609608648016503040202")) -> bytes:
    return seq(0x30, oid, seq(4, value))


def hopper(fwid: bytes) -> dict[str, bytes]:
    return {"2.23.133.5.4.1": seq(0x30, b"\2\1\1", seq(0x30, b"\5\0"), fwid)}


def blackwell(fwid: bytes) -> dict[str, bytes]:
    info = seq(0x30, seq(0x80, b"NVDA"), seq(0xA6, fwid, digest(bytes(48))))
    return {"2.23.133.5.4.1.1": info}


@dataclass(frozen=True)
class Authority:
    """The root and one architecture below it."""

    root: Signer
    identity: Signer
    provisioner: Signer
    chip: str


def authority(chip: str = "GH100", root: Signer | None = None) -> Authority:
    root = root or issue("NVIDIA Device Identity CA", organisation="NVIDIA")
    identity = issue(f"NVIDIA {chip} Identity", root)
    return Authority(root, identity, issue(f"NVIDIA {chip} Provisioner ICA 1", identity), chip)


@dataclass(frozen=True)
class Device:
    chain: tuple[Signer, ...]
    opaque: dict[int, bytes]
    blocks: tuple[bytes, ...] = field(default_factory=lambda: tuple(bytes([i]) * 48 for i in range(64)))

    @property
    def pem(self) -> bytes:
        return b"".join(signer.certificate.public_bytes(Encoding.PEM) for signer in self.chain)

    def report(self, nonce: bytes = NONCE, opaque: dict[int, bytes] | None = None) -> bytes:
        blocks = b"".join(
            bytes([index + 1, 1, 51, 0, 1, 48, 0]) + value for index, value in enumerate(self.blocks)
        )
        return self.raw(nonce, blocks, len(self.blocks), self.opaque if opaque is None else opaque)

    def raw(self, nonce: bytes, blocks: bytes, count: int, opaque: dict[int, bytes] | bytes) -> bytes:
        if isinstance(opaque, dict):
            opaque = b"".join(
                kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
                for kind, value in opaque.items()
            )
        body = b"\x11\xe0\x01\xff" + nonce + b"\0" + b"\x11\x60\0\0" + bytes([count])
        body += len(blocks).to_bytes(3, "little") + blocks + bytes(32)
        body += len(opaque).to_bytes(2, "little") + opaque
        return body + sign(self.chain[0].key, body)

    def evidence(self, nonce: bytes = NONCE) -> dict[str, str]:
        return {
            "arch": "HOPPER",
            "certificate": base64.b64encode(self.pem).decode(),
            "evidence": base64.b64encode(self.report(nonce)).decode(),
            "nonce": nonce.hex(),
        }


GPU = {
    spdm.VBIOS_VERSION: bytes.fromhex("0074009620000000"),
    spdm.CHIP_SKU: b"862\0",
    spdm.PROJECT: b"1010\0",
    spdm.PROJECT_SKU: b"0205\0",
    spdm.DRIVER_VERSION: b"580.159.03\0",
    spdm.NVDEC0: b"\x55",
    spdm.FWID: FWID,
    spdm.PROTECTED_PCIE: b"\x55",
    spdm.FEATURE_FLAG: b"\0\0",
}


def device(
    found: Authority,
    pdi: bytes,
    opaque: dict[int, bytes] | None = None,
    *,
    leaf_name: str = "",
    brom_name: str = "",
    extensions: dict[str, bytes] | None = None,
    serial: int | None = None,
    leaf_ca: bool = False,
    leaf_serial: int | None = None,
    blocks: tuple[bytes, ...] | None = None,
) -> Device:
    unit = "FSP" if found.chip == "LS_10" else "GSP"
    number = serial or int.from_bytes(b"\x41" + pdi, "big")
    brom = issue(brom_name or f"{found.chip} A01 {unit} BROM", found.provisioner, serial=number)
    ext = extensions if extensions is not None else (blackwell if found.chip == "GB100" else hopper)(digest())
    leaf = issue(
        leaf_name or f"{found.chip} A01 {unit} FMC LF", brom, ca=leaf_ca, extensions=ext, serial=leaf_serial
    )
    chain = (leaf, brom, found.provisioner, found.identity, found.root)
    more = {} if blocks is None else {"blocks": blocks}
    return Device(chain, GPU if opaque is None else opaque, **more)


@dataclass(frozen=True)
class Machine:
    """GPUs and switches, all linked to each other."""

    gpus: tuple[Device, ...]
    switches: tuple[Device, ...]


def machine(root: Signer, number: int, gpus: int = 8, switches: int = 4, **changes: object) -> Machine:
    hopper_ca, switch_ca = authority("GH100", root), authority("LS_10", root)
    gpu_ids = [bytes([number, 1, 0, 0, 0, 0, 0, i + 1]) for i in range(gpus)]
    switch_ids = [bytes([number, 2, 0, 0, 0, 0, 0, i + 1]) for i in range(switches)]
    links = b"".join(switch_ids[i % switches][::-1] for i in range(18)) if switches else b""
    linked = (
        GPU
        | {spdm.PROTECTED_PCIE: b"\xaa", spdm.FEATURE_FLAG: b"\2\0"}
        | ({spdm.SWITCH_PDI: links} if links else {})
    )
    listed = b"".join(gpu_ids).ljust(64, b"\0") + b"\xff" * 64
    return Machine(
        tuple(device(hopper_ca, pdi, linked) for pdi in gpu_ids),
        tuple(
            device(
                switch_ca,
                pdi,
                {spdm.VBIOS_VERSION: b"96.10.55.00.01", spdm.SWITCH_PDI: pdi, spdm.SWITCH_GPUS: listed},
                blocks=tuple(bytes([i]) * 48 for i in range(31)),
            )
            for pdi in switch_ids
        ),
    )


def evidence_list(devices: list[Device], nonces: list[bytes]) -> bytes:
    return json.dumps([d.evidence(n) for d, n in zip(devices, nonces, strict=True)]).encode()


# Manifests.

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
INFO = (
    '<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/>'
    '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/>'
    '<ds:Reference URI=""><ds:Transforms>'
    '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>'
    '<ds:Transform Algorithm="http://www.w3.org/2006/12/xml-c14n11"/></ds:Transforms>'
    '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>'
    "<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
)


@dataclass(frozen=True)
class RIMSigner:
    chain: tuple[Signer, ...]

    @property
    def root(self) -> Signer:
        return self.chain[-1]


def rim_signer(organisation: str = "NVIDIA", leaf_ca: bool = False) -> RIMSigner:
    root = issue("NVIDIA CoRIM signing Root CA", organisation=organisation)
    ca = issue("NVIDIA Reference Value CA", root)
    return RIMSigner((issue("HCC RIM L4 Signer", ca, ca=leaf_ca), ca, root))


def resource(number: int, values: list[bytes], shown: bool = True, **changes: str) -> str:
    attributes = {
        "type": "Measurement",
        "index": str(number),
        "active": str(shown),
        "alternatives": str(len(values)),
    }
    attributes |= {f"sha:Hash{position}": value.hex() for position, value in enumerate(values)}
    attributes |= {"name": f"Measurement_{number}", "size": "48"} | changes
    return "<Resource " + " ".join(f'{name}="{value}"' for name, value in attributes.items()) + "/>"


def rim(
    signer: RIMSigner,
    product: str,
    version: str,
    resources: list[str],
    *,
    info: str = INFO,
    body: str = "",
    inside: str = "",
    chain: tuple[Signer, ...] | None = None,
) -> bytes:
    """Write and sign a manifest; ``body`` replaces the content, ``inside`` goes into the signature element."""
    content = body or (
        f'<Meta colloquialVersion="{version}" product="{product}"/><Payload>{"".join(resources)}</Payload>'
    )

    def document(signature: str) -> bytes:
        top = (
            f'<SoftwareIdentity xmlns="{SWID}" xmlns:sha="http://www.w3.org/2001/04/xmlenc#sha384" name="x">'
        )
        return f"{top}{content}{signature}</SoftwareIdentity>".encode()

    bare = c14n.canonical(c14n.parse(document(""), 1 << 20))
    filled = info.replace("{digest}", base64.b64encode(hashlib.sha384(bare).digest()).decode())

    def signature(value: bytes) -> str:
        certificates = "".join(
            f"<ds:X509Certificate>{base64.b64encode(s.der).decode()}</ds:X509Certificate>"
            for s in (signer.chain if chain is None else chain)
        )
        return (
            f'<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{filled}'
            f"<ds:SignatureValue>{base64.b64encode(value).decode()}</ds:SignatureValue>"
            f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo>{inside}</ds:Signature>"
        )

    found = c14n.parse(document(signature(b"")), 1 << 20).elements[-1].elements[0]
    return document(signature(sign(signer.chain[0].key, c14n.canonical(found))))


def fingerprint(signer: Signer) -> bytes:
    return hashlib.sha256(signer.der).digest()
