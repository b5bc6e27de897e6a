"""What a build was made from and with: ``build.json`` beside an image. None of it decides a comparison."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.store import unbase32
from quotary.canonical import Fields
from quotary.errors import CannotTell, Malformed

BUILD = "build.json"
MAX_RECORD = 1 << 20
_SHA256 = "sha256:"


@dataclass(frozen=True, slots=True)
class Derived:
    """What Nix made: the logical paths of derivation and output, and the output's archive hash (hex)."""

    derivation: str
    path: str
    nar_sha256: str


@dataclass(frozen=True, slots=True)
class Record:
    """A build.

    revision:      commit of the checkout, with ``+changes`` where files differed from it, or ``unknown``
    lock_sha256, inputs_sha256: hex
    debs, wheels:  the lock's groups that were taken
    derived:       by the derivation's name
    """

    revision: str
    lock_sha256: str
    inputs_sha256: str
    debs: tuple[str, ...]
    wheels: tuple[str, ...]
    nix_version: str
    derived: Mapping[str, Derived]

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read ``build.json`` of an image folder."""
        try:
            fields = Fields(json.loads((folder / BUILD).read_bytes()[:MAX_RECORD]), BUILD)
        except OSError as error:
            raise CannotTell(
                f"{folder} has no {BUILD}: {error.strerror}", next_command="quotary build run"
            ) from error
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{BUILD} is not of the known form") from error
        inputs, nix = fields.fields("inputs"), fields.fields("nix")
        return cls(
            fields.fields("source").text("revision", 128),
            fields.hexbytes("lock_sha256", 32).hex(),
            inputs.hexbytes("sha256", 32).hex(),
            _words(inputs, "debs"),
            _words(inputs, "wheels"),
            nix.text("version", 64),
            {name: _derived(value) for name, value in fields.mapping("outputs", 32).items()},
        )

    @property
    def committed(self) -> bool:
        """Whether the revision alone says which source it was."""
        return self.revision != "unknown" and not self.revision.endswith("+changes")


def _words(fields: Fields, name: str) -> tuple[str, ...]:
    found = fields.items(name, 64)
    if not all(isinstance(word, str) for word in found):
        raise Malformed(f"{BUILD}: {name} are not names")
    return tuple(str(word) for word in found)


def _derived(value: object) -> Derived:
    fields = Fields(value, "output")
    archive = fields.text("nar_sha256", 128)
    if not archive.startswith(_SHA256):
        raise Malformed(f"{BUILD}: an archive hash does not begin with {_SHA256}")
    digest = unbase32(archive.removeprefix(_SHA256), 32).hex()
    return Derived(fields.text("derivation", 512), fields.text("path", 512), digest)
