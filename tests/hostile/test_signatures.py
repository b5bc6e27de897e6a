"""Bar A24: signatures at the edges of Ed25519, P-256, P-384, RSA-PSS and ML-DSA-44.

The edge cases here are our own, after FIPS 186-5, FIPS 204 and RFC 8032; ``tests/test_ed25519.py`` has those
of that curve. Project Wycheproof's are run from a checkout that ``QUOTARY_WYCHEPROOF`` names: no package of
PyPI or npm holds them.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature as LibraryRefusal
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_der_public_key

from quotary import ed25519
from quotary.attestation.certificates import verify_p256
from quotary.attestation.p384 import verify_p384
from quotary.errors import InvalidSignature, Malformed, Rejected
from quotary.tlog.checkpoint import Checkpoint
from quotary.tlog.note import Signature, SigningKey, VerifierKey

MESSAGE = b"what was signed"
N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
N384 = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
CURVES = {
    "P-256": (ec.SECP256R1(), SHA256(), verify_p256, 32, N256),
    "P-384": (ec.SECP384R1(), SHA384(), verify_p384, 48, N384),
}


@pytest.mark.parametrize("name", CURVES)
def test_a24_an_ecdsa_signature_has_one_length_and_both_numbers_below_the_order(name: str) -> None:
    curve, digest, verify, size, order = CURVES[name]
    private = ec.derive_private_key(7, curve)
    key = private.public_key()
    r, s = decode_dss_signature(private.sign(MESSAGE, ec.ECDSA(digest)))
    good = r.to_bytes(size) + s.to_bytes(size)
    verify("x", key, good, MESSAGE)
    # ECDSA itself knows two signatures, s and n - s; nothing here takes a signature's bytes for a name.
    verify("x", key, r.to_bytes(size) + (order - s).to_bytes(size), MESSAGE)
    numbers = [0, 1, order, order - 1, order + 1, 2 ** (8 * size) - 1]
    bad = [
        a.to_bytes(size) + b.to_bytes(size) for a in (*numbers, r) for b in (*numbers, s) if (a, b) != (r, s)
    ]
    bad += [s.to_bytes(size) + r.to_bytes(size), good[::-1]]
    for bit in range(len(good) * 8):
        bad.append(bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(good)))
    for case in bad:
        with pytest.raises(Rejected):
            verify("x", key, case, MESSAGE)
    for case in (b"", good[:-1], good + b"\0", b"\0" + good, good[:size] + b"\0" + good[size:], good * 2):
        with pytest.raises((Malformed, Rejected)):
            verify("x", key, case, MESSAGE)
    for other in (ec.derive_private_key(8, curve), ec.derive_private_key(7, ec.SECP521R1()), rsa_key()):
        with pytest.raises(Rejected):
            verify("x", other.public_key(), good, MESSAGE)


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def test_a24_an_ml_dsa_line_holds_for_its_bytes_name_and_time_only() -> None:
    key = SigningKey.cosigner("log.example.org", MLDSA44PrivateKey.from_seed_bytes(bytes(range(32))))
    text = str(Checkpoint("log.example.org", 3, bytes(32)))
    signature = Signature.parse(key.line(text, 5).removesuffix("\n")).signature
    assert key.verifier.verify(text, signature) == 5
    bad = [
        signature[:-1],
        signature + b"\0",
        signature[:8],
        b"",
        bytes(len(signature)),
        b"\xff" * len(signature),
    ]
    # The commitment's hash, the response, and the hint with its counts at the very end, whose order is demanded.
    for at in (0, 7, 8, 39, 40, 1000, 2300, *range(len(signature) - 84, len(signature))):
        bad.append(signature[:at] + bytes([signature[at] ^ 0x41]) + signature[at + 1 :])
    for case in bad:
        with pytest.raises(InvalidSignature):
            key.verifier.verify(text, case)
    other = SigningKey.cosigner("other.example.org", key.private).verifier
    with pytest.raises(InvalidSignature):
        other.verify(text, signature)
    for length in (0, 1311, 1313):
        with pytest.raises(Malformed):
            VerifierKey.of("log.example.org", 6, bytes(length))


def groups(name: str) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """Give each of Wycheproof's cases with its group."""
    folder = os.environ.get("QUOTARY_WYCHEPROOF")
    if folder is None:
        pytest.skip("set QUOTARY_WYCHEPROOF to the folder testvectors_v1 of github.com/C2SP/wycheproof")
    for group in json.loads((Path(folder) / f"{name}.json").read_text("utf-8"))["testGroups"]:
        for case in group["tests"]:
            yield group, case


def _ed25519(group: dict, case: dict) -> None:  # type: ignore[type-arg]  # JSON of somebody else's
    asked = bytes.fromhex(group["publicKey"]["pk"]), bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
    ed25519.verify(*asked)
    ed25519.openssl(*asked)  # whichever library the line above took


def _p256(group: dict, case: dict) -> None:  # type: ignore[type-arg]
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    verify_p256("x", key, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))


def _p384(group: dict, case: dict) -> None:  # type: ignore[type-arg]
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    verify_p384("x", key, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))


def _note(group: dict, case: dict) -> None:  # type: ignore[type-arg]
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]), ec.ECDSA(SHA256()))


def _pss(group: dict, case: dict) -> None:  # type: ignore[type-arg]
    key = load_der_public_key(bytes.fromhex(group["publicKeyDer"]))
    assert isinstance(key, rsa.RSAPublicKey)
    scheme = padding.PSS(padding.MGF1(SHA384()), group["sLen"])
    key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]), scheme, SHA384())


def _ml_dsa(group: dict, case: dict) -> None:  # type: ignore[type-arg]
    key = MLDSA44PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]))
    context = bytes.fromhex(case.get("ctx", "")) or None
    key.verify(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]), context)


WYCHEPROOF: dict[str, Callable[[dict, dict], None]] = {  # type: ignore[type-arg]
    "ed25519_test": _ed25519,
    "ecdsa_secp256r1_sha256_p1363_test": _p256,
    "ecdsa_secp384r1_sha384_p1363_test": _p384,
    "ecdsa_secp256r1_sha256_test": _note,
    "rsa_pss_4096_sha384_mgf1_48_test": _pss,
    "mldsa_44_verify_test": _ml_dsa,
}


@pytest.mark.soak
@pytest.mark.parametrize("name", WYCHEPROOF)
def test_a24_wycheproof_finds_nothing(name: str) -> None:
    wrong, count = [], 0
    for group, case in groups(name):
        count += 1
        try:
            WYCHEPROOF[name](group, case)
            accepted = True
        except (InvalidSignature, LibraryRefusal, Malformed, Rejected, ValueError):
            accepted = False
        if accepted != (case["result"] != "invalid"):
            wrong.append((case["tcId"], case["comment"], case["result"]))
    assert wrong == []
    assert count > 100
