"""Running the command in this process, and a world whose time is now, because the command has no other clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.cli import main
from tests.fakes.log import FakeLog, policy_bytes
from tests.fakes.machine import World, hardware


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("QUOTARY_TRUST", str(tmp_path / "trust"))

    def command(*words: object) -> Ran:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        code = left.value.code
        return Ran(code if isinstance(code, int) else 0, captured.out, captured.err)

    return command


@dataclass(frozen=True, slots=True)
class Live:
    """A world of now, and its policy as a file."""

    world: World
    folder: Path

    @property
    def policy(self) -> Path:
        path = self.folder / "policy.json"
        document = self.world.policy()
        document["minimum"] = {"size": 1, "time": "2026-01-01T00:00:00Z"}
        path.write_bytes(policy_bytes(document))
        return path

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


@pytest.fixture
def live(tmp_path: Path) -> Live:
    now = datetime.now(UTC).replace(microsecond=0)
    pki, platform = hardware(tmp_path, now=now)
    world = World(pki, platform, log=FakeLog(now=now), now=now).publish()
    return Live(world, tmp_path)
