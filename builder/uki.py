"""A unified kernel image: kernel, command line and ramdisk behind systemd's stub, one file for EFI firmware.

``ukify`` of the locked ``systemd-ukify`` writes it (the UAPI group's specification "Unified Kernel Image").
The sandbox runs this module, hence nothing of ours is imported but the way to start a locked program.
"""

import os
import subprocess
from pathlib import Path

from builder.locked import tool


def assemble(tools: Path, kernel: Path, command_line: Path, initrd: Path | None, out: Path) -> None:
    """Write the image to ``out``; ``tools`` holds the files of the lock's ``uki`` packages."""
    words = [*tool("python3.13"), str(tools / "usr/bin/ukify"), "build"]
    words += ["--stub", str(tools / "usr/lib/systemd/boot/efi/linuxx64.efi.stub")]
    # Without a description of the system: the stub would wrap it in a ramdisk of its own making.
    words += ["--linux", str(kernel), "--cmdline", f"@{command_line}", "--os-release", ""]
    words += ["--initrd", str(initrd)] if initrd else []
    environment = {**os.environ, "PYTHONPATH": str(tools / "usr/lib/python3/dist-packages")}
    subprocess.run([*words, "--output", str(out)], env=environment, check=True)
