"""What a serving enclave says of itself outside the channel: these events, and nothing else.

A member of an event is a number, a word of a fixed list or the name of an exception's class. None can hold
a text, so no mistake of ours can write a prompt, a key or a credential there: what does not fit has no way
out. A number that a client chose is rounded up to a power of two. The log handler writes nothing but these
(``enclave.logs``).
"""

import logging
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from typing import ClassVar, TypeVar

from enclave.lifecycle import Phase

_NAME = "enclave.events"

Word = TypeVar("Word", bound=StrEnum)


class Step(StrEnum):
    """What a start is doing."""

    NONE = ""
    START = "start"
    EVIDENCE = "evidence"
    MODEL = "model"
    OTHER = "other"


class Why(StrEnum):
    """Why nothing is served, as clients are told; the reason in words is in ``/v1/state``."""

    NONE = ""
    BOOT_REFUSED = "boot_refused"
    GPU_LOST = "gpu_lost"
    GPU_REFUSED = "gpu_refused"
    LOG_ENDED = "log_ended"
    LOG_STALE = "log_stale"
    REVOKED = "measurement_revoked"
    SUSPENDED = "measurement_suspended"
    TCB_REFUSED = "tcb_refused"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class BootChecked:
    """The boot check held; how long its parts took."""

    event: ClassVar[str] = "boot.checked"
    level: ClassVar[int] = logging.INFO
    quote_seconds: float
    fetch_seconds: float
    judge_seconds: float


@dataclass(frozen=True, slots=True)
class LifecycleChanged:
    """The enclave went from one phase to another."""

    event: ClassVar[str] = "lifecycle.changed"
    level: ClassVar[int] = logging.WARNING
    phase: Phase
    step: Step
    code: Why


@dataclass(frozen=True, slots=True)
class CollateralNotInRegistry:
    """The registry keeps no documents of this machine's vendor."""

    event: ClassVar[str] = "collateral.not_in_registry"
    level: ClassVar[int] = logging.INFO
    error: type[BaseException]


@dataclass(frozen=True, slots=True)
class NetworkUnrestricted:
    """The kernel has no rules that would hold this process to the ports of its log and vendors."""

    event: ClassVar[str] = "network.unrestricted"
    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True)
class GPUNotUsed:
    """A GPU is there that may see no prompts."""

    event: ClassVar[str] = "gpu.not_used"
    level: ClassVar[int] = logging.WARNING
    gpus: int


@dataclass(frozen=True, slots=True)
class MemoryFull:
    """A conversation did not fit into memory; its tokens up to the next power of two."""

    event: ClassVar[str] = "model.memory_full"
    level: ClassVar[int] = logging.WARNING
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """The model raised; its words may quote the prompt, so only its class is said."""

    event: ClassVar[str] = "model.failed"
    level: ClassVar[int] = logging.ERROR
    error: type[BaseException]


@dataclass(frozen=True, slots=True)
class APIFailed:
    """A mistake of ours while a request was answered."""

    event: ClassVar[str] = "api.failed"
    level: ClassVar[int] = logging.ERROR
    error: type[BaseException]


Event = (
    BootChecked
    | LifecycleChanged
    | CollateralNotInRegistry
    | NetworkUnrestricted
    | GPUNotUsed
    | MemoryFull
    | ModelFailed
    | APIFailed
)


def emit(event: Event) -> None:
    """Write one event; the only way from this process to its log."""
    logging.getLogger(_NAME).log(event.level, event.event, extra={"told": event})


def word(words: type[Word], text: str) -> Word:
    """Give the word of a list that a text is, or its ``other``."""
    return words(text) if text in words._value2member_map_ else words("other")


def bucket(count: int) -> int:
    """Round up to a power of two, so that a client's number is no message of its own."""
    return 1 << (count - 1).bit_length() if count > 0 else 0


def facts(event: Event) -> dict[str, str | int | float]:
    """Lay an event out for its line."""
    found: dict[str, str | int | float] = {"event": event.event, "level": logging.getLevelName(event.level)}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, type):
            value = value.__name__
        elif isinstance(value, Enum):
            value = str(value.value)
        elif isinstance(value, float):
            value = round(value, 3)
        found[field.name] = value
    return found
