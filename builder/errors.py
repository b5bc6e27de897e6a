"""What can go wrong between a lock and an image, each with its exit code."""

from collections.abc import Sequence

from quotary.errors import CannotTell, Rejected


class NixMissing(CannotTell):
    """No usable Nix on this machine."""


class SandboxMissing(CannotTell):
    """Nix is there, and this machine does not let it isolate a build."""


class InputMissing(CannotTell):
    """A locked input cannot be had from the store, the cache or the archives; never swapped for another."""

    def __init__(self, names: Sequence[str], *, next_command: str | None = None) -> None:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        noun = "input is" if len(names) == 1 else "inputs are"
        super().__init__(f"{len(names)} locked {noun} not available: {shown}", next_command=next_command)
        self.names = tuple(names)


class InputDiffers(Rejected):
    """Bytes that were offered for an input do not have the locked SHA-256."""


class SourceMissing(CannotTell):
    """The commit that a release names cannot be had from the address given."""


class BuildFailed(CannotTell):
    """A derivation's script stopped; the message carries the end of its log."""


class DiskFull(CannotTell):
    """The machine has no room left for the store or the work directory."""


class Interrupted(CannotTell):
    """The build was stopped from outside; nothing was published."""


class NotReproducible(Rejected):
    """Two builds of the same inputs gave different bytes."""
