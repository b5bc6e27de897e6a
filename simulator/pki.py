"""The simulated vendor's keys and certificates: the shape of Intel's SGX PKI, made anew by each installation.

Root -> PCK platform CA -> PCK leaf, and root -> TCB signing. Every certificate names ``O=SIMULATED EVIDENCE``
and carries the simulator's OID, which a production verifier refuses on sight. The FMSPC and the first half of
the PPID are patterns that no processor has. Whoever can read the directory can sign any quote of this vendor:
the keys prove nothing against the owner of the machine, and nothing of this package belongs in a production
image.
"""

import hashlib
import os
import secrets
import stat
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from quotary.errors import CannotTell, Malformed, NotAuthorised
from simulator import der

ORGANISATION = "SIMULATED EVIDENCE"
# The literal of quotary.attestation.roots.SIMULATOR_OID, an unregistered placeholder.
SIMULATOR_OID = x509.ObjectIdentifier("1.3.6.1.4.1.99999.7411.1")
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")

FMSPC = bytes.fromhex("ff53494d0000")  # 0xff "SIM" and zeros: reserved for simulators
PPID_PREFIX = bytes.fromhex("ff53494d55504944")
PCE_ID = bytes(2)

CA_LIFE = timedelta(days=3650)
PCK_LIFE = timedelta(days=365)
CRL_URL = "http://127.0.0.1/simulated-evidence.crl"  # never fetched: the lists travel in the collateral
_LEAF_NAMES = ("root", "platform-ca", "tcb-signing")


@dataclass(frozen=True, slots=True)
class Authority:
    """A signing key and the certificate that names it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


@dataclass(frozen=True, slots=True)
class PKI:
    """One installation's vendor.

    pck_key: signs the quoting enclave's report; its certificate is issued for the TCB level of each start
    ppid:    16 bytes, the platform's name: a reserved prefix and 8 random bytes
    """

    root: Authority
    platform_ca: Authority
    tcb_signing: Authority
    pck_key: ec.EllipticCurvePrivateKey
    ppid: bytes

    @property
    def root_der(self) -> bytes:
        """The trust anchor, a DER certificate."""
        return self.root.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def root_sha256(self) -> bytes:
        """What a simulation policy pins as ``simulator_root_sha256``."""
        return hashlib.sha256(self.root_der).digest()


def open_pki(directory: Path, now: datetime) -> PKI:
    """Load the vendor of this directory, or make it if the directory does not exist yet."""
    if not directory.exists():
        _save(_create(now), directory)
    return _load(directory)


def issue_pck(pki: PKI, sgx_tcb_svn: bytes, pce_svn: int, now: datetime) -> x509.Certificate:
    """Certify the platform's PCK key at a TCB level: 16 component SVNs, and the PCE's SVN as a u16."""
    extension = der.sgx_extension(
        ppid=pki.ppid, components=sgx_tcb_svn, pce_svn=pce_svn, pce_id=PCE_ID, fmspc=FMSPC
    )
    builder = _certificate("SIM SGX PCK Certificate", pki.pck_key, now, PCK_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(leaf=True), critical=True)
    builder = builder.add_extension(x509.UnrecognizedExtension(SGX_EXTENSION, extension), critical=False)
    return _signed(builder, pki.platform_ca.key, pki.platform_ca.certificate.subject)


def revocation_list(authority: Authority, now: datetime, life: timedelta, revoked: tuple[int, ...]) -> bytes:
    """Sign an X.509 v2 CRL (DER) with the given certificate serial numbers."""
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + life)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(identifier, critical=False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _create(now: datetime) -> PKI:
    root_key, ca_key, tcb_key, pck_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
    root_name = _name("SIM SGX Root CA")

    def authority(common_name: str, key: ec.EllipticCurvePrivateKey, path_length: int | None) -> Authority:
        builder = _certificate(common_name, key, now, CA_LIFE)
        is_ca = path_length is not None
        builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
        builder = builder.add_extension(_usage(leaf=not is_ca), critical=True)
        return Authority(key, _signed(builder, root_key, root_name))

    return PKI(
        root=authority("SIM SGX Root CA", root_key, 1),
        platform_ca=authority("SIM SGX PCK Platform CA", ca_key, 0),
        tcb_signing=authority("SIM SGX TCB Signing", tcb_key, None),
        pck_key=pck_key,
        ppid=PPID_PREFIX + secrets.token_bytes(8),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
        ]
    )


def _usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        content_commitment=leaf,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    common_name: str, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    point = x509.DistributionPoint([x509.UniformResourceIdentifier(CRL_URL)], None, None, None)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.CRLDistributionPoints([point]), critical=False)
        .add_extension(x509.UnrecognizedExtension(SIMULATOR_OID, der.utf8("simulated")), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, issuer: x509.Name
) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return builder.issuer_name(issuer).add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _save(pki: PKI, directory: Path) -> None:
    """Write everything beside the final place and rename it there: a half-made vendor never exists."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=directory.parent, prefix=directory.name + "."))  # mode 0700
    for name, authority in zip(_LEAF_NAMES, (pki.root, pki.platform_ca, pki.tcb_signing), strict=True):
        _write_key(fresh / f"{name}.key", authority.key)
        (fresh / f"{name}.pem").write_text(authority.pem, encoding="ascii")
    _write_key(fresh / "pck.key", pki.pck_key)
    (fresh / "ppid").write_text(pki.ppid.hex() + "\n", encoding="ascii")
    os.rename(fresh, directory)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)


def _load(directory: Path) -> PKI:
    try:
        root, platform_ca, tcb_signing = (
            Authority(
                _read_key(directory / f"{name}.key"),
                x509.load_pem_x509_certificate((directory / f"{name}.pem").read_bytes()),
            )
            for name in _LEAF_NAMES
        )
        pck_key = _read_key(directory / "pck.key")
        ppid = bytes.fromhex((directory / "ppid").read_text(encoding="ascii").strip())
    except OSError as error:
        raise CannotTell(f"cannot read the simulated vendor's keys: {error}") from error
    except ValueError as error:
        raise Malformed(f"not a simulated vendor's directory: {directory}") from error
    if len(ppid) != 16 or not ppid.startswith(PPID_PREFIX):
        raise Malformed("the PPID is not of the simulator's reserved pattern")
    return PKI(root, platform_ca, tcb_signing, pck_key, ppid)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise NotAuthorised(f"{path} has mode {mode:04o}, wanted 0600", next_command=f"chmod 600 {path}")
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Malformed(f"{path} is not an EC key")
    return key


def whole_second(now: datetime) -> datetime:
    """Cut a time to the whole seconds that certificates and collateral can hold."""
    return now.astimezone(UTC).replace(microsecond=0)
