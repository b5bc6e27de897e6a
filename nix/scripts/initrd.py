"""Build the initial ramdisk: a static shell, dmsetup with its libraries, and the modules that the disks need
(none for a kernel that has everything built in).

The modules are found by name in the kernel package, followed through their ``depends=`` and stored in loading
order, so that nothing in the guest has to resolve or decompress anything.
"""

import json
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from builder.cpio import ALIGN, Entry, archive, device, folder, link, regular
from builder.locked import tool

DEPENDS = re.compile(rb"\0depends=([A-Za-z0-9_,-]*)\0")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
# One thread of work per job: `--single-thread` would give other bytes than any number of threads.
ZSTD = ("zstd", "-19", "-T1", "--no-progress", "-q", "-c")


def build(what: dict[str, Any], out: Path) -> None:
    """Write ``out/initrd.img`` and ``out/modules`` (the loading order)."""
    modules = ordered(Path(what["kernel"]), what["modules"]) if what["kernel"] else {}
    order = "".join(f"{name}.ko\n" for name in modules)
    entries = [folder(name) for name in ("dev", "proc", "sys", "root", "run", "tmp")]
    entries += [device("dev/console", 5, 1), device("dev/null", 1, 3)]
    entries += [regular("init", Path(what["init"]).read_bytes(), executable=True)]
    entries += [regular(f"modules/{name}.ko", data) for name, data in modules.items()]
    entries += [regular("modules/order", order.encode())]
    entries += programs(Path(what["tree"]))
    plain = archive(entries)
    out.mkdir()
    packed = subprocess.run([*tool(ZSTD[0]), *ZSTD[1:]], input=plain, stdout=subprocess.PIPE, check=True)
    # Linux finds a second archive behind this one (an enclave image has it) at a multiple of four.
    (out / "initrd.img").write_bytes(packed.stdout + bytes(-len(packed.stdout) % ALIGN))
    (out / "modules").write_text(order)


def programs(tree: Path) -> list[Entry]:
    """Return busybox, dmsetup and every shared library of the unpacked packages."""
    entries = [
        regular("bin/busybox", (tree / "usr/bin/busybox").read_bytes(), executable=True),
        regular("usr/sbin/dmsetup", (tree / "usr/sbin/dmsetup").read_bytes(), executable=True),
        link("lib64", "usr/lib/x86_64-linux-gnu"),
        link("lib", "usr/lib"),
    ]
    for name in sorted(os.listdir(tree / LIBRARIES)):
        path = tree / LIBRARIES / name
        if ".so" in name and path.is_symlink():
            entries.append(link(f"{LIBRARIES}/{name}", os.readlink(path)))
        elif ".so" in name and path.is_file():
            entries.append(regular(f"{LIBRARIES}/{name}", path.read_bytes(), executable=True))
    return entries


def ordered(kernel: Path, wanted: list[str]) -> dict[str, bytes]:
    """Return the wanted modules and all that they depend on, each after its dependencies, decompressed."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.glob("**/*.ko.xz")}
    built_in = {
        Path(line).stem.replace("-", "_")
        for listing in kernel.glob("**/modules.builtin")
        for line in listing.read_text().split()
    }
    found: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in found or name in built_in:
            return
        if name not in files:
            raise SystemExit(f"the kernel has no module {name}")
        data = lzma.decompress(files[name].read_bytes())
        match = DEPENDS.search(data)
        for dependency in (match[1].decode() if match else "").split(","):
            if dependency:
                visit(dependency.replace("-", "_"))
        found[name] = data

    for name in wanted:
        visit(name.replace("-", "_"))
    return found


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
