"""Which environment variables a serving enclave may have been started with: a short list, and nothing else.

A variable can change what code does after it was measured (``LD_PRELOAD``, ``PYTHONSTARTUP``,
``GUNICORN_CMD_ARGS``), and new libraries bring new ones, so there is no list of bad names. No variable is
read by our own code.
"""

from collections.abc import Iterable

from quotary.errors import Refused

ALLOWED = frozenset(
    {
        "HF_HUB_OFFLINE",
        "HOME",
        "LC_ALL",
        "LC_CTYPE",
        "MKL_NUM_THREADS",
        "OMP_NUM_THREADS",
        "PATH",
        "PYTHONPATH",
        "PYTHONUNBUFFERED",
        "TOKENIZERS_PARALLELISM",
        "TRANSFORMERS_OFFLINE",
        "TZ",
    }
)


def check_environment(names: Iterable[str]) -> None:
    """Refuse to serve with any variable that is not on the list."""
    unknown = sorted(set(names) - ALLOWED)
    if unknown:
        raise Refused(
            "environment",
            f"the variable {unknown[0]}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
            "only " + ", ".join(sorted(ALLOWED)),
            next_command="start it under env -i, or under quotary enclave simulate",
        )
