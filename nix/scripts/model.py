"""Build the model's own disk: the weights as they are, under a hash tree; and their manifest."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from builder import erofs, verity
from builder.erofs import Node
from builder.locked import tool


def build(what: dict[str, Any], out: Path) -> None:
    """Write ``model.img``, ``verity.json`` and ``manifest.json`` (path -> size and SHA-256) below ``out``."""
    tree = Path(what["tree"])
    nodes = {
        str(path.relative_to(tree)): Node(source=path) for path in sorted(tree.rglob("*")) if path.is_file()
    }
    if not nodes:
        raise SystemExit("the model's folder is empty")
    out.mkdir()
    tar = Path("model.tar")
    erofs.write_tar(nodes, tar)
    erofs.make_image(tool("mkfs.erofs"), tar, out / "model.img", what["label"], compress=False)
    pinned = verity.append_tree(out / "model.img", what["label"])
    found = {
        "root": pinned.root.hex(),
        "blocks": pinned.blocks,
        "salt": pinned.salt.hex(),
        "label": what["label"],
    }
    (out / "verity.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    manifest = {path: entry(node) for path, node in nodes.items()}
    (out / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":"), sort_keys=True))


def entry(node: Node) -> dict[str, str | int]:
    """Return a file's size in bytes and SHA-256."""
    assert node.source is not None, "a model has files only"
    with node.source.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": node.source.stat().st_size}


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
