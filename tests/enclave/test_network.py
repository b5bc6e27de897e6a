"""Where a serving enclave may connect to: the kernel holds it to the ports of its log and vendors."""

import subprocess
import sys

import pytest

from enclave import network
from quotary.net.vendors import Services
from tests.conftest import ROOT

TRIES = """
import errno, os, socket, threading
from enclave.network import restrict
def listening():
    found = socket.socket(); found.bind(("127.0.0.1", 0)); found.listen(); return found
def tried(port):
    with socket.socket() as one:
        return errno.errorcode.get(one.connect_ex(("127.0.0.1", port)), "ok")
def bound():
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", 0))
        except OSError as error:
            return errno.errorcode[error.errno]
        return "ok"
log, other = listening(), listening()
ports = [each.getsockname()[1] for each in (log, other)]
before = [tried(port) for port in ports] + [bound()]
if not restrict({ports[0]}):
    print("no rules"); raise SystemExit
after = [tried(port) for port in ports] + [bound()]
later = []
thread = threading.Thread(target=lambda: later.append(tried(ports[1]))); thread.start(); thread.join()
child = os.fork()
if not child:
    os._exit(0 if tried(ports[1]) == "EACCES" else 1)
later.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
# A second set of rules can only take away.
restrict(set(ports))
later.append(tried(ports[1]))
# What listened before goes on, and a unix socket is no network.
with socket.create_connection(log.getsockname()) as one: log.accept()[0].close()
pair = socket.socketpair()
print(before, after, later)
"""


def test_only_the_logs_port_can_be_connected_to_and_nothing_be_bound() -> None:
    words = [sys.executable, "-c", TRIES]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if done.stdout == "no rules\n":
        pytest.skip("this kernel has no Landlock rules for the network (Linux 6.7)")
    assert done.stdout == "['ok', 'ok', 'ok'] ['ok', 'EACCES', 'EACCES'] ['EACCES', 0, 'EACCES']\n"


def test_a_kernel_without_rules_is_told_from_one_that_does_not_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_LEAST_ABI", 1 << 20)
    assert network.restrict({443}) is False


def test_the_ports_are_those_of_the_log_and_the_vendors() -> None:
    assert network.ports_of("http://127.0.0.1:8000", Services()) == {8000, 443}
    assert network.ports_of("http://log.example.org/x", Services()) == {80, 443}
    assert network.ports_of("https://log.example.org", Services(ocsp="http://mirror:81")) == {81, 443}
