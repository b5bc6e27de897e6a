"""Hold an SGX enclave against a row: what MRENCLAVE leaves open is never negotiable (Intel SDM, volume 3D).

MRENCLAVE covers code, data and layout. Whoever starts the enclave chooses attributes, extended features,
MISCSELECT and CONFIGID besides, as far as its signer let him. The floor is ``appraise.meet_floor``.
"""

from typing import Protocol

from quotary.attestation.appraise import PLAIN_XFAM, Floor
from quotary.attestation.appraise import meet_floor as appraise_floor
from quotary.attestation.facts import Appraised, Check, Facts
from quotary.attestation.layout import little
from quotary.errors import Refused, Rejected, Unsupported

# ATTRIBUTES, bytes 0 to 7, little endian.
INIT, DEBUG, MODE64BIT, PROVISION_KEY, LAUNCH_KEY = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 5
# Key separation (CONFIGID and more), control-flow enforcement, AEX-Notify: they take nothing away.
PLAIN_ATTRIBUTES = INIT | MODE64BIT | 1 << 6 | 1 << 7 | 1 << 10
# As for a TD, and the bounds registers that old processors have.
PLAIN_XFRM = PLAIN_XFAM | 0x18

_REPORT, _ROW = "quote", "row of the release"


class Requirements(Protocol):
    """What a release's row demands besides the registers of the measurement id."""

    @property
    def configuration(self) -> tuple[bytes, ...]: ...


def appraise(facts: Facts, floor: Floor, requirements: Requirements) -> Appraised:
    """Admit an enclave under a floor and a row's requirements, or raise naming the check that failed."""
    return Appraised(facts, (*meet_requirements(facts, requirements), *appraise_floor(facts, floor)))


def meet_requirements(facts: Facts, requirements: Requirements) -> tuple[Check, ...]:
    """Hold what MRENCLAVE does not cover against a row.

    1. Initialised, 64 bit, not debuggable; no key for provisioning or launching, which only Intel's enclaves
       need; no attribute and no extended feature that is unknown here.
    2. MISCSELECT is zero.
    3. ``config_id`` is one of the row's digests, or zero; ``config_svn`` is zero.
    """
    if facts.platform.removeprefix("sim-") != "sgx":
        raise Unsupported(f"no SGX appraisal for the platform {facts.platform}")
    found = facts.attributes
    flags, xfrm = little(found["attributes"][:8]), little(found["attributes"][8:])
    if flags & DEBUG:
        raise Refused("debug", f"attributes {flags:#x} allow it", "bit 1 clear")
    if flags & (PROVISION_KEY | LAUNCH_KEY):
        raise Refused("sgx keys", f"attributes {flags:#x}", "no provisioning and no launch key")
    if flags & ~PLAIN_ATTRIBUTES or flags & (INIT | MODE64BIT) != INIT | MODE64BIT:
        raise Refused(
            "sgx attributes", f"{flags:#x}", f"{INIT | MODE64BIT:#x}, beside it only {PLAIN_ATTRIBUTES:#x}"
        )
    if xfrm & ~PLAIN_XFRM:
        raise Refused("xfrm", f"{xfrm:#x}", f"no bit beside {PLAIN_XFRM:#x}")
    if any(found["misc_select"]):
        raise Refused("misc select", found["misc_select"].hex(), "zero")
    return (
        Check("debug", f"attributes {flags:#x}", "off, no special key, 64 bit", _REPORT),
        Check("xfrm", f"{xfrm:#x}", f"no bit beside {PLAIN_XFRM:#x}", _REPORT),
        _configuration(facts, requirements.configuration),
    )


def _configuration(facts: Facts, digests: tuple[bytes, ...]) -> Check:
    found, svn = facts.configuration["config_id"], facts.configuration["config_svn"]
    if any(svn):
        raise Rejected("config svn", svn.hex(), "zero")
    if found not in (digests or (bytes(64),)):
        raise Rejected(
            "configuration", found.hex(), ", ".join(each.hex() for each in digests) or "zero (none)"
        )
    return Check(
        "configuration", found.hex() if any(found) else "zero", "listed, or zero where none is", _ROW
    )
