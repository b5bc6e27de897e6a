"""From a checkout and its lock to an image folder: prefetch, build in Nix's sandbox, publish, describe.

What a build was made from is written beside it (``build.json``): source revision, lock digest, inputs, Nix
version, archive hashes. Digests of artefacts identify an image; derivations and versions only explain it.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import DiskFull, InputMissing
from builder.image import Image, publish
from builder.lock import DEBIAN, PYPI, Input, Lock, lock_sha256
from builder.nix import Nix, Progress
from builder.prefetch import ENOSPC, Cache, Fetched, prefetch
from builder.record import BUILD
from builder.resolve import Spec
from quotary.errors import CannotTell, Unsupported, Usage

Artefacts = dict[str, tuple[str, ...]]

TOOL_GROUPS = ("tools", "firmware", "initrd", "uki")
LOCK = "lock"
ARTEFACTS: Artefacts = {
    "kernel": ("vmlinuz",),
    "firmware": ("firmware",),
    "rootfs": ("rootfs.img", "files.tsv"),
    "boot": ("cmdline", "enclave.efi", "boot.json"),
}
RAMDISK_ARTEFACTS: Artefacts = {"initrd": ("initrd.img",)}
OWN_KERNEL_ARTEFACTS: Artefacts = {"kernel": ("vmlinuz", "kernel.config")}
RUNTIME_ARTEFACTS: Artefacts = {"runtime": ("runtime.img", "runtime.tsv")}
MODEL_ARTEFACTS: Artefacts = {"model-disk": ("model.img", "MANIFEST")}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to build.

    source:   checkout that holds ``nix/`` and the packages that go into the image
    lock:     folder of the lock; the checkout's own unless another was resolved
    model:    folder of weights for the model disk
    policy:   bytes of the policy whose digest goes on the command line; a rebuild knows only
              ``policy_sha256`` (hex), and makes no disk of it
    settings: the command line's own words, e.g. ``service``, ``log``, ``listen``
    """

    source: Path
    profile: str
    lock: Path
    model: Path | None = None
    policy: bytes | None = None
    policy_sha256: str | None = None
    settings: Mapping[str, str] | None = None

    def groups(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the package and wheel groups that the profile takes.

        Raises ``InputMissing`` for a profile that needs what no archive of ours offers.
        """
        chosen, kernel, runtime = self._profile()
        if external := chosen.get("external"):
            raise InputMissing(external, next_command="docs/gpu.md says what a profile with GPUs needs")
        groups = (*TOOL_GROUPS, *kernel["groups"], *chosen["debs"], *runtime.get("debs", ()))
        return groups, (*chosen["wheels"], *runtime.get("wheels", ()))

    def arguments(self) -> list[tuple[str, str]]:
        """Return what ``nix/default.nix`` is called with."""
        words = [("profile", self.profile), ("source", str(self.source)), ("lock", str(self.lock))]
        words += [("settings", json.dumps(dict(self.settings or {}), sort_keys=True))]
        words += [("model", str(self.model.absolute()))] if self.model else []
        digest = hashlib.sha256(self.policy).hexdigest() if self.policy is not None else self.policy_sha256
        return words + ([("policySha256", digest)] if digest else [])

    def visible(self) -> list[Path]:
        """Return the folders that the expression reads."""
        return [self.source, self.lock, *([self.model] if self.model else [])]

    def artefacts(self) -> Artefacts:
        """Return the derivations that make the image, and the files that each gives."""
        chosen, _, libraries = self._profile()
        kernel = OWN_KERNEL_ARTEFACTS if chosen["kernel"] == "own" else {}
        ramdisk = RAMDISK_ARTEFACTS if chosen["ramdisk"] else {}
        runtime = RUNTIME_ARTEFACTS if libraries else {}
        return ARTEFACTS | kernel | ramdisk | runtime | (MODEL_ARTEFACTS if self.model else {})

    def checked(self) -> list[str]:
        """Return every derivation that is built a second time to see whether the bytes are the same."""
        chosen, *_ = self._profile()
        compiled = ["kernel-compiled"] if chosen["kernel"] == "own" else []
        return [*self.artefacts(), *compiled, "tools"]

    def _profile(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return what ``nix/image.json`` says of the profile, its kernel and its runtime (empty: none)."""
        try:
            image = json.loads((self.source / "nix" / "image.json").read_bytes())
            profiles, kernels = image["profiles"], image["kernels"]
            if self.profile not in profiles:
                raise Usage(f"no profile {self.profile}; there are {', '.join(sorted(profiles))}")
            chosen = profiles[self.profile]
            runtime = image["runtimes"][chosen["runtime"]] if "runtime" in chosen else {}
            return chosen, kernels[chosen["kernel"]], runtime
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unsupported(
                "the source's nix/image.json is not of the form that this version builds"
            ) from error


@dataclass(frozen=True, slots=True)
class Built:
    """An image that was built and published.

    outputs: for each derivation its logical store path, and its archive's SHA-256 as Nix writes it
    """

    image: Image
    folder: Path
    outputs: Mapping[str, tuple[str, str]]
    fetched: Fetched
    inputs_sha256: str


def find_source(given: Path | None) -> Path:
    """Return the checkout to build from: the one given, or the one that this very module lies in."""
    source = (given or Path(__file__).parent.parent).resolve()
    if not (source / "nix" / "default.nix").is_file():
        raise CannotTell(
            f"{source} is no checkout: it has no nix/default.nix",
            next_command="quotary build run --source FOLDER",
        )
    return source


def default_store() -> Path:
    """Return the user's own store for image builds; ``QUOTARY_STORE`` names another."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("QUOTARY_STORE") or Path(base) / "quotary" / "store")


def fetch(recipe: Recipe, nix: Nix, cache: Cache, work: Path, progress: Progress) -> Fetched:
    """Bring the recipe's inputs into the store."""
    lock, spec = Lock.load(recipe.lock), Spec.load(recipe.source / "nix" / "lock")
    return prefetch(lock, recipe.groups(), nix, cache, spec, work, progress)


def build(
    recipe: Recipe,
    nix: Nix,
    cache: Cache,
    work: Path,
    out: Path,
    progress: Progress,
    *,
    jobs: int = 1,
    cores: int = 0,
) -> Built:
    """Build the recipe and publish the image folder ``out``; nothing is left there when a step fails."""
    try:
        fetched = fetch(recipe, nix, cache, work, progress)
        artefacts = recipe.artefacts()
        names = [*artefacts, "seed-check"]
        expression, arguments = recipe.source / "nix", recipe.arguments()
        paths = nix.build(
            expression, names, arguments, visible=recipe.visible(), progress=progress, jobs=jobs, cores=cores
        )
        outputs = dict(zip(names, paths, strict=True))
        parts = {
            name: nix.physical(outputs[part]) / name for part, names in artefacts.items() for name in names
        }
        progress(f"publishing {out}")
        hashes = {name: (path, nix.nar_hash(path)) for name, path in outputs.items()}
        record = describe(recipe, hashes, fetched, nix)
        lock = {f"{LOCK}/{name}": (recipe.lock / name).read_bytes() for name in (DEBIAN, PYPI)}
        image = publish(parts, {BUILD: record, **lock}, recipe.policy, out)
    except OSError as error:
        if error.errno == ENOSPC:
            raise DiskFull("no space left for the image", next_command="df -h") from error
        raise CannotTell(f"cannot write the image: {error}") from error
    return Built(image, out, hashes, fetched, inputs_sha256(recipe))


def check(recipe: Recipe, nix: Nix, progress: Progress) -> list[str]:
    """Build every artefact of a built recipe again; return their names, or raise ``NotReproducible``."""
    names = recipe.checked()
    nix.build(
        recipe.source / "nix",
        names,
        recipe.arguments(),
        visible=recipe.visible(),
        progress=progress,
        check=True,
    )
    return names


def inputs_sha256(recipe: Recipe) -> str:
    """Return one digest over all inputs: SHA-256 of the sorted lines ``<store name> <sha256>``."""
    return items_sha256(Lock.load(recipe.lock).of_groups(*recipe.groups()))


def items_sha256(items: Iterable[Input]) -> str:
    """Return the digest of these inputs."""
    lines = sorted(f"{item.store_name} {item.sha256}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(recipe: Recipe, outputs: Mapping[str, tuple[str, str]], fetched: Fetched, nix: Nix) -> bytes:
    """Return the build's own record: what it was made from and with; none of it decides a comparison."""
    debs, wheels = recipe.groups()
    document = {
        "v": 1,
        "source": revision(recipe.source),
        "lock_sha256": lock_sha256(recipe.lock),
        "inputs": {
            "count": fetched.total,
            "sha256": inputs_sha256(recipe),
            "debs": list(debs),
            "wheels": list(wheels),
        },
        "nix": {"version": nix.version(), "sandbox": True},
        "outputs": {
            name: {"path": path, "nar_sha256": nar, "derivation": nix.derivation(path)}
            for name, (path, nar) in outputs.items()
        },
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def revision(source: Path) -> dict[str, str]:
    """Return the checkout's commit, marked where files differ from it; ``unknown`` outside git."""
    if shutil.which("git") is None or not (source / ".git").exists():
        return {"revision": "unknown"}
    ask = ["git", "-C", str(source)]
    head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30)
    scope = ["--", "nix", "quotary", "enclave", "builder"]
    changed = subprocess.run(
        [*ask, "status", "--porcelain", *scope], capture_output=True, text=True, timeout=30
    )
    if head.returncode != 0:
        return {"revision": "unknown"}
    return {"revision": head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")}
