"""Variables and pauses: what a serving enclave is started with, and when it asks its log."""

import pytest

from enclave.environment import ALLOWED, check_environment
from enclave.watch import Watcher, pause
from quotary.errors import Refused

INJECTED = (
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "PYTHONUSERBASE",
    "PYTHONWARNINGS", "GUNICORN_CMD_ARGS", "FLASK_DEBUG", "WERKZEUG_RUN_MAIN", "HF_HOME", "HF_ENDPOINT",
    "TRANSFORMERS_CACHE", "TORCH_LOGS", "HTTPS_PROXY", "SSL_CERT_FILE", "OPENSSL_CONF", "QUOTARY_SKIP_VERIFICATION",
    "QUOTARY_POLICY",
)  # fmt: skip


@pytest.mark.parametrize("name", INJECTED)
def test_an_injected_variable_stops_the_start(name: str) -> None:
    with pytest.raises(Refused, match=name):
        check_environment({*ALLOWED, name})


def test_the_listed_variables_are_allowed() -> None:
    check_environment(ALLOWED)
    check_environment(())


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 24.0), (0.5, 30.0), (1.0, 36.0)])
def test_pauses_spread_by_a_fifth(draw: float, seconds: float) -> None:
    assert pause(30, draw) == pytest.approx(seconds)


def test_a_watcher_polls_until_it_is_closed() -> None:
    import threading

    polled = threading.Event()
    watcher = Watcher(polled.set, 0.001)
    watcher.start()
    assert polled.wait(10)
    watcher.close()
    polled.clear()
    assert not polled.is_set()


def test_a_watcher_that_never_started_can_be_closed() -> None:
    Watcher(lambda: None, 1).close()
