"""Nitro documents: every real one at its time, every byte broken, every check failing alone."""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import nitro
from quotary.attestation.facts import Facts
from quotary.attestation.nitro import Demands, NitroDocument, appraise, require_bound
from quotary.attestation.roots import AWS_NITRO_ROOT, INTEL_SGX_ROOT, VENDOR_ROOTS, Root, simulator_root
from quotary.errors import Malformed, Refused, Rejected, Unsupported
from tests.fakes import aws

VALID = ("dstack-2025-12-valid-indefinite", "evervault-2022-10-valid", "sparsity-2023-09-valid")
DEBUG = (
    "dstack-2025-12-debug-indefinite",
    "evervault-2022-10-debug",
    "evervault-2023-09-debug",
    "sparsity-2024-08-debug",
)
DERIVED = {
    "alg-es256": (Unsupported, "protected header"),
    "leaf-cert-bit": (Rejected, "nitro chain"),
    "pcr0-bit": (Rejected, "document signature"),
    "signature-bit": (Rejected, "document signature"),
    "trailing-byte": (Malformed, "behind its end"),
    "truncated": (Malformed, "early"),
}
ANY = Demands({}, "")
FIVE_MINUTES = timedelta(minutes=5)


@dataclass(frozen=True)
class Floor:
    minimum: dict[str, int | bytes]
    evaluation_number: int = 0
    accepted_status: tuple[str, ...] = ("none",)
    grace_seconds: int = 0
    denied_advisories: tuple[str, ...] = ()
    denied_families: tuple[str, ...] = ()
    denied_chips: tuple[str, ...] = ()


FLOOR = Floor({})


def read(vectors: Path, name: str) -> bytes:
    return (vectors / "nitro" / f"{name}.cose").read_bytes()


def judge(data: bytes, now: datetime | None = None, roots: tuple[Root, ...] = VENDOR_ROOTS) -> Facts:
    document = NitroDocument.parse(data)
    return nitro.verify(document, now or document.at, FIVE_MINUTES, roots)


@pytest.mark.parametrize("name", VALID)
def test_a_genuine_document_is_admitted(vectors: Path, name: str) -> None:
    facts = judge(read(vectors, name))
    assert (facts.platform, facts.product, facts.simulated) == ("nitro", "nitro", False)
    checks = appraise(facts, FLOOR, ANY).checks
    assert [check.name for check in checks][:3] == ["debug", "pcr", "module id"]
    assert len(facts.registers["pcr0"]) == 48


@pytest.mark.parametrize("name", DEBUG)
def test_a_debug_enclave_is_genuine_and_refused(vectors: Path, name: str) -> None:
    facts = judge(read(vectors, name))
    with pytest.raises(Refused, match=r"^debug"):
        appraise(facts, FLOOR, ANY)


@pytest.mark.parametrize("name", DERIVED)
def test_a_changed_document_is_refused_by_its_check(vectors: Path, name: str) -> None:
    kind, said = DERIVED[name]
    with pytest.raises(kind, match=said):
        judge(read(vectors, f"derived-{name}"))


@pytest.mark.filterwarnings(
    "ignore:Parsed a serial number which wasn't positive", "ignore:Attribute's length must"
)
def test_bytes_all_over_a_document_matter(vectors: Path) -> None:
    data = read(vectors, "evervault-2022-10-valid")
    now = NitroDocument.parse(data).at
    seen = set()
    # Every byte around the certificates, each third of theirs.
    for at in (*range(1000), *range(1000, len(data) - 700, 3), *range(len(data) - 700, len(data))):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises((Malformed, Unsupported, Refused, Rejected)) as caught:
            judge(bytes(changed), now)
        seen.add(getattr(caught.value, "check", type(caught.value).__name__))
    assert seen == {"Malformed", "Unsupported", "root", "timestamp", "nitro chain", "document signature"}


def test_every_truncation_is_malformed(vectors: Path) -> None:
    data = read(vectors, "dstack-2025-12-valid-indefinite")
    for length in range(0, len(data), 7):
        with pytest.raises(Malformed):
            NitroDocument.parse(data[:length])


@given(st.binary(max_size=300))
def test_bytes_from_anywhere_are_malformed(data: bytes) -> None:
    with pytest.raises((Malformed, Unsupported)):
        NitroDocument.parse(data)


def test_the_tag_of_cose_is_read_and_no_other(vectors: Path) -> None:
    data = read(vectors, "evervault-2022-10-valid")
    assert judge(b"\xd2" + data).registers == judge(data).registers
    for tag in (b"\xd1", b"\xd3", b"\xd2\xd2"):
        with pytest.raises(Malformed):
            judge(tag + data)


def test_a_document_is_fresh_or_refused(vectors: Path) -> None:
    data = read(vectors, "sparsity-2023-09-valid")
    at = NitroDocument.parse(data).at
    for now in (at + FIVE_MINUTES, at - nitro.MAX_AHEAD):
        judge(data, now)
    for now in (at + FIVE_MINUTES + timedelta(seconds=1), at - nitro.MAX_AHEAD - timedelta(seconds=1)):
        with pytest.raises(Refused, match="timestamp"):
            judge(data, now)


def test_a_root_that_was_not_named_is_refused(vectors: Path) -> None:
    with pytest.raises(Rejected, match=r"^root"):
        judge(read(vectors, "sparsity-2023-09-valid"), roots=(INTEL_SGX_ROOT,))
    assert judge(read(vectors, "sparsity-2023-09-valid"), roots=(AWS_NITRO_ROOT,))


# From here on with keys of our own.


@pytest.fixture(scope="module")
def machine() -> aws.Hypervisor:
    return aws.hypervisor()


def roots_of(machine: aws.Hypervisor) -> tuple[Root, ...]:
    return (simulator_root("nitro", hashlib.sha256(machine.root.der).digest()),)


def judged(machine: aws.Hypervisor, data: bytes, now: datetime = aws.NOW) -> Facts:
    return judge(data, now, roots_of(machine))


def test_a_simulators_document_is_simulated_by_its_root(machine: aws.Hypervisor) -> None:
    facts = judged(machine, machine.document())
    assert (facts.platform, facts.simulated, facts.report_data) == ("sim-nitro", True, b"\7" * 64)
    with pytest.raises(Rejected, match=r"^root"):
        judge(machine.document(), aws.NOW)


def test_a_simulators_mark_is_refused_in_production() -> None:
    root = aws.issue("root", organisation="SIMULATED EVIDENCE")
    marked = aws.Hypervisor(root, (), aws.issue("leaf", root, ca=False))
    with pytest.raises(Refused, match="simulated evidence"):
        judge(marked.document(), aws.NOW)


IMAGE = {0: b"\1" * 48, 1: b"\1" * 48}
ODD_MEMBERS: dict[str, list[dict[object, object]]] = {
    "module_id is not a short text": [{"module_id": odd} for odd in ("", 5, "a" * 129, "a\n", "é")],
    "timestamp is not a number": [
        {"timestamp": odd} for odd in (0, -5, True, "1", 253_402_300_799_001, 2**64 - 1)
    ],
    "PCR0, PCR1 or PCR2 is missing": [{"pcrs": odd} for odd in ({}, [], IMAGE)],
    "PCR2 has not 48 bytes": [{"pcrs": {**IMAGE, 2: odd}} for odd in (b"\1" * 32, "x", "x" * 48)],
    "PCRs have the numbers 0 to 31": [{"pcrs": {**IMAGE, odd: b"\1" * 48}} for odd in (32, -1, "3")],
    "a certificate is not of 1 to 2048 bytes": [
        *({"certificate": odd} for odd in (b"", "x", bytes(2049))),
        {"cabundle": [b""]},
    ],
    "not a DER certificate": [{"certificate": b"x"}, {"certificate": bytes(2048)}],
    "cabundle has not 1 to 8 certificates": [
        {"cabundle": odd} for odd in ([], {}, b"\x30\0", [b"\x30\0"] * 9)
    ],
    "public_key is not of at most 1024 bytes": [{"public_key": b"x" * 1025}],
    "user_data is not of at most 512 bytes": [{"user_data": b"x" * 513}, {"user_data": "x"}],
    "nonce is not of at most 512 bytes": [{"nonce": b"x" * 513}, {"nonce": 0}],
    "exactly the members": [{"more": None}, {5: None}],
}


@pytest.mark.parametrize(
    ("changes", "said"), [(changes, said) for said, odd in ODD_MEMBERS.items() for changes in odd]
)
def test_a_member_of_another_kind_is_malformed(
    machine: aws.Hypervisor, changes: dict[object, object], said: str
) -> None:
    with pytest.raises(Malformed, match=said):
        NitroDocument.parse(machine.document({**machine.payload(), **changes}))


@pytest.mark.parametrize("name", sorted(aws.hypervisor().payload()))
def test_a_member_is_there_or_the_document_is_malformed(machine: aws.Hypervisor, name: str) -> None:
    payload = machine.payload()
    del payload[name]
    if name in ("public_key", "user_data", "nonce"):
        assert judged(machine, machine.document(payload)).attributes[name] == b""
    else:
        with pytest.raises(Malformed):
            NitroDocument.parse(machine.document(payload))


def test_a_list_of_the_members_names_is_no_document(machine: aws.Hypervisor) -> None:
    names = ["cabundle", "certificate", "digest", "module_id", "pcrs", "timestamp"]
    with pytest.raises(Malformed, match="exactly the members"):
        NitroDocument.parse(machine.document(aws.encode(names)))


def test_another_digest_is_unsupported(machine: aws.Hypervisor) -> None:
    with pytest.raises(Unsupported, match="digest"):
        NitroDocument.parse(machine.document(machine.payload(digest="SHA256")))


def test_what_nothing_signs_must_be_empty(machine: aws.Hypervisor) -> None:
    with pytest.raises(Malformed, match="COSE_Sign1"):
        NitroDocument.parse(machine.document(unprotected={4: b"key"}))
    with pytest.raises(Unsupported):
        NitroDocument.parse(machine.document(protected=b"\xa1\x01\x39\x00\x22"))


@pytest.mark.parametrize(
    "value", [[], {}, 5, [b"", {}, b""], [b"", {}, "x", b""], [b"", {}, b"", "x"], [b"", None, b"", b""]]
)
def test_another_structure_is_malformed(value: object) -> None:
    with pytest.raises(Malformed):
        NitroDocument.parse(aws.encode(value))


@pytest.mark.parametrize("payload", [b"\x80", b"\xa0", b"\xa1", b""])
def test_a_payload_that_is_no_map_is_malformed(machine: aws.Hypervisor, payload: bytes) -> None:
    with pytest.raises(Malformed):
        NitroDocument.parse(machine.document(payload))


@pytest.mark.parametrize("length", [0, 64, 95, 97])
def test_a_signature_of_another_length_is_malformed(machine: aws.Hypervisor, length: int) -> None:
    with pytest.raises(Malformed, match="96 are needed"):
        NitroDocument.parse(aws.encode([aws.PROTECTED, {}, aws.encode(machine.payload()), bytes(length)]))


def test_a_document_that_is_too_long_is_malformed() -> None:
    with pytest.raises(Malformed, match="at most"):
        NitroDocument.parse(bytes(nitro.MAX_DOCUMENT + 1))


def test_the_bundle_has_the_root_first(machine: aws.Hypervisor) -> None:
    bundle = machine.payload()["cabundle"]
    assert isinstance(bundle, list)
    with pytest.raises(Rejected, match=r"^root"):
        judged(machine, machine.document(machine.payload(cabundle=bundle[::-1])))
    with pytest.raises(Rejected, match="nitro chain"):
        judged(machine, machine.document(machine.payload(cabundle=[bundle[0], bundle[2], bundle[1]])))


def other(machine: aws.Hypervisor, above: tuple[aws.Signer, ...], leaf: aws.Signer) -> Facts:
    changed = aws.Hypervisor(machine.root, above, leaf)
    return judged(machine, changed.document())


def test_the_chain_keeps_its_lengths_and_kinds(machine: aws.Hypervisor) -> None:
    short = aws.issue("short", machine.root, path_length=0)
    below = aws.issue("below", short)
    with pytest.raises(Rejected, match="1 CAs below"):
        other(machine, (short, below), aws.issue("leaf", below, ca=False))
    end = aws.issue("end", machine.root, ca=False)
    with pytest.raises(Rejected, match="may sign"):
        other(machine, (end,), aws.issue("leaf", end, ca=False))
    with pytest.raises(Rejected, match="is a CA"):
        other(machine, (), aws.issue("leaf", machine.root))


def test_the_leaf_has_a_p384_key(machine: aws.Hypervisor) -> None:
    leaf = aws.issue("leaf", machine.root, ca=False, key=ec.generate_private_key(ec.SECP256R1()))
    bundle = [machine.root.der]
    with pytest.raises(Rejected, match="P-384"):
        judged(machine, machine.document(machine.payload(certificate=leaf.der, cabundle=bundle)))


@pytest.mark.parametrize("who", ["zone", "leaf"])
@pytest.mark.parametrize("shift", [timedelta(hours=-3), timedelta(hours=2)])
def test_every_certificate_is_in_force_at_the_documents_time(
    machine: aws.Hypervisor, who: str, shift: timedelta
) -> None:
    times = {"begin": aws.NOW - timedelta(hours=1) + shift, "end": aws.NOW + timedelta(hours=2) + shift}
    zone = aws.issue("zone", machine.root, **(times if who == "zone" else {}))
    leaf = aws.issue("leaf", zone, ca=False, **(times if who == "leaf" else {}))
    with pytest.raises(Rejected, match="nitro chain"):
        other(machine, (zone,), leaf)


def test_a_document_that_is_old_or_ahead_is_refused(machine: aws.Hypervisor) -> None:
    data = machine.document()
    for now in (aws.NOW + FIVE_MINUTES, aws.NOW - nitro.MAX_AHEAD):
        assert judged(machine, data, now).judged_at == aws.NOW
    for now in (aws.NOW + FIVE_MINUTES + timedelta(seconds=1), aws.NOW - timedelta(seconds=301)):
        with pytest.raises(Refused, match=r"^timestamp"):
            judged(machine, data, now)


def test_a_document_that_the_leaf_did_not_sign_is_rejected(machine: aws.Hypervisor) -> None:
    forged = aws.Hypervisor(machine.root, machine.above, replace(machine.leaf, key=machine.root.key))
    with pytest.raises(Rejected, match=r"^document signature"):
        judged(machine, forged.document())


def test_each_image_pcr_must_be_measured(machine: aws.Hypervisor) -> None:
    pcrs = machine.payload()["pcrs"]
    assert isinstance(pcrs, dict)
    for number in (0, 1, 2):
        facts = judged(machine, machine.document(machine.payload(pcrs={**pcrs, number: bytes(48)})))
        with pytest.raises(Refused, match=f"PCR{number} is zero"):
            appraise(facts, FLOOR, ANY)


def test_demanded_pcrs_have_a_listed_value_and_are_there(machine: aws.Hypervisor) -> None:
    facts = judged(machine, machine.document())
    signer = facts.registers["pcr8"]
    assert appraise(facts, FLOOR, Demands({8: (bytes(48), signer)}, "i-0123"))
    for pcrs in ({8: (bytes(48),)}, {8: ()}, {9: (bytes(48),)}):
        with pytest.raises(Rejected, match=r"^pcr"):
            appraise(facts, FLOOR, Demands(pcrs, ""))
    with pytest.raises(Refused, match="module id"):
        appraise(facts, FLOOR, Demands({}, "i-9"))


def test_a_floor_that_names_firmware_admits_no_enclave(machine: aws.Hypervisor) -> None:
    facts = judged(machine, machine.document())
    for floor in (
        Floor({"nsm": 1}),
        Floor({}, accepted_status=("UpToDate",)),
        Floor({}, denied_families=("nitro",)),
    ):
        with pytest.raises(Refused):
            appraise(facts, floor, ANY)


def test_facts_of_another_platform_are_not_appraised(machine: aws.Hypervisor) -> None:
    facts = judged(machine, machine.document())
    with pytest.raises(Unsupported):
        appraise(replace(facts, platform="snp"), FLOOR, ANY)


@pytest.mark.parametrize("name", ["user_data", "nonce", "public_key"])
def test_what_the_enclave_put_in_is_compared_whole(machine: aws.Hypervisor, name: str) -> None:
    wanted = {"user_data": b"\1" * 64, "nonce": b"\2" * 32, "public_key": b"\3" * 91}
    facts = judged(machine, machine.document(machine.payload(**wanted)))
    assert [check.name for check in require_bound(facts, **wanted)] == ["user data", "nonce", "public key"]
    for bad in (b"", wanted[name][:-1], wanted[name] + b"\0", b"\4" * len(wanted[name])):
        with pytest.raises(Rejected, match=name.replace("_", " ")):
            require_bound(facts, **{**wanted, name: bad})
