"""The command as a whole: fast, without tracebacks, offline when told so."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

import quotary.cli as cli
from quotary import __version__
from quotary.cli.lazy import Lazy, LazyGroup
from quotary.errors import Refused, Unsupported
from tests.cli.conftest import Live, Run

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_printed(run: Run) -> None:
    ran = run("--version")
    assert (ran.code, ran.out) == (0, f"quotary {__version__}\n")


def test_help_takes_less_than_150_milliseconds() -> None:
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "quotary", "--help"], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.150


def test_naming_the_package_imports_no_cryptography() -> None:
    code = "import sys, quotary; print('cryptography' in sys.modules, 'urllib3' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout.split() == ["False", "False"]


def test_an_unknown_name_is_none_of_the_package() -> None:
    import quotary

    with pytest.raises(AttributeError, match="has no attribute 'Server'"):
        quotary.Server  # noqa: B018


def test_no_command_shows_the_help(run: Run) -> None:
    ran = run()
    assert ran.code == 2
    assert "Exit codes" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("words", [["nonsense"], ["keys", "new"], ["verify", "x"], ["--nonsense"]])
def test_usage_errors_say_where_to_read(run: Run, words: list[str]) -> None:
    ran = run(*words)
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert "--help" in ran.err.splitlines()[-1]
    assert ran.out == ""


class Raises:
    """A command that raises what it is given."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @click.command()
        def fails() -> None:
            raise self.error

        monkeypatch.setitem(cli.quotary.commands, "fails", fails)


def test_an_error_of_ours_is_one_line_and_the_next_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Raises(Refused("age", "901 s", "at most 900 s", next_command="try again")).install(monkeypatch)
    ran = run("fails")
    assert ran.code == 11
    assert ran.err == "error: age: found 901 s, wanted at most 900 s\nnext: try again\n"


def test_a_bug_is_one_line_without_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Raises(ZeroDivisionError("division by zero")).install(monkeypatch)
    ran = run("fails")
    assert ran.code == 1
    assert ran.err == "error: internal error: ZeroDivisionError: division by zero (this is our bug)\n"


def test_an_interruption_has_its_own_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Raises(KeyboardInterrupt()).install(monkeypatch)
    assert run("fails").code == 130


def test_a_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Unsupported, match="a_package_that_nobody_has") as raised:
        Lazy("needs_more:command", "", extra="registry").load()
    assert raised.value.next_command == "pip install 'quotary[registry]'"
    with pytest.raises(Unsupported) as raised:
        Lazy("needs_more:command", "").load()
    assert raised.value.next_command == "pip install quotary"


def test_a_module_of_ours_that_is_missing_is_our_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        Lazy("quotary.cli.absent:command", "").load()
    with pytest.raises(TypeError, match="is not a command"):
        Lazy("quotary.cli.lazy:OUR_PACKAGES", "").load()


def test_a_group_adds_to_a_group_of_another_package(run: Run) -> None:
    ran = run("measure", "--help")
    assert ran.code == 0
    assert "process" in ran.out
    group = LazyGroup("keys", {}, summary="", base=Lazy("quotary.cli.keys:keys", ""))
    context = click.Context(group)
    assert group.list_commands(context) == ["new", "show"]
    assert group.get_command(context, "new") is not None
    assert LazyGroup("none", {}, summary="").get_command(context, "new") is None


OFFLINE = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("a socket was asked for: " + event)
sys.addaudithook(refuse)
from quotary.cli import main
main(sys.argv[1:])
"""


def test_offline_opens_no_socket(live: Live, tmp_path: Path) -> None:
    bundle = live.file("bundle.json", live.world.bundle())
    words = ["verify", str(bundle), "--policy", str(live.policy), "--simulation", "--offline", "--json"]
    environment = {"QUOTARY_TRUST": str(tmp_path / "trust"), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE, *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["outcome"] == "proven"
    release = live.file("release.entry", live.world.release)
    words[1] = str(release)
    ran = subprocess.run(
        [sys.executable, "-c", OFFLINE, *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert ran.returncode == 40
    assert "error: offline, and no --bundle was given" in ran.stderr
