"""SPDM measurement reports of NVIDIA devices: the request with our nonce, and the signed answer.

DMTF DSP0274 (SPDM 1.1), GET_MEASUREMENTS and MEASUREMENTS; the opaque fields are NVIDIA's own, known from its
open verifiers. Integers are little endian, the signature is big endian. Signed is everything before the
signature, the request too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.layout import Layout, fields, little
from quotary.attestation.p384 import SIGNATURE_LENGTH
from quotary.errors import Malformed

MAX_REPORT = 16 * 1024
NONCE_LENGTH = 32
DIGEST_LENGTH = 48
PDI_LENGTH = 8

# SPDM 1.1 messages up to their variable parts, and one measurement block of the DMTF kind.
REQUEST = Layout(
    "GET_MEASUREMENTS",
    37,
    fields(
        ("version", 0, 1),
        ("code", 1, 1),
        ("param1", 2, 1),
        ("param2", 3, 1),
        ("nonce", 4, 32),
        ("slot", 36, 1),
    ),
)
RESPONSE = Layout(
    "MEASUREMENTS",
    8,
    fields(
        ("version", 0, 1),
        ("code", 1, 1),
        ("param1", 2, 1),
        ("param2", 3, 1),
        ("blocks", 4, 1),
        ("length", 5, 3),
    ),
)
BLOCK = Layout(
    "measurement block",
    55,
    fields(
        ("index", 0, 1),
        ("specification", 1, 1),
        ("length", 2, 2),
        ("type", 4, 1),
        ("value_length", 5, 2),
        ("value", 7, 48),
    ),
)

# Opaque fields that are read here, with the lengths that they may have.
DRIVER_VERSION, VBIOS_VERSION, NVDEC0, CHIP_SKU, PROJECT, PROJECT_SKU = 3, 6, 11, 15, 17, 18
FWID, PROTECTED_PCIE, SWITCH_PDI, SWITCH_GPUS, FEATURE_FLAG = 20, 21, 22, 26, 36
_LENGTHS: Mapping[int, Sequence[int]] = {
    NVDEC0: (1,),
    FWID: (DIGEST_LENGTH,),
    PROTECTED_PCIE: (1,),
    SWITCH_PDI: range(PDI_LENGTH, 64 * PDI_LENGTH + 1, PDI_LENGTH),
    SWITCH_GPUS: range(8 * PDI_LENGTH, 513),
    FEATURE_FLAG: (2,),
}


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """A well-formed report that nobody believes yet.

    nonce:     32 bytes of the request
    blocks:    48 bytes each; reference value i is block i here (SPDM counts from 1)
    opaque:    NVIDIA's fields by type, also those that are not known
    signed:    the exact bytes under the signature
    signature: 96 bytes r || s, big endian
    """

    nonce: bytes
    blocks: tuple[bytes, ...]
    opaque: Mapping[int, bytes]
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, data: bytes) -> "DeviceReport":
        """Read request and response; nothing may follow the signature. Raises ``Malformed``."""
        if len(data) > MAX_REPORT:
            raise Malformed(f"report has {len(data)} bytes, at most {MAX_REPORT} are allowed")
        request = REQUEST.read(data[: REQUEST.length])
        start = REQUEST.length + RESPONSE.length
        response = RESPONSE.read(data[REQUEST.length : start])
        codes = request["version"] + request["code"] + response["version"] + response["code"]
        if codes != b"\x11\xe0\x11\x60" or request["param2"] != b"\xff" or request["slot"] != b"\0":
            raise Malformed("not an SPDM 1.1 request for all measurements and its answer")
        record_end = start + little(response["length"])
        opaque_start = record_end + NONCE_LENGTH + 2
        signature_start = opaque_start + little(data[record_end + NONCE_LENGTH : opaque_start])
        if len(data) != signature_start + SIGNATURE_LENGTH:
            raise Malformed(f"report has {len(data)} bytes, it says {signature_start + SIGNATURE_LENGTH}")
        return cls(
            request["nonce"],
            _blocks(data[start:record_end], response["blocks"][0]),
            _opaque(data[opaque_start:signature_start]),
            data[:signature_start],
            data[signature_start:],
        )


def _blocks(record: bytes, count: int) -> tuple[bytes, ...]:
    if len(record) != count * BLOCK.length:
        raise Malformed(
            f"measurement record has {len(record)} bytes, {count} blocks have {count * BLOCK.length}"
        )
    found = []
    for index in range(count):
        block = BLOCK.read(record[index * BLOCK.length : (index + 1) * BLOCK.length])
        lengths = little(block["length"]), little(block["value_length"])
        if (
            block["index"][0] != index + 1
            or block["specification"] != b"\1"
            or lengths != (51, DIGEST_LENGTH)
        ):
            raise Malformed(
                f"measurement block {index + 1} is not a DMTF digest of {DIGEST_LENGTH} bytes in order"
            )
        found.append(block["value"])
    return tuple(found)


def _opaque(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        kind, length = little(data[at : at + 2]), little(data[at + 2 : at + 4])
        value = data[at + 4 : at + 4 + length]
        if len(data) < at + 4 + length or kind in found:
            raise Malformed(f"opaque field {kind} is cut off or there twice")
        if length not in _LENGTHS.get(kind, (length,)):
            raise Malformed(f"opaque field {kind} has {length} bytes")
        found[kind] = value
        at += 4 + length
    return found
