"""Where a registry keeps its things, and the few numbers an operator chooses (``registry.toml``)."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from quotary.errors import CannotTell, Malformed
from registry.collateral import CollateralSettings

NUMBERS = {
    "publish_interval_seconds": (0.05, 3600.0, 1.0),
    "refresh_seconds": (0.1, 600.0, 120.0),
    "promise_seconds": (1.0, 86400.0, 600.0),
    "workers": (1.0, 64.0, 2.0),
    "threads": (1.0, 512.0, 160.0),
    "address_burst": (1.0, 1e9, 20_000.0),
    "address_per_second": (0.001, 1e6, 100.0),
    "builder_burst": (1.0, 1e9, 10_000.0),
    "builder_per_second": (0.001, 1e6, 20.0),
}


@dataclass(frozen=True, slots=True)
class Config:
    """One registry.

    folder:   holds registry.toml, policy.tlog, keys/, log.db, public/, signer.sock and judge.sock
    database: SQLAlchemy URL; a relative SQLite path is relative to the folder
    bind:     ``host:port`` where the HTTP server listens; port 0 takes a free one
    *_burst, *_per_second: entries that one address may send to each worker, and one builder to the judge
    (``registry/quota.py``)
    upload: ``s3://BUCKET/PREFIX`` that the published log is written to; empty for none
    collateral: vendors' documents that are kept and served
    """

    folder: Path
    origin: str
    database: str
    bind: str
    publish_interval_seconds: float
    refresh_seconds: float
    promise_seconds: int
    workers: int
    threads: int
    address_burst: int = 20_000
    address_per_second: float = 100.0
    builder_burst: int = 10_000
    builder_per_second: float = 20.0
    upload: str = ""
    collateral: CollateralSettings = field(default_factory=CollateralSettings)

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def socket(self) -> Path:
        return self.folder / "signer.sock"

    @property
    def judge_socket(self) -> Path:
        return self.folder / "judge.sock"

    @property
    def scrub(self) -> Path:
        """How far the reading of the whole log is (``registry/scrub.py``)."""
        return self.folder / "scrub.json"

    @property
    def cosignatures(self) -> Path:
        """When each witness cosigned, for people (``registry/lag.py``)."""
        return self.folder / "cosignatures.json"

    @property
    def collateral_folder(self) -> Path:
        return self.folder / "collateral"

    @property
    def policy(self) -> Path:
        """The log's own tlog-policy: its keys, its witnesses and the quorum that publishing needs."""
        return self.folder / "policy.tlog"

    @property
    def database_url(self) -> str:
        prefix = "sqlite:///"
        if self.database.startswith(prefix) and not self.database.startswith(prefix + "/"):
            return prefix + str(self.folder / self.database.removeprefix(prefix))
        return self.database

    @property
    def shares_database(self) -> bool:
        """Say whether the database is a server's, which several machines may use."""
        return not self.database.startswith("sqlite")

    def text(self) -> str:
        return (
            f'origin = "{self.origin}"\ndatabase = "{self.database}"\nbind = "{self.bind}"\n'
            f"publish_interval_seconds = {self.publish_interval_seconds}\n"
            f"refresh_seconds = {self.refresh_seconds}\n"
            f"promise_seconds = {self.promise_seconds}\nworkers = {self.workers}\nthreads = {self.threads}\n"
            f"address_burst = {self.address_burst}\naddress_per_second = {self.address_per_second}\n"
            f"builder_burst = {self.builder_burst}\nbuilder_per_second = {self.builder_per_second}\n"
            + (f'upload = "{self.upload}"\n' if self.upload else "")
        )


def load_config(folder: Path) -> Config:
    """Read ``registry.toml``; unknown members are refused, because a misspelt setting must not be silent."""
    path = folder / "registry.toml"
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CannotTell(
            f"no registry in {folder}: {error.strerror}",
            next_command=f"quotary registry init --dir {folder} --origin log.example.org",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{path} is not TOML: {error}") from error
    texts = {name: _text(found, name, path) for name in ("origin", "database", "bind")}
    upload = _text(found, "upload", path) if "upload" in found else ""
    collateral = CollateralSettings.parse(found.pop("collateral", {"products": []}))
    numbers = {name: _number(found, name, path) for name in NUMBERS}
    if found:
        raise Malformed(f"{path} has unknown settings: {', '.join(sorted(found))}")
    return Config(
        folder=folder.resolve(),
        publish_interval_seconds=numbers["publish_interval_seconds"],
        refresh_seconds=numbers["refresh_seconds"],
        promise_seconds=int(numbers["promise_seconds"]),
        workers=int(numbers["workers"]),
        threads=int(numbers["threads"]),
        address_burst=int(numbers["address_burst"]),
        address_per_second=numbers["address_per_second"],
        builder_burst=int(numbers["builder_burst"]),
        builder_per_second=numbers["builder_per_second"],
        upload=upload,
        collateral=collateral,
        **texts,
    )


def _text(found: dict[str, object], name: str, path: Path) -> str:
    value = found.pop(name, None)
    if not isinstance(value, str) or not value or any(c in value for c in '"\\\n'):
        raise Malformed(f"{path} has no usable {name}")
    return value


def _number(found: dict[str, object], name: str, path: Path) -> float:
    low, high, usual = NUMBERS[name]
    value = found.pop(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Malformed(f"{path}: {name} is {value}, wanted {low} to {high}")
    return float(value)
