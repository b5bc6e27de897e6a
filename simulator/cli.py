"""``quotary enclave simulate`` and ``quotary measure process``: the simulator from the shell."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from quotary.cli.files import state_folder
from quotary.cli.output import emit, json_option
from quotary.errors import Usage
from quotary.net.listen import take_address
from simulator.nvidia import NVIDIAMachine, open_nvidia_vendor
from simulator.pki import FMSPC, PKI, open_pki
from simulator.tcb import CURRENT, LATEST, TCB, Publication

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
WHAT_IT_IS = "simulated: software, same user; it proves nothing against the owner of this machine"


def directory_option(command: F) -> F:
    option = click.option(
        "--directory",
        type=click.Path(path_type=Path, file_okay=False),
        help="The simulated vendor's keys, made at the first start. [default: the user's state folder]",
    )
    return option(command)


def tcb_options(command: F) -> F:
    """Add what the platform runs and what its vendor publishes."""
    for option in (
        click.option("--evaluation-number", type=int, help="The vendor's TCB evaluation data number."),
        click.option("--pce-svn", type=int, help="The platform's PCE SVN."),
        click.option("--sgx-tcb-svn", metavar="HEX", help="The platform's 16 processor SVNs, 32 hex digits."),
        click.option("--tcb-svn", metavar="HEX", help="The platform's TDX SVNs, 32 hex digits."),
    ):
        command = option(command)
    return command


def device_options(command: F) -> F:
    """Add the simulated machine's GPUs and switches."""
    for option in (
        click.option("--switches", type=click.IntRange(0, 4), default=0, help="NVSwitches of the machine."),
        click.option("--gpus", type=click.IntRange(0, 8), default=0, help="GPUs of the machine (measured)."),
    ):
        command = option(command)
    return command


def program_options(command: F) -> F:
    """Add what decides a process's registers."""
    for option in (
        click.argument("more", nargs=-1, metavar="[-- WORDS]..."),
        click.option("--code", type=FOLDER, help="Checkout whose packages run. [default: this installation]"),
        click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the model (measured)."),
        click.option("--listen", required=True, help="HOST:PORT of the enclave's own server (measured)."),
        click.option("--service", required=True, help="The service whose release this is (measured)."),
        click.option("--registry", required=True, help="Where the log's bundles are fetched (measured)."),
        click.option("--model", required=True, type=FOLDER, help="Folder of weights with its MANIFEST."),
        click.option("--policy", required=True, type=FILE, help="The enclave's policy."),
    ):
        command = option(command)
    return command


@click.command(
    name="simulate-init",
    epilog="\b\nExample:\n  quotary enclave simulate-init --json"
    "\n\nExit codes: 0, 30, 40, 41 keys that others may read.",
)
@directory_option
@json_option
def simulate_init(directory: Path | None, as_json: bool) -> None:
    """Make the simulated vendor if there is none, and print what policies and floors name of it."""
    nvidia = open_nvidia_vendor(_folder(directory) / "nvidia", _now())
    document = {
        "schema": "quotary/simulator/v1",
        "root_sha256": _vendor(directory, _now()).root_sha256.hex(),
        "device_root_sha256": nvidia.root_sha256.hex(),
        "device_rim_root_sha256": nvidia.rim_root_sha256.hex(),
        "platform": "sim-tdx",
        "product": FMSPC.hex(),
        "evaluation_number": LATEST.evaluation_number,
        "minimum": {
            "tee_tcb_svn": CURRENT.tee_tcb_svn.hex(),
            "sgx_tcb_svn": CURRENT.sgx_tcb_svn.hex(),
            "pce_svn": CURRENT.pce_svn,
        },
    }
    text = f"simulated vendor's root: sha256 {document['root_sha256']}\nproduct: {document['product']}"
    emit(document, text, as_json=as_json)


@click.command(
    name="simulate",
    epilog="\b\nExample:\n  quotary enclave simulate --policy policy.json --model ./model \\\n"
    "    --service example.org/chat --registry http://127.0.0.1:8000 --listen 127.0.0.1:8443"
    "\n\nExit codes: the enclave's own; 128 plus a signal's number where one ended it.",
)
@program_options
@device_options
@tcb_options
@directory_option
def simulate(
    policy: Path,
    model: Path,
    registry: str,
    service: str,
    listen: str,
    threads: int | None,
    code: Path | None,
    more: tuple[str, ...],
    gpus: int,
    switches: int,
    tcb_svn: str | None,
    sgx_tcb_svn: str | None,
    pce_svn: int | None,
    evaluation_number: int | None,
    directory: Path | None,
) -> None:
    """Measure this installation's enclave, start it as a child and quote for it until it ends."""
    from simulator.launch import MeasuredProcess
    from simulator.process import snapshot
    from simulator.program import enclave_program
    from simulator.tdx import Platform

    now = _now()
    tcb, publication = _levels(tcb_svn, sgx_tcb_svn, pce_svn, evaluation_number)
    vendor = _vendor(directory, now)
    platform = Platform(vendor, tcb, publication, now)
    devices = _devices(directory, gpus, switches, now)
    words = policy, model, registry, service, listen, threads, more, code
    taken = snapshot(enclave_program(*words, gpus + switches))
    click.echo(f"{WHAT_IT_IS}; vendor's root sha256 {vendor.root_sha256.hex()}", err=True)
    work = _folder(directory) / "run"
    work.mkdir(mode=0o700, exist_ok=True)
    with MeasuredProcess(taken, platform, work, devices) as child:
        ended = child.wait()
    sys.exit(ended)


@click.command(
    name="simulate-vm",
    epilog="\b\nExample:\n  quotary enclave simulate-vm --image ./image --port 8443"
    "\n\nExit codes: the enclave's own as the console tells it; 40 the machine stopped, or ran too long.",
)
@click.option("--image", required=True, type=FOLDER, help="Image folder of quotary build run.")
@click.option(
    "--port", required=True, type=click.IntRange(1, 65535), help="Port on loopback for the guest's."
)
@click.option("--memory", type=click.IntRange(64), default=512, show_default=True, help="MiB of the machine.")
@click.option(
    "--seconds",
    type=click.FloatRange(1),
    default=3600,
    show_default=True,
    help="How long it may run at most.",
)
@click.option("--uki", is_flag=True, help="Let the image's firmware start enclave.efi from a disk.")
@device_options
@tcb_options
@directory_option
def simulate_vm(
    image: Path,
    port: int,
    memory: int,
    seconds: float,
    uki: bool,
    gpus: int,
    switches: int,
    tcb_svn: str | None,
    sgx_tcb_svn: str | None,
    pce_svn: int | None,
    evaluation_number: int | None,
    directory: Path | None,
) -> None:
    """Start the built image in QEMU, by software, and quote for it what its files would give on hardware.

    The guest reaches this machine's loopback as 10.0.2.2; its console goes to stderr.
    """
    from simulator.qemu import Image, MeasuredMachine
    from simulator.tdx import Platform

    now = _now()
    tcb, publication = _levels(tcb_svn, sgx_tcb_svn, pce_svn, evaluation_number)
    vendor = _vendor(directory, now)
    take_address(f"127.0.0.1:{port}", "--port").close()
    loaded = Image.load(image, unified=uki)
    click.echo(f"{WHAT_IT_IS}; vendor's root sha256 {vendor.root_sha256.hex()}", err=True)
    platform = Platform(vendor, tcb, publication, now)
    devices = _devices(directory, gpus, switches, now)
    with MeasuredMachine(loaded, memory, port, platform, sys.stderr.buffer, devices) as machine:
        code = machine.wait(seconds)
    sys.exit(code)


@click.command(
    name="process",
    epilog="\b\nExample:\n  quotary measure process --policy policy.json --model ./model \\\n"
    "    --service example.org/chat --registry http://127.0.0.1:8000 --listen 127.0.0.1:8443"
    "\n\nExit codes: 0, 2, 10 the model differs from its MANIFEST, 30, 40 a file is missing.",
)
@program_options
@device_options
@json_option
def measure_process(
    policy: Path,
    model: Path,
    registry: str,
    service: str,
    listen: str,
    threads: int | None,
    code: Path | None,
    more: tuple[str, ...],
    gpus: int,
    switches: int,
    as_json: bool,
) -> None:
    """Predict what ``quotary enclave simulate`` with the same words will measure, as a row for a release."""
    from simulator.process import snapshot
    from simulator.program import enclave_program
    from simulator.row import describe

    words = policy, model, registry, service, listen, threads, more, code
    taken = snapshot(enclave_program(*words, gpus + switches))
    document, text = describe(taken, gpus, switches)
    emit(document, text, as_json=as_json)


def _devices(directory: Path | None, gpus: int, switches: int, now: datetime) -> NVIDIAMachine | None:
    if not gpus:
        if switches:
            raise Usage("--switches needs --gpus")
        return None
    return NVIDIAMachine(open_nvidia_vendor(_folder(directory) / "nvidia", now), 0, gpus, switches, now)


def _levels(
    tcb_svn: str | None, sgx_tcb_svn: str | None, pce_svn: int | None, evaluation_number: int | None
) -> tuple[TCB, Publication]:
    tcb = TCB(
        tee_tcb_svn=CURRENT.tee_tcb_svn if tcb_svn is None else _svns("--tcb-svn", tcb_svn),
        sgx_tcb_svn=CURRENT.sgx_tcb_svn if sgx_tcb_svn is None else _svns("--sgx-tcb-svn", sgx_tcb_svn),
        pce_svn=CURRENT.pce_svn if pce_svn is None else pce_svn,
    )
    number = LATEST.evaluation_number if evaluation_number is None else evaluation_number
    return tcb, Publication(LATEST.current, number)


def _svns(option: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Usage(f"{option} is not hex: {text}") from error


def _vendor(directory: Path | None, now: datetime) -> PKI:
    return open_pki(_folder(directory) / "pki", now)


def _folder(directory: Path | None) -> Path:
    if directory is not None:
        return directory
    return state_folder() / "simulator"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
