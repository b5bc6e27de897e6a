"""Write the measured command line, and the digests of everything that a machine boots from.

The command line names the hash tree's root of each disk and the policy's digest, so it pins all that the
firmware does not measure itself. Its words are checked here and again by the guest (``nix/guest/init.py``).
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder import uki

MAX_LENGTH = 2047
WORD = re.compile(r"[A-Za-z0-9._-]+(=[A-Za-z0-9._:/,@+-]+)?")
UKI = "enclave.efi"
ROOT = ("root=/dev/dm-0", "rootfstype=erofs", "ro", "init=/usr/sbin/quotary-first")
# In the order in which a machine attaches them, and a kernel without a ramdisk names them: vda, vdb, vdc.
DISKS = ("rootfs", "runtime", "model")
SETTINGS = ("service", "log", "network", "egress", "forward", "listen", "tee", "devices", "run")


def build(what: dict[str, Any], out: Path, assemble: Callable[..., None] = uki.assemble) -> None:
    """Write ``cmdline`` (without a line end), ``enclave.efi`` and ``boot.json`` below ``out``."""
    folders = {"vmlinuz": what["kernel"], "initrd.img": what["initrd"], "firmware": what["firmware"]}
    folders |= {f"{name}.img": what[name] for name in DISKS}
    files = {name: Path(folder) / name for name, folder in folders.items() if folder}
    disks = [disk(name, what[name]) for name in DISKS if what[name]]
    if what["runtime"]:
        require_apart(Path(what["rootfs"]) / "files.tsv", Path(what["runtime"]) / "runtime.tsv")
    text = command_line(what, disks)
    out.mkdir()
    (out / "cmdline").write_text(text)
    files[UKI] = out / UKI
    assemble(Path(what["uki"]), files["vmlinuz"], out / "cmdline", files.get("initrd.img"), files[UKI])
    described = {
        "v": 1,
        "profile": what["profile"],
        "cmdline": {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "files": {name: digest(path) for name, path in files.items()},
        "disks": disks,
        "policy_sha256": what["policySha256"] or "none",
        "weights_sha256": weights(what),
    }
    (out / "boot.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")


def command_line(what: dict[str, Any], disks: list[dict[str, Any]]) -> str:
    """Return the fixed words, then ours in a fixed order."""
    words = list(what["words"]) + ([] if what["initrd"] else mapping(disks))
    words += [f"quotary.{one['serial']}={one['root']}:{one['blocks']}:{one['salt']}" for one in disks]
    if what["model"]:
        words.append(f"quotary.weights={weights(what)}")
    if what["policySha256"]:
        words.append(f"quotary.policy={what['policySha256']}")
    unknown = sorted(set(what["settings"]) - set(SETTINGS))
    if unknown:
        raise SystemExit(f"the command line has no setting {unknown[0]}")
    words += [f"quotary.{name}={what['settings'][name]}" for name in SETTINGS if name in what["settings"]]
    for word in words:
        if not WORD.fullmatch(word) and word not in mapping(disks):
            raise SystemExit(f"{word!r} cannot stand on a command line")
    text = " ".join(words)
    if len(text) > MAX_LENGTH:
        raise SystemExit(f"the command line has {len(text)} bytes, at most {MAX_LENGTH} are possible")
    return text


def mapping(disks: list[dict[str, Any]]) -> list[str]:
    """Return the words with which a kernel opens the disks itself: ``vda`` is the first, the root.

    The guest derives them again from the words that pin the disks (``nix/guest/init.py``).
    """
    table = ";".join(
        f"{one['serial']},,{place},ro,0 {one['blocks'] * 8} verity 1 /dev/vd{letter} /dev/vd{letter}"
        f" 4096 4096 {one['blocks']} {one['blocks'] + 1} sha256 {one['root']} {one['salt']}"
        " 1 panic_on_corruption"
        for place, (letter, one) in enumerate(zip("abc", disks, strict=False))
    )
    last = f"/dev/vd{'abc'[len(disks) - 1]}"
    return [*ROOT, f"dm-mod.waitfor={last}", f'dm-mod.create="{table}"']


def require_apart(root: Path, runtime: Path) -> None:
    """Stop where both disks have a file of the same path: an order of search would say which is used."""
    listed = [{line.split("\t")[0] for line in path.read_text().splitlines()} for path in (root, runtime)]
    if both := sorted(listed[0] & listed[1]):
        raise SystemExit(f"root and runtime both have {both[0]}")


def weights(what: dict[str, Any]) -> str:
    """Return the digest of the model's manifest, or ``none`` where there is no model."""
    if not what["model"]:
        return "none"
    return hashlib.sha256((Path(what["model"]) / "MANIFEST").read_bytes()).hexdigest()


def disk(serial: str, folder: str) -> dict[str, Any]:
    """Return a disk as the guest finds it (by serial) and what pins it."""
    pinned = json.loads((Path(folder) / "verity.json").read_text())
    return {"serial": serial, "file": f"{serial}.img", **pinned}


def digest(path: Path) -> dict[str, Any]:
    """Return a file's size in bytes and SHA-256."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
