"""Paths that lead out of what is public, in every spelling (row I13): raw, encoded once and twice, and worse."""

from collections.abc import Iterator

UPS = (
    "../", "..%2f", "..%2F", "%2e%2e/", "%2e%2e%2f", "%2E%2E%2F", ".%2e/", "%2e./", "..\\", "..%5c", "%2e%2e%5c",
    "..%252f", "%252e%252e%252f", "..%c0%af", "%c0%ae%c0%ae/", "..%ef%bc%8f", "%uff0e%uff0e%u2215", "..;/", "..%00/",
    ".../", "....//", "..//", "..././", "%2e%2e%09/",
)  # fmt: skip
PREFIXES = ("/", "/tile/", "/tile/entries/", "/api/v1/bundles/chat/", "/problems/", "/static/")
TARGETS = ("registry.toml", "keys/log-ed25519.pem", "etc/passwd")
ODD = (
    "//etc/passwd",
    "///log.db",
    "/%2fetc%2fpasswd",
    "/tile//etc/passwd",
    "/tile/0/%2e%2e%2f%2e%2e%2f%2e%2e%2fregistry.toml",
    "/tile/0/x001/../../../registry.toml",
    "/tile/entries/000.p/../../../../registry.toml",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/problems/..%2f..%2fregistry.toml",
    "/problems/%00",
    "/~root/.ssh/id_rsa",
    "/.git/config",
    "/.env",
    "/checkpoint/../keys/log-ed25519.pem",
    "/checkpoint%00.txt",
    "/checkpoint/",
    "/tile/.half",
    "/C:%5cWindows%5cwin.ini",
    "/file:///etc/passwd",
    "/api/v1/bundles/chat/..%2f..%2f..%2f..%2fregistry.toml",
    "/api/v1/entries/..%2f..%2fregistry.toml",
    "/api/v1/proofs/%2e%2e%2fregistry.toml",
    "/signed/tile/..%2f..%2fregistry.toml",
)


def paths() -> Iterator[str]:
    """Give every path once."""
    for prefix in PREFIXES:
        for up in UPS:
            for depth, target in zip((1, 3, 8), TARGETS, strict=True):
                yield prefix + up * depth + target
    yield from ODD
