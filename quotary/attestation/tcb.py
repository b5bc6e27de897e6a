"""From version numbers to one word: Intel's TCB level matching and convergence (reference "Appraisal of TD
Quotes").

A platform matches the first level, from new to old, that it reaches in every component; the TDX module and
the quoting enclave are judged by their own levels; the worst word counts. No level at all is a refusal, not a
word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from quotary.attestation.intel_json import EnclaveLevel, Module, PlatformLevel, Standing, TCBInfo
from quotary.errors import Refused, Rejected

# From best to worst. The two relaunch words are ours to conclude; Intel's documents never state them.
SEVERITY = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_CONFIGURATION = (
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "TDRelaunchAdvisedConfigurationNeeded",
)


def judge_platform(info: TCBInfo, sgx: bytes, pce_svn: int, tdx: bytes) -> Standing:
    """Match a platform: 16 SGX component SVNs and PCE SVN of its PCK certificate, 16 TDX SVNs of its report,
    zero for SGX.

    With a module version (byte 1) above zero the module's own identity judges bytes 0 and 1.
    """
    first = 2 if tdx[1] else 0
    for index, level in enumerate(info.levels):
        if _reaches(level, sgx, pce_svn, tdx, first):
            return _after(level.standing, [newer.standing for newer in info.levels[:index]])
    found = f"sgx {sgx.hex()} pce {pce_svn} tdx {tdx.hex()}"
    lacking = ", ".join(_lacking(info.levels[-1], sgx, pce_svn, tdx, first))
    raise Refused("tcb level", found, f"a level of the TCB info; the oldest needs {lacking}")


def find_module(info: TCBInfo, tdx: bytes) -> Module:
    """Find the identity that judges the TDX module of this version, or raise ``Rejected``."""
    if not tdx[1]:
        assert info.module is not None, "only a document for TDX is asked for a module"
        return info.module
    name = f"TDX_{tdx[1]:02X}"
    if name not in info.modules:
        raise Rejected("tdx module identity", name, ", ".join(sorted(info.modules)) or "one in the TCB info")
    return info.modules[name]


def judge_enclave(what: str, levels: Sequence[EnclaveLevel], isv_svn: int) -> Standing:
    """Match an enclave's or the module's ISVSVN, or raise ``Refused`` (check ``what``)."""
    for index, level in enumerate(levels):
        if isv_svn >= level.isv_svn:
            return _after(level.standing, [newer.standing for newer in levels[:index]])
    raise Refused(what, f"isvsvn {isv_svn}", f"a level of its identity, isvsvn {levels[-1].isv_svn} or more")


def converge(platform: Standing, *others: Standing) -> str:
    """Give the worst word; something out of date turns a wish for configuration into both."""
    words = [platform.status, *(other.status for other in others)]
    worst = max(words, key=SEVERITY.index)
    if worst == "OutOfDate" and any(word in _CONFIGURATION for word in words):
        return "OutOfDateConfigurationNeeded"
    return worst


def relaunched(started: str, running: str) -> str:
    """Judge a TD whose module was updated under it: out of date as started, good as it runs now (TDX 1.5)."""
    if started not in ("OutOfDate", "OutOfDateConfigurationNeeded") or running not in SEVERITY[:4]:
        return started
    return "TDRelaunchAdvisedConfigurationNeeded" if running in _CONFIGURATION else "TDRelaunchAdvised"


def _after(matched: Standing, newer: Sequence[Standing]) -> Standing:
    missed = [standing.level_at for standing in newer if standing.level_at > matched.level_at]
    return replace(matched, superseded_at=min(missed, default=None))


def _reaches(level: PlatformLevel, sgx: bytes, pce_svn: int, tdx: bytes, first: int) -> bool:
    return (
        pce_svn >= level.pce_svn
        and all(mine >= least for mine, least in zip(sgx, level.sgx, strict=True))
        and all(mine >= least for mine, least in zip(tdx[first:], level.tdx[first:], strict=True))
    )


def _lacking(level: PlatformLevel, sgx: bytes, pce_svn: int, tdx: bytes, first: int) -> Iterator[str]:
    for name, found, least, start in (("sgx", sgx, level.sgx, 0), ("tdx", tdx, level.tdx, first)):
        for index in range(start, 16):
            if found[index] < least[index]:
                yield f"{name} component {index} of {least[index]}, not {found[index]}"
    if pce_svn < level.pce_svn:
        yield f"pce {level.pce_svn}, not {pce_svn}"
