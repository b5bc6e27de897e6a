"""Azure's wrapper: both real ones, every byte broken, and the one binding that it rests on."""

import base64
import hashlib
import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import hcl, tdx
from quotary.attestation.facts import TCB, Facts
from quotary.attestation.hcl import HCLReport, require_bound
from quotary.attestation.snp import SNPReport
from quotary.errors import Malformed, Rejected, Unsupported
from tests.attestation.test_snp import facts_of, report

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

NOW = datetime(2026, 7, 1, tzinfo=UTC)
KEY = {
    "kid": "HCLAkPub",
    "kty": "RSA",
    "e": "AQAB",
    "n": base64.urlsafe_b64encode(b"\xc1" * 255 + b"\x01").decode().rstrip("="),
}


def snp_wrapper(vectors: Path) -> bytes:
    return (vectors / "snp" / "milan-v2-azure-hcl-report.bin").read_bytes()


def snp_facts(vectors: Path) -> Facts:
    return facts_of(vectors, "milan-v2-azure-hcl-vcek")


def wrap(runtime: bytes, kind: int = 2, tail: bytes = b"", **changes: int) -> bytes:
    values = {"version": 1, "request": 2, "status": 0, "runtime_version": 1, "hash": 1} | changes
    length = values.get("length", 1236 + len(runtime))
    head = struct.pack("<4sIIII12x", b"HCLA", values["version"], length, values["request"], values["status"])
    data_length = values.get("data_length", len(runtime))
    inner = struct.pack(
        "<5I",
        values.get("inner", 20 + len(runtime)),
        values["runtime_version"],
        kind,
        values["hash"],
        data_length,
    )
    return head + bytes(1184) + inner + runtime + tail


def document(**changes: object) -> bytes:
    return json.dumps({"keys": [{**KEY, **changes}], "vm-configuration": {}}).encode()


def facts_over(report_data: bytes) -> Facts:
    tcb = TCB("none", (), NOW, None, 0, {})
    return Facts("sim-snp", "genoa", {}, {}, report_data, tcb, {}, (), (), True, NOW)


@pytest.mark.parametrize("layout", [hcl.HEADER, hcl.RUNTIME], ids=lambda layout: layout.what)
def test_a_layout_leaves_no_byte_unnamed(layout) -> None:
    assert layout.gaps_and_overlaps() == ()


def test_a_real_snp_wrapper_is_bound_to_its_report(vectors: Path) -> None:
    found = HCLReport.parse(snp_wrapper(vectors))
    assert found.platform == "snp"
    assert found.hardware == report(vectors, "milan-v2-azure-hcl-vcek")
    assert SNPReport.parse(found.hardware).version == 2
    assert found.attestation_key.key_size == 2048
    assert require_bound(snp_facts(vectors), found).name == "runtime data"


def test_a_real_tdx_wrapper_is_bound_to_its_quote(vectors: Path) -> None:
    found = HCLReport.parse((vectors / "tdx" / "azure-hcl-report.bin").read_bytes())
    quote = (vectors / "tdx" / "v4-00806f05-azure-no-sept-ve-disable.quote").read_bytes()
    body = tdx.TDXQuote.parse(quote).body
    assert (found.platform, len(found.hardware)) == ("tdx", 1024)
    facts = replace(snp_facts(vectors), platform="tdx", report_data=body["report_data"])
    assert require_bound(facts, found)


def test_every_byte_of_a_wrapper_is_bound_or_refused(vectors: Path) -> None:
    data, facts = snp_wrapper(vectors), snp_facts(vectors)
    hardware = report(vectors, "milan-v2-azure-hcl-vcek")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        try:
            found = HCLReport.parse(bytes(changed))
            require_bound(facts, found)
        except (Malformed, Unsupported, Rejected):
            continue
        # What is left unrefused here is the hardware report, which has its own signature.
        assert found.hardware != hardware, at


def test_every_truncation_is_malformed(vectors: Path) -> None:
    data = snp_wrapper(vectors)
    end = 1236 + 1110
    for length in (*range(0, end, 13), end - 1):
        with pytest.raises(Malformed):
            HCLReport.parse(data[:length])
    assert HCLReport.parse(data[:end]) is not None


@given(st.binary(max_size=1500) | st.binary(max_size=300).map(lambda tail: b"HCLA" + bytes(1232) + tail))
def test_bytes_from_anywhere_are_malformed_or_unsupported(data: bytes) -> None:
    with pytest.raises((Malformed, Unsupported)):
        HCLReport.parse(data)


def test_a_wrapper_of_our_own_is_read() -> None:
    assert HCLReport.parse(wrap(document(), tail=bytes(9))).runtime == document()
    assert HCLReport.parse(wrap(document(), kind=4)).platform == "tdx"


def test_another_document_or_platform_is_not_bound() -> None:
    found = HCLReport.parse(wrap(document()))
    digest = hashlib.sha256(document()).digest()
    facts = facts_over(digest + bytes(32))
    assert require_bound(facts, found).name == "runtime data"
    for wrong in (
        replace(facts, platform="sim-tdx"),
        replace(facts, report_data=bytes(64)),
        replace(facts, report_data=digest + b"\1" * 32),
        replace(facts, report_data=digest),
    ):
        with pytest.raises(Rejected, match=r"^runtime data"):
            require_bound(wrong, found)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (3, {}),
        (0, {}),
        (2, {"version": 3}),
        (2, {"version": 0}),
        (2, {"request": 1}),
        (2, {"runtime_version": 2}),
        (2, {"hash": 2}),
    ],
)
def test_another_kind_of_wrapper_is_unsupported(kind: int, changes) -> None:
    with pytest.raises(Unsupported):
        HCLReport.parse(wrap(document(), kind, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 1},
        {"length": 5},
        {"inner": 5},
        {"data_length": 5},
        {"data_length": 1 << 31},
        {"tail": b"\1"},
    ],
)
def test_lengths_that_do_not_fit_are_malformed(changes) -> None:
    with pytest.raises(Malformed):
        HCLReport.parse(wrap(document(), **changes))


def test_bytes_behind_a_td_report_are_malformed() -> None:
    data = bytearray(wrap(document(), kind=4))
    data[32 + 1024] = 1
    with pytest.raises(Malformed, match="TD report"):
        HCLReport.parse(bytes(data))


@pytest.mark.parametrize(
    "runtime",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[5]}',
        b'{"keys":[],"keys":[]}',
        b"[" * 10_000,
        json.dumps({"keys": [KEY, KEY]}).encode(),
        document(kid="other"),
        document(kty="EC"),
        document(n=5),
        document(n="é"),
        document(n="*"),
        document(n="A"),
        document(n="A" * 1025),
        document(n="AQAB"),
        document(e="AA"),
    ],
)
def test_a_document_without_the_key_is_malformed(runtime: bytes) -> None:
    with pytest.raises(Malformed):
        HCLReport.parse(wrap(runtime))


def test_a_document_that_names_a_member_twice_is_malformed() -> None:
    keys = json.dumps([KEY])
    with pytest.raises(Malformed, match="twice"):
        HCLReport.parse(wrap(f'{{"keys":{keys},"keys":{keys}}}'.encode()))


def test_a_wrapper_of_another_magic_is_malformed() -> None:
    with pytest.raises(Malformed, match="not an HCL report"):
        HCLReport.parse(b"HCLB" + wrap(document())[4:])


def test_a_document_that_ends_early_is_malformed() -> None:
    # White space behind the document is part of it: without it another one would be hashed.
    with pytest.raises(Malformed, match="lengths do not fit"):
        HCLReport.parse(wrap(document() + b" ")[:-1])


def test_a_wrapper_that_is_too_long_is_malformed() -> None:
    with pytest.raises(Malformed, match="possible"):
        HCLReport.parse(wrap(document(), tail=bytes(hcl.MAX_REPORT)))
