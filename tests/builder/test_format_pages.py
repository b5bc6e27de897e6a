"""The examples on docs/formats/image.md are what the code reads, and its tables say what the code knows."""

import re
from pathlib import Path

from builder.image import Image
from builder.lock import Lock
from tests.builder.test_guest import load
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "formats" / "image.md").read_text()


def example(kind: str) -> str:
    found = re.search(rf"```json {kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None, kind
    return found[1]


def test_the_boot_json_of_the_page_is_one() -> None:
    image = Image.parse(example("boot").encode())
    assert image.disks[0].serial == "rootfs"


def test_the_lock_of_the_page_is_one_and_agrees_with_the_committed_seed(tmp_path: Path) -> None:
    (tmp_path / "debian.json").write_text(example("debian"))
    (tmp_path / "pypi.json").write_text(example("pypi"))
    assert Lock.load(tmp_path).seed_member == "usr/bin/busybox"


def test_the_page_lists_the_words_that_the_guest_accepts() -> None:
    init = load(ROOT / "nix" / "guest" / "init.py")
    assert set(re.findall(r"`(quotary\.[a-z]+)`", PAGE)) == set(init.SETTINGS)
