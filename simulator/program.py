"""This installation's enclave as a program to measure: its packages, its requirements, its command line."""

from importlib.util import find_spec
from pathlib import Path

from quotary.errors import CannotTell
from simulator.files import ENCLAVE_REQUIREMENTS
from simulator.process import MODEL, POLICY, TEE, Program

PACKAGES = ("enclave", "quotary")


def enclave_program(
    policy: Path,
    model: Path,
    registry: str,
    service: str,
    listen: str,
    threads: int | None,
    more: tuple[str, ...],
    checkout: Path | None = None,
    devices: int = 0,
) -> Program:
    """Say what ``quotary enclave serve`` of this installation runs with; every word of it is measured.

    threads: of the model, or None to leave it to the libraries
    more:    further words for the command
    checkout: folder with the packages to run instead of this installation's own
    devices: GPUs and switches that the machine shows
    """
    options = {
        "policy": POLICY,
        "registry": registry,
        "service": service,
        "tee": TEE,
        "model": MODEL,
        "listen": listen,
    }
    if devices:
        options["attest-devices"] = str(devices)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Program(
        code={name: checkout / name if checkout else _package(name) for name in PACKAGES},
        requirements=ENCLAVE_REQUIREMENTS,
        arguments=("-m", "quotary", "enclave", "serve", *words, *more),
        environment={}
        if threads is None
        else {"MKL_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        policy=policy,
        model=model,
    )


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise CannotTell(f"package {name} is not installed", next_command="pip install 'quotary[enclave]'")
    return Path(spec.submodule_search_locations[0])
