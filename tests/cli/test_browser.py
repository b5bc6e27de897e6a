"""``quotary receipt browser``: what the enclave's page kept, and what that does not prove."""

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.client.test_browser import MEASUREMENT, made


def test_the_command_says_what_it_does_not_prove(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text(json.dumps(made()))
    words = ("receipt", "browser", file, "--measurement", MEASUREMENT.hex())
    assert run(*words).code == 11
    ran = run(*words, "--simulation")
    assert ran.code == 0, ran.err
    assert "nothing here says that hardware holds it" in ran.out
    assert run("receipt", "browser", file, "--measurement", "00" * 32, "--simulation").code == 10
