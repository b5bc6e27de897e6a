"""``quotary build``: from a lock to an image, again and again to the same bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from builder.build import Built, Recipe, build, check, default_store, fetch, find_source
from builder.choose import choose
from builder.eif import PROFILE, write_eif
from builder.lock import Lock, difference, lock_sha256
from builder.nix import Nix
from builder.prefetch import Cache, still_offered
from builder.progress import Progress
from builder.record import BUILD
from builder.resolve import Spec, fresh_lock
from builder.sbom import bill, licence_lines
from quotary.attestation.measure.eif_signature import signer_of
from quotary.attestation.measure.profiles import nitro_profile
from quotary.cli.output import emit, json_option
from quotary.errors import Usage

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
WORK = "the user's cache"

source_option = click.option("--source", type=FOLDER, help="Checkout to build from. [default: this one]")
profile_option = click.option(
    "--profile", default="ci", show_default=True, help="Which image: ci, cpu, cpu-debian, gpu or nitro."
)
lock_option = click.option(
    "--lock", "lock_folder", type=FOLDER, help="Folder of another lock. [default: nix/lock]"
)
store_option = click.option("--store", type=FOLDER, help=f"Private Nix store. [default: {WORK}]")
work_option = click.option("--work", type=FOLDER, help=f"Folder for indexes and downloads. [default: {WORK}]")
policy_option = click.option(
    "--policy", type=FILE, help="Policy whose SHA-256 goes on the measured command line."
)
model_option = click.option(
    "--model", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Folder of weights."
)
words_option = click.option(
    "--set", "words", multiple=True, metavar="NAME=VALUE", help="A word of the measured command line."
)


@click.group(name="build", epilog="\b\nExample:\n  quotary build run --profile ci --out image")
def build_group() -> None:
    """Build enclave images with Nix from locked Debian packages and wheels."""


@build_group.command(
    name="run",
    epilog="\b\nExample:\n  quotary build run --profile ci --set listen=8080 --out image"
    "\n\nExit codes: 0, 2, 10 an input has other bytes, 30, 40 Nix, an input or room is missing.",
)
@profile_option
@click.option("--out", required=True, type=FOLDER, help="Image folder to write; it appears when it is whole.")
@policy_option
@model_option
@words_option
@click.option(
    "--fresh-lock", is_flag=True, help="Resolve anew what has left the archives: a different image."
)
@source_option
@lock_option
@store_option
@work_option
@json_option
def run(
    profile: str,
    out: Path,
    policy: Path | None,
    model: Path | None,
    words: tuple[str, ...],
    fresh_lock: bool,
    source: Path | None,
    lock_folder: Path | None,
    store: Path | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Fetch the locked inputs, build the image in Nix's sandbox and print the digest of every file."""
    recipe = read_recipe(source, profile, lock_folder)
    recipe = replace(
        recipe, model=model, policy=policy.read_bytes() if policy else None, settings=read_settings(words)
    )
    nix, cache, folder = Nix.open(store or default_store()), Cache.default(), work_folder(work)
    different: tuple[str, ...] = ()
    if fresh_lock:
        chosen = choose(recipe, nix, cache, folder, Progress())
        recipe, different = chosen.recipe, chosen.different
    built = build(recipe, nix, cache, folder, out, Progress())
    _show(recipe, built, different, as_json=as_json)


@build_group.command(
    name="check",
    epilog="\b\nExample:\n  quotary build check --profile ci\n\nExit codes: 0 same, 2, 10 other bytes, 40.",
)
@profile_option
@click.option("--policy", type=FILE, help="Policy that the image was built with.")
@model_option
@words_option
@source_option
@lock_option
@store_option
@json_option
def check_command(
    profile: str,
    policy: Path | None,
    model: Path | None,
    words: tuple[str, ...],
    source: Path | None,
    lock_folder: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Build every artefact of an image a second time and compare bit by bit."""
    recipe = read_recipe(source, profile, lock_folder)
    recipe = replace(
        recipe, model=model, policy=policy.read_bytes() if policy else None, settings=read_settings(words)
    )
    names = check(recipe, Nix.open(store or default_store()), Progress())
    document = {"schema": "quotary/build-check/v1", "profile": profile, "same": names}
    text = f"built a second time, same bytes as in {store or default_store()}: {', '.join(names)}"
    emit(document, text, as_json=as_json)


@build_group.command(
    name="prefetch",
    epilog="\b\nExample:\n  quotary build prefetch --profile cpu\n\nExit codes: 0, 2, 10, 30, 40 missing.",
)
@profile_option
@source_option
@lock_option
@store_option
@work_option
@json_option
def prefetch_command(
    profile: str,
    source: Path | None,
    lock_folder: Path | None,
    store: Path | None,
    work: Path | None,
    as_json: bool,
) -> None:
    """Bring a profile's inputs into the store: from the store, the local cache, then apt and pip."""
    recipe = read_recipe(source, profile, lock_folder)
    found = fetch(recipe, Nix.open(store or default_store()), Cache.default(), work_folder(work), Progress())
    counts = {
        "total": found.total,
        "in_store": found.in_store,
        "from_cache": found.from_cache,
        "downloaded": found.downloaded,
    }
    text = (
        f"{found.total} inputs with their locked SHA-256 are in the store: {found.in_store} were there, "
        f"{found.from_cache} from the cache, {found.downloaded} downloaded"
    )
    emit({"schema": "quotary/build-prefetch/v1", "profile": profile, **counts}, text, as_json=as_json)


@build_group.command(
    name="eif",
    epilog="\b\nExample:\n  quotary build eif image --out image.eif\n\nExit codes: 0, 2, 10, 30, 40.",
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--key", type=FILE, help="Secret key file (P-384) to sign it with; PCR8 is of its certificate.")
@click.option("--certificate", type=FILE, help="The key's certificate (PEM).")
@json_option
def eif_command(folder: Path, out: Path, key: Path | None, certificate: Path | None, as_json: bool) -> None:
    """Write the image in FOLDER as one file for AWS Nitro; unsigned it is the same bytes each time."""
    if (key is None) != (certificate is None):
        raise Usage("--key and --certificate go together")
    image, data = write_eif(folder, out, (key, certificate) if key and certificate else None)
    digest = hashlib.sha256(data).hexdigest()
    document = {"schema": "quotary/build-eif/v1", "sha256": digest, "size": len(data)}
    text = f"{digest}  {out}  {len(data)} bytes, {len(image.ramdisks)} ramdisks"
    if image.signature is not None:
        pcr8 = signer_of(image, nitro_profile(PROFILE)).pcr8.hex()
        document |= {"pcr8": pcr8}
        text += f"\nsigned, PCR8 {pcr8}"
    emit(document | {"ramdisks": len(image.ramdisks)}, text, as_json=as_json)


@build_group.command(
    name="lock",
    epilog="\b\nExample:\n  quotary build lock --out nix/lock\n\nExit codes: 0, 2, 30, 40 out of reach.",
)
@click.option(
    "--out", type=FOLDER, help="Folder to write the fresh lock to; without it only the difference is shown."
)
@click.option("--offered", is_flag=True, help="Only say which locked packages the archive no longer offers.")
@source_option
@work_option
@json_option
def lock_command(
    out: Path | None, offered: bool, source: Path | None, work: Path | None, as_json: bool
) -> None:
    """Resolve nix/lock/spec.json against the archives of now and print how the lock would change."""
    folder = find_source(source) / "nix" / "lock"
    spec, old = Spec.load(folder), Lock.load(folder) if (folder / "debian.json").is_file() else None
    if offered and old is not None:
        gone = still_offered(old, (tuple(old.deb_groups), ()), spec, work_folder(work))
        text = "\n".join(gone) or f"the archive still offers all {len(old.debs)} locked packages"
        emit({"schema": "quotary/build-offered/v1", "gone": gone}, text, as_json=as_json)
        return
    fresh = fresh_lock(spec, work_folder(work), Progress())
    lines = (
        difference(old, fresh)
        if old is not None
        else [f"+ {item.name} {item.version}" for item in fresh.inputs()]
    )
    if out is not None:
        fresh.save(out)
    text = "\n".join(lines) or f"nothing has changed: {len(fresh.debs)} packages, {len(fresh.wheels)} wheels"
    emit({"schema": "quotary/build-lock/v1", "difference": lines}, text, as_json=as_json)


@build_group.command(
    name="sbom",
    epilog="\b\nExample:\n  quotary build sbom --profile ci --out sbom.cdx.json\n\nExit codes: 0, 2, 30, 40.",
)
@profile_option
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the CycloneDX document."
)
@source_option
@lock_option
@json_option
def sbom_command(
    profile: str, out: Path | None, source: Path | None, lock_folder: Path | None, as_json: bool
) -> None:
    """List what an image is made of, with licences, and write it as a CycloneDX bill of materials.

    Licences are the inputs' own words, read from the local cache (`quotary build prefetch` fills it).
    """
    document = bill(read_recipe(source, profile, lock_folder), Cache.default(), Progress())
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n")
    emit(document, "\n".join(licence_lines(document)), as_json=as_json)


@build_group.command(
    name="model",
    epilog="\b\nExample:\n  quotary build model --out model\n\nExit codes: 0, 2, 20 no torch here, 40.",
)
@click.option(
    "--out", required=True, type=FOLDER, help="New folder for weights, tokenizer and configuration."
)
def model_command(out: Path) -> None:
    """Make the tiny model that the demo serves: same seed, same text, trained for a moment."""
    from builder.model import make_model  # only here: it needs torch

    made = make_model(out, source=find_source(None))
    click.echo(f"{made.folder}: {made.parameters} parameters, weights digest {made.digest.hex()}")


def read_recipe(source: Path | None, profile: str, lock_folder: Path | None) -> Recipe:
    found = find_source(source)
    recipe = Recipe(found, profile, (lock_folder or found / "nix" / "lock").resolve())
    recipe.groups()
    return recipe


def read_settings(words: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or not value:
            raise Usage(f"--set {word}: wanted NAME=VALUE")
        if name in found:
            raise Usage(f"--set {name} is there twice")
        found[name] = value
    return found


def work_folder(given: Path | None) -> Path:
    return given or Cache.default().folder.parent / "work"


def _show(recipe: Recipe, built: Built, different: tuple[str, ...], *, as_json: bool) -> None:
    image = built.image
    document: dict[str, object] = {
        "schema": "quotary/build/v1",
        "profile": recipe.profile,
        "folder": str(built.folder),
        "lock_sha256": lock_sha256(recipe.lock),
        "inputs": {"count": built.fetched.total, "sha256": built.inputs_sha256},
        "files": {name: {"sha256": one.sha256, "size": one.size} for name, one in image.files.items()},
        "command_line": image.command_line,
        "command_line_sha256": hashlib.sha256(image.command_line.encode()).hexdigest(),
        "disks": {disk.serial: disk.root for disk in image.disks},
        "policy_sha256": image.policy_sha256,
        "different_image": list(different),
    }
    lines = [f"{one.sha256}  {name}  {one.size} bytes" for name, one in sorted(image.files.items())]
    lines += [f"{document['command_line_sha256']}  cmdline  {len(image.command_line)} bytes"]
    lines += [f"{disk.root}  hash tree of {disk.serial}, {disk.blocks} blocks" for disk in image.disks]
    lines += [f"from {built.fetched.total} locked inputs ({built.inputs_sha256}), see {built.folder / BUILD}"]
    if different:
        lines += ["a different image than the committed lock's:", *different]
    emit(document, "\n".join(lines), as_json=as_json)
