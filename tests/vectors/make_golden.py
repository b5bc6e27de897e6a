"""Makes a golden log: every row of a small registry's database by today's schema, and what it serves.

Run from the root of the repository, before a migration is added: ``python -m tests.vectors.make_golden``. It writes
``golden/r<revision>.json``. Such a file is never made again: a later schema must migrate it to the same served bytes
(``tests/registry/test_migrations.py``). Signatures over checkpoints differ from run to run, the rest does not.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from sqlalchemy import inspect, text

from quotary.canonical import b64
from registry.export import Exporter
from registry.public import PublicLog
from registry.store import Store
from registry.store.schema import REVISION
from tests.fakes.authority import DAY, Authority, keyid
from tests.fakes.inprocess import local

FOLDER = Path(__file__).resolve().parent / "golden"


def rounds(by: Authority) -> list[list[bytes]]:
    """Releases, rebuilds, revocations of all sorts, a floor, a compromise, an entry without effect, and full tiles."""
    first = by.release("a", "b")
    found = [
        [by.allocation(), by.delegation(notices=("artefact",)), by.floor()],
        [first, by.rebuild(first, {"a": True, "b": False}), by.release("c"), by.notice()],
        [by.revocation(["a"], suspend=DAY), by.revocation(["b"])],
        [by.revocation(["unheard", "c"], service="log", signers=["security1"]), by.release("unheard", "d")],
        [by.release("late", sequence=1), by.allocation("other")],
        [by.notice() for _ in range(260)],
    ]
    lost = [{"key": keyid("builder1"), "from_index": 12}]
    return [*found, [by.delegation(builders=("builder2",), compromised=lost)]]


def served(store: Store, folder: Path) -> dict[str, str]:
    """Give path and SHA-256 of every public file."""
    Exporter(PublicLog(store.read), folder).export_all()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> None:
    with tempfile.TemporaryDirectory() as name, local(Path(name)) as log:
        log.loop.round()
        for entries in rounds(log.authority):
            log.append(*entries)
        document = {
            "revision": REVISION,
            "tables": rows(log.store),
            "served": served(log.store, Path(name) / "public"),
            "policy": log.config.policy.read_text("utf-8"),
        }
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (FOLDER / f"r{REVISION}.json").write_text(text, "utf-8")


def rows(store: Store) -> dict[str, list[dict[str, object]]]:
    """Give every row; bytes are ``{"b64": ...}``."""
    names = [name for name in inspect(store.engine).get_table_names() if name != "alembic_version"]
    with store.engine.connect() as connection:
        return {
            name: [
                {
                    key: {"b64": b64(value)} if isinstance(value, bytes) else value
                    for key, value in row.items()
                }
                for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]
            for name in names
        }


if __name__ == "__main__":
    main()
