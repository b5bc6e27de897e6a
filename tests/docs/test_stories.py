"""Every command block of the documents is run, or says why not."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from quotary.cli import quotary
from tests.cli.conftest import Live, live
from tests.cli.test_simulate import bundle, released
from tests.conftest import ROOT
from tests.docs.story import LEFT_OUT, Stage, blocks, left_out
from tests.fakes.enclave import FakeEnclave, over_http
from tests.fakes.nginx import free_port
from tests.fakes.postgres import Server

__all__ = ["live", "released"]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
ADDRESS = re.compile(r"127\.0\.0\.1:\d{2,5}")
IN_TOWN = ("audit.md", "witness.md", "private.md", "build.md", "upgrade.md", "formats/watch.md")
ALONE = ("evidence.md", "start.md", "operations.md", "clients.md")
QUOTE = "tdx/v4-20a06f-near-uptodate.quote"
COMMAND = re.compile(r"^ {4}(?:quotary|make|sh|pip|apt-get|python3?) .*", re.MULTILINE)
NOT_RUN = [
    line.partition(" | ")[0]
    for page in PAGES
    for text, reason in blocks(page)
    for line in text.replace("\\\n", "").splitlines()
    if reason and line.startswith("quotary")
]
LEFT_OUT_ON = {
    "README.md": 1,
    "docs/audit.md": 1,
    "docs/build.md": 2,
    "docs/enclave.md": 2,
    "docs/evidence.md": 1,
    "docs/gpu.md": 2,
    "docs/operations.md": 6,
    "docs/rebuild.md": 1,
    "docs/start.md": 1,
}


def addresses() -> dict[str, str]:
    """Give each address that a page listens on a free port of this machine."""
    found = {address for page in PAGES for text, _ in blocks(page) for address in ADDRESS.findall(text)}
    return {address: f"127.0.0.1:{free_port()}" for address in sorted(found)}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The log, the witness, the keys and the policy that docs/start.md leaves behind."""
    with Stage(tmp_path_factory.mktemp("town"), addresses()) as stage:
        stage.swaps["https://log.example.org"] = "http://" + stage.swaps["127.0.0.1:8480"]
        stage.play(DOCS / "start.md", stays=True)
        (stage.folder / "quotary").symlink_to(ROOT)
        yield stage


def test_the_first_ten_minutes_go_as_told(town: Stage) -> None:
    assert (town.folder / "copy" / "checkpoint").is_file()


@pytest.mark.parametrize("name", IN_TOWN)
def test_a_guide_goes_as_told_in_a_town_with_a_log(town: Stage, name: str) -> None:
    assert town.play(DOCS / name)


def test_the_page_of_evidence_goes_as_told(vectors: Path, tmp_path: Path) -> None:
    with Stage(tmp_path, {"quote.bin": str(vectors / QUOTE)}) as stage:
        assert stage.play(DOCS / "evidence.md") == 1


def test_the_guide_of_a_log_goes_as_told(tmp_path: Path) -> None:
    with Stage(tmp_path, addresses()) as stage:
        for folder in ("/var/lib/quotary", "/var/backups", "/etc/quotary"):
            stage.swaps[folder] = f"{tmp_path}{folder}"
            (tmp_path / folder[1:]).mkdir(parents=True)
        stage.swaps["https://log.example.org"] = "http://" + stage.swaps["127.0.0.1:8490"]
        stage.swaps["https://witness.example.net"] = "http://" + stage.swaps["127.0.0.1:8491"]
        stage.swaps["https://mirror.example.net"] = "http://" + stage.swaps["127.0.0.1:8492"]
        assert stage.play(DOCS / "operations.md") > 10


def test_a_log_in_postgresql_is_made_as_told(
    postgres_server: Server, new_postgres: Callable[[], str], tmp_path: Path
) -> None:
    url = new_postgres()
    with Stage(tmp_path, {"/var/lib/quotary": str(tmp_path)}) as stage:
        stage.swaps["postgresql+psycopg://quotary@/log?host=/var/run/postgresql"] = url
        stage.swaps["psql log"] = f"psql -v ON_ERROR_STOP=1 '{url.replace('+psycopg', '')}'"
        stage.play_apart(DOCS / "operations.md", "psql log")
    roles = postgres_server.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'log_%'")
    assert ("log_web",) in roles


@pytest.mark.soak
@pytest.mark.parametrize(("page", "word"), [("build.md", "quotary build check"), ("start.md", "pip install")])
def test_what_takes_long_goes_as_told(page: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    clone = tmp_path / "quotary"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True, timeout=60)
    with Stage(clone, {}, keep_environment() | {"HOME": str(tmp_path / "home")}, 1800) as stage:
        stage.play_apart(DOCS / page, word)


def keep_environment() -> dict[str, str]:
    """Give what says how this machine reaches packages."""
    names = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT", "REQUESTS_CA")
    return {name: value for name, value in os.environ.items() if name.upper().startswith(names)}


def test_the_guide_of_a_client_goes_as_told(released: Live) -> None:
    enclave = FakeEnclave(released.world, show_bundle=True)
    assert bundle(released).name == "release.bundle"
    released.file("my_program.py", PROGRAM)
    with over_http(enclave) as url, Stage(released.folder, addresses()) as stage:
        _, _, port = stage.swaps["127.0.0.1:8080"].rpartition(":")
        stage.swaps["https://chat.example.org"] = url
        stage.swaps["--bundle"] = "--simulation --bundle"
        stage.swaps["--port 8080"] = f"--simulation --port {port}"
        stage.play(DOCS / "clients.md")
    assert enclave.prompts


PROGRAM = b"""
import json, os, urllib.request
body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "What is in the log?"}]}).encode()
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=30).read()
"""


def test_every_page_with_commands_is_run() -> None:
    pages = {
        str(page.relative_to(DOCS)) for page in PAGES[1:] if any(not reason for _, reason in blocks(page))
    }
    assert pages == {*IN_TOWN, *ALONE}


def test_what_is_not_run_is_counted_and_says_why() -> None:
    found = {str(page.relative_to(ROOT)): left_out(page) for page in PAGES}
    assert {name: len(reasons) for name, reasons in found.items() if reasons} == LEFT_OUT_ON
    for reasons in found.values():
        for reason in reasons:
            assert len(reason) > len(LEFT_OUT) + 15
            assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[a-z0-9_/.]+)`", reason)), (
                reason
            )


@pytest.mark.parametrize("line", sorted(set(NOT_RUN)))
def test_a_command_that_is_not_run_exists_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)
    result = CliRunner().invoke(quotary, [*words[1:], "--help"])
    assert result.exit_code == 0
    assert f"Usage: {' '.join(words[:2])}" in result.output
    assert all(word in result.output for word in words if word.startswith("--"))


def test_no_command_hides_where_the_runner_does_not_look() -> None:
    hidden = {page.name: COMMAND.findall(page.read_text("utf-8")) for page in PAGES if page.name != "cli.md"}
    assert {name: lines for name, lines in hidden.items() if lines} == {}


def test_a_story_that_goes_otherwise_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in ("false", "true # ends with 3", "sh -c 'exit 4' # ends with 3", "sh -c 'exit 1' &"):
        page.write_text(f"# Page\n\n```sh\n{text}\n```\n")
        with Stage(tmp_path) as stage, pytest.raises(AssertionError):
            stage.play(page)
    page.write_text("```sh\nX=1\nsh -c 'exit 3'    # ends with 3\n```\n\n```sh\ntest $X = 1\n```\n")
    with Stage(tmp_path) as stage:
        assert stage.play(page) == 2
