"""Attestation reports and signatures as the vllm-proxy gives them (nearai/vllm-proxy, ``verifiers/``).

The report's quote is one of its own: ``report_data = address, zeros up to 32 bytes | nonce``. It cannot pass
for this project's binding, whose first half is a digest. GPUs answer the same nonce. What the original takes
from dstack (compose file, event log of RTMR3) is not there, because this image has none; what stands here
beyond the original is in the member ``quotary``.
"""

import json
import re
import secrets

from enclave.boot import Shown
from enclave.chat import APIError
from enclave.doors import ethereum
from enclave.doors.book import Exchange
from enclave.doors.keys import ECDSA, ED25519, DoorKeys
from quotary.attestation.devices import parse_evidence
from quotary.canonical import b64
from quotary.statements.measurement import base_platform

TEXT_ALGORITHMS = (ECDSA, ED25519)
NONCE_LENGTH = 32

# What NVIDIA's service calls the architectures that rows name.
_ARCHITECTURES = {"gh100": "HOPPER", "gb100": "BLACKWELL"}
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def parse_nonce(text: str | None) -> bytes:
    """Read 64 hex digits; 32 random bytes where none are given."""
    if text is None:
        return secrets.token_bytes(NONCE_LENGTH)
    if _HEX.fullmatch(text) is None:
        raise APIError(400, "invalid_value", "nonce must be 64 hex digits", param="nonce")
    return bytes.fromhex(text)


def parse_algorithm(text: str | None) -> str:
    """Read ``signing_algo``; ecdsa where none is given, as the original does."""
    if text not in (None, *TEXT_ALGORITHMS):
        raise APIError(400, "invalid_value", "signing_algo must be ecdsa or ed25519", param="signing_algo")
    return text or ECDSA


def require_tdx(platform: str) -> None:
    """Refuse evidence that has no place in these reports."""
    if base_platform(platform) != "tdx":
        message = f"these reports hold TDX quotes, this machine is {platform}; use /v1/attestation"
        raise APIError(501, "unsupported_platform", message, kind="server_error")


def report_data(keys: DoorKeys, algorithm: str, nonce: bytes) -> bytes:
    """Give the 64 bytes that the hardware signs for a report."""
    return _address_bytes(keys, algorithm).ljust(32, b"\0") + nonce


def address(keys: DoorKeys, algorithm: str) -> str:
    """Write the signing address: EIP-55, or the Ed25519 key in hex."""
    found = _address_bytes(keys, algorithm)
    return ethereum.checksummed(found) if algorithm == ECDSA else found.hex()


def report(keys: DoorKeys, algorithm: str, nonce: bytes, shown: Shown) -> dict[str, object]:
    """Lay out a report; ``all_attestations`` has this machine alone."""
    public = keys.of("secp256k1")[1:] if algorithm == ECDSA else keys.of("ed25519")
    one: dict[str, object] = {
        "signing_address": address(keys, algorithm),
        "signing_algo": algorithm,
        "signing_public_key": public.hex(),
        "request_nonce": nonce.hex(),
        "intel_quote": shown.quote.hex(),
        "nvidia_payload": json.dumps(_gpus(nonce, shown)),
        "event_log": "[]",
        "info": {"tcb_info": {name: value.hex() for name, value in shown.registers.items()}},
        "quotary": {
            "platform": shown.platform,
            "simulated": shown.platform.startswith("sim-"),
            "keyset": b64(shown.keyset),
        },
    }
    return one | {"all_attestations": [one]}


def signing_text(exchange: Exchange) -> str:
    """Give the text that is signed about an answer."""
    return f"{exchange.request.hex()}:{exchange.response.hex()}"


def signature(keys: DoorKeys, algorithm: str, exchange: Exchange) -> dict[str, object]:
    """Sign an answer."""
    text = signing_text(exchange)
    return {
        "text": text,
        "signature": keys.sign_text(algorithm, text),
        "signing_address": address(keys, algorithm),
        "signing_algo": algorithm,
    }


def _address_bytes(keys: DoorKeys, algorithm: str) -> bytes:
    return ethereum.address(keys.of("secp256k1")) if algorithm == ECDSA else keys.of("ed25519")


def _gpus(nonce: bytes, shown: Shown) -> dict[str, object]:
    """Write what NVIDIA's service takes; without GPUs the list is empty."""
    if shown.devices is None:
        return {"nonce": nonce.hex(), "evidence_list": [], "arch": ""}
    parse_evidence(shown.devices)
    arch = _ARCHITECTURES.get(shown.architecture, shown.architecture.upper())
    listed = [
        {"certificate": item["certificate"], "evidence": item["evidence"], "arch": arch}
        for item in json.loads(shown.devices)[: shown.gpus]
    ]
    return {"nonce": nonce.hex(), "evidence_list": listed, "arch": arch}
