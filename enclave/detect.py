"""``quotary quote detect``: which hardware could give evidence here; NVIDIA's driver is asked, nothing else.

What is found says where evidence may be asked for, and proves nothing. It imports neither cryptography nor a
model library, so that it runs on a machine that has only just been set up.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from enclave import nvml
from enclave.nvml import Driver, NoDriver
from quotary.cli.output import emit, json_option
from quotary.client.detect import ABSENT, UNUSABLE, USABLE, Found
from quotary.client.detect import detect as look
from quotary.errors import CannotTell, Unsupported


@click.command(epilog="\b\nExample:\n  quotary quote detect\n\nExit codes: 0 one is usable, 20 none is.")
@json_option
def detect(as_json: bool) -> None:
    """Say which hardware could give evidence on this machine, and what is missing; proves nothing."""
    *others, seen = look(Path("/"))
    gpus, driver = ask_gpus(seen, lambda: nvml.ask_driver(nvml.load()))
    found = (*others, gpus)
    usable = [each.platform for each in found if each.state == USABLE]
    lines = [f"  {each.platform:<7} {each.state:<9} {each.reason}" for each in found]
    lines.append(f"usable: {', '.join(usable) or 'none'}")
    document = {"schema": "quotary/detect/v1", "usable": usable, "found": [_row(each) for each in found]}
    emit(document | _gpus(driver), "\n".join(lines), as_json=as_json)
    if not usable:
        raise Unsupported("no hardware here gives evidence", next_command="quotary enclave simulate")


def ask_gpus(seen: Found, ask: Callable[[], Driver]) -> tuple[Found, Driver | None]:
    """Complete what the kernel shows of NVIDIA's devices by what their driver says."""
    try:
        driver = ask()
    except CannotTell as error:
        if isinstance(error, NoDriver) and seen.state == ABSENT:
            return seen, None
        return replace(seen, state=UNUSABLE, interface="", reason=f"{seen.reason}; {error}"), None
    if not driver.gpus:
        return Found("nvidia", UNUSABLE, "", f"driver {driver.version} drives no GPU"), driver
    said = ", ".join(f"{count} x {name}" for name, count in Counter(driver.gpus).items())
    said += f", driver {driver.version}, confidential mode: {driver.mode}"
    if driver.mode not in nvml.CONFIDENTIAL:
        return Found("nvidia", UNUSABLE, "", f"{said}; only in confidential mode is there evidence"), driver
    said += "" if driver.ready else "; takes no work before nvidia-smi conf-compute -srs 1"
    return Found("nvidia", USABLE, "NVML", said), driver


def _row(found: Found) -> dict[str, str]:
    return {
        "platform": found.platform,
        "state": found.state,
        "interface": found.interface,
        "reason": found.reason,
    }


def _gpus(driver: Driver | None) -> dict[str, object]:
    """Absent where no driver answered."""
    if driver is None:
        return {}
    said = {"driver": driver.version, "confidential_mode": driver.mode, "ready": driver.ready}
    return {"nvidia": said | {"gpus": list(driver.gpus)}}
