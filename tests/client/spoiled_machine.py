"""Changes that each spoil one thing about a machine: its evidence, what that binds, its rules and its firmware.

``CASES`` names for each check of the verification order the changes that it alone refuses, and how.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from quotary.attestation.document import NonceProof
from quotary.errors import Judged, Refused, Rejected
from tests.fakes.attempt import Attempt
from tests.fakes.machine import keyset, registers

Change = Callable[[Attempt], object]


def flip(data: bytes, position: int = -1) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


# 1. evidence


def break_quote(attempt: Attempt) -> None:
    # The quote's own signature starts behind header and body (48 + 584) and a length.
    attempt.change_document(evidence=flip(attempt.document.evidence, 48 + 584 + 4))


def change_registers(attempt: Attempt) -> None:
    attempt.change_document(evidence=flip(attempt.document.evidence, 48 + 136))


def admit_another_root(attempt: Attempt) -> None:
    attempt.policy["platforms"]["sim-tdx"]["simulator_root_sha256"] = "ab" * 32


def expire_collateral(attempt: Attempt) -> None:
    attempt.now += timedelta(days=31)


# 2. binding and nonce


def swap_keyset(attempt: Attempt) -> None:
    attempt.change_document(keyset=keyset(b"\x01" * 1216).encode())


def swap_binding(attempt: Attempt) -> None:
    attempt.change_document(binding=attempt.world.document(keys=keyset(b"\x01" * 1216)).binding)


def swap_binding_and_keyset(attempt: Attempt) -> None:
    other = attempt.world.document(keys=keyset(b"\x01" * 1216))
    attempt.change_document(binding=other.binding, keyset=other.keyset)


def watch_another_log(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(origin="other.example.org/simulation")


def show_unbound_devices(attempt: Attempt) -> None:
    attempt.change_document(devices=b"devices of another machine")


def hide_bound_devices(attempt: Attempt) -> None:
    attempt.document = replace(attempt.world.document(devices=b"devices"), devices=None)


def outlive_the_keyset(attempt: Attempt) -> None:
    old = keyset(attempt.world.channel.public, at=attempt.world.now - timedelta(hours=2))
    attempt.document = attempt.world.document(keys=old)


def answer_another_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=bytes(32))


def answer_no_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=None)


def claim_another_place(attempt: Attempt) -> None:
    attempt.change_document(nonce=NonceProof(0, 2, (bytes(32),)))


# 11. row


def measure_something_free(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(rtmr0=b"\x01" * 48))


def extend_rtmr3(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(rtmr3=b"\x01" * 48))


def configure_otherwise(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(found=registers(mr_config_id=b"\x01" * 48))


def serve_another_service(attempt: Attempt) -> None:
    keys = keyset(attempt.world.channel.public, service="search")
    attempt.document = attempt.world.document(keys=keys)


CASES: dict[str, list[tuple[Change, type[Judged]]]] = {
    "evidence": [
        (break_quote, Rejected),
        (change_registers, Rejected),
        (admit_another_root, Rejected),
        (expire_collateral, Rejected),
    ],
    "binding": [
        (swap_keyset, Rejected),
        (swap_binding, Rejected),
        (swap_binding_and_keyset, Rejected),
        (watch_another_log, Rejected),
        (show_unbound_devices, Rejected),
        (hide_bound_devices, Rejected),
        (outlive_the_keyset, Refused),
    ],
    "nonce": [
        (answer_another_nonce, Rejected),
        (answer_no_nonce, Rejected),
        (claim_another_place, Rejected),
    ],
    "row": [
        (measure_something_free, Rejected),
        (extend_rtmr3, Rejected),
        (configure_otherwise, Rejected),
        (serve_another_service, Rejected),
    ],
}
