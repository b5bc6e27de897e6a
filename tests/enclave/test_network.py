"""Where a serving enclave may connect to: the kernel holds it to the ports of its log and vendors."""

import subprocess
import sys

import pytest

from enclave import network
from quotary.errors import CannotTell
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


SOCKETS = """
import ctypes, errno, os, socket
from enclave.network import restrict
def made(family, kind=socket.SOCK_STREAM):
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
def ring():
    kernel = ctypes.CDLL(None, use_errno=True)
    return errno.errorcode[ctypes.get_errno()] if kernel.syscall(425, 1, None) < 0 else "ok"
known = [made(family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)]
known += [made(socket.AF_NETLINK, socket.SOCK_RAW), made(socket.AF_INET, socket.SOCK_DGRAM)]
others = [made(getattr(socket, name)) for name in ("AF_VSOCK", "AF_PACKET", "AF_ALG", "AF_BLUETOOTH")]
calls = [ring()]
restrict({443})
after = [made(family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)]
after += [made(socket.AF_NETLINK, socket.SOCK_RAW), made(socket.AF_INET, socket.SOCK_DGRAM)]
later = {made(getattr(socket, name)) for name in ("AF_VSOCK", "AF_PACKET", "AF_ALG", "AF_BLUETOOTH")}
child = os.fork()
if not child:
    os._exit(0 if made(socket.AF_VSOCK) == "EACCES" else 1)
print(known == after, "EACCES" in others + calls, later, ring(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_no_socket_of_another_kind_can_be_made_a_vsock_least_of_all() -> None:
    words = [sys.executable, "-c", SOCKETS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True False {'EACCES'} EACCES 0\n"


@pytest.mark.parametrize(
    ("number", "argument", "allowed"),
    [(41, 1, True), (41, 2, True), (41, 40, False), (41, 17, False), (0, 40, True), (425, 0, False),
     (0x40000000 + 41, 1, False), (0x40000000, 1, False)],
)  # fmt: skip
def test_the_filter_decides_by_call_and_family(number: int, argument: int, allowed: bool) -> None:
    assert filtered(0xC000003E, number, argument) is allowed
    assert filtered(0x40000003, number, argument) is False  # another machine's numbers


def filtered(architecture: int, number: int, argument: int) -> bool:
    """Run the filter as the kernel would (Linux' classic BPF), and say whether it lets the call through."""
    steps, place, value = network.socket_filter("x86_64"), 0, 0
    fields = {0: number, 4: architecture, 16: argument}
    while True:
        code, so, otherwise, operand = steps[place]
        place += 1
        match code:
            case 0x20:
                value = fields[operand]
            case 0x15:
                place += so if value == operand else otherwise
            case 0x35:
                place += so if value >= operand else otherwise
            case _:
                return operand == 0x7FFF0000


def test_a_machine_whose_calls_nobody_wrote_down_is_refused() -> None:
    with pytest.raises(CannotTell, match="riscv64"):
        network.socket_filter("riscv64")


def test_a_kernel_without_rules_is_told_from_one_that_does_not_take_them() -> None:
    """In a process of its own, which is held to the filter for good."""
    code = "from enclave import network; network._LEAST_ABI = 1 << 20; print(network.restrict({443}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n"


def test_the_ports_are_those_of_the_log_and_the_vendors() -> None:
    assert network.ports_of("http://127.0.0.1:8000", Services()) == {8000, 443}
    assert network.ports_of("http://log.example.org/x", Services()) == {80, 443}
    assert network.ports_of("https://log.example.org", Services(ocsp="http://mirror:81")) == {81, 443}
