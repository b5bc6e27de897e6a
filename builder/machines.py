"""Which machines registers are for: the options of the commands that measure."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import click

from builder.measure import acpi_of
from quotary.attestation.measure.shape import CPUS, MAX_VCPUS, MIB, Shape
from quotary.canonical import hexbytes
from quotary.errors import Malformed, Usage

F = TypeVar("F", bound=Callable[..., object])

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)

platform_option = click.option(
    "--platform", "platforms", multiple=True, default=("sim-tdx",), show_default=True, help="May be repeated."
)
profile_option = click.option(
    "--profile", "rule", help="How registers are computed. [default: the platform's newest]"
)


class CPU(click.ParamType[int]):
    """A processor: a model's name, or the 8 hex digits of CPUID function 1, EAX."""

    name = "cpu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value in CPUS:
            return CPUS[value]
        try:
            return int.from_bytes(hexbytes(value, 4), "big")
        except Malformed:
            self.fail(f"{value} is none of {', '.join(CPUS)}, and not 8 hex digits", param, ctx)


def machine_options(command: F) -> F:
    """Add the options; together they are the arguments of ``machines``."""
    for option in (
        click.option("--acpi", type=FOLDER, help="The VMM's ACPI blobs, for hardware TDX."),
        click.option(
            "--cpu", multiple=True, type=CPU(), default=("EPYC-Milan",), show_default=True, help="For SNP."
        ),
        click.option(
            "--vcpus",
            multiple=True,
            type=click.IntRange(1, MAX_VCPUS),
            default=(1,),
            show_default=True,
            help="For SNP.",
        ),
        click.option(
            "--memory",
            multiple=True,
            type=click.IntRange(64),
            default=(512,),
            show_default=True,
            help="MiB of the machine, for TDX.",
        ),
    ):
        command = option(command)
    return command


def machines(
    memory: Sequence[int], vcpus: Sequence[int], cpu: Sequence[int], acpi: Path | None
) -> tuple[Shape, ...]:
    """Return every machine of these sizes; ACPI tables are those of one size of memory."""
    if acpi is not None and len(memory) > 1:
        raise Usage("ACPI tables are those of one machine: give one --memory with --acpi")
    tables = {} if acpi is None else acpi_of(acpi)
    return tuple(
        Shape(memory=size * MIB, vcpus=count, signature=signature, acpi=tables)
        for size, count, signature in product(memory, vcpus, cpu)
    )
