"""Let a compiled kernel through when it has what was wanted, and has not what must not be there.

Kconfig drops a symbol whose dependencies are not met without a word, and switches others on for its own
reasons; so each line of ``nix/kernel/config`` is looked for in what the kernel was built with.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

SET = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(.+)")
UNSET = re.compile(r"# (CONFIG_[A-Za-z0-9_]+) is not set")


def build(what: dict[str, Any], out: Path) -> None:
    """Copy the kernel and its configuration to ``out``, or stop with what differs."""
    compiled = Path(what["compiled"])
    found = (compiled / "config").read_text()
    if wrong := differences(Path(what["wanted"]).read_text(), found):
        raise SystemExit("the kernel is not what was wanted: " + ", ".join(wrong))
    out.mkdir()
    shutil.copyfile(compiled / "bzImage", out / "vmlinuz")
    shutil.copyfile(compiled / "config", out / "kernel.config")


def differences(wanted: str, found: str) -> list[str]:
    """Return ``CONFIG_X is y, wanted n`` for each line that does not hold; an absent symbol is ``n``."""
    values = symbols(found)
    return [
        f"{name} is {values.get(name, 'n')}, wanted {value}"
        for name, value in symbols(wanted).items()
        if values.get(name, "n") != value
    ] + [f"{name} is a module" for name, value in values.items() if value == "m"]


def symbols(text: str) -> dict[str, str]:
    """Read a configuration: each symbol's value, ``n`` where it is not set; refuse what is no such line."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        unset, assigned = UNSET.fullmatch(line), SET.fullmatch(line)
        name, value = (unset[1], "n") if unset else (assigned[1], assigned[2]) if assigned else ("", "")
        if name in values:
            raise SystemExit(f"{name} stands in the configuration twice")
        if name:
            values[name] = value
        elif line and not line.startswith("#"):
            raise SystemExit(f"{line!r} is no line of a configuration")
    return values


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
