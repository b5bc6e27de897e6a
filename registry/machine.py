"""What a registry needs of the machine that it runs on: room, and a clock that agrees with its log."""

import shutil
from datetime import datetime
from pathlib import Path

from registry.errors import ClockRefused, StoreFull

RESERVE_BYTES = 64 << 20
"""What an operator should hear of in time."""
READY_BYTES = 4 << 20
"""What the next entries and their tiles surely fit into."""
MAX_CLOCK_SECONDS = 60


def free_bytes(folder: Path) -> int:
    """Give the bytes that a file in ``folder`` may still grow by."""
    return shutil.disk_usage(folder).free


def check_room(folder: Path, wanted: int) -> int:
    """Give the free bytes, or raise ``StoreFull`` where they are fewer than ``wanted``."""
    free = free_bytes(folder)
    if free < wanted:
        raise StoreFull(f"{free} bytes are free at {folder}, wanted {wanted}", next_command="df -h")
    return free


def check_against(who: str, theirs: datetime, now: datetime) -> None:
    """Raise ``ClockRefused`` where the clock is more than a minute behind or ahead of another one."""
    off = int((theirs - now).total_seconds())
    if abs(off) > MAX_CLOCK_SECONDS:
        found = f"{abs(off)} s {'behind' if off > 0 else 'ahead of'} {who}"
        raise ClockRefused(
            "clock", found, f"at most {MAX_CLOCK_SECONDS} s", next_command="timedatectl status"
        )
