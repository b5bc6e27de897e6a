"""TCB levels: what the simulated platform runs, and what its vendor says about it.

The two are independent, as on hardware: a machine keeps its level while the vendor publishes a newer one
under a higher evaluation data number, and is out of date from then on.
"""

from dataclasses import dataclass

from quotary.errors import Usage


@dataclass(frozen=True, slots=True)
class TCB:
    """The security versions of one platform.

    tee_tcb_svn: 16 bytes: [0] TDX module SVN, [1] module major version, [2] late microcode
    sgx_tcb_svn: 16 component SVNs of the processor's certificate
    pce_svn:     SVN of the provisioning enclave, a u16
    """

    tee_tcb_svn: bytes
    sgx_tcb_svn: bytes
    pce_svn: int

    def __post_init__(self) -> None:
        if len(self.tee_tcb_svn) != 16 or len(self.sgx_tcb_svn) != 16:
            found = f"{len(self.tee_tcb_svn)} and {len(self.sgx_tcb_svn)}"
            raise Usage(f"TCB SVNs have {found} bytes, wanted 16 each")
        if not 0 <= self.pce_svn <= 0xFFFF:
            raise Usage(f"PCE SVN is {self.pce_svn}, wanted 0 to 65535")


@dataclass(frozen=True, slots=True)
class Publication:
    """What the vendor publishes: below ``current`` a platform is ``OutOfDate`` with the advisories.

    evaluation_number: tcbEvaluationDataNumber of the TCB info and the QE identity
    revoked:           serial numbers of PCK certificates on the platform CA's revocation list
    """

    current: TCB
    evaluation_number: int
    advisories: tuple[str, ...] = ("SIM-SA-00001",)
    revoked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.evaluation_number <= 0xFFFF:
            raise Usage(f"evaluation number is {self.evaluation_number}, wanted 1 to 65535")


CURRENT = TCB(
    tee_tcb_svn=bytes.fromhex("06010300000000000000000000000000"),
    sgx_tcb_svn=bytes.fromhex("03030202040100050000000000000000"),
    pce_svn=13,
)
LATEST = Publication(current=CURRENT, evaluation_number=20)
