"""Write the measured command line, and the digests of everything that a machine boots from.

The command line names the hash tree's root of each disk and the policy's digest, so it pins all that the
firmware does not measure itself. Its words are checked here and again by the guest (``nix/guest/init.py``).
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

MAX_LENGTH = 2047
WORD = re.compile(r"[A-Za-z0-9._-]+(=[A-Za-z0-9._:/,@+-]+)?")
SETTINGS = ("service", "log", "network", "listen", "tee", "devices", "run")


def build(what: dict[str, Any], out: Path) -> None:
    """Write ``cmdline`` (without a line end) and ``boot.json`` below ``out``."""
    files = {"vmlinuz": what["kernel"], "initrd.img": what["initrd"], "rootfs.img": what["rootfs"]}
    files |= {"firmware": what["firmware"]} | ({"model.img": what["model"]} if what["model"] else {})
    disks = [disk("rootfs", what["rootfs"])] + ([disk("model", what["model"])] if what["model"] else [])
    text = command_line(what, disks)
    out.mkdir()
    (out / "cmdline").write_text(text)
    described = {
        "v": 1,
        "profile": what["profile"],
        "cmdline": {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "files": {name: digest(Path(folder) / name) for name, folder in files.items()},
        "disks": disks,
        "policy_sha256": what["policySha256"] or "none",
        "weights_sha256": weights(what),
    }
    (out / "boot.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")


def command_line(what: dict[str, Any], disks: list[dict[str, Any]]) -> str:
    """Return the fixed words, then ours in a fixed order."""
    words = list(what["words"])
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
        if not WORD.fullmatch(word):
            raise SystemExit(f"{word!r} cannot stand on a command line")
    text = " ".join(words)
    if len(text) > MAX_LENGTH:
        raise SystemExit(f"the command line has {len(text)} bytes, at most {MAX_LENGTH} are possible")
    return text


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
