"""A machine that is held to addresses: two network namespaces, and every way out that we can name."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from enclave import egress
from tests.conftest import ROOT
from tests.fakes.namespace import inside, namespace

MODULE = "tests.enclave.egress_probe"
OPEN = {"log", "itself", "by its own address"}


@contextmanager
def peer(name: str) -> Iterator[None]:
    words = ["ip", "netns", "exec", name, sys.executable, "-m", MODULE, "peer"]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.stdin.close()


def test_c25_nothing_leaves_a_machine_but_to_the_listed_address_and_answers_from_its_port() -> None:
    one, two = (f"quotary-{os.getpid()}-{name}" for name in ("guest", "peer"))
    wires = (
        f"link add va type veth peer name vb netns {two}", "addr add 10.9.0.1/24 dev va",
        "addr add fd00::1/64 dev va nodad", "link set va up", "route add default via 10.9.0.2",
    )  # fmt: skip
    with namespace(two), namespace(one, *wires):
        for words in ("addr add 10.9.0.2/24 dev vb", "addr add 10.9.0.3/24 dev vb", "link set vb up"):
            subprocess.run(["ip", "-n", two, *words.split()], check=True)
        with peer(two):
            found = inside(one, MODULE, "guest")
    # Unless all of it were possible before, the rules would show nothing.
    assert set(found["before"].values()) == {"ok"}
    assert {name for name, outcome in found["after"].items() if outcome == "ok"} == OPEN
    assert {outcome for name, outcome in found["after"].items() if name not in OPEN} == {"EACCES"}
    assert found["called"] == "ok"
    assert found["lifted"] == "no"


@pytest.mark.parametrize(
    "word", ["10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "log.example.org:443", "::1:443"]
)
def test_what_is_no_address_and_port_is_none(word: str) -> None:
    with pytest.raises(SystemExit):
        egress.main([word])


def test_more_addresses_than_there_are_places_are_refused() -> None:
    with pytest.raises(SystemExit, match="101 addresses, at most 100"):
        egress.main([f"10.0.0.1:{port}" for port in range(1, 102)])


def test_a_rule_that_the_kernel_does_not_take_is_an_error() -> None:
    """An ordinary user may not set rules: what the machine would do then is stop."""
    words = [
        sys.executable,
        "-c",
        "import os; os.setuid(65534)\nfrom enclave.egress import main\nmain([])",
    ]
    if os.getuid():
        words[2] = words[2].removeprefix("import os; os.setuid(65534)\n")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "rule 0 is not taken: Operation not permitted" in done.stderr


def test_rules_that_do_not_shut_the_way_are_found_out() -> None:
    """Where the kernel takes the rules and lets packets out all the same."""
    name = f"quotary-{os.getpid()}-open"
    with namespace(name):
        code = "from enclave import egress\negress.rules = lambda *_: iter(())\negress.main([])"
        run = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "is not shut" in done.stderr


def test_the_rules_are_in_an_order_that_the_kernel_keeps() -> None:
    place = egress._place("10.0.0.1:443")
    found = list(egress.rules([place, place], 8080, (socket.AF_INET, socket.AF_INET6)))
    priorities = [int.from_bytes(request[32:36], "little") for request in found]
    assert priorities == [100, 101, 200, 300, 300]
    assert [request[16] for request in found] == [2, 2, 2, 2, 10]
