"""Whatever the bytes: parsers raise ``Malformed`` (or ``Unsupported`` for another kind) and nothing else."""

import contextlib
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quotary.attestation import der, tdx
from quotary.attestation.certificates import RevocationList, parse_chain
from quotary.attestation.collateral import MEMBERS, Collateral
from quotary.attestation.intel_json import TDX, QEIdentityDocument, TCBInfo
from quotary.attestation.measure.guids import guid_table
from quotary.attestation.measure.pe import authenticode
from quotary.attestation.measure.sev import sev_firmware
from quotary.attestation.measure.tdvf import sections
from quotary.errors import Malformed, Unsupported
from tests.fakes import vendor

GOOD = vendor.make(vendor.Recipe(version=5))
PARSERS = {
    "quote": tdx.TDXQuote.parse,
    "chain": lambda data: parse_chain(data, 2),
    "list": RevocationList.parse,
    "der": der.items,
    "tcb info": lambda data: TCBInfo.parse(data.decode("latin-1"), TDX),
    "qe identity": lambda data: QEIdentityDocument.parse(data.decode("latin-1"), TDX),
    "table": guid_table,
    "tdvf": sections,
    "sev": sev_firmware,
    "image": authenticode,
}
SEEDS = [
    GOOD.quote,
    GOOD.collateral["tcb_info"].encode(),
    GOOD.collateral["qe_identity"].encode(),
    GOOD.collateral["tcb_info_issuer_chain"].encode(),
    bytes.fromhex(GOOD.collateral["root_ca_crl"]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(data=st.data())
def test_no_bytes_make_a_parser_raise_anything_else(name, data):
    seed = bytearray(data.draw(st.sampled_from(SEEDS) | st.binary(max_size=400).map(bytes)))
    for _ in range(data.draw(st.integers(0, 3))):
        if seed:
            seed[data.draw(st.integers(0, len(seed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed, Unsupported):
        PARSERS[name](
            bytes(seed[: data.draw(st.integers(0, len(seed)))] if data.draw(st.booleans()) else seed)
        )


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(MEMBERS), st.text(max_size=20)))
def test_no_members_make_collateral_raise_anything_else(members):
    with pytest.raises(Malformed):
        Collateral.parse({**dict.fromkeys(MEMBERS, ""), **members})


def test_the_package_imports_quickly_and_without_the_services():
    code = "import sys, quotary.attestation.tdx, quotary.attestation.appraise, quotary.attestation.document; print(*sys.modules)"
    took = []
    for _ in range(3):
        started = time.perf_counter()
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        took.append(time.perf_counter() - started)
        assert not {"flask", "sqlalchemy", "torch", "urllib3", "click"} & set(found)
    # Generous: the interpreter's own start is in it, and other work on the machine.
    assert min(took) < 1.0
