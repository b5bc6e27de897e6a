"""``quotary enclave check`` and ``quotary enclave serve``."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from enclave import boot
from enclave.network import ports_at
from enclave.placement import AUTO, CPU, CUDA
from quotary.attestation.devices import MAX_DEVICES
from quotary.cli.output import emit, json_option
from quotary.client.verdict import Trail, documents
from quotary.errors import QuotaryError, Refused

if TYPE_CHECKING:
    from enclave.second import Door

Command = TypeVar("Command", bound=Callable[..., None])

_EPILOG = """\b
Exit codes: 0 the check held, 2 usage, 10 rejected, 11 refused by policy, 12 not in the log,
            20 unsupported, 30 malformed, 40 could not find out."""


def _shared(command: Command) -> Command:
    for option in (
        click.option(
            "--attest-devices",
            type=click.IntRange(0, MAX_DEVICES),
            default=0,
            show_default=True,
            help="GPUs and switches that the release demands: how many in all.",
        ),
        click.option(
            "--tee",
            required=True,
            help="The TEE: tdx, snp, nitro or auto; a simulator's is fd:N or virtio:NAME.",
        ),
        click.option("--service", required=True, help="The service whose release this is."),
        click.option(
            "--registry", "--log", "registry", required=True, help="Where the log's bundles are fetched."
        ),
        click.option("--policy", required=True, type=click.Path(path_type=Path), help="The policy file."),
    ):
        command = option(command)
    return command


@click.command(
    epilog="\b\nExample:\n  quotary enclave check --policy p.json --registry https://log.example.org \\\n"
    "    --service example.org/chat --tee virtio:quotary.tee\n\n" + _EPILOG
)
@_shared
@click.option("--model", type=click.Path(path_type=Path), help="Also hash the model in this folder.")
@json_option
def check(
    policy: Path,
    registry: str,
    service: str,
    tee: str,
    attest_devices: int,
    model: Path | None,
    as_json: bool,
) -> None:
    """Run the boot check alone and show each of its named checks."""
    setup = boot.open_setup(policy, registry, service, tee, attest_devices)
    trail = Trail()
    with _shown(trail):
        found = boot.Machine(setup).rehearse(trail)
    if model is not None:
        from enclave.weights import read_weights

        read_weights(model, found.release.weights_sha256)
    verdict = found.verdict
    document = {
        "schema": "quotary/boot-check/v1",
        "headline": verdict.headline,
        "service": verdict.service,
        "release": verdict.release,
        "measurement": verdict.measurement_id.hex(),
        "simulated": verdict.simulated,
        "size": verdict.size,
        "checks": documents(found.checks),
    }
    emit(document, boot.report(found), as_json=as_json)


@click.command(
    epilog="\b\nExample:\n  quotary enclave serve --policy p.json --registry https://log.example.org \\\n"
    "    --service example.org/chat --model ./model --listen 0.0.0.0:8443 --tee virtio:quotary.tee\n\n"
    + _EPILOG
)
@_shared
@click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="Folder with the model and its MANIFEST."
)
@click.option("--listen", required=True, help="HOST:PORT to serve on; vsock:PORT in a Nitro enclave.")
@click.option(
    "--hop",
    "hops",
    multiple=True,
    metavar="SERVICE=URL",
    help="Another enclave's second door, asked for what names that service as its model; may be repeated.",
)
@click.option("--ratls", help="HOST:PORT of the second door: TLS that ends in the enclave (policy: offered).")
@click.option(
    "--kms", "nodes", multiple=True, metavar="URL",
    help="A node of the policy's key service, from which doors get keys that outlive this machine; repeat.",
)  # fmt: skip
@click.option(
    "--device",
    type=click.Choice([AUTO, CPU, CUDA]),
    default=AUTO,
    show_default=True,
    help="Where the model computes; auto takes a GPU in confidential mode.",
)
def serve(
    policy: Path,
    registry: str,
    service: str,
    tee: str,
    attest_devices: int,
    model: Path,
    listen: str,
    ratls: str | None,
    hops: tuple[str, ...],
    nodes: tuple[str, ...],
    device: str,
) -> None:
    """Check this machine, then answer prompts for as long as the log says that it may."""
    from enclave.front import front
    from enclave.hop import parse_hops
    from enclave.logs import forbid_dumps, start_logging
    from enclave.serve import Options, preflight
    from enclave.serve import serve as run

    forbid_dumps()
    start_logging()
    setup = boot.open_setup(policy, registry, service, tee, attest_devices)
    if ratls is not None and not setup.rules.ratls:
        raise Refused("second door", "--ratls", "a policy with enclave.ratls offered")
    if nodes:
        from quotary.client.key_epoch import rules_of

        rules_of(setup.policy)
        setup = replace(setup, ports=setup.ports | ports_at(nodes))
    trail = Trail()
    # Bound first, so that a port in use is said at once; nobody can connect before the check has held.
    with front(listen) as reached, _door(ratls) as door:
        options = Options(setup, model, device, door, nodes, parse_hops(hops))
        with _shown(trail):
            found = preflight(options, trail)
        click.echo(boot.report(found), err=True)
        run(options, reached)


def _door(ratls: str | None) -> "AbstractContextManager[Door | None]":
    if ratls is None:
        return nullcontext()
    from enclave.second import second_door

    return second_door(ratls)


@contextmanager
def _shown(trail: Trail) -> Iterator[None]:
    """Show how far the check came when it did not hold."""
    try:
        yield
    except QuotaryError:
        if trail.checks:
            click.echo(boot.report_refusal(trail), err=True)
        raise
