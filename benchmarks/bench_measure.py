"""What a builder pays to predict registers: processor time of this process, beside bare SHA-384 over the same
bytes in the same run.

Run: ``.venv/bin/python benchmarks/bench_measure.py [image folder]``; without a folder, files of the size of
the ``ci`` image are made.
"""

import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builder.measure import Loaded, measure_image
from quotary.attestation.measure import snp
from quotary.attestation.measure.profiles import snp_profile
from quotary.attestation.measure.shape import Shape
from quotary.attestation.measure.snp import SNPLaunch
from quotary.attestation.measure.tdvf import ORDERS, mrtd
from quotary.attestation.measure.tdx import ACPI_BLOBS
from quotary.statements.recompute import verify_row
from quotary.statements.row import parse_row
from tests.fakes import firmware

ROUNDS = 9
MIB = 1 << 20
PLATFORMS = ("sim-tdx", "tdx", "snp", "nitro")
SIZES = {"vmlinuz": 12 * MIB, "initrd.img": 2 * MIB, "rootfs.img": 40 * MIB}


def processor_ms(work: Callable[[], object]) -> float:
    """Median processor time, user and system, in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        before = time.process_time()
        work()
        times.append((time.process_time() - before) * 1000)
    return statistics.median(times)


def show(name: str, took: float, data: bytes, digest: str) -> None:
    """Print a line with the reference beside it."""
    bare = processor_ms(lambda: hashlib.new(digest, data).digest())
    print(f"{name:52} {took:7.1f} ms   {took / bare:5.1f} x {digest} of {len(data) / MIB:.1f} MiB")


def made(folder: Path) -> Path:
    """Make an image folder of the ``ci`` image's size whose firmware every platform takes."""
    rest = {name: random.Random(name).randbytes(size) for name, size in SIZES.items() if name != "vmlinuz"}
    kernel = firmware.kernel(length=SIZES["vmlinuz"])
    files = {"firmware": firmware.firmware(pages=1024, variables=0x84), "vmlinuz": kernel, **rest}
    line = "quiet"
    disk = {"serial": "rootfs", "file": "rootfs.img", "root": "00" * 32, "blocks": 1, "salt": "00" * 32}
    boot = {
        "v": 1,
        "profile": "ci",
        "cmdline": {"text": line, "sha256": hashlib.sha256(line.encode()).hexdigest()},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in files.items()
        },
        "disks": [disk | {"label": "rootfs-ci"}],
        "policy_sha256": "none",
        "weights_sha256": "none",
    }
    for name, data in (*files.items(), ("boot.json", json.dumps(boot).encode()), ("cmdline", line.encode())):
        (folder / name).write_bytes(data)
    return folder


def release(folder: Path) -> None:
    """Measure a release for all platforms, and compute it again from its material."""
    machine = Shape(memory=4 << 30, vcpus=2, acpi=dict.fromkeys(ACPI_BLOBS, bytes(48)))
    whole = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    took = processor_ms(lambda: measure_image(folder, PLATFORMS, None, [machine]))
    show(f"a release for {', '.join(PLATFORMS)}", took, whole, "sha384")
    show("  of that: files read and hashed", processor_ms(lambda: Loaded.of(folder, ())), whole, "sha256")
    documents, material = measure_image(folder, PLATFORMS, None, [machine])
    rows = [parse_row(row) for row in documents]
    took = processor_ms(lambda: [verify_row(row, material) for row in rows])
    print(f"{'the same rows again from material':52} {took:7.1f} ms")


def main() -> None:
    """Print a line for each computation, and the load under which it ran."""
    image = firmware.firmware(pages=1024, variables=0x84)
    print(f"load {' '.join(f'{one:.1f}' for one in os.getloadavg())}, firmware of {len(image) // MIB} MiB")
    launch = SNPLaunch(image, None, 4, 0x00A00F11, 1)
    profile = snp_profile("snp/qemu-kvm-init2/v1")
    show("SNP launch digest, 4 vCPUs", processor_ms(lambda: snp.measure(launch, profile)), image, "sha384")
    for order in ORDERS:
        took = processor_ms(partial(mrtd, image, order))
        show(f"MRTD, {order}, every page a step", took, image[0x84000:], "sha384")
    if len(sys.argv) > 1:
        release(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory(prefix="quotary-bench-") as folder:
        release(made(Path(folder)))


if __name__ == "__main__":
    main()
