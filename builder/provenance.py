"""SLSA provenance of an image: who built which files from what, as an in-toto statement
(slsa.dev/provenance/v1).

It says what the builder says of the build and nothing of what hardware will show; a release names it by
digest. It holds no time and no machine, so the same build by the same builder has the same provenance.
"""

from pathlib import Path

from builder.build import LOCK, items_sha256
from builder.image import BOOT, COMMAND_LINE, Image, file_of
from builder.lock import Input, Lock, lock_sha256, purl
from builder.record import Record
from quotary.canonical import canonical
from quotary.errors import Malformed, Rejected
from quotary.statements.schema import STATEMENT_TYPE

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://quotary.dev/build/nix/v1"


def provenance(folder: Path, source_uri: str, builder_id: str) -> bytes:
    """Write the provenance (canonical JSON) of an image folder; its files and its lock are hashed again.

    builder_id: URI that names whoever ran the build, e.g. of the CI job's definition
    """
    image, record = Image.load(folder), Record.load(folder)
    image.verify(folder)
    inputs = _inputs(folder, record)
    names = sorted([*image.files, COMMAND_LINE, BOOT])
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "source": {"uri": source_uri, "revision": record.revision},
            "profile": image.profile,
            "commandLine": image.command_line,
            "policySha256": image.policy_sha256,
            "weightsSha256": image.weights_sha256,
        },
        "internalParameters": {"nix": record.nix_version, "sandbox": True},
        "resolvedDependencies": [
            {"name": "source", "uri": source_uri, **_commit(record)},
            {"name": "lock", "digest": {"sha256": record.lock_sha256}},
            *(_dependency(item) for item in inputs),
        ],
    }
    byproducts = [
        {"name": name, "uri": one.derivation, "digest": {"narSha256": one.nar_sha256}}
        for name, one in sorted(record.derived.items())
    ]
    subject = [{"name": name, "digest": {"sha256": file_of(folder / name).sha256}} for name in names]
    run = {"builder": {"id": builder_id}, "byproducts": byproducts}
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": subject,
            "predicateType": PREDICATE_TYPE,
            "predicate": {"buildDefinition": definition, "runDetails": run},
        }
    )


def _inputs(folder: Path, record: Record) -> list[Input]:
    found = lock_sha256(folder / LOCK)
    if found != record.lock_sha256:
        raise Rejected("lock beside the image", found, record.lock_sha256)
    lock = Lock.load(folder / LOCK)
    unknown = {*record.debs} - lock.deb_groups.keys() | {*record.wheels} - lock.wheel_groups.keys()
    if unknown:
        raise Malformed(f"the build's record names the group {min(unknown)}, which its lock has not")
    items = lock.of_groups(record.debs, record.wheels)
    if items_sha256(items) != record.inputs_sha256:
        raise Rejected("inputs of the build", items_sha256(items), record.inputs_sha256)
    return sorted(items, key=lambda item: item.store_name)


def _commit(record: Record) -> dict[str, object]:
    # A checkout with changes has no commit that names it.
    return {"digest": {"gitCommit": record.revision}} if record.committed else {}


def _dependency(item: Input) -> dict[str, object]:
    return {"name": item.store_name, "uri": purl(item), "digest": {"sha256": item.sha256}}
