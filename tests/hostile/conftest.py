"""One registry for the whole corpus, by both of its doors."""

from collections.abc import Iterator

import pytest

from tests.fakes import nginx
from tests.fakes.authority import measurement
from tests.fakes.processes import Log, start_log, until

CONNECTIONS = 8192


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Log]]:
    """One registry by both of its doors: gunicorn itself, and the nginx of ``deploy/`` before it."""
    if nginx.program() is None:
        pytest.skip("no nginx")
    folder = tmp_path_factory.mktemp("hostile")
    log = start_log(folder)
    (folder / "nginx").mkdir()
    made = log.authority
    log.submit(made.allocation(), made.delegation(), made.floor(), made.release("r1"))
    bundle = f"api/v1/bundles/chat/{measurement('r1').hex()}"
    until(lambda: (log.folder / "public" / bundle).exists(), "the bundle is exported")
    try:
        upstream = log.address.removeprefix("http://")
        with nginx.running(folder / "nginx", log.folder / "public", upstream, CONNECTIONS) as address:
            front = Log(log.folder, log.registry, log.witness, log.authority, at=address)
            yield {"nginx": front, "gunicorn": log}
    finally:
        log.stop()
