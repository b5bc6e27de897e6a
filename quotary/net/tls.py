"""The server's side of TLS 1.3 with a certificate that is made while the process runs, and never a file."""

import os
import ssl

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def server_context() -> ssl.SSLContext:
    """Make a context that has no certificate yet; ``use_certificate`` gives it one, and others later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A ticket would let a connection go on under a key that has ended.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def use_certificate(context: ssl.SSLContext, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    """Show this certificate (DER) on every connection from now on."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # The library reads files only; this one is memory of this process and is gone when it was read.
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, ssl.DER_cert_to_PEM_cert(certificate).encode() + pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
