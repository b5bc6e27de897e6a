"""Build a disk of programs, the root or the runtime: packages, wheels, our code, byte code, a hash tree.

Runs under the very interpreter that the image holds, so the byte code it writes is the one that the guest
loads; it is hash-based and unchecked, since a time stamp would differ between builds.
"""

import fnmatch
import importlib.util
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from importlib import _bootstrap_external  # type: ignore[attr-defined]  # the writer of hash-based byte code
from pathlib import Path
from typing import Any

from builder import erofs, verity
from builder.erofs import Node
from builder.locked import tool

SITE = "usr/local/lib/python3.13/dist-packages"
CERTIFICATES = "usr/share/ca-certificates/"
BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def build(what: dict[str, Any], out: Path) -> None:
    """Write the disk, its list of files and ``verity.json`` below ``out``."""
    nodes = collect(what)
    nodes |= dict(byte_code(nodes, what["place"]))
    out.mkdir()
    tar, image = Path("root.tar"), out / f"{what['disk']}.img"
    erofs.write_tar(nodes, tar)
    (out / what["listing"]).write_text(erofs.listing(nodes))
    erofs.make_image(tool("mkfs.erofs"), tar, image, what["label"], compress=True)
    tree = verity.append_tree(image, what["label"])
    pinned = {"root": tree.root.hex(), "blocks": tree.blocks, "salt": tree.salt.hex(), "label": what["label"]}
    (out / "verity.json").write_text(json.dumps(pinned, indent=1, sort_keys=True) + "\n")


def collect(what: dict[str, Any]) -> dict[str, Node]:
    """Return every file and link of the disk except byte code, by path."""
    keep = re.compile("|".join(fnmatch.translate(pattern) for pattern in what["keep"]))
    drop = re.compile("|".join(fnmatch.translate(pattern) for pattern in what["drop"]))
    nodes: dict[str, Node] = {}
    authorities: dict[str, bytes] = {}
    for tree in what["trees"]:
        for path, node in walk(Path(tree)):
            if path.startswith(CERTIFICATES) and path.endswith(".crt") and node.source is not None:
                authorities[path] = node.source.read_bytes()
            elif keep.match(path) and not drop.match(path):
                add(nodes, path, node)
    for wheel in what["wheels"]:
        for path, node in unzip(Path(wheel["path"])):
            if not drop.match(path):
                add(nodes, path, node)
    for name, tree in what["packages"].items():
        for path, node in walk(Path(tree)):
            add(nodes, f"{SITE}/{name}/{path}", Node(source=node.source))
    if authorities:
        add(nodes, BUNDLE, Node(data=b"".join(data for _, data in sorted(authorities.items()))))
    for name, path in what["programs"].items():
        add(nodes, f"usr/sbin/{name}", Node(data=Path(path).read_bytes(), executable=True))
    for path, text in what["files"].items():
        add(nodes, path, Node(data=text.encode()))
    for path, target in what["links"].items():
        add(nodes, path, Node(target=target))
    return nodes | {path: Node() for path in what["folders"]}


def walk(tree: Path) -> Iterator[tuple[str, Node]]:
    """Yield files and links below a folder, sorted; empty folders do not count."""
    for base, folders, names in os.walk(tree):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in sorted(names + links):
            path = Path(base, name)
            inside = str(path.relative_to(tree))
            if path.is_symlink():
                yield inside, Node(target=os.readlink(path))
            elif path.is_file():
                yield inside, Node(source=path, executable=bool(path.stat().st_mode & 0o111))


def unzip(wheel: Path) -> Iterator[tuple[str, Node]]:
    """Yield a wheel's library files where Debian's Python looks for local ones; its scripts stay out."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/") or ".data/" in name:
                continue
            if name.startswith("/") or ".." in name.split("/"):
                raise SystemExit(f"{wheel.name} holds the path {name}")
            yield f"{SITE}/{name}", Node(data=archive.read(name))


def add(nodes: dict[str, Node], path: str, node: Node) -> None:
    """Add a path; two inputs may give the same path only with the same contents."""
    old = nodes.get(path)
    if old is not None and old != node and contents(old) != contents(node):
        raise SystemExit(f"two inputs give {path}")
    nodes[path] = node


def contents(node: Node) -> bytes | str | None:
    """Return what a node holds, for comparison."""
    return node.target if node.target is not None else node.source.read_bytes() if node.source else node.data


def byte_code(nodes: dict[str, Node], place: str) -> Iterator[tuple[str, Node]]:
    """Yield the unchecked hash-based ``.pyc`` of each module, which names its place in the guest.

    What is no valid Python stays source only.
    """
    for path, node in sorted(nodes.items()):
        if not path.endswith(".py") or node.target is not None or not path.startswith("usr/"):
            continue
        source = contents(node)
        assert isinstance(source, bytes), "links are skipped above"
        try:
            code = compile(source, f"/{place}{path}", "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            continue
        data = _bootstrap_external._code_to_hash_pyc(code, importlib.util.source_hash(source), False)
        folder, name = path.rsplit("/", 1)
        yield f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc", Node(data=bytes(data))


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
