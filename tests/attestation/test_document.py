"""The attestation document reads back as written and refuses every other spelling."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation.binding import Binding, devices_digest, keyset_digest, verify_report_data
from quotary.attestation.document import AttestationDocument, NonceProof
from quotary.attestation.measure.rtmr0 import material_digests
from quotary.canonical import canonical, parse_canonical
from quotary.errors import Malformed
from tests.conftest import ROOT

EXAMPLE = AttestationDocument(
    binding=b"binding",
    keyset=b"keyset",
    evidence=b"quote",
    collateral={"tcb_info": "{}", "chain": "a\nb\n"},
    devices=b"devices",
    nonce=NonceProof(1, 3, (b"\1" * 32, b"\2" * 32)),
    bundle=b"bundle",
    device_collateral={"NV_GPU_DRIVER": "<a>\t\r\n</a>", "ocsp:1a": "AAAA"},
)
some = st.binary(min_size=1, max_size=64)
nonces = st.just(NonceProof(0, 0, ())) | st.builds(
    lambda size, part, path: NonceProof(part % size, size, tuple(path)),
    st.integers(1, 50),
    st.integers(0, 1000),
    st.lists(st.binary(min_size=32, max_size=32), max_size=32),
)


@given(
    some,
    some,
    some,
    st.dictionaries(st.sampled_from(["a", "b_c", "d"]), st.sampled_from(["", "x\ny"])),
    st.none() | some,
    nonces,
    st.none() | some,
    st.none() | some,
    st.dictionaries(st.sampled_from(["a", "ocsp:1"]), st.text(min_size=1, max_size=9)),
)
def test_a_document_reads_back_as_it_was_written(
    binding, keyset, evidence, collateral, devices, nonce, bundle, event_log, published
):
    about = published if devices is not None else {}
    written = AttestationDocument(
        binding, keyset, evidence, collateral, devices, nonce, bundle, event_log, about
    )
    assert AttestationDocument.parse(written.encode()) == written


def test_every_changed_member_is_malformed():
    document = parse_canonical(EXAMPLE.encode(), 1 << 20, multiline=True)
    cpu, nonce = document["cpu"], document["nonce"]
    for change in (
        {"v": 0},
        {"v": "1"},
        {"binding": "!"},
        {"keyset": 7},
        {"devices": ""},
        {"devices": "nothing"},
        {"bundle": ""},
        {"extra": 1},
        {"devices": "none"},
        {"device_collateral": {}},
        {"device_collateral": {"a": ""}},
        {"device_collateral": {"a": "!"}},
        {"device_collateral": {"a": "/w=="}},
        {"device_collateral": {"a": 1}},
        {"device_collateral": ["AAAA"]},
        {"device_collateral": {f"a{n}": "AAAA" for n in range(257)}},
        {"cpu": {**cpu, "platform": "tdx"}},
        {"cpu": {**cpu, "collateral": {"a": 1}}},
        {"cpu": {**cpu, "collateral": {str(n): "" for n in range(17)}}},
        {"cpu": {**cpu, "event_log": ""}},
        {"cpu": {**cpu, "event_log": "!"}},
        {"cpu": []},
        {"nonce": {**nonce, "index": 3}},
        {"nonce": {**nonce, "path": [1]}},
        {"nonce": {**nonce, "path": ["AAAA"]}},
        {"nonce": {**nonce, "path": nonce["path"] * 17}},
        {"nonce": {**nonce, "x": 1}},
        {"nonce": {"index": 0, "size": 0, "path": nonce["path"]}},
    ):
        with pytest.raises(Malformed):
            AttestationDocument.parse(canonical({**document, **change}, multiline=True))


def test_every_missing_member_but_those_that_may_be_absent_is_malformed():
    document = parse_canonical(EXAMPLE.encode(), 1 << 20, multiline=True)
    for name in document:
        less = canonical({k: v for k, v in document.items() if k != name}, multiline=True)
        if name == "bundle":
            assert AttestationDocument.parse(less).bundle is None
        elif name == "device_collateral":
            assert AttestationDocument.parse(less).device_collateral == {}
        else:
            with pytest.raises(Malformed):
                AttestationDocument.parse(less)


def test_every_truncation_is_malformed():
    data = EXAMPLE.encode()
    for length in range(len(data)):
        with pytest.raises(Malformed):
            AttestationDocument.parse(data[:length])


def test_the_page_is_what_the_code_does():
    page = (ROOT / "docs/formats/attestation.md").read_text()
    parts = dict(re.findall(r"```(?:json|hex) ([\w-]+)\n(.*?)\n```", page, re.S))
    document = AttestationDocument.parse(parts["document"].encode())
    assert document.encode().decode() == parts["document"]
    assert document.binding.decode() == parts["binding"]
    parsed = Binding.parse(document.binding)
    assert parsed.keyset == keyset_digest(document.keyset)
    nonce_root = hashlib.sha256(b"\0" + b"\7" * 32).digest()
    verify_report_data(bytes.fromhex(parts["report_data"]), document.binding, nonce_root)
    composite = AttestationDocument.parse(parts["document-with-devices"].encode())
    assert composite.encode().decode() == parts["document-with-devices"]
    assert composite.devices is not None
    assert Binding.parse(composite.binding).devices == devices_digest(composite.devices)
    assert list(composite.device_collateral) == ["NV_GPU_DRIVER_GH100_580.95.05", "ocsp:1a2b"]
    material = parse_canonical(parts["material"].encode(), 4096)
    assert isinstance(material, dict)
    assert set(material_digests(material, 2 << 30)) == {"cfv", "td-hob"}
