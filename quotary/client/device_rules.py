"""What a policy demands of a machine's GPUs and switches (member ``devices``, ``docs/formats/policy.md``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.devices import ANY, MODES
from quotary.attestation.facts import Check
from quotary.attestation.nvidia import PLATFORM, DeviceFacts
from quotary.attestation.rim import PLATFORM as RIM_PLATFORM
from quotary.attestation.roots import VENDOR_ROOTS, Root, simulator_root
from quotary.canonical import Fields
from quotary.client.demands import MAX_MACHINES
from quotary.errors import Malformed, Refused
from quotary.statements.floor import Floor, parse_floor
from quotary.statements.predicates import strings

REQUIRED = "required"
# What older firmware is called, which does not report how it was set up.
UNREPORTED = "unreported"


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """What must hold of devices besides the release's row.

    machines:   serials or PDIs of the admitted devices, in hex; None admits any
    floors:     architecture to the policy's own floor; None is the written ``log``: the logged one decides
    modes:      admitted ways to set up a GPU (``attestation.devices.mode``)
    revocation: ``required``: NVIDIA answered for every device and manifest; or ``any``
    platform:   whose logged floors count: ``nvidia``, or ``sim-nvidia`` in a simulation
    roots:      whom devices and manifests may be signed by
    """

    machines: tuple[str, ...] | None
    floors: Mapping[str, Floor] | None
    modes: tuple[str, ...]
    revocation: str
    platform: str
    roots: tuple[Root, ...]


def parse_device_rules(fields: Fields, *, simulation: bool) -> DeviceRules:
    """Read the member; a simulation names the simulator's two roots, and nobody else can."""
    modes = strings(fields, "modes", 8, low=1)
    unknown = sorted(set(modes) - {*MODES.values(), UNREPORTED})
    if unknown:
        raise Malformed(f"policy.devices.modes has {unknown[0]}, which is no mode of a GPU")
    roots: tuple[Root, ...] = VENDOR_ROOTS
    if simulation:
        roots = (
            simulator_root(PLATFORM, fields.hexbytes("simulator_root_sha256", 32)),
            simulator_root(RIM_PLATFORM, fields.hexbytes("simulator_rim_root_sha256", 32)),
        )
    platform = f"sim-{PLATFORM}" if simulation else PLATFORM
    found = DeviceRules(
        fields.optional("machines", lambda name: strings(fields, name, MAX_MACHINES, low=1, length=128)),
        _floors(fields, platform),
        modes,
        fields.choice("revocation", REQUIRED, ANY),
        platform,
        roots,
    )
    fields.done()
    return found


def meet_machines(devices: Sequence[DeviceFacts], rules: DeviceRules) -> tuple[Check, ...]:
    """Require that every device is one of the listed ones (check ``machine``)."""
    if rules.machines is None:
        return ()
    wanted = f"one of the {len(rules.machines)} devices of the policy"
    for device in devices:
        if not {device.serial, device.pdi.hex()} & set(rules.machines):
            raise Refused("machine", f"{device.architecture} {device.serial}", wanted)
    return (Check("machine", f"{len(devices)} devices", f"each {wanted}", "policy"),)


def _floors(fields: Fields, platform: str) -> Mapping[str, Floor] | None:
    if fields.value("floors") == "log":
        return None
    members = fields.mapping("floors", 16)
    return {name: parse_floor(Fields(value, "floor"), platform) for name, value in members.items()}
