"""Keys and certificates of a simulated vendor on disk: made once by each installation, private to it.

Every certificate names ``O=SIMULATED EVIDENCE`` and carries the simulator's OID, which a production verifier
refuses on sight. Whoever can read the directory can sign any evidence of this vendor.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from quotary.errors import CannotTell, Malformed, NotAuthorised
from simulator import der
from simulator.pki import ORGANISATION, SIMULATOR_OID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A key and the certificate that names it."""

    key: Key
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a certificate is to say; a CA's ``path_length`` is None for no limit.

    bare: says neither whether it is a CA nor what the key is for, as AMD's for chips
    """

    common_name: str
    life: timedelta
    ca: bool = True
    path_length: int | None = None
    serial: int | None = None
    extensions: Mapping[str, bytes] | None = None
    bare: bool = False


def issue(wish: Wish, key: Key, issuer: Signer | None, now: datetime) -> Signer:
    """Certify a key; without an issuer it certifies itself. SHA-384; RSA signs with PSS, as AMD does."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, wish.common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(wish.serial or x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + wish.life)
        .add_extension(x509.UnrecognizedExtension(SIMULATOR_OID, der.utf8("simulated")), critical=False)
    )
    if not wish.bare:
        constraints = x509.BasicConstraints(wish.ca, wish.path_length if wish.ca else None)
        builder = builder.add_extension(constraints, critical=True)
        builder = builder.add_extension(_usage(wish.ca), critical=True)
    for oid, value in (wish.extensions or {}).items():
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    signing = issuer.key if issuer else key
    if isinstance(signing, rsa.RSAPrivateKey):
        return Signer(key, builder.sign(signing, hashes.SHA384(), rsa_padding=pss()))
    return Signer(key, builder.sign(signing, hashes.SHA384()))


def pss() -> padding.PSS:
    """AMD's padding: MGF1 with SHA-384, salt as long as the digest."""
    return padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)


def sign_p384(key: Key, message: bytes) -> tuple[int, int]:
    """Sign with ECDSA P-384 SHA-384 and give r and s."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))


def sign_p384_big(key: Key, message: bytes) -> bytes:
    """Sign likewise and give 96 bytes r || s, big endian."""
    r, s = sign_p384(key, message)
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def open_signers(directory: Path, make: Callable[[], Mapping[str, Signer]]) -> dict[str, Signer]:
    """Load the signers of a directory, or make and keep them if it does not exist yet."""
    if not directory.exists():
        _save(make(), directory)
    try:
        return {path.stem: _load(path) for path in sorted(directory.glob("*.key"))}
    except OSError as error:
        raise CannotTell(f"cannot read the simulated vendor's keys: {error}") from error
    except ValueError as error:
        raise Malformed(f"not a simulated vendor's directory: {directory}") from error


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


def _save(signers: Mapping[str, Signer], directory: Path) -> None:
    """Write everything beside the final place and rename it there: a half-made vendor never exists."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=directory.name + "."))  # mode 0700
    for name, signer in signers.items():
        text = signer.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(
            os.open(fresh / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            file.write(text)
        (fresh / f"{name}.pem").write_text(signer.pem, encoding="ascii")
    os.rename(fresh, directory)


def _load(path: Path) -> Signer:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise NotAuthorised(f"{path} has mode {mode:04o}, wanted 0600", next_command=f"chmod 600 {path}")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Malformed(f"{path} is neither an EC nor an RSA key")
    return Signer(key, x509.load_pem_x509_certificate(path.with_suffix(".pem").read_bytes()))
