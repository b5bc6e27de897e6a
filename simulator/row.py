"""A measured program as a release's row, and as lines for people."""

import hashlib
from collections.abc import Mapping

from quotary.attestation.measure.process import ProcessImage, manifest, measure
from quotary.attestation.measure.profiles import profile_sha256
from quotary.statements.measurement import REGISTERS, measurement_id
from simulator.nvidia import DRIVER, SWITCH_BIOS, VBIOS
from simulator.process import Snapshot

PLATFORM, PROFILE = "sim-tdx", "process/v1"


def describe(taken: Snapshot, gpus: int = 0, switches: int = 0) -> tuple[Mapping[str, object], str]:
    """Give rows and material as ``quotary measure run`` does, and lines for people.

    The row's ``require`` is short, because what it leaves out is demanded: RTMR0 zero, no debug.
    gpus, switches: the simulator's own, which the row demands
    """
    registers = measure(taken.image).registers
    covered = {name: registers[name] for name in REGISTERS["tdx"]}
    measurement = measurement_id(PLATFORM, covered)
    demanded = [
        {"architecture": "gh100", "count": gpus, "drivers": [DRIVER], "vbios": [VBIOS]},
        {"architecture": "ls10", "count": switches, "drivers": ["none"], "vbios": [SWITCH_BIOS]},
    ]
    devices = [each for each in demanded if each["count"]]
    row = {
        "platform": PLATFORM,
        "profile": PROFILE,
        "profile_sha256": profile_sha256(PROFILE).hex(),
        "registers": {name: value.hex() for name, value in covered.items()},
        "require": {"configuration": "none", **({"devices": devices} if devices else {})},
    }
    document = {
        "schema": "quotary/measure-process/v1",
        "measurement": measurement.hex(),
        "policy_sha256": taken.image.policy.hex(),
        "weights_sha256": taken.image.weights.hex(),
        "rows": [row],
        "material": _material(taken.image),
    }
    lines = [f"{name}  {value.hex()}" for name, value in covered.items()]
    lines += [f"measurement  {measurement.hex()}", f"argv  {' '.join(taken.image.argv)}"]
    return document, "\n".join(lines)


def _material(image: ProcessImage) -> Mapping[str, object]:
    """What others need to find the part that differs: a digest for each part, the command in full."""
    parts = {"code": image.code, "interpreter": image.interpreter, "dependencies": image.dependencies}
    return {
        **{
            name: {"files": len(files), "sha256": hashlib.sha256(manifest(files)).hexdigest()}
            for name, files in parts.items()
        },
        "argv": list(image.argv),
        "environment": [f"{name}={value}" for name, value in sorted(image.environment.items())],
    }
