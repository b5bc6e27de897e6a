"""What differs between platforms in a judgement, at one place: evidence, registers, row rules and floor.

A platform's name here is the one that a policy lists, such as ``snp`` or ``sim-snp``: both have the formats
of ``snp``, and the root that verifies decides between them. Which format some bytes have is found by reading
them as each listed platform would; no two formats share a first word, and no label beside evidence counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from quotary.attestation import amd, appraise, nitro, sgx, sgx_appraisal, snp, snp_appraisal, tdx
from quotary.attestation.collateral import Collateral
from quotary.attestation.facts import Check, Facts
from quotary.attestation.measure.rtmr0 import Replay
from quotary.attestation.roots import Root
from quotary.client.demands import Demands
from quotary.errors import Malformed, Unsupported
from quotary.statements.floor import Floor
from quotary.statements.keyset import MAX_LIFETIME
from quotary.statements.measurement import base_platform
from quotary.statements.row import Require

NO_VERSION = "AWS attests no firmware version: there is nothing to hold a floor against"

# A Nitro enclave renews its document with its keyset. A nonce, where there is one, proves more than this.
_NITRO_MAX_AGE = MAX_LIFETIME


class Evidence(Protocol):
    """Well-formed evidence that nobody believes yet."""

    @property
    def registers(self) -> Mapping[str, bytes]:
        """The registers of the measurement id; a hint until ``verify`` has given them, too."""
        ...

    def verify(self, collateral: Mapping[str, str], now: datetime, roots: Sequence[Root]) -> Facts:
        """Believe it, or raise what the vendor's ``verify`` raises."""
        ...


@dataclass(frozen=True, slots=True)
class Platform:
    """How one platform is judged.

    parse:        bytes to evidence, or ``Malformed`` and ``Unsupported``
    requirements: hold facts against a row's rules, a policy's demands and what is never negotiable
    floor:        hold facts against a TCB floor; None where the vendor attests no firmware version
    """

    parse: Callable[[bytes], Evidence]
    requirements: Callable[[Facts, Require, Demands, Replay | None], tuple[Check, ...]]
    floor: Callable[[Facts, Floor], tuple[Check, ...]] | None


def platform_of(name: str) -> Platform:
    """Give what is known of a platform; ``Unsupported`` for one whose evidence is not judged."""
    found = _PLATFORMS.get(base_platform(name))
    if found is None:
        raise Unsupported(f"evidence of the platform {name} is not judged by this version")
    return found


def read_evidence(data: bytes, names: Iterable[str]) -> tuple[str, Evidence]:
    """Read evidence as the one of these platforms whose format it has, and name that platform.

    Raises ``Malformed`` or ``Unsupported``: of one platform the reason, of several that it is none's.
    """
    failures: dict[str, Malformed | Unsupported] = {}
    for name in names:
        try:
            return name, platform_of(name).parse(data)
        except (Malformed, Unsupported) as error:
            failures[name] = error
    if len(failures) == 1:
        raise next(iter(failures.values()))
    raise Malformed("; ".join(f"no evidence of {name}: {error}" for name, error in failures.items()))


def claimed_registers(data: bytes, names: Iterable[str]) -> tuple[str, Mapping[str, bytes]]:
    """Read out of unverified evidence what its measurement id is over; a hint, on which nothing rests."""
    name, evidence = read_evidence(data, names)
    return name, evidence.registers


@dataclass(frozen=True, slots=True)
class _TDX:
    quote: tdx.TDXQuote

    @property
    def registers(self) -> Mapping[str, bytes]:
        body = self.quote.body
        return {"mrtd": body["mr_td"], "rtmr1": body["rtmr1"], "rtmr2": body["rtmr2"]}

    def verify(self, collateral: Mapping[str, str], now: datetime, roots: Sequence[Root]) -> Facts:
        return tdx.verify(self.quote, Collateral.parse(collateral), now, roots)


@dataclass(frozen=True, slots=True)
class _SGX:
    quote: sgx.SGXQuote

    @property
    def registers(self) -> Mapping[str, bytes]:
        return {"mrenclave": self.quote.body["mr_enclave"]}

    def verify(self, collateral: Mapping[str, str], now: datetime, roots: Sequence[Root]) -> Facts:
        return sgx.verify(self.quote, Collateral.parse(collateral), now, roots)


@dataclass(frozen=True, slots=True)
class _SNP:
    report: snp.SNPReport

    @property
    def registers(self) -> Mapping[str, bytes]:
        return {"measurement": self.report.fields["measurement"]}

    def verify(self, collateral: Mapping[str, str], now: datetime, roots: Sequence[Root]) -> Facts:
        return snp.verify(self.report, amd.Collateral.parse(collateral), now, roots)


@dataclass(frozen=True, slots=True)
class _Nitro:
    document: nitro.NitroDocument

    @property
    def registers(self) -> Mapping[str, bytes]:
        return {f"pcr{number}": self.document.pcrs[number] for number in nitro.IMAGE_PCRS}

    def verify(self, collateral: Mapping[str, str], now: datetime, roots: Sequence[Root]) -> Facts:
        if collateral:
            raise Malformed("a Nitro document carries its certificates; it takes no collateral")
        return nitro.verify(self.document, now, _NITRO_MAX_AGE, roots)


def _tdx_requirements(
    facts: Facts, require: Require, demands: Demands, replay: Replay | None
) -> tuple[Check, ...]:
    return appraise.meet_requirements(facts, require, replay)


def _sgx_requirements(
    facts: Facts, require: Require, demands: Demands, replay: Replay | None
) -> tuple[Check, ...]:
    return sgx_appraisal.meet_requirements(facts, require)


def _snp_requirements(
    facts: Facts, require: Require, demands: Demands, replay: Replay | None
) -> tuple[Check, ...]:
    demanded = snp_appraisal.meet_demands(facts, demands.snp)
    return (*snp_appraisal.meet_requirements(facts, require), *demanded)


def _nitro_requirements(
    facts: Facts, require: Require, demands: Demands, replay: Replay | None
) -> tuple[Check, ...]:
    # A row for Nitro can demand nothing else: there is no configuration field, and its PCRs are the id.
    return nitro.meet_demands(facts, demands.nitro)


_PLATFORMS: Mapping[str, Platform] = MappingProxyType(
    {
        "tdx": Platform(lambda data: _TDX(tdx.TDXQuote.parse(data)), _tdx_requirements, appraise.meet_floor),
        "sgx": Platform(lambda data: _SGX(sgx.SGXQuote.parse(data)), _sgx_requirements, appraise.meet_floor),
        "snp": Platform(
            lambda data: _SNP(snp.SNPReport.parse(data)), _snp_requirements, snp_appraisal.meet_floor
        ),
        "nitro": Platform(lambda data: _Nitro(nitro.NitroDocument.parse(data)), _nitro_requirements, None),
    }
)
