"""Build the model's own disk: the weights as they are, uncompressed, under a hash tree.

The folder carries its manifest (docs/formats/weights.md); a file that is not as it says stops the build.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from builder import erofs, verity
from builder.erofs import Node
from builder.locked import tool

MANIFEST = "MANIFEST"


def build(what: dict[str, Any], out: Path) -> None:
    """Write ``model.img``, ``verity.json`` and a copy of the manifest below ``out``."""
    tree = Path(what["tree"])
    found = {str(path.relative_to(tree)): Node(source=path) for path in tree.rglob("*") if path.is_file()}
    nodes = dict(sorted(found.items()))
    manifest = (tree / MANIFEST).read_bytes()
    lines = (line(path, node) for path, node in nodes.items() if path != MANIFEST)
    if manifest != "".join(lines).encode():
        raise SystemExit("the model's files are not those of its manifest")
    out.mkdir()
    tar = Path("model.tar")
    erofs.write_tar(nodes, tar)
    erofs.make_image(tool("mkfs.erofs"), tar, out / "model.img", what["label"], compress=False)
    pinned = verity.append_tree(out / "model.img", what["label"])
    tree_of = {"root": pinned.root.hex(), "blocks": pinned.blocks, "salt": pinned.salt.hex()}
    text = json.dumps(tree_of | {"label": what["label"]}, indent=1, sort_keys=True)
    (out / "verity.json").write_text(text + "\n")
    (out / MANIFEST).write_bytes(manifest)


def line(path: str, node: Node) -> str:
    """Return a file's line of the manifest."""
    assert node.source is not None, "a model has files only"
    with node.source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{digest}  {node.source.stat().st_size}  {path}\n"


if __name__ == "__main__":
    build(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
