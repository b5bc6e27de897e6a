"""Row I14 and bar A46 (SSRF): with addresses everywhere, the registry sends no packet and begins no connection."""

from collections.abc import Iterator

import pytest

from tests.fakes.namespace import inside, namespace

PROGRAM = "tests.hostile.fetches"
# The default route leads to nobody, so that whatever is sent is counted.
SETUP = (
    "link add nowhere type veth peer name void",
    "addr add 192.0.2.2/24 dev nowhere",
    "link set void up",
    "link set nowhere up",
    "route add default via 192.0.2.1",
)


@pytest.fixture
def counting() -> Iterator[str]:
    """One for each test: seconds after a packet to nobody the kernel tells the sender so, with a packet of its own."""
    with namespace("quotary-fetches", *SETUP) as name:
        yield name


def test_a46_addresses_in_statements_and_requests_make_the_registry_send_nothing(counting: str) -> None:
    found = inside(counting, PROGRAM)
    assert found["tried"] == {"connections": 0, "datagrams": 0, "packets": 0}
    statuses, read = found["statuses"], found["read"]
    assert isinstance(statuses, list)
    assert isinstance(read, int)
    assert statuses.count(202) >= 20
    assert read > 30


def test_a46_one_address_that_is_fetched_is_seen(counting: str) -> None:
    assert inside(counting, PROGRAM, "bait")["tried"] != {"connections": 0, "datagrams": 0, "packets": 0}
