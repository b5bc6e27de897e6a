"""Quotary's own release: wheel, sdist, bill of materials and the browser's verifier as one page, and the
statement by which a log says their digests (`make release`).

Only what the commit holds goes in, and no time but the commit's, so that anybody can build the same bytes
from it with the same Python and zlib. The wheel is built from the sdist, which shows that nothing is missing
there.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from builder.statement import Head, now, write
from quotary.client.disk import write_new
from registry.pages.standalone import standalone

ARCHIVE = ("-c", "tar.umask=0022", "archive", "--prefix=tree/", "HEAD")
ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-torch.lock")
NAMESPACE = uuid.UUID("5d0c7c0e-5f0e-5b0a-9d53-3f2f8f1f7a11")
SBOM, PAGE, SUMS, STATEMENT = "quotary.cdx.json", "verify-standalone.html", "SHA256SUMS", "artefact.json"
_PINNED = re.compile(
    r"^([a-z0-9._-]+)==([^ ]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)\n((?:    # .*\n)*)", re.M
)


def main(words: Sequence[str]) -> None:
    options = argparse.ArgumentParser(description="Make Quotary's own release; see docs/upgrade.md.")
    options.add_argument("out", type=Path, help="New folder.")
    options.add_argument("--source", type=Path, default=ROOT, help="Checkout whose commit is released.")
    options.add_argument("--service", help="Service of the log under which the release stands.")
    options.add_argument("--origin", help="Origin of the log.")
    options.add_argument("--sequence", type=int, help="One above that of the service's last artefact.")
    given = options.parse_args(words)
    made = make(given.source, given.out)
    if given.service:
        head = Head(given.origin, given.service, given.sequence, now())
        revision = _git(given.source, "rev-parse", "HEAD").decode().strip()
        write("artefact", predicate(made, head, revision), given.out / STATEMENT)


def make(source: Path, out: Path) -> list[Path]:
    """Build everything into a new folder, with a file of digests; give what the digests are of."""
    out.mkdir(parents=True)
    epoch = int(_git(source, "log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place)
        with tarfile.open(fileobj=io.BytesIO(_git(source, *ARCHIVE))) as archive:
            archive.extractall(tree)
        sdist = _repacked(_built("sdist", tree / "tree", tree, epoch), out, epoch)
        with tarfile.open(sdist) as archive:
            archive.extractall(tree)
        wheel = _built("wheel", tree / sdist.name.removesuffix(".tar.gz"), out, epoch)
        write_new(
            out / SBOM, bill([(tree / "tree" / name).read_text("ascii") for name in LOCKS], wheel, sdist)
        )
    write_new(out / PAGE, standalone())
    made = [wheel, sdist, out / SBOM, out / PAGE]
    write_new(out / SUMS, "".join(f"{_digest(path)}  {path.name}\n" for path in made).encode())
    return made


def bill(locks: Sequence[str], wheel: Path, sdist: Path) -> bytes:
    """Describe what the locks install beside the wheel, as CycloneDX 1.6, with who wants what."""
    pins = {match[1]: match for lock in locks for match in _PINNED.finditer(lock)}
    references = {name: f"pkg:pypi/{name}@{match[2]}" for name, match in pins.items()}
    name, version, _ = wheel.name.split("-", 2)
    root = f"pkg:pypi/{name}@{version}"
    wanted: dict[str, list[str]] = {root: [], **{reference: [] for reference in references.values()}}
    for child, match in pins.items():
        parents = [references[word] for word in match[4].split() if word in references]
        for parent in parents if parents and " quotary" not in match[4] else [*parents, root]:
            wanted[parent].append(references[child])
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, 'wheel/' + _digest(wheel))}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": version,
                "purl": root,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "externalReferences": [_distribution(path.name, [_digest(path)]) for path in (wheel, sdist)],
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": reference,
                "name": name,
                "version": pins[name][2],
                "purl": reference,
                "externalReferences": [
                    _distribution(f"https://pypi.org/project/{name}/{pins[name][2]}/#files", [digest])
                    for digest in re.findall(r"sha256:([0-9a-f]{64})", pins[name][3])
                ],
            }
            for name, reference in sorted(references.items())
        ],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(set(items))} for ref, items in sorted(wanted.items())
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def predicate(made: Sequence[Path], head: Head, revision: str) -> dict[str, object]:
    """Say what was made, for a statement of kind ``artefact``."""
    items = [{"name": path.name, "sha256": _digest(path), "size": path.stat().st_size} for path in made]
    return {**head.members(), "items": items, "data": {"source_revision": revision}}


def _built(kind: str, tree: Path, out: Path, epoch: int) -> Path:
    """Let setuptools build ``kind`` of a source tree."""
    script = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", f"import os; os.umask(0o022); {script}", str(out)],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return out / ran.stdout.decode().splitlines()[-1]


def _repacked(sdist: Path, out: Path, epoch: int) -> Path:
    """Write an sdist again in one order, with one time and no names of this machine."""
    found = out / sdist.name
    with (
        tarfile.open(sdist) as old,
        found.open("xb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.pax_headers, member.mode = {}, 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return found


def _distribution(url: str, digests: Sequence[str]) -> dict[str, object]:
    return {
        "type": "distribution",
        "url": url,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(folder: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main(sys.argv[1:])
