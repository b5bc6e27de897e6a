"""Each accepted real file, changed in every part of it, ends at the check of that part and at no other.

The normal suite changes some bytes of each part, ``make soak`` every one.
"""

import json
import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from quotary.attestation import nitro, rim, sgx, tdx
from quotary.attestation.certificates import Certificate, parse_certificate, verify_chain
from quotary.attestation.collateral import Collateral, verify_collateral
from quotary.attestation.measure import ccel
from quotary.attestation.roots import INTEL_ENCLAVE_ROOT, INTEL_SGX_ROOT
from quotary.errors import Malformed, Rejected
from tests.attestation.broken import parts, positions
from tests.attestation.manifest import MALFORMED, Entry, chain_of, device_chain, entries, outcome, runs

SECOND = timedelta(seconds=1)
SAMPLED = [97, pytest.param(1, marks=pytest.mark.soak)]
KINDS = ("quote", "snp-report", "nitro", "nvidia-report", "azure-hcl")
GOOD = {"accepted", "UpToDate", "OutOfDate", "SWHardeningNeeded", "ConfigurationAndSWHardeningNeeded"}


def accepted(vectors: Path, kind: str) -> list[Entry]:
    """The files of a kind whose first judgement is good."""
    found = [entry for entry in entries(vectors).values() if entry.said["kind"] == kind]
    return [entry for entry in found if outcome(entry, runs(entry)[0]) in GOOD]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Broken certificates bring out every warning that the library which parses them has."""
    warnings.simplefilter("ignore")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", SAMPLED)
def test_a_changed_byte_ends_at_the_check_of_its_part(vectors: Path, kind: str, step: int) -> None:
    found = accepted(vectors, kind)
    assert found
    for seed, entry in enumerate(found):
        run, good = runs(entry)[0], outcome(entry, runs(entry)[0])
        for part in parts(entry):
            for at in positions(part, step, 13 * seed):
                data = bytearray(entry.data)
                data[at] ^= 1 << (at + seed) % 8
                word = outcome(replace(entry, changed=bytes(data)), run)
                # Of a chain in PEM, line feeds and the zero at the end are no part of any certificate.
                blank = part.name == "certificates" and entry.data[at] in b"\n\0"
                wanted = part.checks | ({good} if blank or not part.checks else set())
                assert word in wanted, (entry.file, part.name, at)


# Certificates by themselves: each byte of each, and each date.


def chains(entry: Entry) -> tuple[str, tuple[Certificate, ...]]:
    """Give the chain that vouches for a file, and the check that holds it."""
    match entry.said["kind"]:
        case "quote":
            parse = sgx.SGXQuote.parse if entry.file.startswith("sgx/") else tdx.TDXQuote.parse
            return "pck chain", parse(entry.data).section.pck_chain
        case "snp-report":
            return "endorsement chain", chain_of(entry)
        case "nitro":
            return "nitro chain", nitro.NitroDocument.parse(entry.data).chain
        case "nvidia-report":
            return "device chain", device_chain(entry)
        case _:
            return "rim chain", rim.RIMDocument.parse(entry.data).chain


def first_of_each_kind(vectors: Path) -> list[Entry]:
    """One file for each length, issuer and algorithm of chains."""
    kinds = ("quote", "snp-report", "nitro", "nvidia-report", "rim")
    found = {
        tuple(certificate.subject_text for certificate in chains(entry)[1][1:]): entry
        for kind in kinds
        for entry in accepted(vectors, kind)
    }
    return list(found.values())


@pytest.mark.parametrize("step", SAMPLED)
def test_a_changed_byte_of_a_certificate_breaks_its_chain(vectors: Path, step: int) -> None:
    found = first_of_each_kind(vectors)
    assert len(found) > 8
    for seed, entry in enumerate(found):
        what, chain = chains(entry)
        when = max(certificate.not_before for certificate in chain)
        verify_chain(what, chain, chain[-1].fingerprint, when)
        for place, certificate in enumerate(chain):
            der = certificate.parsed.public_bytes(Encoding.DER)
            for at in range((7 * seed) % step, len(der), step):
                data = bytearray(der)
                data[at] ^= 1 << (at + seed) % 8
                assert _chain_word(what, chain, place, bytes(data), when) in (MALFORMED, what), entry.file


def _chain_word(what: str, chain: tuple[Certificate, ...], place: int, der: bytes, when: datetime) -> str:
    try:
        changed = (*chain[:place], parse_certificate(der), *chain[place + 1 :])
        verify_chain(what, changed, chain[-1].fingerprint, when)
    except Malformed:
        return MALFORMED
    except Rejected as error:
        return error.check
    return "accepted"


def test_a_second_outside_any_certificates_dates_breaks_its_chain(vectors: Path) -> None:
    for entry in first_of_each_kind(vectors):
        what, chain = chains(entry)
        begin = max(certificate.not_before for certificate in chain)
        end = min(certificate.not_after for certificate in chain)
        for inside in (begin, end):
            verify_chain(what, chain, chain[-1].fingerprint, inside)
        for certificate in chain:
            late = certificate.not_after.year < 9999
            outside = [certificate.not_before - SECOND, *([certificate.not_after + SECOND] if late else [])]
            for when in outside:
                with pytest.raises(Rejected) as refused:
                    verify_chain(what, chain, chain[-1].fingerprint, when)
                assert refused.value.check == what


# Intel's documents: each byte of each, and each date.

CHAINS = {
    "tcb_info_issuer_chain": ("tcb info chain", "tcb info signature"),
    "qe_identity_issuer_chain": ("qe identity chain", "qe identity signature"),
    # The list's issuer is compared with the quote's, and its key and name with the list.
    "pck_crl_issuer_chain": ("pck ca chain", "root crl", "pck crl"),
}
DOCUMENTS = {
    "tcb_info": ("tcb info signature",),
    "tcb_info_signature": ("tcb info signature",),
    "qe_identity": ("qe identity signature",),
    "qe_identity_signature": ("qe identity signature",),
    "root_ca_crl": ("root crl",),
    "pck_crl": ("pck crl",),
}


def documents(vectors: Path) -> list[tuple[str, dict[str, str], datetime]]:
    """Every bundle of Intel's documents, and a time inside all of their dates."""
    return [
        (file, json.loads(entry.data), datetime.fromisoformat(entry.said["valid_from"]))
        for file, entry in entries(vectors).items()
        if entry.said["kind"] == "dcap-collateral"
    ]


def word_of(file: str, members: dict[str, str], when: datetime) -> str:
    tee, root = ("TDX", INTEL_SGX_ROOT) if "/tdx" in file else ("SGX", INTEL_ENCLAVE_ROOT)
    try:
        verify_collateral(Collateral.parse(members), root, when, tee)
    except Malformed:
        return MALFORMED
    except Rejected as error:
        return error.check
    return "accepted"


@pytest.mark.parametrize("step", [1999, pytest.param(7, marks=pytest.mark.soak)])
def test_a_changed_byte_of_a_document_ends_at_that_documents_check(vectors: Path, step: int) -> None:
    for seed, (file, members, when) in enumerate(documents(vectors)):
        assert word_of(file, members, when) == "accepted"
        for name, checks in {**CHAINS, **DOCUMENTS}.items():
            text = members[name]
            for at in {0, len(text) - 1, *range((11 * seed) % step, len(text), step)}:
                other = "0" if text[at] != "0" else "1"
                word = word_of(file, {**members, name: text[:at] + other + text[at + 1 :]}, when)
                assert word in (MALFORMED, *checks), (file, name, at)


def test_a_second_outside_any_documents_dates_ends_at_a_check_of_dates(vectors: Path) -> None:
    for file, members, _ in documents(vectors):
        found = Collateral.parse(members)
        starts = {
            "pck crl": found.pck_crl.this_update,
            "root crl": found.root_crl.this_update,
            "tcb info date": _issued(members["tcb_info"]),
            "qe identity date": _issued(members["qe_identity"]),
        }
        # Judged a second before the last of them began, exactly those that began then fail, the first by name.
        last = max(starts.values())
        assert word_of(file, members, last) == "accepted"
        early = word_of(file, members, last - SECOND)
        assert early in {name for name, start in starts.items() if start == last}, file


def _issued(text: str) -> datetime:
    return datetime.fromisoformat(json.loads(text)["issueDate"])


# Event logs: what is not in a digest changes no register.


@pytest.mark.parametrize("step", [211, pytest.param(1, marks=pytest.mark.soak)])
def test_a_changed_byte_of_an_event_log_replays_to_other_registers_or_changes_no_digest(
    vectors: Path, step: int
) -> None:
    entry = entries(vectors)["tdx/gcp-cos113.ccel"]
    events = ccel.parse(entry.data)
    seen = set()
    for at in range(0, 18_101, step):
        data = bytearray(entry.data)
        data[at] ^= 1 << at % 8
        word = outcome(replace(entry, changed=bytes(data)), None)
        seen.add(word)
        assert word in (MALFORMED, "event log", "accepted"), at
        if word == "accepted":
            # Only what firmware logged beside a digest, or a digest that no register takes, is other now.
            same = [(event.register, event.digest) for event in ccel.parse(bytes(data)) if event.type != 3]
            assert same == [(event.register, event.digest) for event in events if event.type != 3], at
    assert seen == {MALFORMED, "event log", "accepted"}


# What nothing signs and no check reads does not matter.


def test_bytes_that_nobody_signs_do_not_matter(vectors: Path) -> None:
    found = entries(vectors)
    quote = found["tdx/v5-90c06f-gotdxguest-uptodate.quote"]
    document = found["nitro/evervault-2022-10-valid.cose"]
    wrapper = found["snp/milan-v2-azure-hcl-report.bin"]
    manifest = found["nvidia/rim/driver-gh100-545.00.xml"]
    for entry, data in (
        (quote, quote.data + bytes(100)),
        (document, b"\xd2" + document.data),
        (wrapper, wrapper.data + bytes(100)),
        (manifest, manifest.data.replace(b"<ds:SignatureValue>", b"<ds:SignatureValue>\n ", 1)),
    ):
        assert data != entry.data
        run = runs(entry)[0]
        assert outcome(replace(entry, changed=data), run) == outcome(entry, run)
