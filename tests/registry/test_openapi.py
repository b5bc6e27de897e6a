"""``/openapi.json`` is valid, complete, and what the registry really answers (bar A40)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from flask.testing import FlaskClient

from registry import problems
from registry.openapi import address, document
from registry.operations import EVERYWHERE, OPERATIONS
from tests.conftest import ROOT
from tests.fakes.inprocess import local
from tests.fakes.processes import Log, start_log
from tests.registry.test_api import BROKEN, GETS

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
SEED = int(os.environ.get("QUOTARY_SEED", "40"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    with local(tmp_path_factory.mktemp("api")) as found:
        found.loop.round()
        made = found.authority
        found.append(made.allocation(), made.delegation(), made.release("r1"))
        yield found.client()


def test_the_document_is_valid_and_a_broken_one_is_not(client: FlaskClient) -> None:
    found = json.loads(client.get("/openapi.json").data)
    assert found["openapi"] == "3.1.0"
    schemathesis.openapi.from_dict(found).validate()
    del found["paths"]["/checkpoint"]["get"]["responses"]["200"]["description"]
    with pytest.raises(Exception, match="description"):
        schemathesis.openapi.from_dict(found).validate()


def test_every_route_is_described_and_nothing_else(client: FlaskClient) -> None:
    app = client.application
    rules = list(app.url_map.iter_rules())
    assert {rule.endpoint for rule in rules} == set(OPERATIONS)
    described = {(path, method.upper()) for path, found in document(app)["paths"].items() for method in found}
    assert described == {(address(rule), method) for rule in rules for method in rule.methods - {"HEAD"}}


def test_every_parameter_of_a_route_is_described(client: FlaskClient) -> None:
    paths = document(client.application)["paths"]
    for rule in client.application.url_map.iter_rules():
        for operation in paths[address(rule)].values():
            named = {found["name"] for found in operation["parameters"] if found["in"] == "path"}
            assert named == set(rule.arguments)


def test_every_problem_type_is_described(client: FlaskClient) -> None:
    named = {name for operation in OPERATIONS.values() for name in operation.problems} | set(EVERYWHERE)
    assert named == set(problems.KINDS)


@pytest.mark.parametrize("path", [*GETS, *BROKEN])
def test_what_a_route_answers_is_described_for_it(client: FlaskClient, path: str) -> None:
    app = client.application
    answer = client.get(path)
    with app.test_request_context(path) as context:
        rule = context.request.url_rule
    if rule is None:
        assert (answer.status_code, path) == (404, "/nowhere")
        return
    described = document(app)["paths"][address(rule)]["get"]["responses"][str(answer.status_code)]
    assert answer.content_type in described["content"]
    if answer.status_code >= 400:
        types = described["content"][answer.content_type]["schema"]["allOf"][1]["properties"]["type"]["enum"]
        assert answer.json["type"] in types


def fuzz(log: Log, seconds: int) -> None:
    """Run schemathesis over all operations; a run can be repeated with ``QUOTARY_SEED``."""
    program = Path(sys.executable).parent / "schemathesis"
    words = ["--max-time", str(seconds), "--seed", str(SEED), "--checks", ",".join(CHECKS), "--no-color"]
    done = subprocess.run(
        [program, "run", f"{log.address}/openapi.json", *words, "--continue-on-failure"],
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.fakes.fuzzing", "PYTHONPATH": str(ROOT)},
        cwd=log.folder,
        capture_output=True,
        text=True,
        timeout=4 * seconds + 60,
        check=False,
    )
    print(f"seed {SEED}")
    assert done.returncode == 0, done.stdout
    # It asks for the document itself before it counts.
    assert f"Tested: {len(OPERATIONS) - 1}\n" in done.stdout, done.stdout
    # Every 500 has such an id in the log; a start that is not ready yet has none.
    assert "request_id" not in log.registry.log()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    found = start_log(tmp_path_factory.mktemp("log"))
    made = found.authority
    found.submit(made.allocation(), made.delegation(), made.release("r1"))
    yield found
    found.stop()


def test_a40_strange_requests_get_described_answers_only(log: Log) -> None:
    fuzz(log, 20)


@pytest.mark.soak
def test_a40_two_minutes_of_strange_requests_get_described_answers_only(log: Log) -> None:
    fuzz(log, 120)
