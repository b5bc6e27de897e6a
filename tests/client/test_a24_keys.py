"""Bar A24: a key that proves nothing is refused in every role, where it is enrolled and where it is verified."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary import ed25519
from quotary.canonical import b64, canonical
from quotary.client.keys import load_public
from quotary.client.policy import Policy
from quotary.errors import InvalidSignature, Malformed, QuotaryError
from quotary.statements.delegation import LOG_ROLES, SERVICE_ROLES
from quotary.statements.envelope import Envelope, key_id, sign, spki
from quotary.statements.f1 import F1
from quotary.statements.keys import key_service
from quotary.statements.keyset import Keyset, KeysetKey
from quotary.statements.notice import NOTICE_KINDS
from quotary.statements.order import Order
from quotary.statements.schema import STATEMENT_TYPE, parse_statement
from quotary.tlog.note import COSIGNATURE_ED25519, ED25519, VerifierKey
from quotary.tlog.policy import TlogPolicy
from tests.conftest import ROOT
from tests.fakes.authority import NOW, ORIGIN, TS, Authority, key, keyid, public, role
from tests.fakes.log import policy_bytes, policy_document
from tests.vectors.make_orders import CLOSED, ROTATION, SUCCESSOR, order

VECTORS = json.loads((ROOT / "tests" / "vectors" / "ed25519" / "degenerate.json").read_text("utf-8"))
KEYS = [pytest.param(bytes.fromhex(found["key"]), id=found["about"]) for found in VECTORS]
ROLES = [("log", name) for name in (*LOG_ROLES, *NOTICE_KINDS)]
ROLES += [("chat", name) for name in (*SERVICE_ROLES, *NOTICE_KINDS)]


def vkey(raw: bytes, alg: int = ED25519, name: str = ORIGIN) -> str:
    """A verifier key as somebody would write it by hand, with the right key id."""
    data = bytes([alg]) + raw
    digest = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    return f"{name}+{digest.hex()}+{b64(data)}"


def delegating(raw: bytes, service: str, name: str) -> bytes:
    """A delegation that its makers really signed, and that gives this key a role."""
    first = "root" if service == "log" else "owner"
    holder, bad = "root1" if service == "log" else "owner1", key_id(raw)
    roles = {first: role([holder], 1), name: {"keys": [bad], "threshold": 1}}
    if name == first:
        roles[first] = {"keys": sorted([bad, keyid(holder)]), "threshold": 1}
    predicate = {
        "log": ORIGIN, "service": service, "sequence": 2, "issued": "2026-11-21T12:00:00Z",
        "previous": "sha256:" + "00" * 32, "expires": "2027-11-21T12:00:00Z",
        "keys": {keyid(holder): public(holder), bad: b64(spki(raw))}, "roles": roles,
    }  # fmt: skip
    subject = [{"digest": {"sha256": key_service(service).hex()}, "name": service}]
    payload = {
        "_type": STATEMENT_TYPE,
        "predicateType": "https://quotary.dev/delegation/v1",
        "predicate": predicate,
        "subject": subject,
    }
    return canonical(payload)


def test_there_are_fourteen_encodings_and_a_good_key_passes_everywhere() -> None:
    assert len({found["key"] for found in VECTORS}) == 14
    assert sum(found["canonical"] for found in VECTORS) == 8
    good = key("x").public_key().public_bytes_raw()
    ed25519.check_public_key(good)
    for service, name in ROLES:
        parse_statement(delegating(good, service, name))
    assert VerifierKey.parse(vkey(good)).public == good


@pytest.mark.parametrize("raw", KEYS)
def test_the_verifier_itself_refuses_it_whatever_it_is_said_to_have_signed(raw: bytes) -> None:
    # R = the neutral element and S = 0 is a valid signature under some of these keys without our checks.
    for signature in (bytes(64), b"\x01" + bytes(63), raw + bytes(32), key("x").sign(b"message")):
        with pytest.raises(InvalidSignature):
            ed25519.verify(raw, signature, b"message")


@pytest.mark.parametrize("raw", KEYS)
def test_no_delegation_may_give_it_a_role(raw: bytes) -> None:
    for service, name in ROLES:
        with pytest.raises(Malformed, match="degenerate"):
            parse_statement(delegating(raw, service, name))


@pytest.mark.parametrize("raw", KEYS)
def test_a_log_whose_owners_logged_it_all_the_same_gives_it_no_power(raw: bytes) -> None:
    made, f1 = Authority(), F1(ORIGIN)
    f1.close([(0, made.genesis()), (1, made.allocation()), (2, made.delegation())], TS)
    for index, (service, name) in enumerate(ROLES, 3):
        payload, makers = delegating(raw, service, name), ("root1", "root2", "owner1", "owner2")
        (outcome,) = f1.close([(index, sign(payload, [key(maker) for maker in makers]))], TS).outcomes
        assert (outcome.effect, outcome.code) == (False, "malformed")


@pytest.mark.parametrize("raw", KEYS)
def test_no_policy_no_vkey_no_order_and_no_key_file_enrols_it(raw: bytes, tmp_path: Path) -> None:
    name, text = key_id(raw), b64(spki(raw))
    owners = {"chat": {"owner": {"keys": {name: text}, "threshold": 1}}}
    pem = tmp_path / "key.pub"
    der = Ed25519PublicKey.from_public_bytes(raw)
    pem.write_bytes(der.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    rotation = json.loads(order(ROTATION).encode())
    closed = json.loads(order(CLOSED).encode())
    receipt = KeysetKey("receipt", "receipt", "ed25519", raw)
    tries: dict[str, Callable[[], object]] = {
        "owner in a policy": lambda: Policy.parse(policy_bytes(policy_document() | {"services": owners})),
        "rebuilder in a policy": lambda: Policy.parse(
            policy_bytes(policy_document() | {"rebuilders": {"keys": {name: text}, "k": 1}})
        ),
        "log key": lambda: TlogPolicy.parse(f"log {vkey(raw)}\nquorum none\n"),
        "witness": lambda: TlogPolicy.parse(
            f"log {vkey(key('x').public_key().public_bytes_raw())}\n"
            f"witness w {vkey(raw, COSIGNATURE_ED25519, 'w.example.org')}\nquorum w\n"
        ),
        "vkey of a witness's list": lambda: VerifierKey.parse(vkey(raw)),
        "promise key": lambda: VerifierKey.parse(vkey(raw, name=ORIGIN + "/promise")),
        "new log key": lambda: Order.parse(canonical(rotation | {"add": [vkey(raw)]})),
        "old log key": lambda: Order.parse(canonical(rotation | {"remove": [vkey(raw)]})),
        "successor's key": lambda: Order.parse(
            canonical(closed | {"successor": {"origin": SUCCESSOR, "vkeys": [vkey(raw, name=SUCCESSOR)]}})
        ),
        "receipt key": lambda: Keyset("chat", "i", NOW, NOW + timedelta(hours=1), (receipt,)).encode(),
        "key file": lambda: load_public(pem),
    }
    accepted = []
    for role_name, attempt in tries.items():
        try:
            attempt()
        except (Malformed, InvalidSignature):
            continue
        accepted.append(role_name)
    assert accepted == []


def test_one_key_is_no_two_holders() -> None:
    made = Authority()
    genesis = made.genesis()
    twice = {"owner": {"keys": [keyid("owner1"), keyid("owner1")], "threshold": 2}}
    with pytest.raises(Malformed, match="ascending"):
        made.allocation(roles=twice, keys={keyid("owner1"): public("owner1")})
    entry = made.allocation(signers=["root1"])
    doubled = Envelope.parse(entry)
    doubled = Envelope(doubled.payload, doubled.signatures * 2)
    with pytest.raises(Malformed, match="each key once"):
        Envelope.parse(doubled.encode())
    f1 = F1(ORIGIN)
    f1.close([(0, genesis)], TS)
    assert f1.would(entry, TS).code == "threshold"
    x = vkey(key("x").public_key().public_bytes_raw())
    for text in (f"log {x}\nlog {x}\nquorum none\n", f"log {x}\nwitness w {x}\nquorum w\n"):
        with pytest.raises(QuotaryError):
            TlogPolicy.parse(text)
