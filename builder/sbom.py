"""What an image is made of, as a bill of materials in CycloneDX 1.6 (cyclonedx.org, ECMA-424).

It follows from the lock, the profile and the inputs' own words about their licences, and holds no time and no
machine: whoever has the same lock and the same inputs writes the same bytes.
"""

import uuid
from collections.abc import Mapping, Sequence

from builder.build import Recipe
from builder.licences import licences_of
from builder.lock import Input, Lock, lock_sha256, purl
from builder.nix import Progress
from builder.prefetch import Cache

SPECIFICATION = "1.6"
NAMESPACE = uuid.UUID("5d0c7c0e-5f0e-5b0a-9d53-3f2f8f1f7a11")
LICENCE = "quotary:licence"
GROUP = "quotary:group"
BUILD_ONLY = frozenset({"tools"})


def bill(recipe: Recipe, cache: Cache, progress: Progress) -> dict[str, object]:
    """Describe every input of the recipe's profile; what only runs in the sandbox is ``excluded``."""
    lock, (debs, wheels) = Lock.load(recipe.lock), recipe.groups()
    where: dict[str, list[str]] = {}
    for groups, named in ((lock.deb_groups, debs), (lock.wheel_groups, wheels)):
        for group in named:
            for key in groups[group]:
                where.setdefault(key, []).append(group)
    items = sorted(lock.of_groups(debs, wheels), key=purl)
    progress(f"reading the licences of {len(items)} inputs")
    digest = lock_sha256(recipe.lock)
    name = f"quotary-{recipe.profile}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, f'sbom/{name}/{digest}')}",
        "version": 1,
        "metadata": {
            "component": {"type": "operating-system", "bom-ref": name, "name": name, "version": digest}
        },
        "components": [_component(item, where.get(item.key, []), licences_of(item, cache)) for item in items],
        "dependencies": [{"ref": name, "dependsOn": [purl(item) for item in items]}],
    }


def licence_lines(document: Mapping[str, object]) -> list[str]:
    """Return one line an input: its package URL and the licences that it names, or why there are none."""
    components = document["components"]
    assert isinstance(components, list)
    return [f"{one['purl']}  {' | '.join(_names(one))}" for one in components]


def _component(item: Input, groups: Sequence[str], licences: tuple[str, ...] | None) -> dict[str, object]:
    # A seed that no group names runs the build, and a package of several groups is in the image by one.
    only_built_with = BUILD_ONLY.issuperset(groups)
    properties = [{"name": GROUP, "value": group} for group in groups]
    if not licences:
        missing = (
            "not read: the input is not at hand"
            if licences is None
            else "the input names none that a program can read"
        )
        properties.append({"name": LICENCE, "value": missing})
    return {
        "type": "library",
        "bom-ref": purl(item),
        "name": item.name,
        "version": item.version,
        "scope": "excluded" if only_built_with else "required",
        "purl": purl(item),
        "hashes": [{"alg": "SHA-256", "content": item.sha256}],
        **({"licenses": [{"license": {"name": name}} for name in licences]} if licences else {}),
        **({"properties": properties} if properties else {}),
    }


def _names(component: Mapping[str, object]) -> list[str]:
    licences, properties = component.get("licenses"), component.get("properties")
    if isinstance(licences, list):
        return [one["license"]["name"] for one in licences]
    assert isinstance(properties, list), "a component without licences says why"
    return [one["value"] for one in properties if one["name"] == LICENCE]
