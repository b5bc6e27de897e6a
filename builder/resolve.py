"""Make a fresh lock from what people edit (``nix/lock/spec.json``) and what the archives offer now."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from builder import wheels
from builder.apt import Apt, Suite
from builder.archive import deb_file
from builder.lock import SEED_NAME, Deb, Lock, Wheel, read_json
from builder.nix import Progress
from builder.store import nar_sha256
from quotary.canonical import Fields
from quotary.errors import Malformed

SPEC = "spec.json"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted, without versions: groups of package names and of Python requirements."""

    suites: tuple[Suite, ...]
    seed_package: str
    seed_member: str
    debs: dict[str, tuple[str, ...]]
    python: str
    wheels: dict[str, tuple[str, ...]]
    without: frozenset[str]

    @classmethod
    def load(cls, folder: Path) -> "Spec":
        """Read ``spec.json`` of a folder."""
        fields = Fields(read_json(folder / SPEC), "lock spec")
        fields.integer("version", 1, 1)
        suites = []
        for item in fields.items("suites", 16, 1):
            one = Fields(item, "suite")
            suites.append(Suite(one.name("name"), one.name("archive")))
            one.done()
        seed = fields.fields("seed")
        found = cls(
            suites=tuple(suites),
            seed_package=seed.text("package"),
            seed_member=seed.text("member"),
            debs={name: _words(value) for name, value in fields.mapping("debs", 64).items()},
            python=fields.text("python", 8),
            wheels={name: _words(value) for name, value in fields.mapping("wheels", 64).items()},
            without=frozenset(_words(fields.value("without"))),
        )
        seed.done()
        fields.done()
        return found

    def part(self, debs: tuple[str, ...], wheel_groups: tuple[str, ...]) -> "Spec":
        """Return the spec of a smaller lock, with the named groups only."""
        return Spec(
            self.suites,
            self.seed_package,
            self.seed_member,
            {name: self.debs[name] for name in debs},
            self.python,
            {name: self.wheels[name] for name in wheel_groups},
            self.without,
        )


def fresh_lock(spec: Spec, work: Path, progress: Progress) -> Lock:
    """Ask the archives and return the lock of today; downloads the seed's package to know its hash."""
    work.mkdir(parents=True, exist_ok=True)
    apt = Apt.open(work / "apt", spec.suites)
    progress("fetching the Debian archive's indexes")
    apt.update()
    names = {spec.seed_package, *(name for group in spec.debs.values() for name in group)}
    progress(f"resolving {len(names)} packages")
    debs = apt.resolve(names)
    groups: dict[str, tuple[str, ...]] = {}
    found: dict[str, Wheel] = {}
    for name, requirements in spec.wheels.items():
        progress(f"resolving the wheels of {name}")
        chosen = wheels.resolve(requirements, spec.python, spec.without, work)
        groups[name] = tuple(wheel.key for wheel in chosen)
        found |= {wheel.key: wheel for wheel in chosen}
    seed = debs[spec.seed_package]
    return Lock(
        seed_package=seed.key,
        seed_member=spec.seed_member,
        seed_nar_sha256=_seed_hash(apt, seed, spec.seed_member, work),
        deb_groups={name: tuple(debs[one].key for one in group) for name, group in spec.debs.items()},
        debs={deb.key: deb for deb in debs.values()},
        wheel_groups=groups,
        wheels=found,
    )


def write_seed(deb: bytes, member: str, parent: Path) -> Path:
    """Write the tree that holds the first executable, taken out of its package; return its folder."""
    folder = parent / SEED_NAME
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / Path(member).name
    program.write_bytes(deb_file(deb, member))
    program.chmod(0o755)
    return folder


def _seed_hash(apt: Apt, seed: Deb, member: str, work: Path) -> str:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        apt.download([seed], Path(folder))
        packages = sorted(Path(folder).glob("*.deb"))
        if len(packages) != 1:
            raise Malformed(f"apt left {len(packages)} packages, wanted 1")
        return nar_sha256(write_seed(packages[0].read_bytes(), member, Path(folder)))


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise Malformed("a group of the lock spec is not a list of names")
    return tuple(value)
