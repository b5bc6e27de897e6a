"""The production kernel's configuration: each wanted line is looked for in what the kernel was built with."""

import json
from pathlib import Path

import pytest

from builder.build import Recipe
from builder.errors import InputMissing
from builder.lock import Lock
from tests.builder.test_guest import load
from tests.conftest import ROOT

NIX = ROOT / "nix"
WANTED = (NIX / "kernel" / "config").read_text()
CHECK = load(NIX / "scripts" / "kernel_config.py")
SYMBOLS: dict[str, str] = CHECK.symbols(WANTED)

# What an auditor would look for first; the file holds more.
REQUIRED = (
    *("INTEL_TDX_GUEST", "AMD_MEM_ENCRYPT", "TDX_GUEST_DRIVER", "SEV_GUEST", "TSM_REPORTS", "NSM"),
    *("DM_VERITY", "DM_INIT", "EROFS_FS", "VIRTIO_PCI", "VIRTIO_MMIO_CMDLINE_DEVICES", "VIRTIO_VSOCKETS"),
    *("SECURITY_LOCKDOWN_LSM", "SECURITYFS", "EFI_DISABLE_RUNTIME", "STRICT_KERNEL_RWX", "NULL_TTY"),
)
FORBIDDEN = (
    *("MODULES", "KEXEC", "KEXEC_FILE", "BPF_SYSCALL", "BPF_JIT", "IO_URING", "DEVMEM", "COREDUMP"),
    *("KPROBES", "DEBUG_FS", "USER_NS", "ACPI_TABLE_UPGRADE", "ACPI_CONFIGFS", "ACPI_PRMT", "ACPI_APEI"),
)


def compiled(folder: Path, text: str) -> dict[str, str]:
    (folder / "compiled").mkdir()
    (folder / "compiled" / "config").write_text(text)
    (folder / "compiled" / "bzImage").write_bytes(b"kernel")
    (folder / "wanted").write_text(WANTED)
    return {"compiled": str(folder / "compiled"), "wanted": str(folder / "wanted")}


def test_what_must_be_there_and_what_must_not_is_written_down() -> None:
    assert {name: SYMBOLS[f"CONFIG_{name}"] for name in REQUIRED} == dict.fromkeys(REQUIRED, "y")
    assert {name: SYMBOLS[f"CONFIG_{name}"] for name in FORBIDDEN} == dict.fromkeys(FORBIDDEN, "n")


def test_a_kernel_that_has_each_line_comes_through_with_its_configuration(tmp_path: Path) -> None:
    text = WANTED + "\n#\n# a heading\n#\nCONFIG_MORE=y\n"
    CHECK.build(compiled(tmp_path, text), tmp_path / "out")
    assert (tmp_path / "out" / "vmlinuz").read_bytes() == b"kernel"
    assert (tmp_path / "out" / "kernel.config").read_text() == text


@pytest.mark.parametrize("name", sorted(SYMBOLS))
def test_each_line_that_does_not_hold_stops_the_build(tmp_path: Path, name: str) -> None:
    value = SYMBOLS[name]
    line = f"# {name} is not set\n" if value == "n" else f"{name}={value}\n"
    other = f"{name}=y\n" if value == "n" else f"# {name} is not set\n"
    assert line in WANTED
    with pytest.raises(SystemExit, match=rf"{name} is [yn], wanted "):
        CHECK.build(compiled(tmp_path, WANTED.replace(line, other)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_symbol_that_is_not_there_at_all_is_not_set() -> None:
    assert CHECK.differences("# CONFIG_A is not set\n", "") == []
    assert CHECK.differences("CONFIG_A=y\n", "") == ["CONFIG_A is n, wanted y"]


def test_a_module_stops_the_build_whoever_asked_for_it() -> None:
    assert CHECK.differences("", "CONFIG_A=m\n") == ["CONFIG_A is a module"]


@pytest.mark.parametrize("text", ["CONFIG_A=y\n# CONFIG_A is not set\n", "export A=1\n", "CONFIG_A\n"])
def test_what_is_no_configuration_is_none(text: str) -> None:
    with pytest.raises(SystemExit):
        CHECK.symbols(text)


@pytest.mark.parametrize("profile", ["cpu", "nitro"])
def test_the_lock_has_source_and_compiler_of_every_profile_with_our_kernel(profile: str) -> None:
    lock = Lock.load(NIX / "lock")
    recipe = Recipe(ROOT, profile, NIX / "lock")
    groups, _ = recipe.groups()
    assert {"compiler", "kernel-source"} <= set(groups)
    assert [lock.debs[key].name for key in lock.deb_groups["kernel-source"]] == ["linux-source-6.12"]
    assert "gcc-14" in [lock.debs[key].name for key in lock.deb_groups["compiler"]]
    assert recipe.artefacts()["kernel"] == ("vmlinuz", "kernel.config")
    assert "kernel-compiled" in recipe.checked()


def test_the_sources_are_those_of_the_kernel_that_debian_built() -> None:
    lock = Lock.load(NIX / "lock")
    versions = {lock.debs[lock.deb_groups[group][0]].version for group in ("kernel", "kernel-source")}
    assert len(versions) == 1


def test_a_profile_whose_driver_nobody_offers_is_refused_by_its_name() -> None:
    external = json.loads((NIX / "image.json").read_text())["profiles"]["gpu"]["external"]
    assert external
    with pytest.raises(InputMissing) as refused:
        Recipe(ROOT, "gpu", NIX / "lock").groups()
    assert refused.value.names == tuple(external)


def test_only_an_image_without_a_kernel_that_opens_disks_has_a_ramdisk() -> None:
    profiles = {name: Recipe(ROOT, name, NIX / "lock").artefacts() for name in ("ci", "cpu", "nitro")}
    assert {name for name, artefacts in profiles.items() if "initrd" in artefacts} == {"ci", "nitro"}
