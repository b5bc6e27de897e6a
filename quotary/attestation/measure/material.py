"""A release's material: digests of what its rows were computed from, so that each row can be computed again,
and other machines' rows too, by somebody who has the log entry and none of the files
(``docs/formats/measure.md``).

What a digest stands for is not shown by it: that a firmware or kernel with this digest is the release's own
file is for a rebuild to say.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quotary.attestation.measure import nitro
from quotary.attestation.measure.hob import LOW_MEMORY_LARGE, low_memory
from quotary.attestation.measure.kernel import measured_kernel
from quotary.attestation.measure.pe import authenticode
from quotary.attestation.measure.profiles import (
    SNPProfile,
    TDXProfile,
    nitro_profile,
    snp_profile,
    tdx_profile,
)
from quotary.attestation.measure.rtmr0 import address, material_digests, material_of
from quotary.attestation.measure.sev import (
    FOUR_GIB,
    MAX_SECTIONS,
    KernelHashes,
    SEVFirmware,
    SEVSection,
    require_sections,
    sev_firmware,
)
from quotary.attestation.measure.shape import Shape
from quotary.attestation.measure.snp import LaunchDigest, SNPLaunch, measure_from
from quotary.attestation.measure.tdvf import ORDERS, configuration_volume, mrtd, sections
from quotary.attestation.measure.tdx import TDXLaunch, assemble, fixed_digest, load_options, sha384
from quotary.attestation.measure.trace import Measured, Step
from quotary.attestation.measure.uki import COMMAND_LINE, LINUX, MEASURED, command_line, parts
from quotary.attestation.measure.uki import INITRD as INITRD_SECTION
from quotary.canonical import Fields
from quotary.errors import Malformed, Unsupported

FIRMWARE, KERNEL, INITRD, UNIFIED = "firmware", "vmlinuz", "initrd.img", "enclave.efi"


@dataclass(frozen=True, slots=True)
class Files:
    """What a machine is started with; None for no initrd, and for no unified kernel image of these parts."""

    firmware: bytes
    kernel: bytes
    initrd: bytes | None
    command_line: str
    uki: bytes | None = None


def describe(
    files: Files, shapes: Sequence[Shape] = (), enclave: nitro.Streams | None = None
) -> dict[str, object]:
    """Write the material of launched files: a part for each platform that can start them.

    shapes:  machines with less memory than 2.75 GiB, for which QEMU patches the kernel in its own way
    enclave: the hashed Nitro form of the files, if rows for Nitro are wanted
    """
    launch = {FIRMWARE: files.firmware, KERNEL: files.kernel}
    launch |= {} if files.initrd is None else {INITRD: files.initrd}
    launch |= {} if files.uki is None else {UNIFIED: files.uki}
    found: dict[str, object] = {
        "launch": {name: hashlib.sha256(data).hexdigest() for name, data in launch.items()},
        "command_line": files.command_line,
    }
    for name, part in (
        ("tdx", _tdx),
        ("tdx-launch", _tdx_launch),
        ("tdx-uki", _tdx_uki),
        ("snp-launch", _snp_launch),
    ):
        # Firmware is of one kind or of several; of a kind that it is not of there is nothing to say.
        try:
            found[name] = part(files, shapes)
        except (Malformed, Unsupported):
            continue
    if enclave is not None:
        found["nitro-launch"] = {name: one.hex() for name, one in enclave.digests.items()}
    return found


def recompute(platform: str, profile: str, machine: Shape, material: Mapping[str, object]) -> Measured:
    """Compute the registers of a machine again from a release's material alone.

    platform: without ``sim-``. RTMR0 is left out where neither machine nor material say what its events are.
    Raises ``Unsupported`` where the material does not reach, ``Malformed`` where it is not well formed.
    """
    if platform == "tdx":
        return _recompute_tdx(tdx_profile(profile), machine, material)
    if platform == "snp":
        return _recompute_snp(snp_profile(profile), machine, material)
    nitro_profile(profile)
    return _recompute_nitro(material)


def _tdx(files: Files, shapes: Sequence[Shape]) -> dict[str, object]:
    return material_of(sections(files.firmware), configuration_volume(files.firmware))


def _tdx_launch(files: Files, shapes: Sequence[Shape]) -> dict[str, object]:
    ends = {LOW_MEMORY_LARGE, *(low_memory(shape.memory) for shape in shapes)}
    length = None if files.initrd is None else len(files.initrd)
    patched = {
        f"{end:016x}": authenticode(measured_kernel(files.kernel, length, end, "qemu-patched")).hex()
        for end in sorted(ends)
    }
    ramdisk = {} if files.initrd is None else {"initrd": sha384(files.initrd).hex(), "initrd_size": length}
    return {
        "mrtd": {order: mrtd(files.firmware, order)[0].hex() for order in ORDERS},
        "kernel": authenticode(files.kernel).hex(),
        "kernel-patched": patched,
        **ramdisk,
    }


def _tdx_uki(files: Files, shapes: Sequence[Shape]) -> dict[str, object]:
    if files.uki is None:
        raise Malformed("no unified kernel image")
    found = parts(files.uki)
    if (found[LINUX], found.get(INITRD_SECTION)) != (files.kernel, files.initrd):
        raise Malformed("the unified kernel image has other parts than the image")
    if command_line(found) != files.command_line:
        raise Malformed("the unified kernel image has another command line than the image")
    digests = {
        f"data{section}": sha384(data).hex() for section, data in found.items() if section != COMMAND_LINE
    }
    return {"uki": authenticode(files.uki).hex(), **digests}


def _snp_launch(files: Files, shapes: Sequence[Shape]) -> dict[str, object]:
    firmware = sev_firmware(files.firmware)
    digest = LaunchDigest()
    digest.image(FOUR_GIB - len(files.firmware), files.firmware, "firmware page")
    return {
        "firmware": digest.value.hex(),
        "reset_eip": f"{firmware.reset_eip:016x}",
        "hash_table": f"{firmware.hash_table_gpa:016x}",
        "sections": [[f"{one.gpa:016x}", f"{one.size:016x}", one.kind] for one in firmware.sections],
    }


def _recompute_tdx(profile: TDXProfile, machine: Shape, material: Mapping[str, object]) -> Measured:
    launch = _part(material, "tdx-launch")
    orders = launch.fields("mrtd")
    value = orders.hexbytes(profile.page_order, 48)
    patched = launch.mapping("kernel-patched", 256)
    low = f"{low_memory(machine.memory):016x}"
    unified = _part(material, "tdx-uki") if "uki" in profile.rtmr1 else None
    if profile.kernel_rule == "raw":
        kernel = launch.hexbytes("kernel", 48)
    elif low in patched:
        kernel = Fields(patched, "kernel-patched").hexbytes(low, 48)
    else:
        raise Unsupported(f"the material has no kernel as QEMU patches it for memory up to {low}")
    size = launch.optional("initrd_size", launch.integer)
    initrd = None if size is None else b""
    line = load_options(TDXLaunch(b"", b"", initrd, _line(material), machine.memory, {}), profile)
    known = {
        **material_digests(material, machine.memory),
        **machine.acpi,
        "kernel": kernel,
        **({} if size is None else {"initrd": launch.hexbytes("initrd", 48)}),
        "load-options": sha384(line),
        **({} if unified is None else _unified_digests(unified, _line(material), size)),
    }
    firmware = Step("mrtd", "firmware", value, value)

    def digest(name: str) -> bytes | None:
        return fixed_digest(name, profile) or known.get(name)

    return assemble((value, (firmware,)), digest, profile, size)


def _unified_digests(unified: Fields, line: str, initrd: int | None) -> dict[str, bytes]:
    names = [f"data{section}" for section in MEASURED if section != COMMAND_LINE]
    names = [name for name in names if initrd is not None or name != f"data{INITRD_SECTION}"]
    found = {name: unified.hexbytes(name, 48) for name in ("uki", *names)}
    return {**found, f"data{COMMAND_LINE}": sha384(line.encode())}


def _recompute_snp(profile: SNPProfile, machine: Shape, material: Mapping[str, object]) -> Measured:
    launch, files = _part(material, "snp-launch"), _part(material, "launch")
    found = SEVFirmware(
        int.from_bytes(launch.hexbytes("reset_eip", 8), "big"),
        int.from_bytes(launch.hexbytes("hash_table", 8), "big"),
        require_sections([_section(item) for item in launch.items("sections", MAX_SECTIONS, 1)]),
    )
    line = KernelHashes.of(b"", b"", _line(material)).command_line
    initrd = files.hexbytes(INITRD, 32) if files.has(INITRD) else hashlib.sha256(b"").digest()
    hashes = KernelHashes(files.hexbytes(KERNEL, 32), initrd, line)
    digest = LaunchDigest(launch.hexbytes("firmware", 48))
    digest.steps.append(Step("measurement", "firmware", digest.value, digest.value))
    launched = SNPLaunch(b"", hashes, machine.vcpus, machine.signature, machine.features)
    return measure_from(digest, found, launched, profile)


def _recompute_nitro(material: Mapping[str, object]) -> Measured:
    launch = _part(material, "nitro-launch")
    digests = {name: launch.hexbytes(name, 48) for name in ("pcr0", "pcr1", "pcr2")}
    steps = [Step(name, "parts of the image", one, nitro.extended(one)) for name, one in digests.items()]
    return nitro.registers(nitro.Streams(digests, tuple(steps)))


def _part(material: Mapping[str, object], name: str) -> Fields:
    if name not in material:
        raise Unsupported(f"the release's material has no {name}")
    return Fields(material[name], f"material.{name}")


def _line(material: Mapping[str, object]) -> str:
    return Fields(dict(material), "material").text("command_line", 1 << 16)


def _section(item: object) -> SEVSection:
    if not isinstance(item, tuple | list) or len(item) != 3 or not isinstance(item[2], int):
        raise Malformed("material.snp-launch.sections are of address, size and type")
    return SEVSection(address(item[0]), address(item[1]), item[2])
