"""Intel's signed JSON documents, read strictly: TCB info version 3 and QE identity version 2 (Intel PCS API
v4), each for TDX or for SGX.

Unknown members, floats and a member named twice are refused, not dropped: what we do not understand may be
the very thing that takes a machine's trust away. Signatures cover the exact text, so callers keep it.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from quotary.canonical import Fields
from quotary.errors import Malformed

STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
TDX, SGX = "TDX", "SGX"
_QE = {TDX: "TD_QE", SGX: "QE"}
_MAX_LEVELS = 256


@dataclass(frozen=True, slots=True)
class Standing:
    """What Intel says of one level: a status word, its date and the advisories that apply.

    superseded_at: date of the first newer level, known once a machine has been matched
    """

    status: str
    level_at: datetime
    advisories: tuple[str, ...]
    superseded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlatformLevel:
    """A platform level: minimum SVNs of 16 SGX and 16 TDX components, each one byte, and of the PCE.

    For SGX the TDX components are zero.
    """

    sgx: bytes
    tdx: bytes
    pce_svn: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class EnclaveLevel:
    """A level of an enclave or of the TDX module: its minimum ISVSVN."""

    isv_svn: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Module:
    """Who may have signed the TDX module (48 bytes), its attributes under a mask (8 bytes), its levels."""

    signer: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[EnclaveLevel, ...]


@dataclass(frozen=True, slots=True)
class TCBInfo:
    """TCB info v3 of one FMSPC (6 bytes); levels are ordered from new to old, as Intel publishes them.

    module: None for SGX, which has no module
    """

    issued: datetime
    next_update: datetime
    fmspc: bytes
    pce_id: bytes
    evaluation_number: int
    module: Module | None
    modules: dict[str, Module]
    levels: tuple[PlatformLevel, ...]

    @classmethod
    def parse(cls, text: str, tee: str) -> "TCBInfo":
        """Read the exact signed text for ``TDX`` or ``SGX``; raises ``Malformed``, also for the other one."""
        fields = Fields(_load(text), "tcb info")
        fields.choice("id", tee)
        fields.integer("version", 3, 3)
        fields.integer("tcbType", 0, 0)
        modules = [
            _named_module(item)
            for item in (
                fields.items("tdxModuleIdentities", 256)
                if tee == TDX and fields.has("tdxModuleIdentities")
                else ()
            )
        ]
        found = cls(
            fields.time("issueDate"),
            fields.time("nextUpdate"),
            _hex(fields, "fmspc", 6),
            _hex(fields, "pceId", 2),
            fields.integer("tcbEvaluationDataNumber", 1),
            _module(fields.fields("tdxModule"), ()) if tee == TDX else None,
            dict(modules),
            tuple(_platform_level(item, tee) for item in fields.items("tcbLevels", _MAX_LEVELS, 1)),
        )
        fields.done()
        if len(found.modules) != len(modules):
            raise Malformed("tcb info names a TDX module twice")
        return found


@dataclass(frozen=True, slots=True)
class QEIdentityDocument:
    """QE identity v2 of a quoting enclave; values and masks are compared bit by bit."""

    issued: datetime
    next_update: datetime
    evaluation_number: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    signer: bytes
    isv_prod_id: int
    levels: tuple[EnclaveLevel, ...]

    @classmethod
    def parse(cls, text: str, tee: str) -> "QEIdentityDocument":
        """Read the exact signed text for ``TDX`` or ``SGX``; raises ``Malformed``, also for the other one."""
        fields = Fields(_load(text), "qe identity")
        fields.choice("id", _QE[tee])
        fields.integer("version", 2, 2)
        found = cls(
            fields.time("issueDate"),
            fields.time("nextUpdate"),
            fields.integer("tcbEvaluationDataNumber", 1),
            _hex(fields, "miscselect", 4),
            _hex(fields, "miscselectMask", 4),
            _hex(fields, "attributes", 16),
            _hex(fields, "attributesMask", 16),
            _hex(fields, "mrsigner", 32),
            fields.integer("isvprodid", 0, 65535),
            _enclave_levels(fields),
        )
        fields.done()
        return found


def _load(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed("not a JSON document of Intel's kind") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a JSON object names a member twice")
    return found


def _refuse(text: str) -> NoReturn:
    raise Malformed(f"a JSON document holds the number {text[:20]}")


def _hex(fields: Fields, name: str, length: int) -> bytes:
    # With at most so many characters, white space that ``fromhex`` skips leaves too few bytes.
    text = fields.text(name, 2 * length)
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise Malformed(f"{name} is not hex") from error
    if len(data) != length:
        raise Malformed(f"{name} has not {length} bytes")
    return data


def _standing(fields: Fields) -> Standing:
    advisories = []
    for item in fields.items("advisoryIDs", 256) if fields.has("advisoryIDs") else ():
        if not isinstance(item, str):
            raise Malformed("an advisory id is not a string")
        advisories.append(item)
    found = Standing(fields.choice("tcbStatus", *STATUSES), fields.time("tcbDate"), tuple(advisories))
    fields.done()
    return found


def _platform_level(value: object, tee: str) -> PlatformLevel:
    fields = Fields(value, "tcb level")
    tcb = fields.fields("tcb")
    found = PlatformLevel(
        _components(tcb, "sgxtcbcomponents"),
        _components(tcb, "tdxtcbcomponents") if tee == TDX else bytes(16),
        tcb.integer("pcesvn", 0, 65535),
        _standing(fields),
    )
    tcb.done()
    return found


def _components(tcb: Fields, name: str) -> bytes:
    numbers = []
    for item in tcb.items(name, 16, 16):
        fields = Fields(item, name)
        numbers.append(fields.integer("svn", 0, 255))
        for label in ("category", "type"):
            if fields.has(label):
                fields.value(label)
        fields.done()
    return bytes(numbers)


def _enclave_levels(fields: Fields) -> tuple[EnclaveLevel, ...]:
    found = []
    for item in fields.items("tcbLevels", _MAX_LEVELS, 1):
        level = Fields(item, "tcb level")
        tcb = level.fields("tcb")
        found.append(EnclaveLevel(tcb.integer("isvsvn", 0, 65535), _standing(level)))
        tcb.done()
    return tuple(found)


def _named_module(value: object) -> tuple[str, Module]:
    fields = Fields(value, "tdx module identity")
    name = fields.text("id", 64)
    return name, _module(fields, _enclave_levels(fields))


def _module(fields: Fields, levels: tuple[EnclaveLevel, ...]) -> Module:
    found = Module(
        _hex(fields, "mrsigner", 48), _hex(fields, "attributes", 8), _hex(fields, "attributesMask", 8), levels
    )
    fields.done()
    return found
