"""Parsers of evidence that others call for a part of it, fed by themselves: the way in checks less than they must."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import amd, c14n, dcap, nvidia
from quotary.attestation.certificates import parse_certificate
from quotary.attestation.jws import Token
from quotary.attestation.measure.idblock import IDBlock
from quotary.attestation.measure.shape import parse_shape
from quotary.errors import Malformed
from tests.fakes import amd as fake
from tests.fakes import nras, vendor
from tests.fakes import nvidia as devices

LARGEST = 64 * 1024

Fed = tuple[Callable[[bytes], object], tuple[bytes, ...]]


def parts() -> Mapping[str, Fed]:
    """Name a parser, with a way to give it bytes and good ones."""
    pck = vendor.certificates(vendor.Recipe())["pck"]
    der = pck.public_bytes(Encoding.DER)
    certificate = parse_certificate(der)
    quote = vendor.make(vendor.Recipe()).quote
    ark = fake.certificate("ARK-Genoa", fake.rsa_key(0))
    key = fake.certificate(
        "SEV-VCEK", fake.rsa_key(1), ark, fake.endorsement(amd.GENOA, bytes(8), b"\1" * 64), ca=False
    )
    endorsement = parse_certificate(key.certificate.public_bytes(Encoding.DER))
    crl = fake.revocation_list(ark, []).hex()
    manifest = devices.rim(devices.rim_signer(), "GH100", "1", [devices.resource(1, [bytes(48)])])
    block = IDBlock(b"\1" * 48, b"\2" * 16, b"\3" * 16, 4, 0x30000).encode()
    chain = devices.device(devices.authority(), bytes(8)).pem

    def extension(data: bytes) -> object:
        return dcap.PCKExtension.parse(replace(certificate, extensions={dcap.PCK_EXTENSION: data}))

    def endorsed(data: bytes) -> object:
        """Values of the extensions, one behind another, each after its length."""
        return amd.EndorsementKey.parse(
            replace(endorsement, extensions=_split(data, tuple(endorsement.extensions)))
        )

    def collateral(data: bytes) -> object:
        text = data.decode("latin-1")
        return amd.Collateral.parse(dict(zip(amd.MEMBERS, text.split("\0"), strict=False)))

    return {
        "certificate": (parse_certificate, (der,)),
        "pck extension": (extension, (certificate.extensions[dcap.PCK_EXTENSION],)),
        "endorsement key": (endorsed, (_joined(endorsement.extensions),)),
        "amd collateral": (collateral, (f"{key.pem}{ark.pem}{ark.pem}\0{crl}".encode(), b"\0none")),
        "device chain": (nvidia.parse_device_chain, (chain,)),
        "xml": (lambda data: c14n.parse(data, LARGEST), (manifest, b"<a/>")),
        "quote signature, version 3": (
            dcap.SignatureSection.parse_3,
            (quote[636 : 636 + 128] + quote[770:],),
        ),
        "jws": (lambda data: Token.parse(data.decode("latin-1")), (nras.Service().token({}).encode(),)),
        "id block": (IDBlock.parse, (block,)),
        "shape": (_shape, (b'{"memory_bytes":1}', b"{}")),
    }


def _joined(values: Mapping[str, bytes]) -> bytes:
    return b"".join(bytes([len(value)]) + value for value in values.values())


def _split(data: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for name in names:
        length = data[0] if data else 0
        found[name], data = data[1 : 1 + length], data[1 + length :]
    return found


def _shape(data: bytes) -> object:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    return parse_shape("tdx", value)
