"""Azure's wrapper around a hardware report: the paravisor's own report and the keys that it vouches for.

On Azure a guest cannot choose the report data of its CPU: the paravisor ("HCL") puts the digest of a JSON
document there, and keeps the whole in the vTPM's NV index 0x01400001. The document holds the vTPM's
attestation key; a nonce then goes into a vTPM quote by that key, which this module does not read. Microsoft,
"Azure confidential VM guest attestation design", section "Attestation report"; integers are little endian.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import rsa

from quotary.attestation.facts import Check, Facts
from quotary.attestation.layout import Layout, fields, little
from quotary.errors import Malformed, Rejected, Unsupported

MAX_REPORT = 16 * 1024
HARDWARE_LENGTH = 1184
TD_REPORT_LENGTH = 1024
ATTESTATION_KEY = "HCLAkPub"

HEADER = Layout(
    "HCL header",
    32,
    fields(
        ("magic", 0, 4),
        ("version", 4, 4),
        ("length", 8, 4),
        ("request_type", 12, 4),
        ("status", 16, 4),
        ("reserved1", 20, 12),
    ),
)
RUNTIME = Layout(
    "HCL runtime header",
    20,
    fields(
        ("length", 0, 4),
        ("version", 4, 4),
        ("report_type", 8, 4),
        ("hash_type", 12, 4),
        ("data_length", 16, 4),
    ),
)
PLATFORMS: Mapping[int, str] = MappingProxyType({2: "snp", 4: "tdx"})

_MAGIC = b"HCLA"
_ATTESTATION_REQUEST = 2
_SHA256 = 1
_RUNTIME_AT = HEADER.length + HARDWARE_LENGTH
_DATA_AT = _RUNTIME_AT + RUNTIME.length


@dataclass(frozen=True, slots=True)
class HCLReport:
    """A well-formed wrapper that nobody believes yet.

    platform: ``snp`` or ``tdx``
    hardware: the SEV-SNP report (1184 bytes), or the TD report (1024 bytes) that a quote is made from
    runtime:  the exact JSON bytes whose digest is in the hardware's report data
    attestation_key: the vTPM's key that the JSON names
    """

    platform: str
    hardware: bytes
    runtime: bytes
    attestation_key: rsa.RSAPublicKey

    @classmethod
    def parse(cls, data: bytes) -> "HCLReport":
        """Read a wrapper; behind it only zeros may follow (the NV index is longer).

        Raises ``Malformed``, or ``Unsupported`` for another version, request, hash or kind of hardware.
        """
        if len(data) > MAX_REPORT:
            raise Malformed(f"HCL report has {len(data)} bytes, at most {MAX_REPORT} are possible")
        header = HEADER.read(data[: HEADER.length])
        runtime = RUNTIME.read(data[_RUNTIME_AT:_DATA_AT])
        if header["magic"] != _MAGIC:
            raise Malformed("not an HCL report")
        versions = little(header["version"]), little(header["request_type"]), little(runtime["version"])
        kind = PLATFORMS.get(little(runtime["report_type"]))
        if versions not in ((1, 2, 1), (2, 2, 1)) or kind is None or little(runtime["hash_type"]) != _SHA256:
            raise Unsupported("HCL report of another version, request, hash or hardware than SEV-SNP or TDX")
        length = little(runtime["data_length"])
        end = _DATA_AT + length
        said = little(header["length"]), little(runtime["length"]), little(header["status"])
        if said != (end, RUNTIME.length + length, 0) or len(data) < end or any(data[end:]):
            raise Malformed("HCL report's lengths do not fit together, or it reports a failure")
        found = data[_DATA_AT:end]
        return cls(kind, _hardware(data[HEADER.length : _RUNTIME_AT], kind), found, _key(found))


def require_bound(facts: Facts, report: HCLReport) -> Check:
    """Require that the verified hardware vouches for exactly this document (check ``runtime data``)."""
    if facts.platform.removeprefix("sim-") != report.platform:
        raise Rejected("runtime data", f"facts of {facts.platform}", f"facts of {report.platform}")
    wanted = hashlib.sha256(report.runtime).digest() + bytes(32)
    if not hmac.compare_digest(facts.report_data, wanted):
        raise Rejected("runtime data", facts.report_data.hex(), wanted.hex())
    return Check("runtime data", wanted.hex(), "SHA-256 of the runtime document and zeros", "report data")


def _hardware(found: bytes, kind: str) -> bytes:
    if kind == "snp":
        return found
    if any(found[TD_REPORT_LENGTH:]):
        raise Malformed("HCL report has bytes behind its TD report")
    return found[:TD_REPORT_LENGTH]


def _key(runtime: bytes) -> rsa.RSAPublicKey:
    try:
        found = json.loads(runtime.decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Malformed("HCL runtime data is not JSON") from error
    keys = found.get("keys") if isinstance(found, dict) else None
    named = [key for key in keys if _names(key)] if isinstance(keys, list) else []
    if len(named) != 1 or named[0].get("kty") != "RSA":
        raise Malformed(f"HCL runtime data has not one RSA key {ATTESTATION_KEY}")
    try:
        return rsa.RSAPublicNumbers(_number(named[0].get("e")), _number(named[0].get("n"))).public_key()
    except ValueError as error:
        raise Malformed(f"{ATTESTATION_KEY} is not an RSA key") from error


def _names(key: object) -> bool:
    return isinstance(key, dict) and key.get("kid") == ATTESTATION_KEY


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("HCL runtime data has a member twice")
    return found


def _number(text: object) -> int:
    # RFC 7518, section 2: base64url without padding, big endian.
    if not isinstance(text, str):
        raise Malformed(f"{ATTESTATION_KEY} has no number")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise Malformed(f"{ATTESTATION_KEY} has a number that is not base64url") from error
    return int.from_bytes(data, "big")
