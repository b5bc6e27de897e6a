"""The machine that a row is for: what of it changes registers, and how a row's ``shape`` says so
(``docs/formats/measure.md``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quotary.attestation.measure.tdx import ACPI_BLOBS
from quotary.canonical import Fields
from quotary.errors import Unsupported

MIB = 1 << 20
SNP_ACTIVE = 1
MAX_VCPUS = 512
MAX_MACHINES = 64

_LOW_STEPPING, _FAMILY_LIMIT = 0xF, 0xF


def cpuid_signature(family: int, model: int, stepping: int) -> int:
    """Pack family, model and stepping as CPUID function 1 shows them in EAX (AMD APM volume 3, E.3.2)."""
    extended = max(family - _FAMILY_LIMIT, 0)
    packed = extended << 20 | (model >> 4) << 16 | min(family, _FAMILY_LIMIT) << 8
    return packed | (model & 0xF) << 4 | stepping & _LOW_STEPPING


CPUS: Mapping[str, int] = {
    "EPYC": cpuid_signature(23, 1, 2),
    "EPYC-Rome": cpuid_signature(23, 49, 0),
    "EPYC-Milan": cpuid_signature(25, 1, 1),
    "EPYC-Genoa": cpuid_signature(25, 17, 0),
    "EPYC-Turin": cpuid_signature(26, 0, 0),
}
"""Signatures of QEMU's processor models; a model's versions (``-v2``) share one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The machine.

    memory:    bytes of the guest's memory; it changes TDX's RTMR0, and RTMR1 below 2.75 GiB
    vcpus:     number of virtual processors; it changes SNP's launch digest
    signature: their CPUID signature (function 1, EAX), for SNP
    features:  SEV_FEATURES of the VMSA, for SNP; bit 0 is SNP itself
    acpi:      SHA-384 of the VMM's three ACPI blobs by ``ACPI_BLOBS`` name, for hardware TDX; else empty
    """

    memory: int = 512 * MIB
    vcpus: int = 1
    signature: int = CPUS["EPYC-Milan"]
    features: int = SNP_ACTIVE
    acpi: Mapping[str, bytes] = field(default_factory=dict)

    def document(self, base: str) -> dict[str, object]:
        """Return what a row's ``shape`` says; nothing of the machine changes a Nitro enclave's registers."""
        if base == "nitro":
            return {}
        if base == "snp":
            return {
                "vcpus": self.vcpus,
                "cpuid_signature": f"{self.signature:08x}",
                "sev_features": f"{self.features:016x}",
            }
        acpi = {name: self.acpi[name].hex() for name in ACPI_BLOBS if name in self.acpi}
        return {"memory_bytes": self.memory} | ({"acpi": acpi} if acpi else {})


def shape_document(base: str, machines: Sequence[Shape]) -> dict[str, object]:
    """Return a row's ``shape``: one machine, or ``machines`` where several show the same measurement id."""
    documents: list[dict[str, object]] = []
    for machine in machines:
        document = machine.document(base)
        documents += [document] if document not in documents else []
    return documents[0] if len(documents) == 1 else {"machines": documents}


def parse_shape(base: str, value: object) -> tuple[Shape, ...]:
    """Read a row's ``shape`` (None for none); members that this version does not know are refused."""
    if base not in (*_SHAPES, "nitro"):
        raise Unsupported(f"machines for {base} are not described")
    fields = Fields({} if value is None else value, "shape")
    if not fields.has("machines"):
        return (_machine(base, fields),)
    found = [_machine(base, Fields(one, "shape")) for one in fields.items("machines", MAX_MACHINES, 2)]
    fields.done()
    return tuple(found)


def _machine(base: str, fields: Fields) -> Shape:
    found = Shape() if base == "nitro" else _SHAPES[base](fields)
    fields.done()
    return found


def _snp(fields: Fields) -> Shape:
    # Rows did not name the features at first; there was one value.
    features = (
        fields.hexbytes("sev_features", 8) if fields.has("sev_features") else bytes([0] * 7 + [SNP_ACTIVE])
    )
    return Shape(
        vcpus=fields.integer("vcpus", 1, MAX_VCPUS),
        signature=int.from_bytes(fields.hexbytes("cpuid_signature", 4), "big"),
        features=int.from_bytes(features, "big"),
    )


def _tdx(fields: Fields) -> Shape:
    memory = fields.integer("memory_bytes", 1)
    if not fields.has("acpi"):
        return Shape(memory=memory)
    given = fields.fields("acpi")
    acpi = {name: given.hexbytes(name, 48) for name in ACPI_BLOBS}
    given.done()
    return Shape(memory=memory, acpi=acpi)


_SHAPES = {"snp": _snp, "tdx": _tdx}
