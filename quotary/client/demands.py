"""What a policy demands of one platform's evidence besides its registers: its ``require``.

What a policy does not say is demanded as strictly as a current machine can meet; each word loosens one demand
by name or adds one. Debug and migration have no words. Only ``machines`` narrows a platform to the verifier's
own machines: a key that was taken out of one chip speaks for every machine that no list leaves out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from quotary.attestation import amd, nitro, snp_appraisal
from quotary.attestation.facts import Check, Facts
from quotary.attestation.snp_appraisal import ANY, REQUIRED
from quotary.canonical import Fields, hexbytes
from quotary.errors import Malformed, Refused
from quotary.statements.measurement import base_platform
from quotary.statements.predicates import ascending, strings

MAX_MACHINES = 4096
MAX_DOCUMENTS = 256

_SIGNED_DOCUMENTS = ("tcb_info", "qe_identity")
_MAX_VMPL = 3
_KEY_DIGEST_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Demands:
    """What evidence of one platform must show.

    machines: identities of the admitted machines, in hex as facts have them; None admits any
    documents: SHA-256 of each of the vendor's signed documents that may judge; None admits any
    snp:      looked at where the platform is SEV-SNP
    nitro:    looked at where the platform is Nitro
    """

    machines: tuple[str, ...] | None
    documents: tuple[bytes, ...] | None
    snp: snp_appraisal.Demands
    nitro: nitro.Demands


STRICT = Demands(None, None, snp_appraisal.STRICT, nitro.Demands(MappingProxyType({}), ""))


def parse_demands(fields: Fields, platform: str) -> Demands:
    """Read the object ``require`` of a platform's rules."""
    fields.choice("debug", "refused")
    found = STRICT
    if fields.has("machines"):
        found = replace(found, machines=strings(fields, "machines", MAX_MACHINES, low=1, length=128))
    base = base_platform(platform)
    if base in ("tdx", "sgx") and fields.has("documents"):
        pinned = strings(fields, "documents", MAX_DOCUMENTS, low=1, length=64)
        found = replace(found, documents=tuple(hexbytes(text, 32) for text in pinned))
    elif base == "snp":
        found = replace(found, snp=_snp(fields))
    elif base == "nitro":
        found = replace(found, nitro=_nitro(fields))
    fields.done()
    return found


def meet_machines(facts: Facts, demands: Demands) -> tuple[Check, ...]:
    """Require one of the listed machines (check ``machine``); evidence that names none is of none of them."""
    if demands.machines is None:
        return ()
    found, wanted = ", ".join(facts.chips), f"one of the {len(demands.machines)} machines of the policy"
    if not set(facts.chips) & set(demands.machines):
        raise Refused("machine", found or "no machine's name", wanted)
    return (Check("machine", found, wanted, "policy"),)


def meet_documents(collateral: Mapping[str, str], demands: Demands) -> tuple[Check, ...]:
    """Require that the vendor's documents are pinned ones (check ``pinned documents``), where any are."""
    if demands.documents is None:
        return ()
    wanted = f"among the {len(demands.documents)} documents of the policy"
    for name in _SIGNED_DOCUMENTS:
        digest = hashlib.sha256(collateral[name].encode()).digest()
        if digest not in demands.documents:
            raise Refused("pinned documents", f"{name} {digest.hex()}", wanted)
    return (Check("pinned documents", " and ".join(_SIGNED_DOCUMENTS), wanted, "policy"),)


def loosened(demands: Demands) -> tuple[str, ...]:
    """Name what is demanded less strictly than it could be."""
    snp, strict = demands.snp, snp_appraisal.STRICT
    found = []
    if set(snp.vmpl) - set(strict.vmpl):
        found.append(f"reports from the privilege levels {', '.join(map(str, snp.vmpl))} are admitted")
    if amd.VLEK in snp.signing_keys:
        clouds = ", ".join(snp.csp_ids) or "no cloud"
        found.append(f"a cloud's key may sign, which names no machine ({clouds})")
    if snp.alias_check == ANY:
        found.append("memory need not have been checked for aliases (BadRAM)")
    if snp.revocation == ANY:
        found.append("AMD's revocation list need not have been looked at")
    return tuple(found)


def _snp(fields: Fields) -> snp_appraisal.Demands:
    strict = snp_appraisal.STRICT
    kinds = strict.signing_keys
    if fields.has("signing_keys"):
        kinds = strings(fields, "signing_keys", 2, low=1, length=4)
        if not set(kinds) <= {amd.VCEK, amd.VLEK}:
            raise Malformed("require.signing_keys holds something other than vcek and vlek")
    csp_ids = strings(fields, "csp_ids", 64) if fields.has("csp_ids") else ()
    if bool(csp_ids) != (amd.VLEK in kinds):
        raise Malformed("require.csp_ids names the clouds whose vlek is admitted, and nothing else does")
    return snp_appraisal.Demands(
        vmpl=_levels(fields) if fields.has("vmpl") else strict.vmpl,
        signing_keys=kinds,
        csp_ids=csp_ids,
        id_keys=_digests(fields, "id_keys"),
        author_keys=_digests(fields, "author_keys"),
        mitigations=fields.integer("mitigations") if fields.has("mitigations") else strict.mitigations,
        alias_check=_choice(fields, "alias_check"),
        revocation=_choice(fields, "revocation"),
    )


def _levels(fields: Fields) -> tuple[int, ...]:
    found = []
    for item in fields.items("vmpl", _MAX_VMPL + 1, 1):
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= _MAX_VMPL:
            raise Malformed(f"require.vmpl holds something other than levels from 0 to {_MAX_VMPL}")
        found.append(item)
    return ascending(tuple(found), "require.vmpl")


def _digests(fields: Fields, name: str) -> tuple[bytes, ...]:
    if not fields.has(name):
        return ()
    return tuple(hexbytes(text, _KEY_DIGEST_LENGTH) for text in strings(fields, name, 64, length=96))


def _choice(fields: Fields, name: str) -> str:
    return fields.choice(name, REQUIRED, ANY) if fields.has(name) else REQUIRED


def _nitro(fields: Fields) -> nitro.Demands:
    pcrs: Mapping[str, object] = fields.mapping("pcrs", 32) if fields.has("pcrs") else {}
    numbers = {str(number) for number in range(32)}
    if not set(pcrs) <= numbers:
        raise Malformed("require.pcrs has a member that is no PCR's number, 0 to 31")
    inner = Fields(pcrs, "require.pcrs")
    found = {
        int(number): tuple(
            hexbytes(text, nitro.PCR_LENGTH) for text in strings(inner, number, 64, low=1, length=96)
        )
        for number in pcrs
    }
    module = fields.text("module_id", 128) if fields.has("module_id") else ""
    return nitro.Demands(MappingProxyType(found), module)
