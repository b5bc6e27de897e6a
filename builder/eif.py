"""The Nitro form of an image folder: one file that a Nitro hypervisor starts (docs/formats/image.md).

Ramdisk 0 is the image's own, so that PCR1 is the boot part's; ramdisk 1 is an archive of the disks, which an
enclave has no other way to get, so that PCR2 is theirs. Nothing in the file depends on when or where it was
written.
"""

from pathlib import Path

from builder.cpio import archive, regular
from builder.image import POLICY_DISK, Image
from quotary.attestation.measure.eif import EIF
from quotary.canonical import canonical
from quotary.errors import CannotTell

DISKS = "disks"
_EPOCH = "1970-01-01T00:00:00+00:00"


def eif_of(folder: Path) -> EIF:
    """Make the enclave image of an image folder, whose files are hashed first."""
    image = Image.load(folder)
    image.verify(folder)
    return assemble_eif(folder, image)


def assemble_eif(folder: Path, image: Image) -> EIF:
    """Make the enclave image of a folder whose files were hashed."""
    names = [disk.file for disk in image.disks]
    names += [POLICY_DISK] if (folder / POLICY_DISK).exists() and POLICY_DISK not in names else []
    try:
        kernel, initrd = ((folder / name).read_bytes() for name in ("vmlinuz", "initrd.img"))
        entries = [regular(f"{DISKS}/{name}", (folder / name).read_bytes()) for name in names]
    except OSError as error:
        raise CannotTell(f"cannot read the image: {error}", next_command="quotary build run") from error
    ramdisks = (initrd, archive(entries)) if entries else (initrd,)
    return EIF(kernel, image.command_line, ramdisks, _metadata(image))


def write_eif(folder: Path, out: Path) -> tuple[EIF, bytes]:
    """Write the enclave image to ``out``, which appears when it is whole; return it and its bytes."""
    image = eif_of(folder)
    data = image.encode()
    fresh = out.with_name(f".{out.name}.new")
    try:
        fresh.write_bytes(data)
        fresh.replace(out)
    except OSError as error:
        raise CannotTell(f"cannot write {out}: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)
    return image, data


def _metadata(image: Image) -> bytes:
    # What AWS's tools show of an image. It is not measured, and a real time would be another file each time.
    return canonical(
        {
            "BuildMetadata": {
                "BuildTime": _EPOCH,
                "BuildTool": "quotary",
                "BuildToolVersion": "1",
                "KernelVersion": "unknown",
                "OperatingSystem": "Linux",
            },
            "CustomMetadata": {},
            "DockerInfo": {},
            "ImageName": f"quotary-{image.profile}",
            "ImageVersion": "1",
        }
    )
