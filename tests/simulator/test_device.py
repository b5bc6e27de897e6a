"""The device protocol: frames, requests and what is refused."""

import json
import re
import socket
import struct
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed, Refused
from simulator.device import (
    MAX_REQUEST,
    DeviceEvidence,
    Evidence,
    encode_devices,
    encode_error,
    encode_reply,
    parse_request,
    serve,
)
from tests.conftest import ROOT

REQUEST = {"op": "quote", "report_data": "07" * 64}


class Bytes:
    """A channel over two byte strings; it hands out at most ``step`` bytes at a time."""

    def __init__(self, incoming: bytes, step: int = 3) -> None:
        self.incoming, self.step, self.sent = incoming, step, b""

    def receive(self, limit: int) -> bytes:
        size = min(limit, self.step)
        part, self.incoming = self.incoming[:size], self.incoming[size:]
        return part

    def send(self, data: bytes) -> None:
        self.sent += data


class Answering:
    """A machine that quotes whatever it is asked, and shows two devices."""

    def quote(self, report_data: bytes) -> Evidence:
        return Evidence(b"quote over " + report_data, {"a": "b\nc"})

    def show(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        if len(nonces) != 2:
            raise Refused("devices", f"{len(nonces)} nonces", "2")
        return DeviceEvidence(b"devices over " + b"".join(nonces), {"rim": "\t<a/>"}, "on")


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def answers(incoming: bytes) -> list[dict[str, object]]:
    channel = Bytes(incoming)
    serve(channel, Answering())
    found, sent = [], channel.sent
    while sent:
        length = int.from_bytes(sent[:4], "big")
        found.append(parse_canonical(sent[4 : 4 + length], length, multiline=True))
        sent = sent[4 + length :]
    return found


def test_each_request_gets_one_answer_in_order() -> None:
    other = canonical({"op": "quote", "report_data": "08" * 64})
    first, second = answers(frame(canonical(REQUEST)) + frame(other))
    assert first["collateral"] == {"a": "b\nc"}
    assert first["quote"] != second["quote"]


@pytest.mark.parametrize(
    "change",
    [
        {"registers": {"mrtd": "00" * 48}},
        {"mrtd": "00" * 48},
        {"pid": 1},
        {"op": "sign"},
        {"report_data": "07" * 63},
        {"report_data": "0G" + "07" * 63},
        {"report_data": 7},
        {"op": "devices"},
        {"nonces": ["07" * 32]},
    ],
)
def test_a_request_for_anything_else_is_malformed_and_the_next_one_is_heard(change) -> None:
    first, second = answers(frame(canonical(REQUEST | change)) + frame(canonical(REQUEST)))
    assert first["error"]["kind"] == "malformed"
    assert "quote" in second


@pytest.mark.parametrize(
    "nonces", [[], ["07" * 31], ["07" * 33], [7], "07" * 32, ["07" * 32] * 65, ["0G" * 32]]
)
def test_devices_are_asked_with_nonces_of_32_bytes_only(nonces: object) -> None:
    (found,) = answers(frame(canonical({"op": "devices", "nonces": nonces})))
    assert found["error"]["kind"] == "malformed"  # type: ignore[index]


def test_a_request_in_another_spelling_is_malformed() -> None:
    for text in (json.dumps(REQUEST), '{"op":"quote","op":"quote"}', "[]", "", "{" * 4000):
        assert answers(frame(text.encode()))[0]["error"]["kind"] == "malformed"


def test_a_frame_that_is_too_long_ends_the_stream() -> None:
    with pytest.raises(Malformed):
        serve(Bytes(struct.pack(">I", MAX_REQUEST + 1)), Answering())


@pytest.mark.parametrize("cut", [1, 3, 4, 50])
def test_a_frame_that_is_cut_off_ends_the_stream(cut: int) -> None:
    with pytest.raises(Malformed):
        serve(Bytes(frame(canonical(REQUEST))[:cut]), Answering())


@given(st.binary(max_size=300))
def test_whatever_a_request_holds_only_malformed_is_raised(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(data)


def test_an_error_says_its_kind() -> None:
    assert json.loads(encode_error(Refused("x", "a", "b"))) == {
        "error": {"kind": "refused", "message": "x: found a, wanted b"}
    }


def test_the_enclave_and_the_simulator_understand_each_other() -> None:
    from enclave.device import open_device

    ours, theirs = socket.socketpair()
    with ours, theirs:
        device = open_device(f"fd:{theirs.fileno()}")

        class Stream:
            receive = staticmethod(ours.recv)
            send = staticmethod(ours.sendall)

        thread = threading.Thread(target=serve, args=(Stream, Answering()))
        thread.start()
        found = device.quote(bytes(64))
        assert (found.quote, found.collateral) == (b"quote over " + bytes(64), {"a": "b\nc"})
        shown = device.devices([b"a" * 32, b"b" * 32])
        assert (shown.devices, shown.collateral) == (
            b"devices over " + b"a" * 32 + b"b" * 32,
            {"rim": "\t<a/>"},
        )
        with pytest.raises(Refused, match="1 nonces"):
            device.devices([b"a" * 32])
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_format_page_shows_real_messages() -> None:
    page = (ROOT / "docs" / "formats" / "tee-device.md").read_text()
    blocks = dict(re.findall(r"```json ([\w-]+)\n(.*)\n```", page))
    assert parse_request(blocks["devices"].encode()) == (b"\1" * 32,)
    shown = {"ocsp:1a2b": "MAo=", "vbios": "<SoftwareIdentity/>"}
    reply = DeviceEvidence(b'[{"arch":"HOPPER"}]', shown, "on")
    assert blocks["devices-reply"].encode() == encode_devices(reply)
    assert parse_request(blocks["request"].encode()) == bytes([7]) * 64
    shown = json.loads(blocks["reply"])
    assert shown.keys() == json.loads(encode_reply(Evidence(b"q", {}))).keys()
    assert blocks["error"].encode() == encode_error(
        Refused("measured process", "it has ended", "a running one")
    )
