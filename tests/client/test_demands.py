"""A policy's words for one platform: each loosens or adds one demand, and what is not said stays strict."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from quotary.attestation import amd, snp
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.canonical import Fields
from quotary.client.demands import STRICT, meet_machines, parse_demands
from quotary.client.platforms import platform_of
from quotary.client.policy import Policy
from quotary.client.policy_text import explain, weaknesses
from quotary.errors import Judged, Malformed, Refused, Rejected
from quotary.statements.row import Require
from simulator.nitro import NitroVendor
from simulator.snp import SNPVendor
from tests.attestation.rules import Mask
from tests.attestation.test_snp import collateral, report
from tests.attestation.test_snp_appraisal import bits
from tests.client.test_verify_platforms import refused
from tests.conftest import ROOT
from tests.fakes.attempt import Attempt
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World
from tests.fakes.platforms import (
    CLOUD,
    NitroMachine,
    cloud_world,
    nitro_world,
    snp_world,
)

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

PAGE = ROOT / "docs" / "formats" / "policy.md"
CLOUDS = {"vmpl": [1], "signing_keys": ["vlek"], "csp_ids": [CLOUD]}
AWS = "CN=cc-us-east-2.amazonaws.com"


def allow(attempt: Attempt, **words: Any) -> Attempt:
    rules = attempt.policy["platforms"][attempt.world.kind]
    rules["require"] = {"debug": "refused", **words}
    return attempt


@pytest.fixture(scope="module")
def cloud() -> World:
    return cloud_world()


@pytest.fixture(scope="module")
def chip(snp_keys: SNPVendor) -> World:
    return snp_world(snp_keys)


@pytest.fixture(scope="module")
def nitro(nitro_keys: NitroVendor) -> World:
    return nitro_world(nitro_keys)


def test_a_named_clouds_key_is_admitted_by_a_policy_that_says_so(cloud: World) -> None:
    checks = {check.name: check.found for check in allow(Attempt.of(cloud), **CLOUDS).judge().checks}
    assert (checks["row: vmpl"], checks["row: signing key"]) == ("1", f"vlek {CLOUD}")


@pytest.mark.parametrize(
    ("words", "check"),
    [
        ({}, "vmpl"),
        ({**CLOUDS, "vmpl": [0, 2, 3]}, "vmpl"),
        ({"vmpl": [1]}, "signing key"),
        ({**CLOUDS, "csp_ids": ["CN=another.example.com"]}, "csp id"),
        ({**CLOUDS, "mitigations": 2}, "mitigations"),
        ({**CLOUDS, "machines": ["ab"]}, "machine"),
    ],
)
def test_a_clouds_key_is_refused_by_the_demand_that_was_not_loosened(
    cloud: World, words: Any, check: str
) -> None:
    assert refused(allow(Attempt.of(cloud), **words), "row", Refused).startswith(f"{check}: ")


ID, AUTHOR = b"\1" * 48, b"\2" * 48
LOOSENED = [
    ({"id_key_digest": ID}, {"id_keys": [ID.hex()]}, "id key"),
    ({"author_key_digest": AUTHOR}, {"author_keys": [AUTHOR.hex()]}, "author key"),
    ({"platform_info": bytes(8)}, {"alias_check": "any"}, "alias check"),
]


@pytest.mark.parametrize(("values", "words", "check"), LOOSENED)
def test_each_word_loosens_its_own_demand(values: Any, words: Any, check: str) -> None:
    world = cloud_world(**values)
    kind = Rejected if check.endswith("key") else Refused
    assert refused(allow(Attempt.of(world), **CLOUDS), "row", kind).startswith(f"{check}: ")
    assert allow(Attempt.of(world), **CLOUDS, **words).judge().simulated


def test_a_policy_may_do_without_a_revocation_list(chip: World) -> None:
    attempt = Attempt.of(chip)
    attempt.change_document(collateral={**attempt.document.collateral, "crl": "none"})
    assert refused(attempt, "row", Refused).startswith("revocation: ")
    checks = {check.name: check.found for check in allow(attempt, revocation="any").judge().checks}
    assert checks["evidence: revocation"].startswith("not checked")


def test_mitigations_that_a_policy_demands_are_looked_for() -> None:
    world = cloud_world(launch_mitigations=bits(1), current_mitigations=bits(1, 2))
    assert allow(Attempt.of(world), **CLOUDS, mitigations=2).judge().simulated
    assert refused(allow(Attempt.of(world), **CLOUDS, mitigations=6), "row", Refused).startswith(
        "mitigations"
    )


def test_only_listed_machines_are_admitted(chip: World) -> None:
    name = Attempt.of(chip).judge().facts.chips[0]
    checks = allow(Attempt.of(chip), machines=sorted([name, "00"])).judge().checks
    assert next(check for check in checks if check.name == "row: machine").found == name
    assert refused(allow(Attempt.of(chip), machines=["00"]), "row", Refused).startswith("machine: ")


def test_only_pinned_documents_judge(world: World) -> None:
    attempt = Attempt.of(world)
    info, identity = (
        hashlib.sha256(attempt.document.collateral[name].encode()).hexdigest()
        for name in ("tcb_info", "qe_identity")
    )
    checks = allow(Attempt.of(world), documents=sorted([info, identity, "00" * 32])).judge().checks
    assert "evidence: pinned documents" in {check.name for check in checks}
    for kept, missed in ((info, "qe_identity"), (identity, "tcb_info")):
        found = refused(allow(Attempt.of(world), documents=[kept]), "evidence", Refused)
        assert found.startswith(f"pinned documents: {missed} ")


def test_a_nitro_enclave_names_no_machine(nitro: World) -> None:
    facts = Attempt.of(nitro).judge().facts
    with pytest.raises(Refused, match="no machine's name"):
        meet_machines(facts, replace(STRICT, machines=("ab",)))


def test_more_pcrs_and_the_module_of_a_nitro_enclave_may_be_demanded(nitro: World) -> None:
    pcr0 = Attempt.of(nitro).judge().facts.registers["pcr0"].hex()
    assert isinstance(nitro.platform, NitroMachine)
    assert allow(Attempt.of(nitro), pcrs={"0": [pcr0]}, module_id="i-").judge().simulated
    for words, kind, check in (
        ({"pcrs": {"8": ["ab" * 48]}}, Rejected, "pcr: "),
        ({"pcrs": {"0": ["ab" * 48]}}, Rejected, "pcr: "),
        ({"module_id": "i-elsewhere"}, Refused, "module id: "),
    ):
        assert refused(allow(Attempt.of(nitro), **words), "row", kind).startswith(check)


def test_a_real_report_of_a_cloud_is_admitted_by_its_name_and_level_alone(vectors: Path) -> None:
    name, when = "milan-v3-aws-vlek-vmpl1", datetime(2025, 6, 1, tzinfo=UTC)
    facts = snp.verify(
        snp.SNPReport.parse(report(vectors, name)), collateral(vectors, name), when, VENDOR_ROOTS
    )
    policy = bits(16)
    row = Require((), None, None, None, Mask(policy, policy), (), ())
    real = {**CLOUDS, "csp_ids": [AWS], "revocation": "any"}

    def meet(**words: Any) -> None:
        demands = parse_demands(Fields({"debug": "refused", **words}, "require"), "snp")
        platform_of("snp").requirements(facts, row, demands, None)

    meet(**real)
    for lost in ("vmpl", "revocation"):
        with pytest.raises(Judged):
            meet(**{word: value for word, value in real.items() if word != lost})
    with pytest.raises(Refused, match=r"^csp id"):
        meet(**{**real, "csp_ids": ["CN=cc-us-east-1.amazonaws.com"]})


def test_the_example_of_the_page_loosens_what_it_says_and_nothing_else() -> None:
    text = PAGE.read_text().split("```json require\n")[1].split("```")[0]
    found = parse_demands(Fields(json.loads(text), "require"), "snp").snp
    wanted = replace(STRICT.snp, vmpl=(0, 1), signing_keys=(amd.VLEK,), csp_ids=(AWS,))
    assert found == wanted


def test_what_is_not_said_is_strict() -> None:
    for platform in ("tdx", "sgx", "snp", "nitro", "sim-snp"):
        assert parse_demands(Fields({"debug": "refused"}, "require"), platform) == STRICT
    assert (STRICT.snp.vmpl, STRICT.snp.signing_keys, STRICT.snp.csp_ids) == ((0,), (amd.VCEK,), ())


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("snp", {"debug": "allowed"}),
        ("snp", {"vmpl": []}),
        ("snp", {"vmpl": [4]}),
        ("snp", {"vmpl": [-1]}),
        ("snp", {"vmpl": [True]}),
        ("snp", {"vmpl": ["0"]}),
        ("snp", {"vmpl": [1, 0]}),
        ("snp", {"vmpl": [1, 1]}),
        ("snp", {"signing_keys": []}),
        ("snp", {"signing_keys": ["none"]}),
        ("snp", {"signing_keys": ["vlek"]}),
        ("snp", {"csp_ids": [CLOUD]}),
        ("snp", {"id_keys": ["ab"]}),
        ("snp", {"author_keys": ["AB" * 48]}),
        ("snp", {"mitigations": -1}),
        ("snp", {"alias_check": "none"}),
        ("snp", {"revocation": "none"}),
        ("snp", {"machines": []}),
        ("snp", {"pcrs": {}}),
        ("nitro", {"pcrs": {"32": ["00" * 48]}}),
        ("nitro", {"pcrs": {"08": ["00" * 48]}}),
        ("nitro", {"pcrs": {"8": []}}),
        ("nitro", {"pcrs": {"8": ["00"]}}),
        ("nitro", {"module_id": ""}),
        ("nitro", {"vmpl": [0]}),
        ("nitro", {"documents": ["00" * 32]}),
        ("snp", {"documents": ["00" * 32]}),
        ("tdx", {"documents": []}),
        ("tdx", {"documents": ["00" * 31]}),
        ("tdx", {"vmpl": [0]}),
        ("tdx", {"surprise": 1}),
    ],
)
def test_a_word_that_a_platform_does_not_have_is_malformed(platform: str, words: Any) -> None:
    with pytest.raises(Malformed):
        parse_demands(Fields({"debug": "refused", **words}, "require"), platform)


def test_a_policy_in_words_says_how_many_documents_may_judge(world: World) -> None:
    policy = Policy.parse(policy_bytes(allow(Attempt.of(world), documents=["00" * 32]).policy))
    assert any("under 1 listed documents" in sentence for sentence in explain(policy))


def test_what_is_loosened_is_named_to_who_reads_the_policy(cloud: World) -> None:
    words = {"alias_check": "any", "revocation": "any", "machines": ["ab"]}
    loose = Policy.parse(policy_bytes(allow(Attempt.of(cloud), **CLOUDS, **words).policy))
    strict = Policy.parse(policy_bytes(allow(Attempt.of(cloud)).policy))
    assert len(weaknesses(loose)) == len(weaknesses(strict)) + 4
    text, plain = (" ".join(explain(policy)) for policy in (loose, strict))
    for said in (CLOUD, "privilege levels 1", "BadRAM", "revocation list", "one of 1 listed machines"):
        assert said in text
        assert said not in plain
