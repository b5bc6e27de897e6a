"""What changed between two releases, layer by layer: from the source to what hardware shows.

The order is that of causes: a change of a layer explains those below it. A release says digests; where both
image folders are at hand, packages and files are named too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.build import LOCK
from builder.image import BOOT
from builder.lock import Lock
from builder.lock import difference as lock_difference
from quotary.errors import CannotTell, Malformed
from quotary.statements.release import Release
from quotary.statements.row import Row

FILES = "files.tsv"
RUNTIME_FILES = "runtime.tsv"
MAX_FILES = 64 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer and its differences, a line each: ``~`` changed, ``+`` new, ``-`` gone."""

    name: str
    lines: tuple[str, ...]


def release_layers(old: Release, new: Release) -> tuple[Layer, ...]:
    """Say what two releases say differently, beside their numbers and dates; layers without difference are
    left out."""
    return _kept(
        (
            ("source", _one("revision", _source(old), _source(new))),
            ("lock", _one("lock", old.lock_sha256.hex(), new.lock_sha256.hex())),
            ("inputs", _one("inputs", _text(old, "inputs_sha256"), _text(new, "inputs_sha256"))),
            ("derivations", _changes("derivation", _derivations(old), _derivations(new))),
            ("weights", _one("weights", old.weights_sha256.hex(), new.weights_sha256.hex())),
            ("policy", _one("policy", old.policy_sha256.hex(), new.policy_sha256.hex())),
            ("outputs", _changes("output", _outputs(old), _outputs(new))),
            ("command line", _words(_text(old, "command_line"), _text(new, "command_line"))),
            ("registers", _registers(old, new)),
            ("rules", _changes("rules of", _rules(old), _rules(new))),
            ("measurements", _changes("measurement", _measurements(old), _measurements(new))),
        )
    )


def image_layers(old: Path, new: Path) -> tuple[Layer, ...]:
    """Name the packages, and the files of root and runtime, that differ between two image folders."""
    locks = [Lock.load(folder / LOCK) for folder in (old, new)]
    runtimes = [
        _files(folder / RUNTIME_FILES) if (folder / RUNTIME_FILES).exists() else {} for folder in (old, new)
    ]
    return _kept(
        (
            ("packages", lock_difference(*locks)),
            ("files", _changes("file", _files(old / FILES), _files(new / FILES))),
            ("runtime", _changes("file", *runtimes)),
        )
    )


def _kept(layers: Iterable[tuple[str, Iterable[str]]]) -> tuple[Layer, ...]:
    found = (Layer(name, tuple(lines)) for name, lines in layers)
    return tuple(layer for layer in found if layer.lines)


def _source(release: Release) -> str:
    return f"{release.source_uri} {release.source_revision}"


def _text(release: Release, name: str) -> str:
    return str(release.material.get(name, "none"))


def _derivations(release: Release) -> Mapping[str, str]:
    found = release.material.get("nix")
    if not isinstance(found, Mapping):
        return {}
    return {
        name: f"{one.get('derivation')} {one.get('nar_sha256')}"
        for name, one in found.items()
        if isinstance(one, Mapping)
    }


def _outputs(release: Release) -> Mapping[str, str]:
    # The description of all the others changes with each of them, and explains nothing.
    return {
        output.name: f"{output.sha256.hex()} ({output.size} bytes)"
        for output in release.outputs
        if output.name != BOOT
    }


def _words(old: str, new: str) -> Iterator[str]:
    return _changes("word", _named(old), _named(new))


def _named(line: str) -> Mapping[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in line.split())}


def _machine(row: Row) -> str:
    shape = "" if row.shape is None else " " + " ".join(f"{k}={v}" for k, v in sorted(row.shape.items()))
    return f"{row.platform} {row.profile}{shape}"


def _registers(old: Release, new: Release) -> Iterator[str]:
    before, after = ({_machine(row): row for row in release.rows} for release in (old, new))
    for machine in sorted(before.keys() & after.keys()):
        one, two = before[machine].registers, after[machine].registers
        changed = [name for name in sorted(one) if one[name] != two.get(name)]
        yield from (f"~ {name} of {machine} {one[name].hex()} -> {two[name].hex()}" for name in changed)


def _rules(release: Release) -> Mapping[str, str]:
    return {_machine(row): f"{row.profile_sha256.hex()} {row.require}" for row in release.rows}


def _measurements(release: Release) -> Mapping[str, str]:
    return {row.measurement.hex(): _machine(row) for row in release.rows}


def _files(path: Path) -> Mapping[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILES + 1)
    except OSError as error:
        raise CannotTell(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILES:
        raise Malformed(f"{path} has more than {MAX_FILES} bytes")
    lines = data.decode("utf-8", "replace").splitlines()
    return {path: " ".join(rest) for path, *rest in (line.split("\t") for line in lines)}


def _one(what: str, old: str, new: str) -> list[str]:
    return [] if old == new else [f"~ {what} {old} -> {new}"]


def _changes(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    yield from (f"- {what} {name} {before[name]}" for name in sorted(before.keys() - after.keys()))
    yield from (f"+ {what} {name} {after[name]}" for name in sorted(after.keys() - before.keys()))
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"~ {what} {name} {before[name]} -> {after[name]}"
