"""Take one file out of an unpacked package: the single match of a pattern, under a fixed name."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any


def pick(what: dict[str, Any], out: Path) -> None:
    """Copy the only file that matches ``pattern`` below ``tree`` to ``out/name``."""
    found = sorted(Path(what["tree"]).glob(what["pattern"]))
    if len(found) != 1:
        raise SystemExit(f"{what['pattern']} matches {len(found)} files, wanted 1")
    out.mkdir()
    shutil.copyfile(found[0], out / what["name"])


if __name__ == "__main__":
    pick(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
