"""Look at everything a registry needs, one by one (``registry doctor``).

Of what is wrong it says why that matters and what to do; what was not looked at is never called fine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quotary.errors import QuotaryError
from registry import looks
from registry.config import Config
from registry.looks import Surroundings
from registry.machine import RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class Look:
    """One thing to look at; ``check`` raises what is wrong."""

    name: str
    why: str
    remedy: str
    check: Callable[[Config, Surroundings], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one look: ``fine``, ``wrong`` with its problem, or ``not checked``."""

    name: str
    state: str
    problem: str = ""
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        said = f"{self.state:<11}  {self.name}" + (f": {self.problem}" if self.problem else "")
        more = (("why", self.why), ("next", self.remedy))
        return "\n".join([said, *(f"{'':<13}{word}: {text}" for word, text in more if text)])


def examine(config: Config, around: Surroundings) -> Iterator[Finding]:
    """Look at one thing after the other; nothing that is wrong keeps the next from being looked at."""
    for look in LOOKS:
        if look.check is looks.check_front and not around.front:
            yield Finding(look.name, "not checked", "give --front https://…")
        elif look.check in (looks.check_keys, looks.check_memory) and "signer" in around.without:
            yield Finding(look.name, "not checked", "another machine keeps the keys")
        else:
            yield _found(look, config, around)


def _found(look: Look, config: Config, around: Surroundings) -> Finding:
    try:
        look.check(config, around)
    except (QuotaryError, OSError) as error:
        remedy = getattr(error, "next_command", None) or look.remedy
        return Finding(look.name, "wrong", str(error), look.why, remedy)
    return Finding(look.name, "fine")


LOOKS = (
    Look(
        "settings that fit together",
        "a promise shorter than a round would be broken; without nginx a slow client holds a thread",
        "edit registry.toml",
        looks.check_settings,
    ),
    Look(
        "secret files readable by their owner only",
        "whoever reads a key can sign as this log",
        "chmod",
        looks.check_modes,
    ),
    Look(
        "log keys, and the verifier keys beside them",
        "verifiers know this log by these keys",
        "put back the keys folder from its safe copy",
        looks.check_keys,
    ),
    Look(
        "the signer's memory",
        "a signer that forgot what it signed could sign another history",
        "quotary registry recover --from-mirror DIR|URL",
        looks.check_memory,
    ),
    Look(
        "tlog-policy lists exactly the log's keys",
        "under another policy nothing that this log signs is published",
        "quotary registry witness add",
        looks.check_policy,
    ),
    Look(
        "a quorum of witnesses",
        "without one, nobody but its operator vouches for one history of this log",
        "quotary registry witness add",
        looks.check_quorum,
    ),
    Look(
        "database: version, settings, schema, standbys, a log in it",
        "what was accepted must survive a power cut and a fail-over",
        "quotary registry upgrade",
        looks.check_database,
    ),
    Look(
        "a clock that agrees with the log",
        "log time never goes back, so a clock that is behind stops the log",
        "timedatectl status",
        looks.check_clock,
    ),
    Look(
        f"{RESERVE_BYTES >> 20} MiB of free disk",
        "a full disk refuses every entry",
        "df -h",
        looks.check_disk,
    ),
    Look("a signer answers", "nothing is published without it", "quotary registry serve", looks.check_signer),
    Look(
        "witnesses answer, and agree on the time",
        "without their quorum nothing is published",
        "quotary registry witness list",
        looks.check_witnesses,
    ),
    Look(
        "readers reach this log under its address",
        "nginx serves from disk what verifiers read",
        "nginx -t; look at root and proxy_pass",
        looks.check_front,
    ),
)
