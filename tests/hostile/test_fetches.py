"""Row I14 and bar A46 (SSRF): with addresses everywhere, the registry sends no packet and begins no connection."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

NAMESPACE = "quotary-fetches"
SETUP = (
    ("netns", "add", NAMESPACE),
    ("-n", NAMESPACE, "link", "set", "lo", "up"),
    ("-n", NAMESPACE, "link", "add", "nowhere", "type", "veth", "peer", "name", "void"),
    ("-n", NAMESPACE, "addr", "add", "192.0.2.2/24", "dev", "nowhere"),
    ("-n", NAMESPACE, "link", "set", "void", "up"),
    ("-n", NAMESPACE, "link", "set", "nowhere", "up"),
    ("-n", NAMESPACE, "route", "add", "default", "via", "192.0.2.1"),
)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace whose default route leads to nobody, so that whatever is sent is counted.

    One for each test: seconds after a packet to nobody the kernel tells the sender so, with a packet of its own.
    """
    ip = shutil.which("ip") or shutil.which("/usr/sbin/ip")
    if ip is None:
        pytest.skip("no ip: apt-get install iproute2")
    try:
        for words in SETUP:
            done = subprocess.run([ip, *words], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be had here: {done.stderr.strip()}")
        yield NAMESPACE
    finally:
        subprocess.run([ip, "netns", "del", NAMESPACE], capture_output=True)


def counted(namespace: str, *words: str) -> dict[str, object]:
    run = [sys.executable, "-m", "tests.hostile.fetches", *words]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *run], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_a46_addresses_in_statements_and_requests_make_the_registry_send_nothing(namespace: str) -> None:
    found = counted(namespace)
    assert found["tried"] == {"connections": 0, "datagrams": 0, "packets": 0}
    statuses, read = found["statuses"], found["read"]
    assert isinstance(statuses, list)
    assert isinstance(read, int)
    assert statuses.count(202) >= 20
    assert read > 30


def test_a46_one_address_that_is_fetched_is_seen(namespace: str) -> None:
    assert counted(namespace, "bait")["tried"] != {"connections": 0, "datagrams": 0, "packets": 0}
