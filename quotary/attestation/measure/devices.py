"""What an NVIDIA device must show under two manifests: the reference values of driver and VBIOS as one table.

The manifests are believed already (``rim.verify``). A version string never stands for values, since NVIDIA
issues manifests anew: a release's material keeps the digest of each file beside its version.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from quotary.attestation.measure.trace import Step
from quotary.attestation.rim import RIM
from quotary.errors import Malformed


@dataclass(frozen=True, slots=True)
class Expectation:
    """The admitted values of 48 bytes of each active index, and one step for each, named by its manifest."""

    golden: Mapping[int, tuple[bytes, ...]]
    steps: tuple[Step, ...]
    material: Mapping[str, object]


def expect(driver: RIM | None, vbios: RIM) -> Expectation:
    """Put two manifests together (a switch has no driver); an index that both name is ``Malformed``."""
    golden: dict[int, tuple[bytes, ...]] = {}
    steps: list[Step] = []
    given = {"driver": driver, "vbios": vbios}
    for name, rim in given.items():
        for index, values in sorted(rim.golden.items()) if rim is not None else ():
            if index in golden:
                raise Malformed(f"reference value {index} is active in both manifests")
            golden[index] = values
            digest = hashlib.sha384(b"".join(values)).digest()
            steps.append(Step("device", f"{name} reference value {index}", digest, digest))
    material: dict[str, object] = {
        name: {"version": rim.version.lower(), "rim_sha256": rim.sha256.hex()}
        for name, rim in given.items()
        if rim is not None
    }
    return Expectation(golden, tuple(steps), material)
