"""PCRs of a Nitro enclave from its image (AWS Nitro Enclaves user guide, "Cryptographic attestation").

``PCR = SHA-384(48 zero bytes || SHA-384(data))``. PCR0 is over kernel, command line and all ramdisks as one
stream, PCR1 over the same with the first ramdisk alone, PCR2 over the other ramdisks. No length stands
between the parts, so PCR0 alone does not say where one ends: a measurement id has all three. An enclave in
debug mode shows zeros.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.profiles import NitroProfile
from quotary.attestation.measure.trace import ZERO, Measured, Step
from quotary.errors import Malformed

MAX_ROLE = 2048


@dataclass(frozen=True, slots=True)
class Streams:
    """What each PCR is over: the stream's digest (48 bytes) by the PCR's name, and a step for each part."""

    digests: Mapping[str, bytes]
    steps: tuple[Step, ...]


def measure(image: EIF, profile: NitroProfile) -> Measured:
    """Compute ``pcr0`` to ``pcr2`` of an image, with a step for each part of each."""
    return registers(streams(image, profile))


def streams(image: EIF, profile: NitroProfile) -> Streams:
    """Hash an image's parts as its PCRs take them in; each large part is read at most twice."""
    digests, steps, parts = {}, [], _Parts(image)
    for register, names in (("pcr0", profile.pcr0), ("pcr1", profile.pcr1), ("pcr2", profile.pcr2)):
        stream = hashlib.sha384()
        for number, (name, data) in enumerate(one for part in names for one in parts.named(part)):
            if number:
                stream.update(data)
            else:
                stream = parts.hashed(name, data).copy()
            digest = parts.hashed(name, data).digest()
            steps.append(Step(register, name, digest, extended(stream.digest())))
        digests[register] = stream.digest()
    return Streams(digests, tuple(steps))


def registers(found: Streams) -> Measured:
    """Give the PCRs of hashed parts."""
    return Measured({name: extended(digest) for name, digest in found.digests.items()}, found.steps)


def extended(digest: bytes) -> bytes:
    """Extend a PCR of 48 zero bytes with a digest."""
    return hashlib.sha384(ZERO + digest).digest()


def signer_pcr(certificate: bytes) -> bytes:
    """Compute PCR8 of an image whose signer has this certificate (DER); an unsigned image has zeros."""
    if not certificate:
        raise Malformed("PCR8 needs the signing certificate in DER")
    return extended(hashlib.sha384(certificate).digest())


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


class _Parts:
    """The parts of an image, each hashed once."""

    def __init__(self, image: EIF) -> None:
        self._image = image
        self._hashed: dict[str, hashlib._Hash] = {}

    def hashed(self, name: str, data: bytes) -> "hashlib._Hash":
        if name not in self._hashed:
            self._hashed[name] = hashlib.sha384(data)
        return self._hashed[name]

    def named(self, name: str) -> Sequence[tuple[str, bytes]]:
        """Give the parts that a name of the profile stands for."""
        if name == "kernel":
            return [(name, self._image.kernel)]
        if name == "command-line":
            return [(name, self._image.command_line.encode())]
        numbered = [(f"ramdisk {number}", data) for number, data in enumerate(self._image.ramdisks)]
        chosen = {"ramdisks": numbered, "ramdisk-first": numbered[:1], "ramdisks-rest": numbered[1:]}
        if name not in chosen:
            raise Malformed(f"no rule for the part {name!r}")
        return chosen[name]
