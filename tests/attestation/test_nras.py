"""Tokens of NVIDIA's service: the real chain and bundle at their time, and one thing wrong at a time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary.attestation import nras
from quotary.attestation.nras import Bundle, Claims, require_certified, signing_chain, verify
from quotary.attestation.roots import NVIDIA_NRAS_ISSUER, VENDOR_ROOTS, Root, simulator_root
from quotary.errors import Malformed, QuotaryError, Refused, Rejected
from tests.fakes import nras as fake
from tests.fakes.aws import issue
from tests.fakes.nras import AT, KEY_ID, NONCE, NOW, Service

SERVICE = Service()
DAY = timedelta(days=1)


def judge(
    data: bytes,
    key_set: str | None = None,
    nonce: bytes | None = NONCE,
    now: datetime = NOW,
    roots: tuple[Root, ...] | None = None,
) -> Claims:
    used = SERVICE.key_set() if key_set is None else key_set
    return verify(Bundle.parse(data), used, nonce, now, SERVICE.roots if roots is None else roots)


def refused(check: str, make: Callable[[], object], kind: type[QuotaryError] = Rejected) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert caught.value.check == check  # type: ignore[attr-defined]


def test_a_bundle_says_what_nvidia_says_of_each_device() -> None:
    found = judge(
        SERVICE.bundle({"GPU-0": SERVICE.token(fake.gpu()), "GPU-1": SERVICE.token(fake.gpu(ueid="9"))})
    )
    assert [(device.name, device.ueid) for device in found.devices] == [("GPU-0", "478"), ("GPU-1", "9")]
    assert (found.devices[0].model, found.devices[0].vbios) == ("GH100 A01 GSP BROM", "96.00.9F.00.01")
    assert [check.name for check in found.checks] == [
        "nras issuer", "nras signature", "nras time", "nras nonce", "nras submods", "nras result",
    ]  # fmt: skip
    assert not found.simulated


def test_without_a_nonce_nobody_knows_whom_the_token_answers() -> None:
    checks = {check.name: check.found for check in judge(SERVICE.bundle(), nonce=None).checks}
    assert checks["nras nonce"] == f"not checked: {NONCE.hex()}"


def test_the_real_chain_is_certified_by_the_pinned_issuer_in_its_two_days_only(vectors: Path) -> None:
    chain = json.loads((vectors / "nvidia/nras-x5c-chain-2026-06.json").read_text())
    leaf, issuer = signing_chain(json.dumps({"keys": [{"kid": "k", **chain}]}), "k")
    inside = datetime(2026, 6, 9, tzinfo=UTC)
    assert require_certified((leaf, issuer), inside, VENDOR_ROOTS) == NVIDIA_NRAS_ISSUER
    for outside in (datetime(2026, 6, 8, tzinfo=UTC), datetime(2026, 6, 11, tzinfo=UTC)):
        refused("nras issuer", lambda at=outside: require_certified((leaf, issuer), at, VENDOR_ROOTS))
    refused("root", lambda: require_certified((leaf, leaf), inside, VENDOR_ROOTS))
    changed = json.loads(json.dumps(chain))
    changed["x5c"][0] = changed["x5c"][0][:-8] + "A" + changed["x5c"][0][-7:]
    forged = signing_chain(json.dumps({"keys": [{"kid": "k", **changed}]}), "k")
    refused("nras issuer", lambda: require_certified(forged, inside, VENDOR_ROOTS))


def test_the_real_bundle_is_well_formed_and_its_key_is_gone(vectors: Path) -> None:
    data = (vectors / "nvidia/nras-detached-eat-hopper-v3.json").read_bytes()
    bundle = Bundle.parse(data)
    nras._require_digests(bundle)
    nras._require_result(bundle)
    chain = json.loads((vectors / "nvidia/nras-x5c-chain-2026-06.json").read_text())
    then = datetime(2026, 6, 9, tzinfo=UTC)
    known = {"keys": [{"kid": "nv-eat-kid-of-another-day", **chain}]}
    refused("nras key", lambda: judge(data, json.dumps(known), None, then, VENDOR_ROOTS))
    lying = {"keys": [{"kid": bundle.overall.key_id, **chain}]}
    refused("nras signature", lambda: judge(data, json.dumps(lying), None, then, VENDOR_ROOTS))
    refused(
        "nras issuer", lambda: judge(data, json.dumps(lying), None, bundle.overall.time("iat"), VENDOR_ROOTS)
    )


def test_production_refuses_another_issuer_and_a_simulators_on_sight() -> None:
    refused("root", lambda: judge(SERVICE.bundle(), roots=VENDOR_ROOTS))
    marked = Service(issue("Attestation Service", organisation="SIMULATED EVIDENCE"))
    data, key_set = marked.bundle(), marked.key_set()
    refused("simulated evidence", lambda: judge(data, key_set, roots=VENDOR_ROOTS), Refused)
    simulated = (simulator_root("nvidia-nras", marked.roots[0].fingerprint),)
    assert judge(data, key_set, roots=simulated).simulated


def test_a_key_that_the_issuer_did_not_certify_as_it_must_is_refused() -> None:
    leaf = SERVICE.leaf
    assert leaf is not None
    cases = {
        "a CA": issue("Attestation Service GPU", SERVICE.issuer, ca=True, key=leaf.key),
        "over": issue("Attestation Service GPU", SERVICE.issuer, ca=False, key=leaf.key, end=NOW - timedelta(minutes=1)),
        "critical": issue(
            "Attestation Service GPU", SERVICE.issuer, ca=False, key=leaf.key, extensions={"1.2.3": b"\5\0"},
            critical=True,
        ),
        "of another": issue("Attestation Service GPU", issue("Attestation Service Intermediate"), ca=False, key=leaf.key),
    }  # fmt: skip
    for case in cases.values():
        key_set = SERVICE.key_set(KEY_ID, case, SERVICE.issuer)
        refused("nras issuer", lambda key_set=key_set: judge(SERVICE.bundle(), key_set))


def test_the_issuer_must_be_in_force_itself() -> None:
    old = Service(issue("Attestation Service", begin=NOW - 9 * DAY, end=NOW - DAY))
    refused("nras issuer", lambda: judge(old.bundle(), old.key_set(), roots=old.roots))


def test_every_token_is_signed_by_the_one_certified_key() -> None:
    stranger = Service(SERVICE.issuer)
    refused("nras signature", lambda: judge(stranger.bundle()))
    refused("nras signature", lambda: judge(SERVICE.bundle({"GPU-0": stranger.token(fake.gpu())})))
    other = SERVICE.token(fake.gpu(), key_id="another")
    refused("nras key", lambda: judge(SERVICE.bundle({"GPU-0": other})))
    refused("nras key", lambda: judge(SERVICE.bundle(key_id="unknown")))
    refused("nras key", lambda: judge(SERVICE.bundle(key_id=""), SERVICE.key_set("")))


@pytest.mark.parametrize("algorithm", ["none", "ES256", "HS384", "es384"])
def test_the_token_does_not_choose_the_algorithm(algorithm: str) -> None:
    refused("nras signature", lambda: judge(SERVICE.bundle(algorithm=algorithm)))


def test_every_byte_of_a_token_is_signed() -> None:
    (_, text), devices = json.loads(SERVICE.bundle())
    for at in range(0, len(text), 29):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises((Rejected, Malformed)):
            judge(json.dumps([["JWT", changed], devices]).encode())


def test_a_token_is_nvidias_services_and_nobody_elses() -> None:
    refused("nras signature", lambda: judge(SERVICE.bundle(overall={"iss": "NVAT-LOCAL-VERIFIER"})))
    wrong = SERVICE.token(fake.gpu(iss="https://nras.example.org"))
    refused("nras signature", lambda: judge(SERVICE.bundle({"GPU-0": wrong})))


@pytest.mark.parametrize(
    ("claims", "check", "kind"),
    [
        ({"exp": AT - 1}, "nras time", Rejected),
        ({"nbf": AT + 301}, "nras time", Rejected),
        ({"iat": AT + 301}, "nras time", Rejected),
        ({"iat": AT - 86_401}, "nras age", Refused),
    ],
)
def test_a_token_is_in_its_time_and_a_day_old_at_most(claims: dict[str, int], check: str, kind) -> None:
    refused(check, lambda: judge(SERVICE.bundle(overall=claims)), kind)
    device = SERVICE.token(fake.gpu(**claims))
    refused(check, lambda: judge(SERVICE.bundle({"GPU-0": device})), kind)


def test_a_day_is_the_whole_day() -> None:
    assert judge(SERVICE.bundle(overall={"iat": AT - 86_400})).devices


def test_every_token_answers_our_nonce() -> None:
    refused("nras nonce", lambda: judge(SERVICE.bundle(), nonce=bytes(32)))
    other = SERVICE.token(fake.gpu(eat_nonce="00" * 32))
    refused("nras nonce", lambda: judge(SERVICE.bundle({"GPU-0": other})))
    refused("nras nonce", lambda: judge(SERVICE.bundle({"GPU-0": other}), nonce=None))


def test_the_overall_token_has_the_digests_of_exactly_these_devices() -> None:
    one, two = SERVICE.token(fake.gpu()), SERVICE.token(fake.gpu(ueid="9"))
    whole = json.loads(SERVICE.bundle({"GPU-0": one, "GPU-1": two}))
    for devices in ({"GPU-0": one}, {"GPU-0": two, "GPU-1": one}, {"GPU-0": one, "GPU-1": one}):
        refused("nras submods", lambda devices=devices: judge(json.dumps([whole[0], devices]).encode()))
    refused("nras submods", lambda: judge(SERVICE.bundle(submods=[])))


def test_nvidia_must_have_found_the_devices_good() -> None:
    for result in (False, 1, "true", None):
        claims = {"x-nvidia-overall-att-result": result}
        refused("nras result", lambda claims=claims: judge(SERVICE.bundle(overall=claims)), Refused)


@pytest.mark.parametrize(
    "claims",
    [{"measres": "fail"}, {"secboot": False}, {"secboot": 1}, {"dbgstat": "enabled"}, {"dbgstat": None}],
)
def test_every_device_must_be_as_measured_and_closed(claims: dict[str, object]) -> None:
    device = SERVICE.token(fake.gpu() | claims)
    refused("nras result", lambda: judge(SERVICE.bundle({"GPU-0": device})), Refused)


def test_a_claim_that_is_missing_is_not_taken_for_a_good_one() -> None:
    for claim in ("measres", "secboot", "dbgstat"):
        claims = {name: value for name, value in fake.gpu().items() if name != claim}
        data = SERVICE.bundle({"GPU-0": SERVICE.token(claims)})
        refused("nras result", lambda data=data: judge(data), Refused)
    for claim in ("iat", "nbf", "exp"):
        claims = {name: value for name, value in fake.gpu().items() if name != claim}
        with pytest.raises(Malformed, match=claim):
            judge(SERVICE.bundle({"GPU-0": SERVICE.token(claims)}))
    for value in (True, -1, 1.5, "1", 10**13):
        with pytest.raises(Malformed, match="iat"):
            judge(SERVICE.bundle(overall={"iat": value}))


TOKEN = SERVICE.token(fake.gpu())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'[["JWT"]]',
        b'[["JWT","x"],{}]',
        json.dumps([["JWT", TOKEN], {}]).encode(),
        json.dumps([["JWT", TOKEN], {"": TOKEN}]).encode(),
        json.dumps([["JWT", TOKEN], {"GPU-0": 1}]).encode(),
        json.dumps([["JWT", TOKEN], {f"GPU-{number}": TOKEN for number in range(65)}]).encode(),
        json.dumps([["JWS", TOKEN], {"GPU-0": TOKEN}]).encode(),
        json.dumps([["JWT", TOKEN], {"GPU-0": TOKEN}, 1]).encode(),
        b'[["JWT","' + TOKEN.encode() + b'"],{"GPU-0":"a.b.c","GPU-0":"a.b.c"}]',
        b'[["JWT","x"],{"GPU-0":"x"}]',
        SERVICE.bundle() + b" " * (1 << 20),
    ],
)
def test_what_is_no_bundle_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Bundle.parse(data)


@pytest.mark.parametrize(
    "key_set",
    [
        "",
        "[]",
        "{}",
        '{"keys":[1]}',
        json.dumps({"keys": [{}] * 129}),
        json.dumps({"keys": [{"kid": KEY_ID}]}),
        json.dumps({"keys": [{"kid": KEY_ID, "x5c": ["AA=="]}]}),
        json.dumps({"keys": [{"kid": KEY_ID, "x5c": ["AA==", "AA=="]}]}),
        json.dumps({"keys": [{"kid": KEY_ID, "x5c": ["?", "?"]}]}),
        "\ud800",
        SERVICE.key_set() + " " * (1 << 20),
    ],
)
def test_what_is_no_key_set_is_malformed(key_set: str) -> None:
    with pytest.raises(Malformed):
        judge(SERVICE.bundle(), key_set)
