"""``quotary release publish``: build, measure, describe, sign and submit in one command."""

from dataclasses import replace
from pathlib import Path

import click

from builder import statement
from builder.build import build, default_store
from builder.build_cli import (
    FILE,
    FOLDER,
    lock_option,
    model_option,
    policy_option,
    profile_option,
    read_recipe,
    read_settings,
    source_option,
    store_option,
    words_option,
    work_folder,
    work_option,
)
from builder.machines import machine_options, machines, platform_option
from builder.nix import Nix
from builder.prefetch import Cache
from builder.progress import Progress
from builder.publish import ENTRY, Plan, make_entry, publish_entry, require_committed
from builder.release import MAX_DAYS
from builder.statement import Head
from builder.statement_cli import key_option, origin_option
from quotary.cli.files import read_json
from quotary.cli.output import emit, json_option
from quotary.client.keys import open_signer
from quotary.client.log import LogClient
from quotary.client.submit import Submitted
from quotary.errors import Usage
from quotary.net.transport import HTTP

EXAMPLE = (
    "quotary release publish --profile ci --policy policy.json --service example.org/chat"
    " --origin log.example.org/main --url https://log.example.org --source-uri https://example.org/src"
    " --builder-id https://example.org/ci --key builder.token --out release"
)


@click.command(
    name="publish",
    epilog=f"\b\nExample:\n  {EXAMPLE}"
    "\n\nExit codes: 0 published, 2, 10 an input or answer has other bytes, 11 source without a commit, 20,"
    " 30, 40, 41 the log refuses it.",
)
@click.option(
    "--image", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Image that is built."
)
@profile_option
@policy_option
@model_option
@words_option
@source_option
@lock_option
@store_option
@work_option
@platform_option
@click.option(
    "--measure-profile", "rule", help="How registers are computed. [default: the platform's newest]"
)
@machine_options
@click.option("--devices", type=FILE, help="JSON file: the devices that each row demands (GPUs, switches).")
@click.option("--service", required=True, help="Whose release it is.")
@origin_option
@click.option("--url", required=True, help="Address of the log.")
@click.option("--source-uri", required=True, help="Where the source is.")
@click.option("--builder-id", required=True, help="URI that names who builds, for the SLSA provenance.")
@click.option(
    "--days", type=click.IntRange(1, MAX_DAYS), default=90, show_default=True, help="Until not_after."
)
@key_option
@click.option("--out", required=True, type=FOLDER, help="New folder for the image and every document.")
@json_option
def publish(
    image: Path | None,
    profile: str,
    policy: Path | None,
    model: Path | None,
    words: tuple[str, ...],
    source: Path | None,
    lock_folder: Path | None,
    store: Path | None,
    work: Path | None,
    platforms: tuple[str, ...],
    rule: str | None,
    memory: tuple[int, ...],
    vcpus: tuple[int, ...],
    cpu: tuple[int, ...],
    acpi: Path | None,
    devices: Path | None,
    service: str,
    origin: str,
    url: str,
    source_uri: str,
    builder_id: str,
    days: int,
    keys: tuple[Path, ...],
    out: Path,
    as_json: bool,
) -> None:
    """Build an image (or take the one in --image), measure it, sign its release and its SLSA provenance, send
    the release to the log and wait until it is published.

    Every step's file stays in the folder OUT, which must not exist.
    """
    # What can be wrong without a build is found before it.
    progress, log = Progress(), LogClient(HTTP(), url)
    signers = [open_signer(path) for path in keys]
    demanded = None if devices is None else read_json(devices)
    plan = Plan(platforms, rule, machines(memory, vcpus, cpu, acpi), source_uri, builder_id, days, demanded)
    recipe = replace(
        read_recipe(source, profile, lock_folder),
        model=model,
        policy=policy.read_bytes() if policy else None,
        settings=read_settings(words),
    )
    log.next_sequence(service, "release")
    _make(out)
    if image is None:
        image = out / "image"
        build(recipe, Nix.open(store or default_store()), Cache.default(), work_folder(work), image, progress)
    require_committed(image)
    progress("measuring and signing")
    head = Head(origin, service, log.next_sequence(service, "release"), statement.now())
    entry = make_entry(image, plan, head, signers, out)
    _show(publish_entry(log, entry, progress), url, out / ENTRY, as_json=as_json)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise Usage(
            f"{out} cannot be made: {error.strerror}; every release has a folder of its own"
        ) from error


def _show(found: Submitted, url: str, entry: Path, *, as_json: bool) -> None:
    leaf_hash = found.leaf_hash.hex()
    document = {
        "schema": "quotary/release-published/v1",
        "statement_id": found.statement_id,
        "leaf_hash": leaf_hash,
        "index": found.index,
        "entry": str(entry),
    }
    text = (
        f"published {found.statement_id}\nindex {found.index}, leaf hash {leaf_hash}: {entry}"
        f"\nso says the log; proof: quotary proof {leaf_hash} --url {url}"
    )
    emit(document, text, as_json=as_json)
