"""When each witness cosigned, over time: what the sequencer keeps so that a page can show it.

The published checkpoint holds the newest cosignature of each witness only. This is a file beside the
database, like the scrubber's: bounded, for people, decided by nothing, and gone with the folder of a machine.
Who needs to prove that a witness was late keeps checkpoints; a monitor does.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from quotary.canonical import Fields, canonical, parse_canonical
from quotary.errors import Malformed

KEPT = 720
LEAST_SECONDS = 60
"""Apart at least: a busy log publishes each second. So many times cover twelve hours, at rest a day."""
MAX_WITNESSES = 64
_MAX_LENGTH = 1 << 20

Times = Mapping[str, tuple[int, ...]]
"""POSIX seconds by the witness's address, oldest first."""


class History:
    """The sequencer's side of the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._times = dict(read_history(file))

    def add(self, heard: Iterable[tuple[str, int | None]]) -> None:
        """Keep when witnesses cosigned, as far as that is news, and write the file where anything was."""
        added = False
        for url, at in heard:
            before = self._times.get(url, ())
            if at is None or (before and at < before[-1] + LEAST_SECONDS):
                continue
            self._times[url] = (*before, at)[-KEPT:]
            added = True
        if added:
            self._write()

    def _write(self) -> None:
        newest = sorted(self._times, key=lambda url: self._times[url][-1])[-MAX_WITNESSES:]
        self._times = {url: self._times[url] for url in newest}
        lines = [{"url": url, "times": list(times)} for url, times in sorted(self._times.items())]
        beside = self._file.with_name(f".{self._file.name}.new")
        beside.write_bytes(canonical({"v": 1, "witnesses": lines}))
        beside.replace(self._file)


def read_history(file: Path) -> Times:
    """Give what is kept; nothing where there is no file, or none of ours: it is not worth a stop."""
    try:
        fields = Fields(parse_canonical(file.read_bytes(), _MAX_LENGTH), "witnesses' times")
        fields.integer("v", 1, 1)
        found = dict(_line(item) for item in fields.items("witnesses", MAX_WITNESSES))
        fields.done()
    except (OSError, Malformed):
        return {}
    return found


def longest_gap(times: tuple[int, ...], now: int) -> tuple[int, int] | None:
    """Give the longest time without a cosignature, until ``now``, and when it began; None without any."""
    if not times:
        return None
    pairs = zip(times, (*times[1:], max(now, times[-1])), strict=True)
    return max((after - at, at) for at, after in pairs)


def _line(item: object) -> tuple[str, tuple[int, ...]]:
    line = Fields(item, "a witness's times")
    url, times = line.text("url", 2048), line.items("times", KEPT)
    line.done()
    if not all(isinstance(at, int) and at > 0 for at in times) or not times:
        raise Malformed("a time is no number of seconds")
    return url, tuple(int(str(at)) for at in times)
