"""The device client against a peer that answers, lies, stalls or goes away."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from enclave.device import DeviceEvidence, Evidence, StreamDevice, open_device
from quotary.canonical import canonical, parse_canonical
from quotary.errors import CannotTell, Malformed, Refused, Usage

REPLY = canonical({"collateral": {"tcb_info": "line\nline"}, "quote": "AAECAw=="}, multiline=True)


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@pytest.fixture
def peer() -> Iterator[Callable[[bytes], tuple[StreamDevice, list[bytes]]]]:
    """A device whose other end answers each request with the given bytes, and remembers the requests."""
    open_ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: bytes, *, close: bool = True) -> tuple[StreamDevice, list[bytes]]:
        ours, theirs = socket.socketpair()
        open_ends.extend((ours, theirs))
        asked: list[bytes] = []

        def run() -> None:
            # The test may hang up at any moment.
            with contextlib.suppress(OSError):
                while head := theirs.recv(4, socket.MSG_WAITALL):
                    asked.append(theirs.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
                    theirs.sendall(answer)
                    if close:
                        theirs.shutdown(socket.SHUT_WR)
                        break

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return StreamDevice(ours.fileno(), timeout_seconds=5), asked

    yield start  # type: ignore[misc]
    for end in open_ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for end in open_ends:
        end.close()


def test_a_device_gives_a_quote_and_collateral(peer) -> None:  # type: ignore[no-untyped-def]
    device, asked = peer(frame(REPLY), close=False)
    for _ in range(2):
        assert device.quote(b"r" * 64) == Evidence(b"\x00\x01\x02\x03", {"tcb_info": "line\nline"})
    assert parse_canonical(asked[0], 4096) == {"op": "quote", "report_data": (b"r" * 64).hex()}


@pytest.mark.parametrize(
    "answer",
    [
        b"", frame(REPLY)[:-1], frame(b"{}"), frame(REPLY + b" "), b"\xff\xff\xff\xff", frame(canonical({"collateral": {"a": 1}, "quote": ""})),
        frame(canonical({"collateral": {}, "quote": "AA==", "registers": "x"})),
    ],
)  # fmt: skip
def test_a_device_that_does_not_speak_the_protocol_is_given_up(peer, answer: bytes) -> None:  # type: ignore[no-untyped-def]
    device, _ = peer(answer)
    with pytest.raises(CannotTell, match="does not answer"):
        device.quote(bytes(64))
    with pytest.raises(CannotTell, match="given up"):
        device.quote(bytes(64))


DEVICES = {"collateral": {"rim": "CTxhLz4="}, "devices": "W10=", "mode": "on"}


@pytest.mark.parametrize("mode", ["on", "protected PCIe"])
def test_a_device_shows_gpus_over_the_nonces_of_their_places(peer, mode: str) -> None:  # type: ignore[no-untyped-def]
    device, asked = peer(frame(canonical({**DEVICES, "mode": mode})), close=False)
    assert device.devices([b"a" * 32, b"b" * 32]) == DeviceEvidence(b"[]", {"rim": "\t<a/>"})
    assert parse_canonical(asked[0], 4096) == {"op": "devices", "nonces": ["61" * 32, "62" * 32]}


@pytest.mark.parametrize("mode", ["off", "devtools", "not in production", "ON"])
def test_gpus_that_their_host_can_look_into_are_refused(peer, mode: str) -> None:  # type: ignore[no-untyped-def]
    device, _ = peer(frame(canonical({**DEVICES, "mode": mode})), close=False)
    for _ in range(2):
        with pytest.raises(Refused, match=f"confidential mode: found {mode}, wanted on or protected PCIe"):
            device.devices([bytes(32)])


@pytest.mark.parametrize(
    "change",
    [{"mode": ""}, {"devices": ""}, {"collateral": {"a": "/w=="}}, {"collateral": {"a": 1}}, {"x": 1}],
)
def test_gpus_in_another_form_are_not_believed(peer, change: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    device, _ = peer(frame(canonical({**DEVICES, **change})))
    with pytest.raises(CannotTell, match="does not answer"):
        device.devices([bytes(32)])


def test_a_device_that_says_nothing_is_given_up_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(CannotTell, match="nothing within"):
        StreamDevice(ours.fileno(), timeout_seconds=0.05).quote(bytes(64))


def test_an_error_of_the_device_is_passed_on(peer) -> None:  # type: ignore[no-untyped-def]
    error = canonical({"error": {"kind": "refused", "message": "it has ended"}})
    device, _ = peer(frame(error), close=False)
    with pytest.raises(Exception, match="it has ended"):
        device.quote(bytes(64))


def test_report_data_of_another_length_never_reaches_the_device() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(Malformed):
        StreamDevice(ours.fileno()).quote(bytes(63))


@pytest.mark.parametrize(
    "name", ["", "fd:", "fd:x", "fd:1 ", "virtio:", "virtio:../x", "/dev/tdx_guest", "simulator"]
)
def test_a_device_that_is_not_named_properly_is_a_usage_error(name: str) -> None:
    with pytest.raises(Usage):
        open_device(name)


@pytest.mark.parametrize("name", ["fd:999999", "virtio:quotary.none"])
def test_a_device_that_does_not_exist_cannot_be_opened(name: str) -> None:
    with pytest.raises(CannotTell, match="cannot be opened"):
        open_device(name)
