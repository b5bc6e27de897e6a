"""Appraisal: what no policy can allow, what a row must list, and floors component by component."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from quotary.attestation.appraise import appraise, meet_floor, meet_requirements
from quotary.attestation.facts import TCB, Check, Facts
from quotary.attestation.measure.ccel import encode
from quotary.attestation.measure.events import Event, replay
from quotary.attestation.measure.profiles import tdx_profile
from quotary.attestation.measure.rtmr0 import Replay
from quotary.errors import Refused, Rejected, Unsupported
from tests.attestation.rules import RTMR0, Floor, Mask, Row

AT = datetime(2026, 11, 21, tzinfo=UTC)
SVN = bytes([7, 1, 4] + [0] * 13)
ZERO, ONE = bytes(48), b"\1" * 48
GOOD = Facts(
    platform="tdx",
    product="90c06f000000",
    registers={"mrtd": ONE, "rtmr0": ZERO, "rtmr1": ONE, "rtmr2": ONE, "rtmr3": ZERO},
    configuration={"mr_config_id": ZERO, "mr_owner": ZERO, "mr_owner_config": ZERO},
    report_data=bytes(64),
    tcb=TCB("UpToDate", (), AT, None, 19, {"tee_tcb_svn": SVN, "sgx_tcb_svn": SVN, "pce_svn": 13}),
    attributes={
        "td_attributes": bytes.fromhex("0000001000000000"),
        "xfam": bytes.fromhex("e702060000000000"),
        "mr_service_td": ZERO,
    },
    chips=("11" * 16, "22" * 16),
    checks=(Check("root", "", "", ""),),
    simulated=False,
    judged_at=AT,
)
FLOOR = Floor(minimum={"tee_tcb_svn": SVN, "sgx_tcb_svn": SVN, "pce_svn": 13}, evaluation_number=19)


def with_attributes(**change: bytes) -> Facts:
    return replace(GOOD, attributes={**GOOD.attributes, **change})


def with_tcb(**change: object) -> Facts:
    return replace(GOOD, tcb=replace(GOOD.tcb, **change))


def test_a_good_machine_is_appraised_with_every_check_named():
    appraised = appraise(GOOD, FLOOR, Row())
    assert appraised.facts is GOOD
    assert [check.name for check in appraised.checks] == [
        "debug",
        "td_attributes",
        "xfam",
        "configuration",
        "rtmr0",
        "rtmr3",
        "tcb minimum",
        "tcb evaluation number",
        "tcb status",
        "denied",
    ]
    old_body = replace(GOOD, attributes={k: v for k, v in GOOD.attributes.items() if k != "mr_service_td"})
    assert appraise(old_body, FLOOR, Row()).facts is old_body


@pytest.mark.parametrize(
    ("bit", "check"),
    [
        (0, "debug"),
        (1, "debug"),
        (7, "debug"),
        (29, "migration"),
        (30, "td_attributes"),
        (31, "td_attributes"),
        (63, "td_attributes"),
        (8, "td_attributes"),
    ],
)
def test_every_attribute_bit_beside_sept_ve_disable_is_refused(bit, check):
    with pytest.raises(Refused) as refused:
        meet_requirements(with_attributes(td_attributes=(1 << 28 | 1 << bit).to_bytes(8, "little")), Row())
    assert refused.value.check == check


@pytest.mark.parametrize("bit", [0, 7, 29])
def test_no_row_can_allow_debug_or_migration(bit):
    value = (1 << 28 | 1 << bit).to_bytes(8, "little")
    with pytest.raises(Refused):
        meet_requirements(with_attributes(td_attributes=value), Row(td_attributes=Mask(value, value)))


def test_a_guest_that_can_be_faulted_by_its_host_is_refused():
    for row in (Row(), Row(td_attributes=Mask(bytes.fromhex("0000001000000000"), bytes(8)))):
        with pytest.raises(Refused) as refused:
            meet_requirements(with_attributes(td_attributes=bytes(8)), row)
        assert refused.value.check == "sept_ve_disable"


def test_a_row_lists_further_attributes_and_then_wants_them():
    pks = (1 << 30).to_bytes(8, "little")
    with_pks = with_attributes(td_attributes=(1 << 28 | 1 << 30).to_bytes(8, "little"))
    assert meet_requirements(with_pks, Row(td_attributes=Mask(pks, pks)))
    for facts, mask in ((GOOD, Mask(pks, pks)), (with_pks, Mask(pks, bytes(8)))):
        with pytest.raises(Refused) as refused:
            meet_requirements(facts, Row(td_attributes=mask))
        assert refused.value.check == "td_attributes"


@pytest.mark.parametrize(
    "xfam",
    ["e700060000000000", "e718060000000000", "e742060000000000", "e75a060000000000", "0702000000000000"],
)
def test_extended_features_in_the_field_need_no_listing(xfam):
    assert meet_requirements(with_attributes(xfam=bytes.fromhex(xfam)), Row())


@pytest.mark.parametrize("bit", [3, 8, 10, 15, 19, 62])
def test_a_feature_that_is_not_plain_must_be_listed(bit):
    value = (0x65AE7 | 1 << bit).to_bytes(8, "little")
    mask = (1 << bit).to_bytes(8, "little")
    with pytest.raises(Refused) as refused:
        meet_requirements(with_attributes(xfam=value), Row())
    assert refused.value.check == "xfam"
    assert meet_requirements(with_attributes(xfam=value), Row(xfam=Mask(mask, mask)))


@pytest.mark.parametrize(
    ("facts", "row", "error", "check"),
    [
        (with_attributes(mr_service_td=ONE), Row(), Refused, "service td"),
        (
            replace(GOOD, configuration={**GOOD.configuration, "mr_config_id": ONE}),
            Row(),
            Rejected,
            "configuration",
        ),
        (GOOD, Row(configuration=(ONE,)), Rejected, "configuration"),
        (replace(GOOD, configuration={**GOOD.configuration, "mr_owner": ONE}), Row(), Rejected, "mr_owner"),
        (
            replace(GOOD, configuration={**GOOD.configuration, "mr_owner_config": ONE}),
            Row(),
            Rejected,
            "mr_owner_config",
        ),
        (replace(GOOD, registers={**GOOD.registers, "rtmr0": ONE}), Row(), Rejected, "rtmr0"),
        (GOOD, Row(rtmr0=RTMR0(exact=(ONE,))), Rejected, "rtmr0"),
        (replace(GOOD, registers={**GOOD.registers, "rtmr3": ONE}), Row(), Rejected, "rtmr3"),
    ],
)
def test_a_field_that_breaks_its_rule_names_itself(facts, row, error, check):
    with pytest.raises(error) as refused:
        meet_requirements(facts, row)
    assert refused.value.check == check


def test_exact_values_and_configurations_are_admitted():
    other = replace(
        GOOD,
        registers={**GOOD.registers, "rtmr0": ONE},
        configuration={**GOOD.configuration, "mr_config_id": ONE},
    )
    assert meet_requirements(
        other, Row(configuration=(b"\2" * 48, ONE), rtmr0=RTMR0(exact=(b"\2" * 48, ONE)))
    )


def test_a_replay_without_a_log_is_refused():
    with pytest.raises(Refused, match="event log"):
        meet_requirements(GOOD, Row(rtmr0=RTMR0(free=("acpi-tables",))))


def test_a_replay_whose_slots_are_all_free_still_needs_every_event():
    profile = tdx_profile("tdx/simulated-direct-boot/v1")
    events = [Event("rtmr0", 10, bytes([number]) * 48, b"") for number in range(len(profile.rtmr0))]
    facts = replace(GOOD, registers={**GOOD.registers, **replay(events).registers})
    rule = Row(rtmr0=RTMR0(free=profile.rtmr0))
    log = Replay(encode(events, 4096), profile, {})
    assert "replayed" in meet_requirements(facts, rule, log)[4].wanted
    short = Replay(encode(events[1:], 4096), profile, {})
    with pytest.raises(Rejected, match="event log"):
        appraise(facts, FLOOR, rule, short)


def test_another_platform_is_unsupported():
    with pytest.raises(Unsupported):
        meet_requirements(replace(GOOD, platform="snp"), Row())
    assert meet_requirements(replace(GOOD, platform="sim-tdx", simulated=True), Row())


@pytest.mark.parametrize("name", ["tee_tcb_svn", "sgx_tcb_svn"])
@pytest.mark.parametrize("index", [0, 1, 2, 15])
def test_each_component_below_its_minimum_is_refused(name, index):
    higher = bytearray(SVN)
    higher[index] += 1
    with pytest.raises(Refused) as refused:
        meet_floor(GOOD, replace(FLOOR, minimum={name: bytes(higher)}))
    assert refused.value.check == "tcb minimum"
    # Another component far above does not make up for it: components are never one big number.
    rich = with_tcb(
        components={**GOOD.tcb.components, name: bytes(255 if n != index else SVN[n] for n in range(16))}
    )
    with pytest.raises(Refused):
        meet_floor(rich, replace(FLOOR, minimum={name: bytes(higher)}))


@pytest.mark.parametrize(
    "minimum",
    [
        {"pce_svn": 14},
        {"unknown": 0},
        {"unknown": b""},
        {"pce_svn": b"\0"},
        {"tee_tcb_svn": 0},
        {"tee_tcb_svn": b"\0"},
    ],
)
def test_a_minimum_that_cannot_be_compared_is_refused(minimum):
    with pytest.raises(Refused) as refused:
        meet_floor(GOOD, replace(FLOOR, minimum=minimum))
    assert refused.value.check == "tcb minimum"


@pytest.mark.parametrize(
    ("facts", "floor", "check"),
    [
        (GOOD, replace(FLOOR, evaluation_number=20), "tcb evaluation number"),
        (GOOD, replace(FLOOR, accepted_status=("SWHardeningNeeded",)), "tcb status"),
        (with_tcb(status="Revoked"), replace(FLOOR, accepted_status=("Revoked", "UpToDate")), "tcb status"),
        (
            with_tcb(advisories=("INTEL-SA-00001",)),
            replace(FLOOR, denied_advisories=("INTEL-SA-00001",)),
            "denied advisory",
        ),
        (GOOD, replace(FLOOR, denied_families=("90c06f",)), "denied family"),
        (GOOD, replace(FLOOR, denied_chips=("22" * 16,)), "denied chip"),
    ],
)
def test_each_rule_of_a_floor_refuses_by_name(facts, floor, check):
    with pytest.raises(Refused) as refused:
        meet_floor(facts, floor)
    assert refused.value.check == check


def test_denials_of_others_do_not_matter():
    floor = replace(
        FLOOR, denied_advisories=("INTEL-SA-2",), denied_families=("00806f",), denied_chips=("33" * 16,)
    )
    assert meet_floor(with_tcb(advisories=("INTEL-SA-1",)), floor)


def outdated(status: str, days: int) -> Facts:
    return with_tcb(status=status, superseded_at=AT - timedelta(days=days))


@pytest.mark.parametrize(
    ("status", "accepted"),
    [
        ("OutOfDate", ("UpToDate",)),
        ("TDRelaunchAdvised", ("UpToDate",)),
        ("OutOfDateConfigurationNeeded", ("UpToDate", "ConfigurationNeeded")),
        ("TDRelaunchAdvisedConfigurationNeeded", ("UpToDate", "ConfigurationNeeded")),
    ],
)
def test_grace_counts_from_the_first_newer_level_and_ends(status, accepted):
    floor = replace(FLOOR, accepted_status=accepted, grace_seconds=30 * 86400)
    assert "in grace" in meet_floor(outdated(status, 29), floor)[2].found
    for facts, harder in (
        (outdated(status, 30), floor),
        (outdated(status, 31), floor),
        (outdated(status, 0), replace(floor, grace_seconds=0)),
        (with_tcb(status=status), floor),
    ):
        with pytest.raises(Refused) as refused:
            meet_floor(facts, harder)
        assert refused.value.check == "tcb status"


@pytest.mark.parametrize(
    "status",
    [
        "OutOfDateConfigurationNeeded",
        "TDRelaunchAdvisedConfigurationNeeded",
        "Revoked",
        "ConfigurationNeeded",
        "Unheard",
    ],
)
def test_grace_excuses_nothing_but_age(status):
    with pytest.raises(Refused):
        meet_floor(outdated(status, 1), replace(FLOOR, grace_seconds=30 * 86400))


def refusal(facts: Facts, floor: Floor) -> str:
    with pytest.raises(Refused) as refused:
        meet_floor(facts, floor)
    return str(refused.value)


def test_a_refusal_says_what_is_missed_and_what_would_do():
    old = replace(outdated("OutOfDate", 31), judged_at=AT)
    old = replace(old, tcb=replace(old.tcb, advisories=("INTEL-SA-00001",)))
    assert refusal(old, replace(FLOOR, grace_seconds=86400)) == (
        "tcb status: found OutOfDate since the level of 2026-10-21 (INTEL-SA-00001), wanted UpToDate "
        "(grace ended at 2026-10-22T00:00:00+00:00): firmware of that level or newer"
    )
    # A status that grace never excuses does not speak of it.
    assert "grace" not in refusal(outdated("ConfigurationNeeded", 1), FLOOR)
    assert refusal(with_tcb(status="SWHardeningNeeded"), FLOOR).endswith("wanted UpToDate")
    higher = bytes([7, 2, 5] + [0] * 13)
    said = refusal(GOOD, replace(FLOOR, minimum={"tee_tcb_svn": higher}))
    assert said.endswith(": component 1 is 1, not 2, component 2 is 4, not 5")
    assert refusal(GOOD, replace(FLOOR, minimum={"pce_svn": 14})).endswith("pce_svn 13, wanted at least 14")
    assert "documents of number 20" in refusal(GOOD, replace(FLOOR, evaluation_number=20))
    denied = with_tcb(advisories=("INTEL-SA-00001",))
    assert "firmware that INTEL-SA-00001" in refusal(
        denied, replace(FLOOR, denied_advisories=("INTEL-SA-00001",))
    )
