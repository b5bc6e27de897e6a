"""The Merkle path as a picture: SVG text, always shown beside a table that says the same."""

from collections.abc import Sequence
from dataclasses import dataclass

STEP = 64


@dataclass(frozen=True, slots=True)
class PathStep:
    """One sibling on the way up: on which side it stands, and its hash in hex."""

    side: str
    hash: str


def path_steps(index: int, size: int, path: Sequence[bytes]) -> list[PathStep]:
    """Say for each hash of an inclusion path whether it stands left or right (RFC 9162 section 2.1.3.2)."""
    node, last, steps = index, size - 1, []
    for sibling in path:
        left = node & 1 == 1 or node == last
        steps.append(PathStep("left" if left else "right", sibling.hex()))
        while left and node & 1 == 0 and node != 0:
            node, last = node >> 1, last >> 1
        node, last = node >> 1, last >> 1
    return steps


def path_picture(index: int, size: int, steps: Sequence[PathStep]) -> str:
    """Draw the path from the leaf (bottom) to the root (top)."""
    height = STEP * (len(steps) + 1)
    parts = [
        f'<svg viewBox="0 0 640 {height}" role="img" aria-labelledby="path-title path-desc">',
        f'<title id="path-title">Merkle path of entry {index} in {size} entries</title>',
        f'<desc id="path-desc">{len(steps)} siblings join the leaf to the root, as the table lists.</desc>',
    ]
    for number, step in enumerate(steps):
        y, above = height - STEP // 2 - STEP * number, height - STEP // 2 - STEP * (number + 1)
        x = 140 if step.side == "left" else 500
        parts += [
            f'<line x1="320" y1="{y}" x2="320" y2="{above}"/><line x1="{x}" y1="{y}" x2="320" y2="{above}"/>',
            f'<circle class="node" cx="{x}" cy="{y}" r="9"/>',
            f'<text x="{x}" y="{y + 26}" text-anchor="middle">{step.hash[:12]}…</text>',
        ]
    for number in range(len(steps) + 1):
        y = height - STEP // 2 - STEP * number
        parts.append(f'<circle class="mine" cx="320" cy="{y}" r="9"/>')
    parts.append(f'<text x="338" y="{height - STEP // 2 + 5}">entry {index}</text>')
    parts.append(
        f'<text x="338" y="{STEP // 2 + 5 if steps else height - STEP // 2 + 21}">root of {size}</text></svg>'
    )
    return "".join(parts)
