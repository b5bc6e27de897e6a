"""The lock: every input of an image by name, version and SHA-256, without a host.

Two files that people read in review: ``debian.json`` (packages, and the seed: the first executable) and
``pypi.json`` (wheels). Groups say which input enters which artefact. ``spec.json`` beside them is what people
edit; the lock is generated from it (``quotary build lock``) and reviewed as a diff.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from builder.store import flat_path, safe_name
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed

VERSION = 1
SYSTEM = "x86_64-linux"
MAX_INPUTS = 4096
MAX_FILE = 8 << 20
DEBIAN = "debian.json"
PYPI = "pypi.json"
SEED_NAME = "busybox-seed"

_HEX = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,200}")
_POOL = re.compile(r"pool(/(?!\.)[A-Za-z0-9.+~%_-]+)+\.deb")
_MEMBER = re.compile(r"usr(/(?!\.)[A-Za-z0-9.+_-]+)+")
_WHEEL = re.compile(r"[A-Za-z0-9._+-]+\.whl")


@dataclass(frozen=True, slots=True)
class Deb:
    """One Debian package: ``path`` is its place in any mirror of the archive, ``suite`` where it was."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    path: str
    suite: str

    @property
    def key(self) -> str:
        return f"{self.name}={self.version}"

    @property
    def store_name(self) -> str:
        return safe_name(f"{self.name}_{self.version}_{self.arch}.deb")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel of the Python package index, by the file name that it has there."""

    name: str
    version: str
    filename: str
    sha256: str

    @property
    def key(self) -> str:
        return f"{self.name}={self.version}"

    @property
    def store_name(self) -> str:
        return safe_name(self.filename)


Input = Deb | Wheel
T = TypeVar("T", Deb, Wheel)


@dataclass(frozen=True, slots=True)
class Lock:
    """All inputs of all profiles, and which of them each group takes, in order.

    seed: package key, member path and archive hash of the executable that runs every derivation
    """

    seed_package: str
    seed_member: str
    seed_nar_sha256: str
    deb_groups: Mapping[str, tuple[str, ...]]
    debs: Mapping[str, Deb]
    wheel_groups: Mapping[str, tuple[str, ...]]
    wheels: Mapping[str, Wheel]

    @classmethod
    def load(cls, folder: Path) -> "Lock":
        """Read ``debian.json`` and ``pypi.json`` of a folder."""
        debian = Fields(_json(folder / DEBIAN), "debian lock")
        _head(debian)
        seed = debian.fields("seed")
        debs = {key: _deb(key, value) for key, value in debian.mapping("debs", MAX_INPUTS).items()}
        deb_groups = _groups(debian, debs)
        debian.done()
        pypi = Fields(_json(folder / PYPI), "pypi lock")
        _head(pypi)
        wheels = {key: _wheel(key, value) for key, value in pypi.mapping("wheels", MAX_INPUTS).items()}
        wheel_groups = _groups(pypi, wheels)
        pypi.done()
        found = cls(
            seed_package=seed.text("package"),
            seed_member=_checked(_MEMBER, seed.text("member"), "seed.member"),
            seed_nar_sha256=_checked(_HEX, seed.text("narSha256"), "seed.narSha256"),
            deb_groups=deb_groups,
            debs=debs,
            wheel_groups=wheel_groups,
            wheels=wheels,
        )
        seed.done()
        if found.seed_package not in debs:
            raise Malformed(f"the lock's seed {found.seed_package} is not among its packages")
        return found

    def save(self, folder: Path) -> None:
        """Write both files, each replaced at once."""
        folder.mkdir(parents=True, exist_ok=True)
        seed = {"package": self.seed_package, "member": self.seed_member, "narSha256": self.seed_nar_sha256}
        debian = {"version": VERSION, "system": SYSTEM, "seed": seed}
        debs = {key: _fields(deb, ("name", "version")) for key, deb in sorted(self.debs.items())}
        _save(folder / DEBIAN, debian | {"groups": _lists(self.deb_groups), "debs": debs})
        wheels = {key: _fields(wheel, ("name", "version")) for key, wheel in sorted(self.wheels.items())}
        pypi = {"version": VERSION, "system": SYSTEM, "groups": _lists(self.wheel_groups), "wheels": wheels}
        _save(folder / PYPI, pypi)

    def inputs(self) -> Iterator[Input]:
        """Yield every package, then every wheel."""
        yield from self.debs.values()
        yield from self.wheels.values()

    def of_groups(self, debs: tuple[str, ...], wheels: tuple[str, ...]) -> list[Input]:
        """Return the inputs of the named groups, each once, the seed's package first."""
        keys = [self.seed_package, *(key for group in debs for key in self.deb_groups[group])]
        wheel_keys = [key for group in wheels for key in self.wheel_groups[group]]
        return [self.debs[key] for key in dict.fromkeys(keys)] + [
            self.wheels[key] for key in dict.fromkeys(wheel_keys)
        ]


def lock_sha256(folder: Path) -> str:
    """Return the lock's digest: SHA-256 over what ``sha256sum debian.json pypi.json`` prints there."""
    lines = (
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in (DEBIAN, PYPI)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def store_path(item: Input) -> str:
    """Return the store path that an input has on every machine."""
    return flat_path(item.store_name, item.sha256)


def purl(item: Input) -> str:
    """Return an input's package URL (github.com/package-url/purl-spec)."""
    version = quote(item.version, safe=":~")
    if isinstance(item, Wheel):
        return f"pkg:pypi/{item.name}@{version}"
    return f"pkg:deb/debian/{quote(item.name)}@{version}?arch={item.arch}"


def difference(old: Lock, new: Lock) -> list[str]:
    """Return one line for each input that was added, removed or replaced, sorted by name, then what each
    group takes otherwise: a package that was a tool only and enters an image is no small change."""
    before = {item.name: item for item in old.inputs()}
    after = {item.name: item for item in new.inputs()}
    lines = [f"- {name} {before[name].version}" for name in before.keys() - after.keys()]
    lines += [f"+ {name} {after[name].version}" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        one, two = before[name], after[name]
        if one.version != two.version:
            lines.append(f"~ {name} {one.version} -> {two.version}")
        elif one.sha256 != two.sha256:
            lines.append(f"~ {name} {one.version}: other bytes, {one.sha256} -> {two.sha256}")
    return sorted(lines, key=lambda line: line[2:]) + _moved(old, new)


def _moved(old: Lock, new: Lock) -> list[str]:
    lines = []
    for kind in ("deb_groups", "wheel_groups"):
        before, after = getattr(old, kind), getattr(new, kind)
        for group in sorted(before.keys() | after.keys()):
            one, two = (
                {key.partition("=")[0] for key in groups.get(group, ())} for groups in (before, after)
            )
            lines += [f"- {name} in the group {group}" for name in sorted(one - two)]
            lines += [f"+ {name} in the group {group}" for name in sorted(two - one)]
    seeds = (old.seed_member, new.seed_member)
    return lines + ([f"~ the seed is {seeds[1]}, no longer {seeds[0]}"] if seeds[0] != seeds[1] else [])


def read_json(path: Path) -> object:
    """Read a JSON file of ours that people edit; duplicate members are refused."""
    return _json(path)


def _json(path: Path) -> object:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CannotTell(
            f"cannot read {path}: {error.strerror}", next_command="quotary build lock"
        ) from error
    if len(text) > MAX_FILE:
        raise Malformed(f"{path.name} has {len(text)} bytes, at most {MAX_FILE} are allowed")
    try:
        found: object = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{path.name} is not JSON") from error
    return found


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("an object has a member twice")
    return found


def _head(fields: Fields) -> None:
    fields.integer("version", VERSION, VERSION)
    fields.choice("system", SYSTEM)


def _groups(fields: Fields, known: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in fields.mapping("groups", 64).items():
        if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
            raise Malformed(f"group {name} is not a list of keys")
        for key in value:
            if key not in known:
                raise Malformed(f"group {name} names {key}, which the lock does not have")
        found[name] = tuple(value)
    return found


def _deb(key: str, value: object) -> Deb:
    fields = Fields(value, f"package {key}")
    found = Deb(
        name=_checked(_WORD, fields.text("name"), key),
        version=_checked(_WORD, fields.text("version"), key),
        arch=fields.choice("arch", "amd64", "all"),
        sha256=_checked(_HEX, fields.text("sha256"), key),
        size=fields.integer("size", 1, 1 << 32),
        path=_checked(_POOL, fields.text("path"), key),
        suite=_checked(_WORD, fields.text("suite"), key),
    )
    fields.done()
    return _keyed(key, found)


def _wheel(key: str, value: object) -> Wheel:
    fields = Fields(value, f"wheel {key}")
    found = Wheel(
        name=_checked(_WORD, fields.text("name"), key),
        version=_checked(_WORD, fields.text("version"), key),
        filename=_checked(_WHEEL, fields.text("filename"), key),
        sha256=_checked(_HEX, fields.text("sha256"), key),
    )
    fields.done()
    return _keyed(key, found)


def _keyed(key: str, found: T) -> T:
    if found.key != key:
        raise Malformed(f"the lock's key {key} holds {found.key}")
    return found


def _checked(pattern: re.Pattern[str], text: str, where: str) -> str:
    if pattern.fullmatch(text) is None:
        raise Malformed(f"{where}: {text[:80]!r} is not of the form that a lock holds")
    return text


def _lists(groups: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(keys) for name, keys in groups.items()}


def _fields(item: Input, first: tuple[str, ...]) -> dict[str, str | int]:
    names = first + tuple(name for name in item.__slots__ if name not in first)
    return {name: getattr(item, name) for name in names}


def _save(path: Path, document: object) -> None:
    fresh = path.with_suffix(".json.new")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)
