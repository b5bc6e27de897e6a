"""Where the files of a log come from: its own address, or a folder that ``quotary mirror`` filled.

Both give the paths of c2sp.org/tlog-tiles. Nothing here is believed: ``client.replay`` proves every byte
under a signed checkpoint.
"""

from pathlib import Path
from typing import Protocol

from quotary.client.log import MAX_NOTE, problem
from quotary.errors import CannotTell, Malformed
from quotary.net.transport import Limits, Request, Transport
from quotary.tlog.merkle import HASH_LENGTH
from quotary.tlog.tiles import (
    MAX_ENTRY_LENGTH,
    TILE_WIDTH,
    decode_entry_bundle,
    encode_entry_bundle,
    entries_path,
    tile_path,
)

CHECKPOINT = "checkpoint"
MAX_TILE = TILE_WIDTH * HASH_LENGTH
MAX_ENTRY_BUNDLE = TILE_WIDTH * (MAX_ENTRY_LENGTH + 2)


class Source(Protocol):
    """Files of one log by their path; ``name`` is what a message calls it."""

    name: str

    def read(self, path: str, length: int) -> bytes:
        """Return at most ``length`` bytes, or raise ``CannotTell`` where there is no such file."""
        ...


class HTTPSource:
    """A log, or whoever serves a copy of it, at an address."""

    def __init__(self, transport: Transport, url: str) -> None:
        self._transport = transport
        self.name = url.rstrip("/")

    def read(self, path: str, length: int) -> bytes:
        url = f"{self.name}/{path}"
        reply = self._transport.send(Request(url, limits=Limits(length=length)))
        if reply.status != 200:
            raise problem(reply, url)
        return reply.body


class FolderSource:
    """A copy on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = str(folder)

    def read(self, path: str, length: int) -> bytes:
        place = self._folder / path
        try:
            with place.open("rb") as file:
                data = file.read(length + 1)
        except OSError as error:
            raise CannotTell(f"cannot read {place}: {error.strerror}") from error
        if len(data) > length:
            raise Malformed(f"{place} has more than {length} bytes")
        return data


class Files:
    """The named files of a source; also the ``HashReader`` that trees are read with."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name

    def checkpoint(self) -> bytes:
        """Return the newest signed note."""
        return self._source.read(CHECKPOINT, MAX_NOTE)

    def tile(self, level: int, n: int, width: int) -> bytes:
        """Return the first ``width`` hashes of a tile; a full tile stands in for a partial that is gone."""
        try:
            return self._source.read(tile_path(level, n, width), MAX_TILE)
        except CannotTell:
            if width == TILE_WIDTH:
                raise
            return self._source.read(tile_path(level, n), MAX_TILE)[: width * HASH_LENGTH]

    def entries(self, n: int, width: int) -> bytes:
        """Return an entry bundle of ``width`` entries, as bytes; a full one stands in for a partial one."""
        try:
            return self._source.read(entries_path(n, width), MAX_ENTRY_BUNDLE)
        except CannotTell:
            if width == TILE_WIDTH:
                raise
            whole = self._source.read(entries_path(n), MAX_ENTRY_BUNDLE)
            return encode_entry_bundle(decode_entry_bundle(whole, width=TILE_WIDTH)[:width])
