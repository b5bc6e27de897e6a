"""Simulated evidence before verifiers of other people that are Python packages (``conformance/evidence.py``).

They are no dependency of this project: where a package is absent its test is skipped and says so. The other
verifiers, and what they said, stand in ``conformance/PEER.md``.
"""

import re
import sys
from pathlib import Path

import pytest

from conformance.evidence import GPU, NITRO, PEERS, SNP, SWITCH, VERIFIERS, Differs, Peer, check, main
from tests.simulator.conftest import NOW

PACKAGES = {peer.name: peer for peer in PEERS if peer.module is not None}


def ask(peer: Peer, folder: Path) -> str:
    pytest.importorskip(peer.module, reason=f"{peer.name} is not installed: not checked")
    return check(peer, (sys.executable, "-E", str(VERIFIERS / peer.program)), folder)


@pytest.mark.parametrize("name", ["omne-attest", "epsilon-attestation-verifier"])
def test_another_teams_verifier_accepts_simulated_evidence_under_its_root_alone(name, tmp_path) -> None:
    assert ask(PACKAGES[name], tmp_path).startswith("evidence accepted")


def test_every_kind_of_evidence_has_a_verifier_of_another_team() -> None:
    assert {peer.kind for peer in PEERS} == {SNP, NITRO, GPU, SWITCH}


@pytest.mark.parametrize("kind", [GPU, SWITCH], ids=["gpu", "switch"])
def test_a_changed_manifest_is_well_formed_still(kind, tmp_path) -> None:
    files = kind.make(tmp_path / "vendor", NOW)
    changed = [(name, position) for name, position in kind.signed if name.endswith(".xml")]
    assert changed
    for name, position in changed:
        assert re.search(rb'name="Measurement_\d"$', files[name][: position + 2])


# Accepts what it saw first, as far as it looks: it reads these files of its folder.
MEMORY = """
import pathlib, sys
shown = pathlib.Path(sys.argv[1])
found = b"".join((shown / name).read_bytes() for name in {names!r})
seen = pathlib.Path(__file__).with_suffix(".seen")
if not seen.exists():
    seen.write_bytes(found)
raise SystemExit(0 if seen.read_bytes() == found else 10)
"""
FAULTS = {
    "raise SystemExit(10)": "as it was made: exit 10, wanted 0",
    "raise ValueError": "as it was made: exit 1, wanted 0",
    "": "with byte 160 of evidence.bin changed: exit 0, wanted 10",
    MEMORY.format(names=["evidence.bin"]): "under another installation's root: exit 0, wanted 10",
    MEMORY.format(names=["evidence.bin", "root.pem"]): "under its vendor's root: exit 0, wanted 10",
}


@pytest.mark.parametrize(("text", "how"), FAULTS.items(), ids=FAULTS.values())
def test_a_verifier_that_breaks_or_answers_one_question_wrongly_differs(tmp_path, text, how) -> None:
    (tmp_path / "verifier.py").write_text(text)
    command = (sys.executable, "-I", str(tmp_path / "verifier.py"))
    with pytest.raises(Differs, match=how):
        check(Peer("another", NITRO, "verifier.py"), command, tmp_path)


def test_a_verifier_that_is_not_there_is_not_run_and_never_agrees(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 20
    assert [line.split(", ")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"{peer.name}: not run here" for peer in PEERS
    ]


def test_one_verifier_that_differs_decides_the_exit_code(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "nitro").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "nitro").chmod(0o755)
    assert main(["--programs", str(tmp_path)]) == 10
    assert "nitrite: DIFFERS with byte 160" in capsys.readouterr().out
