"""PCRs of a Nitro enclave from its image (AWS Nitro Enclaves user guide, "Cryptographic attestation").

``PCR = SHA-384(48 zero bytes || SHA-384(data))``. PCR0 is over kernel, command line and all ramdisks as one
stream, PCR1 over the same with the first ramdisk alone, PCR2 over the other ramdisks. No length stands
between the parts, so PCR0 alone does not say where one ends: a measurement id has all three. An enclave in
debug mode shows zeros.
"""

import hashlib
from collections.abc import Sequence

from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.profiles import NitroProfile
from quotary.attestation.measure.trace import ZERO, Measured, Step
from quotary.errors import Malformed

MAX_ROLE = 2048


def measure(image: EIF, profile: NitroProfile) -> Measured:
    """Compute ``pcr0`` to ``pcr2`` of an image, with a step for each part of each."""
    registers, steps = {}, []
    rules = (("pcr0", profile.pcr0), ("pcr1", profile.pcr1), ("pcr2", profile.pcr2))
    for register, names in rules:
        parts = [part for name in names for part in _parts(image, name)]
        registers[register], found = _pcr(register, parts)
        steps += found
    return Measured(registers, tuple(steps))


def signer_pcr(certificate: bytes) -> bytes:
    """Compute PCR8 of an image whose signer has this certificate (DER); an unsigned image has zeros."""
    if not certificate:
        raise Malformed("PCR8 needs the signing certificate in DER")
    return hashlib.sha384(ZERO + hashlib.sha384(certificate).digest()).digest()


def role_pcr(role: str) -> bytes:
    """Compute PCR3 of a parent instance with this IAM role ARN: extended with the text, not its digest."""
    return _text_pcr(role, "an IAM role", "arn:")


def instance_pcr(instance: str) -> bytes:
    """Compute PCR4 of a parent instance with this instance id, e.g. ``i-0123456789abcdef0``."""
    return _text_pcr(instance, "an instance id", "i-")


def _text_pcr(text: str, what: str, begin: str) -> bytes:
    if not text.startswith(begin) or not text.isascii() or not text.isprintable() or len(text) > MAX_ROLE:
        raise Malformed(f"{what} begins with {begin} and has at most {MAX_ROLE} printable characters")
    return hashlib.sha384(ZERO + text.encode()).digest()


def _parts(image: EIF, name: str) -> Sequence[tuple[str, bytes]]:
    if name == "kernel":
        return [(name, image.kernel)]
    if name == "command-line":
        return [(name, image.command_line.encode())]
    numbered = [(f"ramdisk {number}", data) for number, data in enumerate(image.ramdisks)]
    chosen = {"ramdisks": numbered, "ramdisk-first": numbered[:1], "ramdisks-rest": numbered[1:]}
    if name not in chosen:
        raise Malformed(f"no rule for the part {name!r}")
    return chosen[name]


def _pcr(register: str, parts: Sequence[tuple[str, bytes]]) -> tuple[bytes, list[Step]]:
    stream, value, steps = hashlib.sha384(), _extended(hashlib.sha384().digest()), []
    for name, data in parts:
        stream.update(data)
        value = _extended(stream.digest())
        steps.append(Step(register, name, hashlib.sha384(data).digest(), value))
    return value, steps


def _extended(digest: bytes) -> bytes:
    return hashlib.sha384(ZERO + digest).digest()
