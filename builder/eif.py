"""The Nitro form of an image folder: one file that a Nitro hypervisor starts (docs/formats/image.md).

Ramdisk 0 is the image's own, so that PCR1 is the boot part's; ramdisk 1 is an archive of the disks, which an
enclave has no other way to get, so that PCR2 is theirs. Nothing in the file depends on when or where it was
written.
"""

from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from builder.cpio import archive, regular
from builder.image import POLICY_DISK, Image
from quotary.attestation.measure.eif import EIF
from quotary.attestation.measure.eif_signature import to_be_signed, write_signature
from quotary.attestation.measure.profiles import nitro_profile
from quotary.canonical import canonical
from quotary.errors import CannotTell, Malformed, Unsupported
from quotary.secret import read_key_file, read_secret

DISKS = "disks"
RAMDISK = "initrd.img"
PROFILE = "nitro/eif-v4/v1"
_EPOCH = "1970-01-01T00:00:00+00:00"


def eif_of(folder: Path) -> EIF:
    """Make the enclave image of an image folder, whose files are hashed first."""
    image = Image.load(folder)
    image.verify(folder)
    return assemble_eif(folder, image)


def assemble_eif(folder: Path, image: Image) -> EIF:
    """Make the enclave image of a folder whose files were hashed."""
    if RAMDISK not in image.files:
        raise Unsupported(
            f"the image has no {RAMDISK}: its kernel opens disks, which an enclave has not",
            next_command="quotary build run --profile nitro",
        )
    names = [disk.file for disk in image.disks]
    names += [POLICY_DISK] if (folder / POLICY_DISK).exists() and POLICY_DISK not in names else []
    try:
        kernel, initrd = ((folder / name).read_bytes() for name in ("vmlinuz", RAMDISK))
        entries = [regular(f"{DISKS}/{name}", (folder / name).read_bytes()) for name in names]
    except OSError as error:
        raise CannotTell(f"cannot read the image: {error}", next_command="quotary build run") from error
    ramdisks = (initrd, archive(entries)) if entries else (initrd,)
    return EIF(kernel, image.command_line, ramdisks, _metadata(image))


def signed(image: EIF, key_file: Path, certificate_file: Path) -> EIF:
    """Sign an image with a P-384 key file (PEM, mode 0600) and its certificate (PEM)."""
    profile = nitro_profile(PROFILE)
    try:
        key = load_pem_private_key(read_secret(key_file), password=None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{key_file} is not an unencrypted PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Unsupported(f"{key_file} holds another key than one on P-384, with which images are signed")
    certificate, _ = read_key_file(certificate_file)
    halves = decode_dss_signature(key.sign(to_be_signed(image, profile), ec.ECDSA(SHA384())))
    signature = b"".join(half.to_bytes(48, "big") for half in halves)
    return replace(image, signature=write_signature(image, profile, certificate, signature))


def write_eif(folder: Path, out: Path, signer: tuple[Path, Path] | None = None) -> tuple[EIF, bytes]:
    """Write the enclave image to ``out``, which appears when it is whole; return it and its bytes.

    signer: files of key and certificate, if the image is to be signed
    """
    image = eif_of(folder)
    image = signed(image, *signer) if signer is not None else image
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
