"""docs/clients.md: each example runs as it stands, against an enclave and its log on loopback."""

import re
from pathlib import Path

import pytest

from quotary.errors import QuotaryError
from tests.cli.conftest import Live
from tests.conftest import ROOT
from tests.fakes.enclave import FakeEnclave, over_http

EXAMPLES = dict(
    re.findall(r"^```python (\w+)\n(.*?)^```", (ROOT / "docs" / "clients.md").read_text(), re.M | re.S)
)


@pytest.mark.parametrize("name", ["sync", "stream", "async"])
def test_an_example_asks_a_verified_machine(
    live: Live, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    enclave = FakeEnclave(live.world, show_bundle=True)
    with over_http(enclave) as url:
        exec(compile(EXAMPLES[name], name, "exec"), {"URL": url, "POLICY": live.policy})
    assert "a log" in capsys.readouterr().out
    assert enclave.prompts
    assert (tmp_path / "answer.evidence.json").exists() == (name == "sync")


@pytest.mark.parametrize("name", ["sync", "stream", "async"])
def test_an_example_asks_no_machine_that_is_refused(
    live: Live, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    enclave = FakeEnclave(live.world, show_bundle=True, measured_as="malware")
    with over_http(enclave) as url, pytest.raises(QuotaryError):
        exec(compile(EXAMPLES[name], name, "exec"), {"URL": url, "POLICY": live.policy})
    assert enclave.prompts == []
