"""What the second door shows (docs/formats/ratls.md): a certificate that carries evidence, one a keyset."""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec

from enclave.keyset import LiveKeyset
from quotary.attestation.ratls import claims_of, make_certificate, report_data_of
from quotary.errors import Unsupported
from quotary.net.tls import server_context, use_certificate
from quotary.statements.measurement import base_platform


class Certificates:
    """What the door shows: the certificate of the newest keyset, and nothing any more after ``destroy``."""

    def __init__(self) -> None:
        self.context = server_context()
        self.current = b""
        self._destroyed = False

    def use(self, keyset: LiveKeyset, quote: bytes) -> None:
        """Show the certificate of this keyset's key around a quote over ``report_data``."""
        assert keyset.ratls is not None
        begin, end = (datetime.fromtimestamp(at, UTC) for at in (keyset.born_at, keyset.not_after))
        self.current = make_certificate(keyset.ratls, quote, "quotary", begin, end)
        use_certificate(self.context, self.current, keyset.ratls)

    @property
    def open(self) -> bool:
        """Say whether there is a certificate to show."""
        return bool(self.current) and not self._destroyed

    def destroy(self) -> None:
        """Take no connection any more."""
        self._destroyed = True


def certificate_report(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Give the 64 bytes over which a certificate of this key needs evidence."""
    return report_data_of(claims_of(key.public_key()))


def require_form(platform: str) -> None:
    """Refuse a platform for whose evidence the profile has no form."""
    if base_platform(platform) not in ("tdx", "sgx"):
        raise Unsupported(
            f"RA-TLS certificates hold Intel's quotes, this machine's evidence is of {platform}"
        )
