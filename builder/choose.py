"""Which lock a build uses: the checkout's own while its inputs can be had, else a fresh one that says so.

An input that has left the archive is never replaced in silence. The caller who may (the demo, a test)
resolves a fresh lock into its work directory, shows the difference, and calls the result a different image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from builder.build import Recipe, fetch
from builder.errors import InputMissing
from builder.lock import Lock, difference
from builder.nix import Nix, Progress
from builder.prefetch import Cache
from builder.resolve import Spec, fresh_lock

Resolver = Callable[[Spec, Path, Progress], Lock]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The recipe to build, and how it differs from the one asked for (empty: it is that one)."""

    recipe: Recipe
    different: tuple[str, ...]
    missing: tuple[str, ...] = ()


def choose(
    recipe: Recipe,
    nix: Nix,
    cache: Cache,
    work: Path,
    progress: Progress,
    *,
    resolve: Resolver = fresh_lock,
) -> Chosen:
    """Bring the inputs into the store; where some cannot be had, those of a fresh lock in ``work``."""
    try:
        fetch(recipe, nix, cache, work, progress)
        return Chosen(recipe, ())
    except InputMissing as error:
        missing = error.names
    progress(f"{len(missing)} locked inputs have left the archive; resolving a fresh lock: a different image")
    old = Lock.load(recipe.lock)
    spec = Spec.load(recipe.source / "nix" / "lock").part(*recipe.groups())
    fresh = resolve(spec, work, progress)
    folder = work / "lock"
    fresh.save(folder)
    other = replace(recipe, lock=folder)
    fetch(other, nix, cache, work, progress)
    return Chosen(other, tuple(difference(_part(old, recipe), fresh)), missing)


def _part(lock: Lock, recipe: Recipe) -> Lock:
    """Return the lock without what the recipe's profile does not take, so that only real differences show."""
    keys = {item.key for item in lock.of_groups(*recipe.groups())}
    return replace(
        lock,
        debs={key: deb for key, deb in lock.debs.items() if key in keys},
        wheels={key: wheel for key, wheel in lock.wheels.items() if key in keys},
    )
