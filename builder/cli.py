"""What the ``quotary`` command finds of the builder, by name."""

from builder.build_cli import build_group as build
from builder.statement_cli import revoke, sign, submit

__all__ = ["build", "revoke", "sign", "submit"]
