"""Pictures as SVG text, each shown beside a table that says the same; foreign words are escaped here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

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


@dataclass(frozen=True, slots=True)
class Mark:
    """Something on a timeline: when (RFC 3339), what, and the entry that says so."""

    at: str
    what: str
    index: int


def timeline_picture(title: str, marks: Sequence[Mark]) -> str:
    """Draw what happened, oldest at the top, with distances by order and not by length of time."""
    height = STEP // 2 * (len(marks) + 1)
    parts = [_begin(640, height, title, f"{len(marks)} events, oldest first, as the table lists.", "time")]
    if marks:
        last = STEP // 2 * len(marks)
        parts.append(f'<line x1="20" y1="{STEP // 2}" x2="20" y2="{last}"/>')
    for number, mark in enumerate(marks, 1):
        y, what = STEP // 2 * number, mark.what if len(mark.what) <= 44 else mark.what[:43] + "…"
        parts.append(f'<circle class="mine" cx="20" cy="{y}" r="7"/>')
        parts.append(f'<text x="40" y="{y + 4}">{escape(mark.at[:10])} {escape(what)} ({mark.index})</text>')
    return "".join([*parts, "</svg>"])


def dependency_picture(title: str, inputs: Mapping[str, Sequence[str]], number: int) -> str:
    """Draw which inputs (left) decide which registers (right)."""
    names = list(dict.fromkeys(name for given in inputs.values() for name in given))
    height = 36 * max(len(names), len(inputs)) + 20
    said = "; ".join(f"{register}: {', '.join(given)}" for register, given in inputs.items())
    parts = [_begin(640, height, f"Which inputs decide which register: {title}", said, f"inputs-{number}")]
    places = {name: 30 + 36 * at for at, name in enumerate(names)}
    for at, (register, given) in enumerate(inputs.items()):
        y = 30 + 36 * at
        parts += [f'<line x1="290" y1="{places[name]}" x2="470" y2="{y}"/>' for name in given]
        parts.append(f'<circle class="mine" cx="470" cy="{y}" r="7"/>')
        parts.append(f'<text x="486" y="{y + 4}">{escape(register)}</text>')
    for name, y in places.items():
        parts.append(f'<circle class="node" cx="290" cy="{y}" r="7"/>')
        parts.append(f'<text x="274" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def tree_picture(size: int, subtrees: Sequence[int]) -> str:
    """Draw the full subtrees of a tree, the widest first; widths by their height, as sizes would not fit."""
    parts = [_begin(640, 110, f"The tree of {size} entries", "Full subtrees from left to right.", "tree")]
    weights = [entries.bit_length() for entries in subtrees]
    x = 10.0
    for entries, weight in zip(subtrees, weights, strict=True):
        width = 620 * weight / sum(weights)
        top = 90 - 4 * weight
        parts.append(
            f'<polygon class="node" points="{x:.1f},90 {x + width / 2:.1f},{top} {x + width:.1f},90"/>'
        )
        parts.append(f'<text x="{x + width / 2:.1f}" y="106" text-anchor="middle">{entries}</text>')
        x += width
    return "".join([*parts, "</svg>"])


def growth_picture(points: Sequence[tuple[str, int]]) -> str:
    """Draw the number of entries over time."""
    first, last = points[0], points[-1]
    begun, ended = _seconds(first[0]), _seconds(last[0])
    span = max(1.0, ended - begun)
    said = f"From {first[1]} entries at {first[0]} to {last[1]} at {last[0]}."
    parts = [_begin(640, 240, "Growth of the log", said, "growth")]
    places = [
        f"{60 + 560 * (_seconds(at) - begun) / span:.1f},{200 - 180 * size / last[1]:.1f}"
        for at, size in points
    ]
    parts.append('<line x1="60" y1="200" x2="620" y2="200"/><line x1="60" y1="20" x2="60" y2="200"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(places)}"/>')
    parts.append(f'<text x="54" y="24" text-anchor="end">{last[1]}</text>')
    parts.append(f'<text x="60" y="222">{first[0][:10]}</text>')
    parts.append(f'<text x="620" y="222" text-anchor="end">{last[0][:10]}</text>')
    return "".join([*parts, "</svg>"])


def bars_picture(title: str, bars: Sequence[tuple[str, object]]) -> str:
    """Draw a length for each name; what has none is drawn as a gap that says so."""
    lengths = [value for _, value in bars if isinstance(value, int)]
    longest = max([1, *lengths])
    parts = [_begin(640, 40 * len(bars) + 20, title, f"{len(bars)} bars, as the table lists.", "bars")]
    for number, (name, value) in enumerate(bars):
        y = 40 * number + 14
        parts.append(f'<text x="10" y="{y}">{escape(name[:60])}</text>')
        if isinstance(value, int):
            parts.append(
                f'<rect class="mine" x="10" y="{y + 6}" width="{4 + 480 * value / longest:.1f}" height="12"/>'
            )
            parts.append(f'<text x="{20 + 480 * value / longest:.1f}" y="{y + 17}">{value}</text>')
        else:
            parts.append(f'<text x="10" y="{y + 17}">nothing</text>')
    return "".join([*parts, "</svg>"])


def lag_picture(rows: Sequence[tuple[str, Sequence[int]]], now: int) -> str:
    """Draw for each witness when it cosigned, on one line of time that ends now: a gap is a silence."""
    first = min((times[0] for _, times in rows if times), default=now)
    span = max(1, now - first)
    said = f"{len(rows)} lines; each mark is a cosignature, as the table counts them."
    parts = [_begin(640, 50 * len(rows) + 30, "When each witness cosigned", said, "lag")]
    for number, (name, times) in enumerate(rows):
        y = 50 * number + 16
        parts.append(f'<text x="10" y="{y}">{escape(name[:60])}</text>')
        parts.append(f'<line x1="10" y1="{y + 16}" x2="630" y2="{y + 16}"/>')
        places = sorted({round(10 + 620 * (at - first) / span) for at in times if at <= now})
        parts += [f'<rect class="mine" x="{x - 1}" y="{y + 8}" width="3" height="16"/>' for x in places]
    end = 50 * len(rows) + 20
    parts.append(f'<text x="10" y="{end}">{_moment(first)}</text>')
    parts.append(f'<text x="630" y="{end}" text-anchor="end">{_moment(now)}</text>')
    return "".join([*parts, "</svg>"])


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def _begin(width: int, height: int, title: str, description: str, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
