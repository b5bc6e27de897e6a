"""Show simulated evidence to verifiers that other people wrote (conformance/PEER.md: where they come from).

    python conformance/evidence.py --programs FOLDER --python PYTHON --python PYTHON

Each verifier must accept the evidence under the root of the installation that made it, and refuse it with a
signed byte changed, under the root of another installation, and under its vendor's own root where it brings
that along. One that is not there is "not run here", never a pass. Exit codes: 0 all that ran agree, 10 one
differs, 20 none could run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from simulator.nitro import Chosen, make_document, open_nitro_vendor  # noqa: E402
from simulator.nvidia import DRIVER, VBIOS, NVIDIAMachine, open_nvidia_vendor  # noqa: E402
from simulator.snp import SNPTCB, SNPPlatform, open_snp_vendor  # noqa: E402

ACCEPTED, REFUSED = 0, 10
SECONDS = 120.0
VERIFIERS = ROOT / "conformance" / "verifiers"
Files = Mapping[str, bytes]


class Differs(Exception):
    """A verifier did not say what the evidence deserves."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One vendor's evidence as files, by name; ``root.pem`` and ``rim-root.pem`` are what a verifier pins.

    make:   makes an installation in a folder and its evidence at a time
    signed: where a byte is changed: file and a position that a signature covers
    """

    make: Callable[[Path, datetime], Files]
    signed: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """One verifier of somebody else.

    program: what is started, a program's name, or the script that asks the Python package ``module``
    vendor:  it brings its vendor's own root along, and is asked about that too
    """

    name: str
    kind: Kind
    program: str
    module: str | None = None
    vendor: bool = True


def make_snp(folder: Path, now: datetime) -> Files:
    """A report, its chain, and the root that signs for the chip's authority."""
    vendor = open_snp_vendor(folder, now)
    platform = SNPPlatform(vendor, SNPTCB(), now)
    return {
        "evidence.bin": platform.report(b"\1" * 48, b"\2" * 32, b"\3" * 64),
        "chain.pem": platform.collateral["chain"].encode(),
        "root.pem": vendor.ark.pem.encode(),
    }


def make_nitro(folder: Path, now: datetime) -> Files:
    """A document with three measured PCRs and everything that an enclave may put into one."""
    vendor = open_nitro_vendor(folder, now)
    pcrs = {number: bytes([number + 1]) * 48 for number in range(3)}
    document = make_document(vendor, pcrs, Chosen(b"\3" * 64, b"\4" * 32, b"\5" * 32), now)
    return {"evidence.bin": document, "root.pem": vendor.root.pem.encode()}


def make_gpu(folder: Path, now: datetime) -> Files:
    """A GPU that works alone, and what its verifier fetches: manifests, answers about certificates."""
    return _make_last_device(folder, 0, now)


def make_switch(folder: Path, now: datetime) -> Files:
    """A switch, and likewise what its verifier fetches."""
    return _make_last_device(folder, 1, now)


# AMD 56860: REPORT_DATA at 0x50, MEASUREMENT at 0x90; AWS: in the payload's PCRs; DSP0274: in a measured
# block, and in the responder's nonce behind the blocks of 55 bytes; manifests: the digit of a Resource's
# name, so that all is well-formed still.
SNP = Kind(make_snp, (("evidence.bin", 0x50), ("evidence.bin", 0x90)))
NITRO = Kind(make_nitro, (("evidence.bin", 160),))
MEASURED = ("evidence.bin", 60)
GPU_NONCE, SWITCH_NONCE = (("evidence.bin", 37 + 8 + blocks * 55) for blocks in (64, 31))
GPU = Kind(make_gpu, (MEASURED, GPU_NONCE, ("driver.xml", 664), ("vbios.xml", 671)))
SWITCH = Kind(make_switch, (MEASURED, SWITCH_NONCE, ("switch.xml", 669)))

PEERS = (
    Peer("go-sev-guest", SNP, "snp"),
    Peer("omne-attest", SNP, "snp_omne.py", "omne_attest"),
    Peer("nitrite", NITRO, "nitro"),
    Peer("epsilon-attestation-verifier", NITRO, "nitro_epsilon.py", "epsilon_verifier", vendor=False),
    Peer("nv-local-gpu-verifier", GPU, "gpu_nvidia.py", "verifier.cc_admin"),
    Peer("nv-attestation-sdk", SWITCH, "switch_nvidia.py", "nv_attestation_sdk.verifiers"),
)


def check(peer: Peer, command: Sequence[str], folder: Path) -> str:
    """Ask a verifier every question in an empty folder; say what it was asked, or raise ``Differs``."""
    now = datetime.now(UTC).replace(microsecond=0)
    mine, others = (peer.kind.make(folder / name, now) for name in ("mine", "others"))
    roots = {name: data for name, data in others.items() if name.endswith("root.pem")}
    _expect(ACCEPTED, "as it was made", command, _show(mine, folder), "mine")
    for name, position in peer.kind.signed:
        spoilt = _show(_spoil(mine, name, position), folder)
        _expect(REFUSED, f"with byte {position} of {name} changed", command, spoilt, "mine")
    other = _show({**mine, **roots}, folder)
    _expect(REFUSED, "under another installation's root", command, other, "mine")
    if peer.vendor:
        _expect(REFUSED, "under its vendor's root", command, _show(mine, folder), "vendor")
    refused = 1 + len(peer.kind.signed) + peer.vendor
    return f"evidence accepted under the root that made it, refused in {refused} other questions"


def main(words: Sequence[str]) -> int:
    """Ask every verifier that is there, and say what came of each."""
    parser = argparse.ArgumentParser(description="show simulated evidence to other people's verifiers")
    parser.add_argument("--programs", default="", help="folder with the verifiers' programs, before PATH")
    parser.add_argument("--python", action="append", default=[], help="interpreter that has packages")
    chosen = parser.parse_args(words)
    answers = [_report(peer, _command(peer, chosen.programs, chosen.python)) for peer in PEERS]
    ran = [agrees for agrees in answers if agrees is not None]
    return 20 if not ran else 0 if all(ran) else 10


def _make_last_device(folder: Path, switches: int, now: datetime) -> Files:
    vendor, nonce = open_nvidia_vendor(folder, now), b"\7" * 32
    machine = NVIDIAMachine(vendor, 1, 1, switches, now)
    device, collateral = machine.devices[-1], machine.collateral(now)
    about = {"driver": DRIVER, "vbios": VBIOS, "nonce": nonce.hex()}
    return {
        "evidence.bin": device.report(nonce),
        "chain.pem": "".join(signer.pem for signer in device.chain).encode(),
        "collateral.json": json.dumps(collateral).encode(),
        "about.json": json.dumps(about).encode(),
        "root.pem": vendor.root.pem.encode(),
        "rim-root.pem": vendor.rim_root.pem.encode(),
        **{f"{name}.xml": collateral[f"SIM_{name}"].encode() for name in ("driver", "vbios", "switch")},
    }


def _report(peer: Peer, command: Sequence[str] | None) -> bool | None:
    if command is None:
        print(f"{peer.name}: not run here, no {peer.module or peer.program}", flush=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(f"{peer.name}: agrees, {check(peer, command, Path(folder))}", flush=True)
        except Differs as error:
            print(f"{peer.name}: DIFFERS {error}", flush=True)
            return False
    return True


def _command(peer: Peer, programs: str, interpreters: Sequence[str]) -> tuple[str, ...] | None:
    if peer.module is None:
        where = os.pathsep.join(filter(None, (programs, os.environ.get("PATH", ""))))
        found = shutil.which(peer.program, path=where)
        return None if found is None else (os.path.abspath(found),)
    # Isolated, for this project has a package `verifier` too; not imported, for one writes a log on import.
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({peer.module!r}) is None)"
    for interpreter in interpreters:
        words = (interpreter, "-I", "-c", look)
        if subprocess.run(words, capture_output=True, check=False, timeout=SECONDS).returncode == 0:
            return (os.path.abspath(interpreter), "-E", str(VERIFIERS / peer.program))
    return None


def _spoil(files: Files, name: str, position: int) -> Files:
    data = bytearray(files[name])
    data[position] ^= 1
    return {**files, name: bytes(data)}


def _show(files: Files, folder: Path) -> Path:
    shown = Path(tempfile.mkdtemp(dir=folder))
    for name, data in files.items():
        (shown / name).write_bytes(data)
    return shown


def _expect(wanted: int, how: str, command: Sequence[str], shown: Path, root: str) -> None:
    words = (*command, str(shown), root)
    done = subprocess.run(words, cwd=shown, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode != wanted:
        raise Differs(f"{how}: exit {done.returncode}, wanted {wanted}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
