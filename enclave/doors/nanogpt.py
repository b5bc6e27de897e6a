"""What NanoGPT's clients want beyond the vllm-proxy behind it (docs.nano-gpt.com, "TEE verification").

A nonce may be any text and comes back as it was; what the hardware signs is
``request_nonce``: 64 hex digits as they are, SHA-256 over anything else.
"""

import hashlib
import re
from collections.abc import Mapping

from enclave.chat import APIError
from enclave.doors.reports import parse_nonce

MAX_NONCE = 256

_HEX = re.compile(r"[0-9a-fA-F]{64}")


def bound_nonce(text: str | None) -> bytes:
    """Give the 32 bytes that stand for a client's nonce; random ones where it sent none."""
    if text is None or _HEX.fullmatch(text):
        return parse_nonce(text)
    if not 1 <= len(text) <= MAX_NONCE:
        message = f"nonce must be of 1 to {MAX_NONCE} characters"
        raise APIError(400, "invalid_value", message, param="nonce")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def with_nonce(report: Mapping[str, object], text: str | None) -> dict[str, object]:
    """Add the nonce as the client wrote it."""
    return dict(report) | {"nonce": report["request_nonce"] if text is None else text}
