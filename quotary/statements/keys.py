"""The keys of the status map (design section 5): SHA-256 over a context line and the names."""

import hashlib
from functools import lru_cache


@lru_cache(8192)  # as many as F1 asks for several times while an interval lasts
def key_measurement(service: str, measurement: bytes) -> bytes:
    """Give the 32-byte map key of a measurement id (32 bytes) of a service."""
    return _key("measurement", service, measurement.hex())


def key_tcb(platform: str, product: str) -> bytes:
    """Give the 32-byte map key of a product's TCB floor."""
    return _key("tcb", platform, product)


def key_service(service: str) -> bytes:
    """Give the 32-byte map key of a service's delegation."""
    return _key("service", service)


def _key(kind: str, *names: str) -> bytes:
    return hashlib.sha256("\n".join((f"quotary-map/{kind}/v1", *names)).encode("utf-8")).digest()
