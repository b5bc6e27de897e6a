"""The judge's other end: how a worker hands entries on, one connection a request.

A request on ``judge.sock`` is the number of entries (four bytes, big-endian), and each with its length before
it in the same way; none asks whether the judge takes any. An answer is JSON: a list with an item for each
entry, or the one problem for which nothing was taken.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quotary.codec import CODEC
from quotary.errors import Malformed, QuotaryError
from registry import problems, wire
from registry.admission import Accepted, Answer, Logged
from registry.errors import JudgeUnavailable
from registry.problems import KINDS, Problem, Told

TIMEOUT_SECONDS = 30.0
# A batch has 8 MiB and 10,000 lines at most; a problem of a line has some hundred bytes.
MAX_REQUEST = 9 << 20
MAX_ANSWER = 32 << 20


class JudgeClient:
    """Asks the judge on a socket."""

    def __init__(self, socket_path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path = socket_path
        self._timeout_seconds = timeout_seconds

    def submit_all(self, entries: Sequence[bytes]) -> list[Answer]:
        """Hand entries on, and give the answer to each."""
        answers = read_answers(self._ask(entries))
        if len(answers) != len(entries):
            raise _unavailable(f"the judge gave {len(answers)} answers for {len(entries)} entries")
        return answers

    def check(self) -> None:
        """Raise the error for which nothing is taken."""
        read_answers(self._ask([]))

    def _ask(self, entries: Sequence[bytes]) -> bytes:
        try:
            with wire.connect(self._path, self._timeout_seconds) as connection:
                wire.send_bytes(connection, write_request(entries))
                answer = wire.receive_bytes(connection, MAX_ANSWER)
        except (OSError, Malformed) as error:
            raise _unavailable(f"no judge answers on {self._path}: {error}") from error
        if answer is None:
            raise _unavailable(f"the judge on {self._path} ended before it had answered")
        return answer


def write_request(entries: Sequence[bytes]) -> bytes:
    """Write entries."""
    parts = [part for entry in entries for part in (len(entry).to_bytes(4), entry)]
    return b"".join([len(entries).to_bytes(4), *parts])


def read_request(data: bytes) -> list[bytes]:
    """Read entries, or raise ``Malformed``."""
    found: list[bytes] = []
    at = 4
    for _ in range(int.from_bytes(data[:4])):
        start = at + 4
        at = start + int.from_bytes(data[at:start])
        if at > len(data):
            break
        found.append(data[start:at])
    if at != len(data) or len(found) != int.from_bytes(data[:4]):
        raise Malformed(f"{len(data)} bytes are not so many entries with their lengths")
    return found


def write_answers(answers: Sequence[Answer]) -> bytes:
    """Write the judge's answer."""
    return CODEC.write([_item(answer) for answer in answers])


def write_problem(error: QuotaryError) -> bytes:
    """Write that nothing was taken."""
    return CODEC.write(_problem(problems.of(error)))


def read_answers(data: bytes) -> list[Answer]:
    """Read the judge's answer, or raise the problem that it is."""
    found: Any = CODEC.read(data)
    if isinstance(found, dict):
        raise _told(found)
    return [_answer(item) for item in found]


def _item(answer: Answer) -> object:
    if isinstance(answer, QuotaryError):
        return _problem(problems.of(answer))
    if isinstance(answer, Logged):
        return [answer.leaf_hash.hex(), answer.statement_id, "logged", answer.index]
    return [answer.leaf_hash.hex(), answer.statement_id, "accepted", answer.at]


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "name": problem.kind.name,
        "detail": problem.detail,
        "more": problem.more,
        "headers": problem.headers,
    }


def _answer(item: Any) -> Answer:
    if isinstance(item, dict):
        return _told(item)
    leaf_hash, statement_id, word, number = item
    made = Logged if word == "logged" else Accepted
    return made(bytes.fromhex(leaf_hash), statement_id, number)


def _told(problem: dict[str, Any]) -> Told:
    return Told(Problem(KINDS[problem["name"]], problem["detail"], problem["more"], problem["headers"]))


def _unavailable(why: str) -> JudgeUnavailable:
    return JudgeUnavailable(why, next_command="quotary registry serve")
