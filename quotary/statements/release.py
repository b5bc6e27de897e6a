"""The release: the statement with the reference values of one build (design section 4)."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quotary.canonical import Fields
from quotary.errors import Malformed
from quotary.statements.predicates import Header, free, header, refuse_log
from quotary.statements.row import Row, parse_row

MAX_OUTPUTS = 64
MAX_ROWS = 256
IRREPRODUCIBLE = "not_reproducible"
"""Member of ``material``: a reason for each output that nobody can make again to the same bytes."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that the build made: SHA-256 (32 bytes) and length in bytes; NAR hash where Nix made it."""

    name: str
    sha256: bytes
    size: int
    nar_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Release:
    """One build of a service.

    not_after:      from this time on no verifier accepts it; at most 180 days after ``issued``
    source_uri, source_revision: where the source is, and which one
    lock_sha256:    digest of the lock file that pins every input of the build, 32 bytes
    outputs:        what was built, at least one file
    weights_sha256: digest of the weights' manifest, 32 bytes
    policy_sha256:  digest of the policy that the enclave applies, 32 bytes
    rows:           reference values, each measurement id once
    material:       what the rows can be recomputed from, as the row's profile says
    """

    header: Header
    not_after: datetime
    source_uri: str
    source_revision: str
    lock_sha256: bytes
    outputs: tuple[Output, ...]
    weights_sha256: bytes
    policy_sha256: bytes
    rows: tuple[Row, ...]
    material: Mapping[str, object]

    @property
    def irreproducible(self) -> Mapping[str, str]:
        """Give the outputs that nobody can make again, says the builder, each with why; F1 looks at none."""
        said = self.material.get(IRREPRODUCIBLE)
        names = {output.name for output in self.outputs}
        pairs = said.items() if isinstance(said, dict) else ()
        return {name: why for name, why in pairs if name in names and isinstance(why, str)}

    @property
    def claim(self) -> "ReleaseClaim":
        """What F1 asks for."""
        return ReleaseClaim(self.header, self.not_after, tuple(row.measurement for row in self.rows))


@dataclass(frozen=True, slots=True)
class ReleaseClaim:
    """All that F1 asks of a release: the measurement ids are those of its rows, in their order."""

    header: Header
    not_after: datetime
    measurements: tuple[bytes, ...]


def parse_release(fields: Fields) -> Release:
    """Read the predicate of a release."""
    found = header(fields)
    refuse_log(found, "release")
    source = fields.fields("source")
    release = Release(
        found,
        fields.time("not_after"),
        source.text("uri", 1024),
        source.text("revision", 128),
        fields.hexbytes("lock_sha256", 32),
        tuple(_output(item) for item in fields.items("outputs", MAX_OUTPUTS, low=1)),
        fields.hexbytes("weights_sha256", 32),
        fields.hexbytes("policy_sha256", 32),
        tuple(parse_row(item) for item in fields.items("rows", MAX_ROWS, low=1)),
        free(fields, "material", 256),
    )
    source.done()
    if len({output.name for output in release.outputs}) != len(release.outputs):
        raise Malformed("two outputs have the same name")
    if len({row.measurement for row in release.rows}) != len(release.rows):
        raise Malformed("two rows have the same measurement id")
    return release


def _output(value: object) -> Output:
    fields = Fields(value, "output")
    output = Output(
        fields.name("name"),
        fields.hexbytes("sha256", 32),
        fields.integer("size"),
        fields.optional("nar_sha256", lambda name: fields.hexbytes(name, 32)),
    )
    fields.done()
    return output
