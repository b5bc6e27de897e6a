"""What the ``quotary`` command finds of the builder, by name."""

from builder.build_cli import build_group as build
from builder.measure_cli import measure_group as measure
from builder.rebuild_cli import rebuild_group as rebuild
from builder.release_cli import release_group as release
from builder.statement_cli import revoke, sign, submit

__all__ = ["build", "measure", "rebuild", "release", "revoke", "sign", "submit"]
