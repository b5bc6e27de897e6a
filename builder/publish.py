"""From an image folder to an entry of the log in one go, for a machine that builds on its own (CI).

The steps are those of the commands ``measure run``, ``release new``, ``sign`` and ``submit``. They leave the
same files, so that a person can look at each, or go on where it stopped.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.measure import demanding, measure_image, save_rows
from builder.nix import Progress
from builder.provenance import provenance
from builder.record import Record
from builder.release import release_predicate
from builder.statement import Head, write
from quotary.attestation.measure.shape import Shape
from quotary.client.disk import write_new
from quotary.client.log import LogClient
from quotary.client.submit import Submitted, submit
from quotary.errors import Refused
from quotary.statements.envelope import Signer, sign

ROWS, PROVENANCE, RELEASE, ENTRY = "rows.json", "provenance.dsse.json", "release.json", "release.entry"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be released.

    platforms, rule, shapes: what rows are computed for, as ``measure_image`` takes them
    builder_id:              URI that names whoever builds, for the provenance
    days:                    until ``not_after``
    devices:                 what each row demands of GPUs and switches, or None
    """

    platforms: Sequence[str]
    rule: str | None
    shapes: Sequence[Shape]
    source_uri: str
    builder_id: str
    days: int
    devices: object = None


def require_committed(folder: Path) -> None:
    """Refuse an image whose source no commit names: nobody could build it again."""
    record = Record.load(folder)
    if not record.committed:
        raise Refused(
            "source revision", record.revision, "a commit, without changes", next_command="git commit"
        )


def make_entry(image: Path, plan: Plan, head: Head, keys: Sequence[Signer], out: Path) -> bytes:
    """Measure and describe an image, sign its provenance and its release, write all four files to ``out``."""
    rows, material = measure_image(image, plan.platforms, plan.rule, plan.shapes)
    if plan.devices is not None:
        rows = demanding(rows, plan.devices)
    save_rows(out / ROWS, rows, material)
    said = provenance(image, plan.source_uri, plan.builder_id)
    write_new(out / PROVENANCE, sign(said, keys))
    digest = hashlib.sha256(said).hexdigest()
    predicate = release_predicate(
        image, rows, material, head, days=plan.days, source_uri=plan.source_uri, provenance=digest
    )
    write("release", predicate, out / RELEASE)
    entry = sign((out / RELEASE).read_bytes(), keys)
    write_new(out / ENTRY, entry)
    return entry


def publish_entry(log: LogClient, entry: bytes, progress: Progress) -> Submitted:
    """Send the entry and wait until the log has published it."""
    progress(f"submitting to {log.url}")
    return submit(log, entry, wait=True, tick=lambda: progress("waiting for the log"))
