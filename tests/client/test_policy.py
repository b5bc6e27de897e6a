"""Policy/v1: read strictly, absent means refused, simulation and production never mix."""

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from quotary.attestation.roots import VENDOR_ROOTS
from quotary.canonical import canonical
from quotary.client.policy import DOORS, Policy, StreamRules
from quotary.client.policy_text import explain, weaknesses
from quotary.errors import Malformed
from tests.fakes import authority
from tests.fakes.gpus import device_floor
from tests.fakes.log import AUDITOR, policy_bytes, policy_document, tlog_policy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "policy.md"
PRODUCTION_ORIGIN = "log.example.org/tee"


def production() -> dict[str, Any]:
    document: dict[str, Any] = policy_document(PRODUCTION_ORIGIN)
    rules = document["platforms"].pop("sim-tdx")
    del rules["simulator_root_sha256"]
    document["platforms"]["tdx"] = rules
    document["environment"] = "production"
    return document


def test_a_simulation_policy_is_read() -> None:
    data = policy_bytes(policy_document(url="https://log.example.org"))
    policy = Policy.parse(data)
    assert policy.digest == hashlib.sha256(data).digest()
    assert policy.simulation
    assert policy.origin == authority.ORIGIN
    assert policy.log_url == "https://log.example.org"
    assert policy.map_auditors == (AUDITOR,)
    assert policy.minimum_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert policy.services[authority.SERVICE].threshold == 2
    assert policy.rebuilders is not None
    assert policy.rebuilders.needed == 1
    assert policy.platforms["sim-tdx"].simulator_root == b"\x11" * 32
    assert policy.platforms["sim-tdx"].floors is not None
    assert policy.enclave is not None
    assert (policy.enclave.poll_seconds, policy.enclave.plaintext) == (30, False)


def test_a_production_policy_is_read() -> None:
    document = production()
    document |= {"map_auditor": "none", "rebuilders": "none"}
    document["platforms"]["tdx"]["floors"] = "log"
    document["enclave"]["plaintext"] = "allowed"
    policy = Policy.parse(policy_bytes(document))
    assert not policy.simulation
    assert policy.map_auditors == ()
    assert policy.rebuilders is None
    assert policy.platforms["tdx"].floors is None
    assert policy.platforms["tdx"].simulator_root is None
    assert policy.enclave is not None
    assert policy.enclave.plaintext
    assert policy.log_url == ""


def test_doors_are_closed_unless_they_are_named() -> None:
    document = production()
    closed = Policy.parse(policy_bytes(document)).enclave
    assert closed is not None
    assert closed.doors == ()
    document["enclave"]["doors"] = list(DOORS)
    policy = Policy.parse(policy_bytes(document))
    assert policy.enclave is not None
    assert policy.enclave.doors == DOORS
    assert any("nanogpt" in sentence for sentence in explain(policy))
    assert any(weakness.startswith("doors browser") for weakness in weaknesses(policy))


@pytest.mark.parametrize("doors", [[], ["side"], ["nanogpt", "browser"], ["nanogpt", "nanogpt"], "all"])
def test_doors_that_nobody_knows_or_that_are_not_a_set_are_refused(doors: object) -> None:
    document = production()
    document["enclave"]["doors"] = doors
    with pytest.raises(Malformed):
        Policy.parse(policy_bytes(document))


def test_streams_have_a_cadence_only_where_the_policy_says_so() -> None:
    document = production()
    silent = Policy.parse(policy_bytes(document))
    assert silent.enclave is not None
    assert silent.enclave.stream is None
    document["enclave"]["stream"] = {"interval_ms": 50, "frames": 64}
    policy = Policy.parse(policy_bytes(document))
    assert policy.enclave is not None
    assert policy.enclave.stream == StreamRules(50, 64)
    assert any("every 50 ms, and a whole multiple of 64" in sentence for sentence in explain(policy))
    assert any("their rhythm" in sentence for sentence in explain(silent))


def test_the_caches_have_a_size_where_the_policy_gives_one() -> None:
    document = production()
    silent = Policy.parse(policy_bytes(document))
    assert silent.enclave is not None
    assert silent.enclave.cache_mib is None
    document["enclave"]["cache_mib"] = 4096
    policy = Policy.parse(policy_bytes(document))
    assert policy.enclave is not None
    assert policy.enclave.cache_mib == 4096
    assert any("4096 MiB" in sentence for sentence in explain(policy))
    for wrong in (0, (1 << 24) + 1, "4096"):
        document["enclave"]["cache_mib"] = wrong
        with pytest.raises(Malformed):
            Policy.parse(policy_bytes(document))


@pytest.mark.parametrize(
    "rules", [{}, {"interval_ms": 4, "frames": 1}, {"interval_ms": 50}, {"interval_ms": 50, "frames": 0}, 50,
              {"interval_ms": 50, "frames": 1, "more": 1}, {"interval_ms": 1001, "frames": 1}],
)  # fmt: skip
def test_a_cadence_outside_the_grammar_is_refused(rules: object) -> None:
    document = production()
    document["enclave"]["stream"] = rules
    with pytest.raises(Malformed):
        Policy.parse(policy_bytes(document))


@pytest.mark.parametrize(("word", "offered"), [(None, False), ("refused", False), ("offered", True)])
def test_capsules_are_taken_only_where_the_policy_says_so(word: str | None, offered: bool) -> None:
    document = production()
    document["enclave"].update({} if word is None else {"oblivious": word})
    rules = Policy.parse(policy_bytes(document)).enclave
    assert rules is not None
    assert rules.oblivious is offered


@pytest.mark.parametrize(("word", "offered"), [(None, False), ("refused", False), ("offered", True)])
def test_a_second_door_is_opened_only_where_the_policy_says_so(word: str | None, offered: bool) -> None:
    document = production()
    document["enclave"].update({} if word is None else {"ratls": word})
    rules = Policy.parse(policy_bytes(document)).enclave
    assert rules is not None
    assert rules.ratls is offered


@pytest.mark.parametrize(("word", "required"), [(None, False), ("any", False), ("attested", True)])
def test_callers_have_to_be_enclaves_only_where_the_policy_says_so(word: str | None, required: bool) -> None:
    document = production()
    document["enclave"].update({} if word is None else {"callers": word})
    rules = Policy.parse(policy_bytes(document)).enclave
    assert rules is not None
    assert rules.callers is required


def test_a_clients_policy_needs_no_rules_for_enclaves() -> None:
    document = policy_document()
    del document["enclave"]
    assert Policy.parse(policy_bytes(document)).enclave is None


DEVICES: dict[str, Any] = {
    "floors": {"gh100": device_floor()},
    "modes": ["protected-pcie"],
    "revocation": "required",
    "simulator_root_sha256": "22" * 32,
    "simulator_rim_root_sha256": "33" * 32,
}


def test_rules_for_devices_name_whose_they_may_be() -> None:
    rules = Policy.parse(policy_bytes({**policy_document(), "devices": DEVICES})).devices
    assert rules is not None
    assert (rules.platform, rules.modes, rules.revocation) == ("sim-nvidia", ("protected-pcie",), "required")
    assert {(root.platform, root.fingerprint) for root in rules.roots} == {
        ("sim-nvidia", b"\x22" * 32),
        ("sim-nvidia-rim", b"\x33" * 32),
    }
    assert rules.floors is not None
    assert rules.floors["gh100"].minimum["driver"] == 999_001_001
    real = {name: DEVICES[name] for name in ("modes", "revocation")} | {"floors": "log"}
    rules = Policy.parse(policy_bytes({**production(), "devices": real})).devices
    assert rules is not None
    assert (rules.platform, rules.roots, rules.floors) == ("nvidia", VENDOR_ROOTS, None)
    assert Policy.parse(policy_bytes(policy_document())).devices is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": []}, "1 to 8 are allowed"),
        ({"modes": ["devtools"]}, "devtools, which is no mode"),
        ({"modes": ["single-gpu", "protected-pcie"]}, "modes"),
        ({"revocation": "none"}, "revocation is not one of"),
        ({"floors": "none"}, "floors is not an object"),
        ({"floors": {"gh100": {}}}, "is missing"),
        ({"simulator_root_sha256": "22"}, "64 lower-case hex digits"),
        ({"simulator_rim_root_sha256": 1}, "is not a string"),
        ({"surprise": 1}, "unknown member 'surprise'"),
    ],
)
def test_rules_for_devices_are_read_strictly(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        Policy.parse(policy_bytes({**policy_document(), "devices": {**DEVICES, **changes}}))


@pytest.mark.parametrize("name", DEVICES)
def test_no_rule_for_devices_may_be_left_out(name: str) -> None:
    rules = {key: value for key, value in DEVICES.items() if key != name}
    with pytest.raises(Malformed, match=f"{name} is missing"):
        Policy.parse(policy_bytes({**policy_document(), "devices": rules}))


def test_production_cannot_express_simulated_devices() -> None:
    with pytest.raises(Malformed, match="unknown member 'simulator_r"):
        Policy.parse(policy_bytes({**production(), "devices": DEVICES}))


Change = Callable[[dict[str, Any]], object]

MEMBERS = [name for name in policy_document() if name != "enclave"]


@pytest.mark.parametrize("name", MEMBERS)
def test_an_absent_member_is_refused(name: str) -> None:
    document = policy_document()
    del document[name]
    with pytest.raises(Malformed, match=f"policy.{name} is missing"):
        Policy.parse(policy_bytes(document))


@pytest.mark.parametrize(
    "path", ["", "minimum", "services.chat", "services.chat.owner", "rebuilders", "enclave"]
)
def test_an_unknown_member_is_refused(path: str) -> None:
    document: dict[str, Any] = policy_document()
    place = document
    for name in path.split(".") if path else []:
        place = place[name]
    place["surprise"] = 1
    with pytest.raises(Malformed, match="unknown member 'surprise'"):
        Policy.parse(policy_bytes(document))


def own(document: dict[str, Any], organisations: object, k: int = 1) -> None:
    document["rebuilders"] |= {"organisations": organisations, "k": k}


BROKEN: dict[str, tuple[Change, str]] = {
    "an unknown environment": (lambda d: d.update(environment="test"), "environment is not one of"),
    "production about a simulated log": (lambda d: d.update(environment="production"), "about the log"),
    "simulation about a production log": (
        lambda d: d.update(tlog_policy=tlog_policy(PRODUCTION_ORIGIN)),
        "about the log",
    ),
    "two logs": (
        lambda d: d.update(
            tlog_policy=tlog_policy("other.example.org/x").split("witness")[0] + d["tlog_policy"]
        ),
        "lists 2 logs",
    ),
    "a broken tlog policy": (lambda d: d.update(tlog_policy="quorum none\n"), "policy.tlog_policy: "),
    "an organisation whose key is not listed": (
        lambda d: own(d, {"Us": [*d["rebuilders"]["keys"], "sha256:" + "00" * 32]}),
        "not listed",
    ),
    "a rebuilder of two organisations": (
        lambda d: own(d, {"Us": [*d["rebuilders"]["keys"]], "You": [*d["rebuilders"]["keys"]]}),
        "of two organisations",
    ),
    "a rebuilder of no organisation": (
        lambda d: own(d, {"Us": [*d["rebuilders"]["keys"]][:1]}),
        "1 keys are of no organisation",
    ),
    "an organisation without keys": (lambda d: own(d, {"Us": []}), "not a list of key ids"),
    "an organisation that is no list": (lambda d: own(d, {"Us": "us"}), "not a list of key ids"),
    "more organisations than there are": (
        lambda d: own(d, {"Us": [*d["rebuilders"]["keys"]]}, k=2),
        "rebuilders.k",
    ),
    "no service": (lambda d: d.update(services={}), "services is empty"),
    "the log as a service": (
        lambda d: d.update(services={"log": d["services"]["chat"]}),
        "the log is no service",
    ),
    "a service without a name": (
        lambda d: d.update(services={"/": d["services"]["chat"]}),
        "service is not a name",
    ),
    "a key under another name": (
        lambda d: d["services"]["chat"]["owner"].update(
            keys={authority.keyid("owner1"): authority.public("owner2")}
        ),
        "has the id",
    ),
    "a key that is not text": (
        lambda d: d["services"]["chat"]["owner"].update(keys={authority.keyid("owner1"): 1}),
        "is not a string",
    ),
    "no key": (
        lambda d: d["services"]["chat"]["owner"].update(keys={}, threshold=1),
        "a set of keys is empty",
    ),
    "a threshold of none": (
        lambda d: d["services"]["chat"]["owner"].update(threshold=0),
        "allowed are 1 to 3",
    ),
    "a threshold above the keys": (
        lambda d: d["services"]["chat"]["owner"].update(threshold=4),
        "allowed are 1 to 3",
    ),
    "an auditor nobody knows": (lambda d: d.update(map_auditor=["x"]), "is not a witness of tlog_policy"),
    "auditors that are not names": (lambda d: d.update(map_auditor=[1]), "something other than names"),
    "an empty list of auditors": (lambda d: d.update(map_auditor=[]), "1 to 16 are allowed"),
    "any age": (lambda d: d.update(max_age_seconds=0), "allowed are 1 to"),
    "no platform": (lambda d: d.update(platforms={}), "platforms is empty"),
    "hardware in a simulation": (
        lambda d: d.update(platforms={"tdx": d["platforms"]["sim-tdx"]}),
        "simulation cannot accept the platform tdx",
    ),
    "an unknown platform": (
        lambda d: d.update(platforms={"sim-abacus": d["platforms"]["sim-tdx"]}),
        "is not known",
    ),
    "a simulator without its root": (
        lambda d: d["platforms"]["sim-tdx"].pop("simulator_root_sha256"),
        "simulator_root_sha256 is missing",
    ),
    "debugging allowed": (
        lambda d: d["platforms"]["sim-tdx"]["require"].update(debug="allowed"),
        "debug is not one of refused",
    ),
    "an unknown requirement": (
        lambda d: d["platforms"]["sim-tdx"]["require"].update(x="y"),
        "unknown member 'x'",
    ),
    "a floor with less than its components": (
        lambda d: d["platforms"]["sim-tdx"]["floors"]["ff53494d0000"].update(minimum={}),
        "names exactly",
    ),
    "a genesis that is not a hash": (lambda d: d.update(genesis="00"), "64 lower-case hex digits"),
    "another version": (lambda d: d.update(v=2), "policy.v is 2"),
    "a second door by another word": (lambda d: d["enclave"].update(ratls="yes"), "ratls is not one of"),
    "callers by another word": (lambda d: d["enclave"].update(callers="yes"), "callers is not one of"),
    "a relay by another word": (lambda d: d["enclave"].update(oblivious="yes"), "oblivious is not one of"),
    "plaintext by another word": (lambda d: d["enclave"].update(plaintext="yes"), "plaintext is not one of"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_policy_is_refused_for(name: str) -> None:
    change, message = BROKEN[name]
    document: dict[str, Any] = deepcopy(policy_document())
    change(document)
    with pytest.raises(Malformed, match=message):
        Policy.parse(policy_bytes(document))


def test_a_production_policy_cannot_express_a_simulator() -> None:
    document = production()
    document["platforms"]["tdx"]["simulator_root_sha256"] = "11" * 32
    with pytest.raises(Malformed, match="unknown member 'simulator_root_sha256'"):
        Policy.parse(policy_bytes(document))
    document = production()
    document["platforms"]["sim-tdx"] = document["platforms"]["tdx"]
    with pytest.raises(Malformed, match="production cannot accept the platform sim-tdx"):
        Policy.parse(policy_bytes(document))


def test_every_truncation_is_malformed() -> None:
    data = policy_bytes(policy_document())
    for length in range(0, len(data), 7):
        with pytest.raises(Malformed):
            Policy.parse(data[:length])


def test_the_formats_page_shows_a_policy_that_is_read() -> None:
    example = PAGE.read_text().split("```json\n")[1].split("\n```")[0]
    policy = Policy.parse(canonical(json.loads(example), multiline=True))
    assert policy.simulation
