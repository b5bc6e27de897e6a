"""What Nix says, as errors that a person can act on; with the real Nix where it is installed."""

import shutil
from pathlib import Path

import pytest

from builder.errors import (
    BuildFailed,
    DiskFull,
    InputDiffers,
    InputMissing,
    Interrupted,
    NixMissing,
    NotReproducible,
    SandboxMissing,
)
from builder.nix import CONFIGURATION, Nix, failure
from tests.conftest import ROOT

needs_nix = pytest.mark.skipif(shutil.which("nix-build") is None, reason="Nix is not installed")

# A derivation that needs nothing: the fixed output is absent and its builder does not exist.
ABSENT = """
derivation {
  name = "libc6_2.41_amd64.deb"; system = "x86_64-linux";
  builder = "/INPUT-NOT-IN-STORE/run: quotary build prefetch";
  outputHashMode = "flat"; outputHashAlgo = "sha256";
  outputHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
}
"""


@pytest.fixture
def nix(tmp_path: Path) -> Nix:
    return Nix.open(tmp_path / "store")


@needs_nix
def test_an_absent_input_is_named_with_what_to_do(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "default.nix").write_text(f"{{ }}: {{ it = {ABSENT}; }}")
    with pytest.raises(InputMissing) as caught:
        nix.build(tmp_path, ["it"])
    assert caught.value.names == ("libc6_2.41_amd64.deb",)
    assert caught.value.next_command == "quotary build prefetch"


@needs_nix
def test_a_present_input_needs_no_build(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "default.nix").write_text(f"{{ }}: {{ it = {ABSENT}; }}")
    file = tmp_path / "libc6_2.41_amd64.deb"
    file.touch()
    added = nix.add(file)
    assert nix.build(tmp_path, ["it"]) == [added]


@needs_nix
def test_the_committed_expression_evaluates_and_names_what_is_missing(nix: Nix) -> None:
    with pytest.raises(InputMissing) as caught:
        nix.build(ROOT / "nix", ["seed-check"])
    assert any(name.startswith("busybox") for name in caught.value.names)


@needs_nix
def test_an_expression_that_is_wrong_does_not_look_like_a_missing_input(nix: Nix, tmp_path: Path) -> None:
    (tmp_path / "default.nix").write_text("{ }: { it = 1 + ; }")
    with pytest.raises(BuildFailed, match="syntax error"):
        nix.build(tmp_path, ["it"])


@needs_nix
@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('builtins.readFile "/etc/hostname"', "forbidden in restricted mode"),
        ('builtins.fetchurl "http://127.0.0.1:9/x"', "forbidden in restricted mode"),
        ('builtins.readFile "/proc/self/environ"', "forbidden in restricted mode"),
    ],
)
def test_a_foreign_expression_reads_neither_this_machine_nor_a_network(
    nix: Nix, tmp_path: Path, expression: str, said: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "default.nix").write_text(f"{{ }}: {{ it = {expression}; }}")
    with pytest.raises(BuildFailed, match=said):
        nix.build(tmp_path / "source", ["it"])


@needs_nix
def test_an_expression_reads_what_it_was_given(nix: Nix, tmp_path: Path) -> None:
    for name in ("source", "lock"):
        (tmp_path / name).mkdir()
    (tmp_path / "lock" / "text").write_text("not a derivation")
    words = f'{{ }}: {{ it = throw (builtins.readFile "{tmp_path / "lock" / "text"}"); }}'
    (tmp_path / "source" / "default.nix").write_text(words)
    with pytest.raises(BuildFailed, match="not a derivation"):
        nix.build(tmp_path / "source", ["it"], visible=[tmp_path / "lock"])


@needs_nix
def test_the_private_configuration_never_falls_back_to_no_sandbox(nix: Nix) -> None:
    assert (nix.configuration / "nix.conf").read_text() == CONFIGURATION
    assert "sandbox-fallback = false" in CONFIGURATION
    assert nix.version()[0].isdigit()


def test_no_nix_on_the_machine_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NixMissing) as caught:
        Nix.open(tmp_path / "store")
    assert caught.value.next_command == "apt-get install nix-bin"


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    (tmp_path / "store").write_text("a file")
    with pytest.raises(DiskFull, match="cannot prepare the store"):
        Nix.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("error: writing to file: No space left on device", DiskFull),
        (
            "error: derivation '/nix/store/x-rootfs.drv' may not be deterministic: output differs",
            NotReproducible,
        ),
        (
            "error: hash mismatch in fixed-output derivation\n  specified: sha256:aa\n  got:    sha256:bb",
            InputDiffers,
        ),
        ("error: interrupted by the user", Interrupted),
        ("error: setting up a private mount namespace: Operation not permitted", SandboxMissing),
        ("error: unable to start build process", SandboxMissing),
        ("error: something new", BuildFailed),
    ],
)
def test_each_failure_has_its_type(log: str, kind: type[Exception]) -> None:
    assert type(failure(log, 1)) is kind


def test_a_build_that_was_killed_was_interrupted() -> None:
    assert isinstance(failure("", -15), Interrupted)


def test_a_failed_script_shows_the_end_of_its_log() -> None:
    log = (
        "building\nerror: builder for '/nix/store/"
        + "a" * 32
        + "-rootfs-ci.drv' failed with exit code 1;\nlast line"
    )
    with pytest.raises(BuildFailed, match=r"rootfs-ci did not build .*last line"):
        raise failure(log, 1)
