"""Signatures as Ethereum's wallets make them: an address, and EIP-191 ``personal_sign`` over a text.

``cryptography`` signs (secp256k1, RFC 6979). What it lacks is the last byte, which of two points the
signature's first number stands for. It follows from the signature and the public key alone, and so needs no
secret: R = u1 G + u2 Q, where OpenSSL gives u1 G and the x of u2 Q, and one addition decides between two.
"""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from enclave.doors.keccak import keccak256

_CURVE = ec.SECP256K1()
# SEC 2 section 2.4.1.
_P = 2**256 - 2**32 - 977
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Give a public key as SEC 1 writes it uncompressed: 65 bytes."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def address(public: bytes) -> bytes:
    """Give the address (20 bytes) of a public key (65 bytes)."""
    return keccak256(public[1:])[-20:]


def checksummed(found: bytes) -> str:
    """Write an address as EIP-55 does: hex whose capitals are a checksum."""
    text = found.hex()
    marks = keccak256(text.encode()).hex()
    return "0x" + "".join(
        letter.upper() if int(mark, 16) >= 8 else letter for letter, mark in zip(text, marks, strict=False)
    )


def personal_sign(key: ec.EllipticCurvePrivateKey, text: str) -> str:
    """Sign a text (EIP-191 version 0x45): 65 bytes ``r | s | v`` in hex, s in its lower half."""
    digest = personal_digest(text)
    signature = key.sign(digest, ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True))
    r, s = decode_dss_signature(signature)
    s = min(s, _N - s)
    v = 27 + _parity(r, s, digest, key.public_key())
    return "0x" + r.to_bytes(32, "big").hex() + s.to_bytes(32, "big").hex() + bytes([v]).hex()


def personal_digest(text: str) -> bytes:
    """Hash a text as ``personal_sign`` does (32 bytes)."""
    data = text.encode()
    return keccak256(b"\x19Ethereum Signed Message:\n" + str(len(data)).encode() + data)


def _parity(r: int, s: int, digest: bytes, public: ec.EllipticCurvePublicKey) -> int:
    """Say whether the point behind ``r`` has an odd y (all of this is public)."""
    inverse = pow(s, -1, _N)
    u1, u2 = int.from_bytes(digest, "big") * inverse % _N, r * inverse % _N
    first = ec.derive_private_key(u1, _CURVE).public_key().public_numbers()
    x = ec.derive_private_key(u2, _CURVE).exchange(ec.ECDH(), public)
    second = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x02" + x).public_numbers()
    for y in (second.y, _P - second.y):
        slope = (y - first.y) * pow(second.x - first.x, -1, _P) % _P
        found = (slope * slope - first.x - second.x) % _P
        if found % _N == r:
            return (slope * (first.x - found) - first.y) % _P & 1
    raise AssertionError("a signature of this key is on neither point")
