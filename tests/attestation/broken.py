"""Where in each accepted file what lies, and which checks may fail when that is changed.

A part with no checks is one that is not read there: changed, the file must end as before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from quotary.attestation import hcl, sgx, snp, tdx
from quotary.attestation.spdm import NONCE_LENGTH, REQUEST, RESPONSE
from tests.attestation.manifest import MALFORMED, UNSUPPORTED, Entry

PEM = frozenset({MALFORMED, "pck chain", "root"})


@dataclass(frozen=True)
class Part:
    """Bytes ``start`` to ``end`` of a file; a change of any ends as one of ``checks``."""

    name: str
    start: int
    end: int
    checks: frozenset[str]


def parts(entry: Entry) -> tuple[Part, ...]:
    """Cut a file into parts without a gap, or into one where its kind is not known here."""
    find = _PARTS[entry.said["kind"]]
    found = tuple(_parts(find(entry.data), len(entry.data)))
    assert all(left.end == right.start for left, right in pairwise(found))
    assert (found[0].start, found[-1].end) == (0, len(entry.data))
    return found


def positions(part: Part, step: int, seed: int) -> Iterator[int]:
    """First and last byte of a part, and each ``step``-th between, beginning elsewhere for another seed."""
    inside = range(part.start + seed % step, part.end, step)
    yield from sorted({part.start, part.end - 1, *inside} if part.end > part.start else ())


Rows = list[tuple[str, int, set[str]]]


def _parts(rows: Rows, length: int) -> Iterator[Part]:
    """Rows are (name, first byte, checks), ascending."""
    ends = [start for _, start, _ in rows[1:]] + [length]
    for (name, start, checks), end in zip(rows, ends, strict=True):
        yield Part(name, start, end, frozenset(checks))


def _quote(data: bytes) -> Rows:
    version = int.from_bytes(data[:2], "little")
    body = 54 if version == 5 else 48
    end = body + (int.from_bytes(data[50:54], "little") if version == 5 else 384 if version == 3 else 584)
    key, report = end + 4 + 64, end + 4 + 128 + (0 if version == 3 else 6)
    auth = report + 384 + 64 + 2
    chain = auth + int.from_bytes(data[auth - 2 : auth], "little")
    behind = end + 4 + int.from_bytes(data[end : end + 4], "little")
    signed = {"quote signature"}
    rows: Rows = [
        ("header", 0, {MALFORMED, UNSUPPORTED}),
        ("enclave versions" if version == 3 else "reserved", 8, signed if version == 3 else {MALFORMED}),
        ("vendor", 12, {MALFORMED}),
        ("user data", 28, signed),
        *([("descriptor", 48, {MALFORMED, UNSUPPORTED})] if version == 5 else []),
        # An enclave's report has reserved bytes; a TD's has none.
        ("body", body, signed | ({MALFORMED} if version == 3 else set())),
        ("length", end, {MALFORMED}),
        ("signature", end + 4, signed),
        ("attestation key", key, {"qe report data"}),
        *([] if version == 3 else [("outer certification", key + 64, {MALFORMED})]),
        ("qe report", report, {"qe report signature"}),
        ("qe report signature", report + 384, {"qe report signature"}),
        ("auth length", auth - 2, {MALFORMED, "qe report data"}),
        *([("auth", auth, {"qe report data"})] if chain > auth else []),
        ("inner certification", chain, {MALFORMED}),
        ("certificates", chain + 6, set(PEM)),
    ]
    return [*rows, ("padding", behind, {MALFORMED})] if behind < len(data) else rows


def _snp(data: bytes) -> Rows:
    signed = {"report signature"}
    reserved = {MALFORMED}
    five = data[0] == 5
    cpuid: Rows = [
        ("cpuid", 0x188, {"product", UNSUPPORTED, "report signature"}),
        ("stepping", 0x18A, signed),
    ]
    return [
        ("version", 0, {MALFORMED, UNSUPPORTED, "report signature"}),
        ("head", 4, signed),
        ("algorithm", 0x34, {UNSUPPORTED}),
        ("current tcb and platform", 0x38, signed),
        ("flags", 0x48, {MALFORMED, "signing key", "report signature"}),
        ("reserved", 0x4C, reserved),
        ("guest", 0x50, signed),
        ("reported tcb", 0x180, {"reported tcb"}),
        *(cpuid if data[0] > 2 else []),
        ("reserved", 0x18B if data[0] > 2 else 0x188, reserved),
        ("chip id", 0x1A0, {"chip id"}),
        ("committed tcb", 0x1E0, signed),
        ("reserved", 0x1EB, reserved),
        ("committed version", 0x1EC, signed),
        ("reserved", 0x1EF, reserved),
        ("launch tcb", 0x1F0, signed),
        *([("mitigations", 0x1F8, signed)] if five else []),
        ("reserved", 0x208 if five else 0x1F8, reserved),
        ("signature", snp.SIGNED_LENGTH, signed | reserved),
    ]


def _nitro(data: bytes) -> Rows:
    certificate = data.index(b"\x6bcertificate")
    return [
        # A PCR's number may become another one's, an unknown member or a bundle's root another.
        ("head", 0, {MALFORMED, UNSUPPORTED}),
        ("payload", 6, {MALFORMED, UNSUPPORTED, "document signature", "nitro chain", "timestamp"}),
        ("certificates", certificate, {MALFORMED, UNSUPPORTED, "nitro chain", "root", "document signature"}),
        ("signature", len(data) - 96, {"document signature"}),
    ]


def _device_report(data: bytes) -> Rows:
    start = REQUEST.length + RESPONSE.length
    record = start + int.from_bytes(data[REQUEST.length + 5 : start], "little")
    opaque = record + NONCE_LENGTH + 2
    length = int.from_bytes(data[opaque - 2 : opaque], "little")
    signed = {"device signature"}
    return [
        ("request", 0, {MALFORMED, "device signature"}),
        ("nonce", 4, {"device nonce"}),
        ("slot", 36, {MALFORMED}),
        ("answer", 37, {MALFORMED, "device signature"}),
        ("measurements", start, {MALFORMED, "device signature"}),
        ("their nonce", record, signed),
        ("length", opaque - 2, {MALFORMED}),
        ("opaque", opaque, {MALFORMED, "device signature"}),
        ("signature", opaque + length, signed),
    ]


def _wrapper(data: bytes) -> Rows:
    # What the hardware said is judged by itself, from its own file; nothing says how long the index is.
    runtime = 32 + hcl.HARDWARE_LENGTH
    end = runtime + 20 + int.from_bytes(data[runtime + 16 : runtime + 20], "little")
    rows: Rows = [
        ("header", 0, {MALFORMED, UNSUPPORTED}),
        ("hardware", 32, set()),
        *(
            [("behind the td report", 32 + hcl.TD_REPORT_LENGTH, {MALFORMED})]
            if data[runtime + 8] == 4
            else []
        ),
        ("runtime header", runtime, {MALFORMED, UNSUPPORTED}),
        ("runtime data", runtime + 20, {MALFORMED, "runtime data"}),
    ]
    return [*rows, ("padding", end, {MALFORMED})] if end < len(data) else rows


_PARTS = {
    "azure-hcl": _wrapper,
    "nitro": _nitro,
    "nvidia-report": _device_report,
    "quote": _quote,
    "snp-report": _snp,
}
assert tdx.HEADER.length == sgx.HEADER.length == 48
