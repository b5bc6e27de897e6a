"""Synthetic logs for benchmarks: any number of genuine entries, signed in every process that there is.

The first entries are the genesis and, for each service (64), its allocation and the delegation of its
builder; every further entry is a release of one row with a measurement id of its own, the dearest statement
for the status map. Each is cut from a template that the tests' authority made: only sequence, register and
signature differ, at equal length. ``python benchmarks/synthetic.py COUNT`` writes them as NDJSON.
"""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quotary.canonical import b64
from quotary.statements.envelope import Envelope, pae
from tests.fakes.authority import NOW, Authority, key, keyid, registers

SERVICES = 64
"""Services of a log, unless said otherwise."""
SETUP = 1 + 2 * SERVICES
CHUNK = 2048
# A sequence may jump this far and leaves room for as many entries again, always ten digits.
FIRST_SEQUENCE = 2_000_000_000
BUILDER = "builder1"


@dataclass(frozen=True, slots=True)
class Template:
    """A release's payload around the two texts that differ."""

    parts: tuple[bytes, bytes, bytes]

    @classmethod
    def of(cls, service: str, now: datetime) -> "Template":
        entry = Authority(now=now).release("a", service=service, sequence=FIRST_SEQUENCE)
        before, after = Envelope.parse(entry).payload.split(registers("a")["mrtd"].encode())
        middle, end = after.split(b"%d" % FIRST_SEQUENCE)
        return cls((before, middle, end))

    def payload(self, index: int) -> bytes:
        """Give the payload of the release at ``index`` of the log."""
        before, middle, end = self.parts
        register = hashlib.sha384(b"synthetic %d" % index).hexdigest().encode()
        return b"".join((before, register, middle, b"%d" % (FIRST_SEQUENCE + index), end))


def setup(services: int) -> int:
    """Give the number of entries that let one builder release for so many services."""
    return 1 + 2 * services


def setup_entries(now: datetime = NOW, services: int = SERVICES) -> list[bytes]:
    """Give those entries."""
    authority = Authority(now=now)
    made = [authority.genesis()]
    for name in map(service, range(services)):
        made += [authority.allocation(name), authority.delegation(name, builders=(BUILDER,))]
    return made


def service(number: int) -> str:
    return f"service-{number:03d}"


def releases(start: int, stop: int, now: datetime = NOW, services: int = SERVICES) -> list[bytes]:
    """Sign the releases at these indices of the log, ``start`` at least ``setup(services)``."""
    templates = [Template.of(service(number), now) for number in range(services)]
    head = b'","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"'
    signer, signed_by = key(BUILDER), keyid(BUILDER).encode()
    made = []
    for index in range(start, stop):
        payload = templates[index % services].payload(index)
        signature = b64(signer.sign(pae(payload))).encode()
        parts = (b64(payload).encode(), head, signed_by, b'","sig":"', signature)
        made.append(b'{"payload":"' + b"".join(parts) + b'"}]}')
    return made


def entries(count: int, now: datetime = NOW, services: int = SERVICES) -> Iterator[bytes]:
    """Give the entries of a log of ``count`` statements issued at ``now``, without state entries."""
    first = setup_entries(now, services)[:count]
    starts = range(setup(services), count, CHUNK)
    spans = [(start, min(start + CHUNK, count), now, services) for start in starts]
    if not spans:
        yield from first
        return
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        yield from chain(first, chain.from_iterable(pool.imap(_releases, spans)))


def _releases(span: tuple[int, int, datetime, int]) -> list[bytes]:
    return releases(*span)


def main() -> None:
    """Write as many entries as the first argument says to stdout, one a line."""
    for entry in entries(int(sys.argv[1])):
        sys.stdout.buffer.write(entry + b"\n")


if __name__ == "__main__":
    main()
