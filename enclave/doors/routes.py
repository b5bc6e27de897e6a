"""What the open doors answer, in clear and inside the sealed channel alike: reports, signatures, model names.

Each path is known only while its door is open; a closed door is 404 like any path that nobody knows.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from enclave.answer import Reply, plain
from enclave.boot import Shown
from enclave.chat import TEE, APIError
from enclave.doors import browser, nanogpt, reports
from enclave.doors.book import Asker, ExchangeBook
from enclave.doors.keys import BROWSER, NANOGPT, VLLM_PROXY, DoorKeys

NANOGPT_CHAT = "/api/v1/chat/completions"
NANOGPT_MODELS = "/api/v1/models"

# Reports that may wait for the hardware, which gives one quote after the other and has other clients too.
WAITING = 8

_REPORT, _SIGNATURE = "/v1/attestation/report", "/v1/signature/"
_NANOGPT_REPORT, _NANOGPT_SIGNATURE = "/api/v1/tee/attestation", "/api/v1/tee/signature/"
_QUOTE, _RECEIPT = "/v1/browser/quote", "/v1/browser/receipt/"


class House(Protocol):
    """What doors need of the enclave: ``runtime.Enclave``."""

    @property
    def service(self) -> str: ...
    @property
    def platform(self) -> str: ...
    @property
    def measurement(self) -> bytes: ...
    def now(self) -> int: ...
    def show(self, report_data: bytes, nonce: bytes) -> Shown:
        """Ask the hardware for evidence over 64 bytes, GPUs for theirs over 32; 503 without keys."""
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request, each named once; those that a view does not take are refused."""

    values: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> "Query":
        pairs = parse_qsl(text, keep_blank_values=True)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise APIError(400, "invalid_value", "a parameter is named twice")
        return cls(found)

    def only(self, *names: str) -> "Query":
        unknown = sorted(self.values.keys() - set(names))
        if unknown:
            raise APIError(400, "unknown_parameter", f"only {', '.join(names)} are understood here")
        return self

    def get(self, name: str) -> str | None:
        return self.values.get(name)


class Doors:
    """The doors of one process that the measured policy opens."""

    def __init__(self, opened: tuple[str, ...]) -> None:
        self.opened = opened
        self.keys = DoorKeys(opened)
        self.book = ExchangeBook()
        self._one, self._places = threading.Lock(), threading.Semaphore(WAITING)
        views: dict[str, tuple[str, Callable[[House, str, Query, Asker], object]]] = {
            _REPORT: (VLLM_PROXY, self._report),
            _SIGNATURE: (VLLM_PROXY, self._signature),
            _NANOGPT_REPORT: (NANOGPT, self._nanogpt_report),
            _NANOGPT_SIGNATURE: (NANOGPT, self._signature),
            NANOGPT_MODELS: (NANOGPT, self._models),
            _QUOTE: (BROWSER, self._quote),
            _RECEIPT: (BROWSER, self._receipt),
        }
        self._views = {path: view for path, (door, view) in views.items() if door in opened}

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that are open for reading; one that ends in a slash takes a chat id."""
        return tuple(self._views)

    def watch(self, house: House, reply: Reply, request: bytes, asker: Asker) -> Reply:
        """Remember an answer for its signature, if any door is open."""
        return self.book.watch(reply, request, asker, house.now) if self.opened else reply

    def is_chat(self, path: str) -> bool:
        """Say whether prompts are taken on this path besides the API's own."""
        return path == NANOGPT_CHAT and NANOGPT in self.opened

    def get(self, house: House, target: str, asker: Asker) -> Reply | None:
        """Answer a GET of ``target`` (path and query), or give None where no open door has that path."""
        asked, _, query = target.partition("?")
        folder, _, name = asked.rpartition("/")
        for path, argument in ((asked, ""), (f"{folder}/", name)):
            view = self._views.get(path)
            if view is not None:
                found = view(house, argument, Query.parse(query), asker)
                body = json.dumps(found, separators=(",", ":")).encode()
                return plain(200, body, {"cache-control": "no-store"})
        return None

    def _report(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only("model", "nonce", "signing_algo", "signing_address")
        self._require_model(house, query.get("model"))
        algorithm = reports.parse_algorithm(query.get("signing_algo"))
        wanted = query.get("signing_address")
        if wanted is not None and wanted.lower() != reports.address(self.keys, algorithm).lower():
            raise APIError(
                404, "not_found", "no machine here signs with that address", param="signing_address"
            )
        return self._shown(house, algorithm, reports.parse_nonce(query.get("nonce")))

    def _nanogpt_report(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only("model", "nonce", "signing_algo")
        self._require_model(house, query.get("model"))
        algorithm = reports.parse_algorithm(query.get("signing_algo"))
        text = query.get("nonce")
        return nanogpt.with_nonce(self._shown(house, algorithm, nanogpt.bound_nonce(text)), text)

    def _shown(self, house: House, algorithm: str, nonce: bytes) -> dict[str, object]:
        reports.require_tdx(house.platform)
        if not self._places.acquire(blocking=False):
            message = f"{WAITING} reports wait for the hardware already"
            raise APIError(429, "too_many_reports", message, kind="rate_limit_error")
        try:
            with self._one:
                shown = house.show(reports.report_data(self.keys, algorithm, nonce), nonce)
        finally:
            self._places.release()
        return reports.report(self.keys, algorithm, nonce, shown)

    def _signature(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only("model", "signing_algo")
        self._require_model(house, query.get("model"))
        algorithm = reports.parse_algorithm(query.get("signing_algo"))
        return reports.signature(self.keys, algorithm, self.book.find(name, asker))

    def _models(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only()
        model = {"id": TEE + house.service, "object": "model", "created": 0, "owned_by": "quotary"}
        return {"object": "list", "data": [model]}

    def _quote(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only()
        return browser.quote(self.keys, house.measurement, house.now())

    def _receipt(self, house: House, name: str, query: Query, asker: Asker) -> dict[str, object]:
        query.only()
        return browser.receipt(self.keys, self.book.find(name, asker))

    def _require_model(self, house: House, name: str | None) -> None:
        if name is not None and name.removeprefix(TEE) != house.service:
            raise APIError(404, "model_not_found", f"this enclave serves {house.service}", param="model")
