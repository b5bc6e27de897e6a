"""A release's rows, computed again from the release's own material: what anybody can check with the log entry
alone.

It shows that registers and material say the same, not that the files behind the material's digests are those
of the source: that is a rebuild's.
"""

from collections.abc import Mapping

from quotary.attestation.measure.material import recompute
from quotary.attestation.measure.profiles import profile_sha256
from quotary.attestation.measure.shape import parse_shape
from quotary.attestation.measure.trace import Measured
from quotary.errors import Malformed, Rejected, Unsupported
from quotary.statements.measurement import base_platform
from quotary.statements.row import Row


def verify_row(row: Row, material: Mapping[str, object]) -> tuple[Measured, ...]:
    """Compute a row for each of its machines and return the steps, or raise.

    1. Its profile is the one of this name that we know, and so is the form of its shape (``Unsupported``).
    2. Each machine of its shape shows the row's registers (``Rejected``, naming the register).
    3. Exact values of RTMR0 are those of its machines, no more and no fewer (``Rejected``).
    """
    if profile_sha256(row.profile) != row.profile_sha256:
        raise Unsupported(f"the release's {row.profile} is not the one that this version knows")
    base = base_platform(row.platform)
    try:
        machines = parse_shape(base, row.shape)
    except Malformed as error:
        raise Unsupported(f"the row's shape is not one that this version knows: {error}") from error
    found = tuple(recompute(base, row.profile, machine, material) for machine in machines)
    for measured in found:
        for name, wanted in row.registers.items():
            if measured.registers[name] != wanted:
                raise Rejected(f"recomputed {name}", measured.registers[name].hex(), wanted.hex())
    if row.require.rtmr0 is not None and row.require.rtmr0.exact:
        _verify_rtmr0(row.require.rtmr0.exact, [one.registers.get("rtmr0") for one in found])
    return found


def _verify_rtmr0(exact: tuple[bytes, ...], found: list[bytes | None]) -> None:
    if None in found:
        raise Unsupported("neither row nor material of the release say what RTMR0's events are")
    values = {value for value in found if value is not None}
    if values != set(exact):
        said = ", ".join(sorted(value.hex() for value in values))
        raise Rejected("recomputed rtmr0", said, ", ".join(value.hex() for value in exact))
