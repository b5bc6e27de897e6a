"""Reading the members of an OpenAI request body: each is taken by name, and what is left over is refused.

Every refusal is an ``APIError`` 400 that names the member; only a body that is too large or no JSON object
has no member to name.
"""

import json
from typing import NoReturn

from enclave.chat import APIError

MAX_BODY = 256 * 1024


class Members:
    """The members of one body, which ``done`` wants taken, every one of them."""

    def __init__(self, body: bytes) -> None:
        self._found = _object(body)

    def take(self, name: str) -> object:
        """Give the value as it stands, or None."""
        return self._found.pop(name, None)

    def only(self, name: str, *allowed: object) -> None:
        """Take a member that may have these values and no other, or be absent."""
        value = self.take(name)
        if value is not None and not any(value == each and type(value) is type(each) for each in allowed):
            message = f"'{name}' has a value that is not supported here"
            raise APIError(400, "unsupported_value", message, param=name)

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if not isinstance(value, bool | None):
            invalid(name, "true or false")
        return bool(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            invalid(name, f"an integer from {low} to {high}")
        return value

    def ppm(self, name: str, low: int, high: int, default: int) -> int:
        """Take a number as millionths."""
        value = self.take(name)
        return default if value is None else millionths(value, name, low, high)

    def text(self, name: str, limit: int) -> str:
        return text(self.take(name), name, limit)

    def done(self) -> None:
        """Refuse the first member that nobody took."""
        for name in self._found:
            message = f"unrecognized request argument: {name[:64]}"
            raise APIError(400, "unknown_parameter", message, param=name[:64])


def millionths(value: object, name: str, low: int, high: int) -> int:
    """Turn a number into millionths."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        invalid(name, f"a number from {low} to {high}")
    return round(value * 1_000_000)


def text(value: object, name: str, limit: int) -> str:
    """Give a text of 1 to ``limit`` characters."""
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        invalid(name, f"a string of 1 to {limit} characters")
    return value


def invalid(name: str, wanted: str) -> NoReturn:
    raise APIError(400, "invalid_value", f"'{name}' must be {wanted}", param=name)


def _object(body: bytes) -> dict[str, object]:
    if len(body) > MAX_BODY:
        raise APIError(
            413, "request_too_large", f"the body has {len(body)} bytes, at most {MAX_BODY} are allowed"
        )
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise APIError(400, "invalid_json", "the body is not JSON, or names a member twice") from error
    if not isinstance(found, dict):
        raise APIError(400, "invalid_json", "the body is not a JSON object")
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is named twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
