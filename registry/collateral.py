"""Vendor-signed documents that the registry keeps and serves, refreshed by a process of its own.

They are as the vendor sent them, one file a product in the folder ``collateral``; a log does not judge them.
A vendor who is away costs freshness only: the old file stays, and its age is said
(docs/formats/collateral.md).
"""

import logging
import re
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from quotary.errors import CannotTell, Malformed, Unsupported
from quotary.net.transport import HTTP, Limits, Request, Transport
from quotary.net.vendors import MAX_DOCUMENT, MAX_SET, Answer, DocumentSet, Services, ask, paths_of
from registry.errors import NotFound
from registry.keys import write_durably

log = logging.getLogger("registry")

REFRESH_SECONDS = (60.0, 86_400.0, 3600.0)
# Shorter than the time that the supervisor gives a child to stop.
LIMITS = Limits(connect_seconds=4.0, read_seconds=6.0, total_seconds=10.0, length=MAX_DOCUMENT)
_NAME = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class CollateralSettings:
    """The table ``[collateral]`` of ``registry.toml``; without it nothing is fetched.

    products: ``(platform, product)`` as the address names them
    """

    products: tuple[tuple[str, str], ...] = ()
    refresh_seconds: float = REFRESH_SECONDS[2]
    services: Services = field(default_factory=Services)

    @classmethod
    def parse(cls, table: object) -> "CollateralSettings":
        """Read the table: ``products``, perhaps ``refresh_seconds``, perhaps the vendors' addresses."""
        if not isinstance(table, Mapping):
            raise Malformed("collateral is a table")
        found = dict(table)
        names = found.pop("products", None)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Malformed("collateral.products is a list of texts like tdx/b0c06f000000")
        low, high, usual = REFRESH_SECONDS
        seconds = found.pop("refresh_seconds", usual)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not low <= seconds <= high:
            raise Malformed(f"collateral.refresh_seconds is {seconds}, wanted {low:g} to {high:g}")
        known = {member.name for member in fields(Services)}
        if set(found) - known or not all(isinstance(value, str) for value in found.values()):
            raise Malformed(f"collateral has unknown settings: {', '.join(sorted(set(found) - known))}")
        return cls(tuple(map(_product, names)), float(seconds), Services(**found))


class Collateral:
    """The folder of kept documents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, platform: str, product: str) -> tuple[bytes, datetime]:
        """Give the bytes of a set, and when its oldest document was fetched."""
        if _NAME.fullmatch(platform) and _NAME.fullmatch(product):
            path = self._path(platform, product)
            if path.exists():
                data = path.read_bytes()
                found = DocumentSet.parse(data)
                return data, min(answer.fetched_at for answer in found.documents.values())
        raise NotFound(f"this registry keeps no documents of {platform[:32]}/{product[:32]}")

    def keep(self, found: DocumentSet) -> None:
        """Replace a set durably."""
        self._folder.mkdir(exist_ok=True)
        data = bytes(found)
        if len(data) > MAX_SET:
            raise CannotTell(f"the documents have {len(data)} bytes, at most {MAX_SET} are kept")
        write_durably(self._path(found.platform, found.product), data, 0o644)

    def _path(self, platform: str, product: str) -> Path:
        return self._folder / f"{platform}-{product}.json"


class Refresher:
    """Fetches every configured product."""

    def __init__(
        self,
        settings: CollateralSettings,
        kept: Collateral,
        transport: Transport,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._kept = kept
        self._transport = transport
        self._now = now

    def round(self) -> int:
        """Fetch all products and give the number of those that came whole; the others stay as they are."""
        return sum(self._refreshed(*product) for product in self._settings.products)

    def _refreshed(self, platform: str, product: str) -> bool:
        try:
            documents = {path: self._document(path) for path in paths_of(platform, product)}
            self._kept.keep(DocumentSet(platform, product, documents))
        except (CannotTell, OSError) as error:
            log.warning("collateral.stale", extra={"product": f"{platform}/{product}", "why": str(error)})
            return False
        log.info("collateral.refreshed", extra={"product": f"{platform}/{product}"})
        return True

    def _document(self, path: str) -> Answer:
        request = Request(self._settings.services.url(path), limits=LIMITS)
        return ask(self._transport, request, self._now())


def run_refresher(settings: CollateralSettings, folder: Path) -> None:
    """Fetch now and every ``refresh_seconds``, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    refresher = Refresher(settings, Collateral(folder), HTTP(), lambda: datetime.now(UTC))
    while not stop.is_set():
        refresher.round()
        stop.wait(settings.refresh_seconds)


def _product(name: str) -> tuple[str, str]:
    platform, _, product = name.partition("/")
    try:
        paths_of(platform, product)
    except Unsupported as error:
        raise Malformed(f"collateral.products: {error}") from error
    return platform, product
