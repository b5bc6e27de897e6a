"""The verification order on SEV-SNP and Nitro: the same steps, each platform's own evidence, rules and floor."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from quotary.client.platforms import NO_VERSION, claimed_registers, platform_of
from quotary.client.policy import Policy
from quotary.client.policy_text import explain, weaknesses
from quotary.client.verdict import NAMES
from quotary.errors import Judged, Malformed, NotInLog, Refused, Rejected
from quotary.statements.measurement import measurement_id
from simulator.nitro import NitroVendor
from simulator.pki import PKI
from simulator.snp import SNPTCB, SNPVendor
from simulator.tdx import Platform
from tests.fakes import authority, vendor
from tests.fakes.attempt import Attempt
from tests.fakes.log import policy_bytes, tlog_policy
from tests.fakes.machine import World
from tests.fakes.platforms import (
    NITRO_PRODUCT,
    SNP_FLOOR,
    SNP_PRODUCT,
    NitroMachine,
    SNPMachine,
    nitro_world,
    snp_world,
)
from tests.fakes.sgx import SGXMachine

Change = Callable[[Attempt], object]
SGX_MINIMUM = {"sgx_tcb_svn": vendor.SGX_SVN.hex(), "pce_svn": 13}


@pytest.fixture
def snp(snp_keys: SNPVendor) -> Attempt:
    return Attempt.of(snp_world(snp_keys))


@pytest.fixture
def nitro(nitro_keys: NitroVendor) -> Attempt:
    return Attempt.of(nitro_world(nitro_keys))


@pytest.fixture(params=["snp", "nitro"])
def attempt(request: pytest.FixtureRequest) -> Attempt:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Attempt)
    return found


def refused(attempt: Attempt, name: str, kind: type[Judged]) -> str:
    """Judge, require the one error under the one name, and give what was found."""
    with pytest.raises(kind) as raised:
        attempt.judge()
    assert type(raised.value) is kind
    assert raised.value.check == name
    assert (attempt.trail.checks[-1].name, attempt.trail.checks[-1].outcome) == (name, "failed")
    return raised.value.found


def test_a_snp_machine_that_runs_a_released_image_is_accepted(snp: Attempt) -> None:
    verdict = snp.judge()
    assert verdict.facts.platform == "sim-snp"
    assert verdict.facts.product == SNP_PRODUCT
    assert verdict.measurement_id == snp.world.measurement
    assert verdict.simulated
    assert {check.outcome for check in verdict.checks} == {"ok"}
    names = {check.name for check in verdict.checks}
    assert names >= NAMES
    assert names >= {"row: debug", "row: vmpl", "row: alias check"}
    assert {"tcb floor (log): tcb minimum", "tcb floor (policy): tcb minimum"} <= names


def test_a_nitro_enclave_that_runs_a_released_image_is_accepted_and_its_floor_is_not_checked(
    nitro: Attempt,
) -> None:
    verdict = nitro.judge()
    assert verdict.facts.platform == "sim-nitro"
    assert verdict.measurement_id == nitro.world.measurement
    assert verdict.simulated
    floor = next(check for check in verdict.checks if check.name == "tcb floor")
    assert (floor.outcome, floor.found) == ("not checked", NO_VERSION)
    assert {check.outcome for check in verdict.checks if check is not floor} == {"ok"}
    assert {check.name for check in verdict.checks} >= NAMES


# What every platform refuses


def admit_another_root(attempt: Attempt) -> None:
    attempt.policy["platforms"][attempt.world.kind]["simulator_root_sha256"] = "ab" * 32


def change_the_evidence(attempt: Attempt) -> None:
    data = bytearray(attempt.document.evidence)
    # SEV-SNP: the report data, at 0x50. Nitro: the last byte of the signature.
    data[0x50 if attempt.world.kind == "sim-snp" else -1] ^= 1
    attempt.change_document(evidence=bytes(data))


def change_the_binding(attempt: Attempt) -> None:
    other = replace(attempt.world, channel=type(attempt.world.channel)())
    found = other.document()
    attempt.change_document(binding=found.binding, keyset=found.keyset)


def answer_another_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=bytes(32))


def answer_no_nonce(attempt: Attempt) -> None:
    attempt.document = attempt.world.document(nonce=None)


def lose_the_owners(attempt: Attempt) -> None:
    attempt.policy["services"]["chat"]["owner"] = {"keys": authority.keys("stranger1"), "threshold": 1}


def revoke(attempt: Attempt) -> None:
    attempt.world.log.append(attempt.world.log.maker.revocation(attempt.world.release))
    attempt.renew()


@pytest.mark.parametrize(
    ("change", "name", "kind"),
    [
        (admit_another_root, "evidence", Rejected),
        (change_the_evidence, "evidence", Rejected),
        (change_the_binding, "binding", Rejected),
        (answer_another_nonce, "nonce", Rejected),
        (answer_no_nonce, "nonce", Rejected),
        (lose_the_owners, "release authority", Rejected),
        (revoke, "status", Refused),
    ],
)
def test_each_step_refuses_alone(attempt: Attempt, change: Change, name: str, kind: type[Judged]) -> None:
    change(attempt)
    refused(attempt, name, kind)


def test_production_refuses_simulated_evidence_on_sight(attempt: Attempt) -> None:
    rules = attempt.policy["platforms"].pop(attempt.world.kind)
    del rules["simulator_root_sha256"]
    attempt.policy |= {
        "environment": "production",
        "platforms": {attempt.world.kind.removeprefix("sim-"): rules},
        "tlog_policy": tlog_policy("log.example.org/tee"),
    }
    assert refused(attempt, "evidence", Refused).startswith("simulated evidence")


def test_another_measurement_is_not_in_the_log(attempt: Attempt) -> None:
    world = attempt.world
    attempt.document = world.document(found=world.registers("other"))
    refused(attempt, "records", Rejected)
    attempt.bundle = world.log.absence(authority.measurement("other", world.kind), ts=world.ts)
    with pytest.raises(NotInLog, match="has no measurement"):
        attempt.judge()


def test_evidence_without_our_nonce_says_so(attempt: Attempt) -> None:
    answer_no_nonce(attempt)
    attempt.nonce = None
    checks = {check.name: check.outcome for check in attempt.judge().checks}
    assert (checks["nonce"], checks["binding"]) == ("not checked", "ok")


def test_the_registers_that_a_bundle_is_asked_with_are_those_of_the_verdict(attempt: Attempt) -> None:
    claimed = claimed_registers(attempt.document.evidence, attempt.policy["platforms"])
    assert measurement_id(*claimed) == attempt.judge().measurement_id


# SEV-SNP


def test_firmware_below_the_floor_is_refused(snp_keys: SNPVendor) -> None:
    below = Attempt.of(snp_world(snp_keys, SNPTCB(microcode=83)))
    assert "microcode 83" in refused(below, "tcb floor", Refused)


def test_firmware_below_the_policys_own_floor_is_refused(snp: Attempt) -> None:
    minimum = {"bootloader": 10, "fmc": 0, "microcode": 85, "snp": 27, "tee": 0}
    snp.policy["platforms"]["sim-snp"]["floors"] = {SNP_PRODUCT: {**SNP_FLOOR, "minimum": minimum}}
    assert "microcode 84" in refused(snp, "tcb floor", Refused)


def test_a_missing_floor_is_refused(snp: Attempt) -> None:
    assert snp.bundle.records  # type: ignore[union-attr]  # a bundle of a release
    snp.change_bundle(records=snp.bundle.records[:2])  # type: ignore[union-attr]
    assert refused(snp, "tcb floor", Refused) == "no logged floor"


def policy_bit(attempt: Attempt, bit: int) -> None:
    machine = attempt.world.platform
    assert isinstance(machine, SNPMachine)
    machine.policy |= 1 << bit
    attempt.document = attempt.world.document()


@pytest.mark.parametrize(("bit", "check"), [(19, "debug"), (18, "migration"), (21, "guest policy")])
def test_a_guest_policy_that_lets_the_host_in_is_refused(snp: Attempt, bit: int, check: str) -> None:
    policy_bit(snp, bit)
    assert refused(snp, "row", Refused).startswith(check)


def test_host_data_that_the_row_does_not_list_is_rejected(snp: Attempt) -> None:
    machine = snp.world.platform
    assert isinstance(machine, SNPMachine)
    machine.host_data = b"\x01" * 32
    snp.document = snp.world.document()
    assert refused(snp, "row", Rejected).startswith("configuration")


def test_a_report_without_revocation_list_is_refused(snp: Attempt) -> None:
    snp.change_document(collateral={**snp.document.collateral, "crl": "none"})
    assert refused(snp, "row", Refused).startswith("revocation")


# SGX


def sgx_attempt(**body: bytes) -> Attempt:
    machine = SGXMachine(body)
    floor = {**SNP_FLOOR, "minimum": SGX_MINIMUM, "accepted_status": ["UpToDate"]}
    world = World(machine, machine, kind="sim-sgx", product=vendor.FMSPC.hex(), floor=floor)
    return Attempt.of(world.publish())


def test_an_sgx_enclave_that_runs_a_released_image_is_accepted() -> None:
    attempt = sgx_attempt()
    verdict = attempt.judge()
    assert (verdict.facts.platform, verdict.facts.product) == ("sim-sgx", vendor.FMSPC.hex())
    assert verdict.measurement_id == attempt.world.measurement
    assert {check.outcome for check in verdict.checks} == {"ok"}
    names = {check.name for check in verdict.checks}
    assert names >= NAMES
    assert names >= {"row: debug", "row: xfrm", "row: configuration", "tcb floor (log): tcb minimum"}


def test_an_enclave_that_can_be_debugged_is_refused() -> None:
    attempt = sgx_attempt(attributes=bytes.fromhex("0700000000000000e700000000000000"))
    assert refused(attempt, "row", Refused).startswith("debug")


def test_an_enclave_with_another_configuration_is_rejected() -> None:
    assert refused(sgx_attempt(config_id=b"\1" * 64), "row", Rejected).startswith("configuration")


def test_an_enclave_on_old_firmware_is_refused() -> None:
    attempt = sgx_attempt()
    floor = {**SNP_FLOOR, "minimum": {**SGX_MINIMUM, "pce_svn": 14}, "accepted_status": ["UpToDate"]}
    attempt.policy["platforms"]["sim-sgx"]["floors"] = {attempt.world.product: floor}
    assert "pce_svn 13" in refused(attempt, "tcb floor", Refused)


# Nitro


def test_an_enclave_in_debug_mode_is_refused(nitro: Attempt) -> None:
    # All PCRs zero, even where somebody released that.
    zero = dict.fromkeys(("pcr0", "pcr1", "pcr2"), "00" * 48)
    world = nitro.world
    world.run({**authority.row("debug", "sim-nitro"), "registers": zero})
    registers = {name: bytes(48) for name in zero}
    nitro.document = world.document(found=registers)
    nitro.bundle = world.shown(measurement_id("sim-nitro", registers))
    assert refused(nitro, "row", Refused).startswith("debug")


def test_a_policy_that_demands_a_floor_of_its_own_admits_no_nitro_enclave(nitro: Attempt) -> None:
    nitro.policy["platforms"]["sim-nitro"]["floors"] = {NITRO_PRODUCT: {**SNP_FLOOR, "minimum": {}}}
    assert refused(nitro, "tcb floor", Refused) == NO_VERSION


def test_a_policy_in_words_promises_no_floor_for_nitro(nitro: Attempt) -> None:
    policy = Policy.parse(policy_bytes(nitro.policy))
    assert any("attests no firmware version." in sentence for sentence in explain(policy))
    assert "sim-nitro: no firmware version is attested, and none is demanded" in weaknesses(policy)
    nitro.policy["platforms"]["sim-nitro"]["floors"] = {}
    policy = Policy.parse(policy_bytes(nitro.policy))
    assert any("own floors admit nothing" in sentence for sentence in explain(policy))


def test_a_document_older_than_its_keys_may_be_is_refused(nitro: Attempt) -> None:
    machine = nitro.world.platform
    assert isinstance(machine, NitroMachine)
    machine.now -= timedelta(hours=1, seconds=1)
    # Its certificates begin later than that; the age is looked at first.
    nitro.document = nitro.world.document()
    assert refused(nitro, "evidence", Refused).startswith("timestamp")


def test_a_keyset_that_has_ended_is_refused_however_old_its_evidence_is(nitro: Attempt) -> None:
    nitro.now += timedelta(minutes=51)
    assert refused(nitro, "binding", Refused).startswith("keyset")


def test_user_data_of_another_length_is_no_binding(nitro: Attempt) -> None:
    nitro.document = replace(
        nitro.document, evidence=nitro.world.platform.quote(nitro.world.registers(), bytes(65))
    )
    nitro.nonce = None
    with pytest.raises(Malformed, match="nonce root has 33 bytes"):
        nitro.judge()


def test_a_nitro_document_takes_no_collateral(nitro: Attempt) -> None:
    nitro.change_document(collateral={"chain": "none"})
    with pytest.raises(Malformed, match="takes no collateral"):
        nitro.judge()


# Which platform


def test_a_policy_may_list_several_platforms_and_the_evidence_decides(
    vendor: tuple[PKI, Platform], snp: Attempt, nitro: Attempt
) -> None:
    attempts = [Attempt.of(World(*vendor).publish()), snp, nitro]
    rules = {attempt.world.kind: attempt.policy["platforms"][attempt.world.kind] for attempt in attempts}
    for attempt in attempts:
        attempt.policy["platforms"] = rules
        assert attempt.judge().facts.platform == attempt.world.kind


def test_evidence_of_a_platform_that_the_policy_does_not_list_is_malformed(
    snp: Attempt, nitro: Attempt
) -> None:
    snp.document, nitro.document = nitro.document, snp.document
    for attempt in (snp, nitro):
        with pytest.raises(Malformed):
            attempt.judge()
    rules = snp.policy["platforms"]["sim-snp"]
    snp.policy["platforms"] = {"sim-snp": rules, "sim-tdx": {**rules, "floors": "log"}}
    with pytest.raises(Malformed, match=r"no evidence of sim-snp: .*; no evidence of sim-tdx: "):
        snp.judge()


def test_a_platform_that_nobody_knows_is_malformed() -> None:
    with pytest.raises(Malformed):
        platform_of("abacus")
