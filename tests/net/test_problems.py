"""The problem documents of the small services: what a caller is told, and what the log may hold."""

import logging

import pytest
from flask import Flask

from quotary.errors import Malformed
from quotary.net.problems import MEDIA_TYPE, Kind, Problems

KINDS = {
    "malformed": Kind(400, "Not what it should be", "Send something else."),
    "not-found": Kind(404, "Nothing here", "Look elsewhere."),
    "http": Kind(400, "No answer", "See the status."),
    "internal": Kind(500, "Our mistake", "Report it."),
}


def app(traceback: bool) -> Flask:
    made = Flask("service", static_folder=None)

    def fails() -> str:
        raise RuntimeError("secret prompt")

    def refuses() -> str:
        raise Malformed("found 3, wanted 4")

    made.add_url_rule("/fails/secret", "fails", fails, methods=["GET"])
    made.add_url_rule("/refuses", "refuses", refuses, methods=["GET"])
    Problems("service", KINDS, {404: "not-found"}, ((Malformed, "malformed"),), traceback).register(made)
    return made


@pytest.mark.parametrize("traceback", [True, False])
def test_our_mistake_tells_the_caller_a_number_and_the_log_what_it_may(
    traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = app(traceback).test_client().get("/fails/secret")
    assert (answer.status_code, answer.mimetype) == (500, MEDIA_TYPE)
    assert answer.json is not None
    [record] = caplog.records
    assert record.request_id == answer.json["request_id"]  # type: ignore[attr-defined]
    assert b"prompt" not in answer.data
    assert ("secret prompt" in caplog.text) == traceback
    assert "/fails" not in record.getMessage()


def test_what_the_caller_did_wrong_is_said_with_a_page_that_exists() -> None:
    client = app(False).test_client()
    answer = client.get("/refuses")
    assert answer.json == {
        "type": "/problems/malformed",
        "title": "Not what it should be",
        "status": 400,
        "detail": "found 3, wanted 4",
        "instance": "/refuses",
    }
    assert "Send something else." in client.get("/problems/malformed").text
    assert client.get("/problems/other").status_code == 404
    assert "GET" in client.post("/refuses").headers["Allow"]
    assert client.get("/nowhere").headers["X-Content-Type-Options"] == "nosniff"
