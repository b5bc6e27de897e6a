"""A SEV-SNP guest that is in order is admitted; each single thing that is not is refused under its own name."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from quotary.attestation import amd, snp, snp_appraisal
from quotary.attestation.facts import TCB, Facts
from quotary.attestation.snp_appraisal import STRICT, Demands, appraise
from quotary.errors import Refused, Rejected, Unsupported
from tests.attestation.test_snp import facts_of

VERSION = {"bootloader": 10, "fmc": 0, "microcode": 84, "snp": 23, "tee": 0}
DIGEST, OTHER = b"\1" * 32, b"\2" * 32


@dataclass(frozen=True)
class Mask:
    mask: bytes
    value: bytes


@dataclass(frozen=True)
class Requirements:
    configuration: tuple[bytes, ...] = ()
    guest_policy: Mask | None = None


@dataclass(frozen=True)
class Floor:
    minimum: dict[str, int | bytes]
    evaluation_number: int = 0
    accepted_status: tuple[str, ...] = ("none",)
    grace_seconds: int = 0
    denied_advisories: tuple[str, ...] = ()
    denied_families: tuple[str, ...] = ()
    denied_chips: tuple[str, ...] = ()


def bits(*numbers: int) -> bytes:
    return sum(1 << number for number in numbers).to_bytes(8, "little")


SMT = Requirements(guest_policy=Mask(bits(16), bits(16)))
FLOOR = Floor(dict(VERSION))


@pytest.fixture
def facts() -> Facts:
    components: dict[str, bytes | int] = dict(VERSION)
    for which in snp.TCBS:
        components |= {f"{which} {name}": value for name, value in VERSION.items()}
    return Facts(
        platform="snp",
        product="genoa-19-11-01",
        registers={"measurement": b"\7" * 48},
        configuration={
            "host_data": bytes(32),
            "id_key_digest": bytes(48),
            "author_key_digest": bytes(48),
        },
        report_data=bytes(64),
        tcb=TCB("none", (), datetime.min.replace(tzinfo=UTC), None, 0, components),
        attributes={
            "policy": bits(16, 17),
            "platform_info": bits(0, 5),
            "vmpl": bytes(4),
            "signing_key": b"vcek",
            "csp_id": b"",
            "revocation": b"checked",
        },
        chips=("ab" * 64,),
        checks=(),
        simulated=False,
        judged_at=datetime(2026, 7, 1, tzinfo=UTC),
    )


def with_attributes(facts: Facts, **changes: bytes) -> Facts:
    return replace(facts, attributes={**facts.attributes, **changes})


def with_configuration(facts: Facts, **changes: bytes) -> Facts:
    return replace(facts, configuration={**facts.configuration, **changes})


def test_a_guest_in_order_is_admitted_and_every_check_is_named(facts: Facts) -> None:
    names = [check.name for check in appraise(facts, FLOOR, SMT, STRICT).checks]
    assert names == [
        "debug",
        "guest policy",
        "configuration",
        "vmpl",
        "signing key",
        "id key",
        "author key",
        "alias check",
        "mitigations",
        "tcb minimum",
        "tcb evaluation number",
        "tcb status",
        "denied",
    ]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"policy": bits(16, 17, 19)}, "debug"),
        ({"policy": bits(16, 17, 18)}, "migration"),
        ({"policy": bits(16)}, "guest policy"),
        ({"policy": bits(16, 17, 21)}, "guest policy"),
        ({"policy": bits(16, 17, 26)}, "guest policy"),
        ({"policy": bits(16, 17, 63)}, "guest policy"),
        ({"policy": bits(17)}, "guest policy"),
        ({"vmpl": b"\1\0\0\0"}, "vmpl"),
        ({"vmpl": b"\xff" * 4}, "vmpl"),
        ({"signing_key": b"vlek", "csp_id": b"x"}, "signing key"),
        ({"revocation": b"none"}, "revocation"),
        ({"platform_info": bits(0)}, "alias check"),
    ],
)
def test_an_attribute_that_nobody_listed_is_refused(facts: Facts, changes, check: str) -> None:
    with pytest.raises(Refused) as caught:
        appraise(with_attributes(facts, **changes), FLOOR, SMT, STRICT)
    assert caught.value.check == check


def test_no_row_can_list_debug_migration_or_unknown_bits(facts: Facts) -> None:
    for bit, check in ((19, "debug"), (18, "migration"), (26, "guest policy")):
        listed = Requirements(guest_policy=Mask(bits(16, bit), bits(16, bit)))
        with pytest.raises(Refused, match=check):
            appraise(with_attributes(facts, policy=bits(16, 17, bit)), FLOOR, listed, STRICT)


def test_smt_is_refused_unless_the_row_lists_it(facts: Facts) -> None:
    with pytest.raises(Refused, match="guest policy"):
        appraise(facts, FLOOR, Requirements(), STRICT)
    single = with_attributes(facts, policy=bits(17, 20))
    assert appraise(single, FLOOR, Requirements(), STRICT)


def test_a_bit_that_the_row_wants_must_be_there(facts: Facts) -> None:
    hiding = Requirements(guest_policy=Mask(bits(16, 24), bits(16, 24)))
    with pytest.raises(Refused, match="guest policy"):
        appraise(facts, FLOOR, hiding, STRICT)
    assert appraise(with_attributes(facts, policy=bits(16, 17, 24)), FLOOR, hiding, STRICT)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"host_data": DIGEST}, "configuration"),
        ({"id_key_digest": b"\1" * 48}, "id key"),
        ({"author_key_digest": b"\1" * 48}, "author key"),
    ],
)
def test_what_the_host_set_must_be_listed_or_zero(facts: Facts, changes, check: str) -> None:
    with pytest.raises(Rejected) as caught:
        appraise(with_configuration(facts, **changes), FLOOR, SMT, STRICT)
    assert caught.value.check == check


def test_a_listed_configuration_is_required_once_it_is_listed(facts: Facts) -> None:
    listed = replace(SMT, configuration=(DIGEST, OTHER))
    assert appraise(with_configuration(facts, host_data=OTHER), FLOOR, listed, STRICT)
    with pytest.raises(Rejected, match="configuration"):
        appraise(facts, FLOOR, listed, STRICT)


def test_keys_of_id_blocks_may_be_listed(facts: Facts) -> None:
    demands = replace(STRICT, id_keys=(b"\1" * 48,), author_keys=(b"\2" * 48,))
    block = with_configuration(facts, id_key_digest=b"\1" * 48, author_key_digest=b"\2" * 48)
    assert appraise(block, FLOOR, SMT, demands)
    assert appraise(facts, FLOOR, SMT, demands)
    swapped = with_configuration(facts, id_key_digest=b"\2" * 48)
    with pytest.raises(Rejected, match="id key"):
        appraise(swapped, FLOOR, SMT, demands)


def test_a_cloud_is_admitted_by_name(facts: Facts) -> None:
    demands = replace(STRICT, signing_keys=(amd.VCEK, amd.VLEK), csp_ids=("CN=a",))
    assert appraise(with_attributes(facts, signing_key=b"vlek", csp_id=b"CN=a"), FLOOR, SMT, demands)
    with pytest.raises(Refused, match="csp id"):
        appraise(with_attributes(facts, signing_key=b"vlek", csp_id=b"CN=b"), FLOOR, SMT, demands)
    none = replace(demands, csp_ids=())
    with pytest.raises(Refused, match="csp id"):
        appraise(with_attributes(facts, signing_key=b"vlek", csp_id=b"CN=a"), FLOOR, SMT, none)


def test_lower_levels_and_unchecked_things_are_admitted_where_demands_say_so(facts: Facts) -> None:
    loose = Demands((0, 1), ("vcek",), (), (), (), 0, snp_appraisal.ANY, snp_appraisal.ANY)
    changed = with_attributes(facts, vmpl=b"\1\0\0\0", platform_info=bytes(8), revocation=b"none")
    assert appraise(changed, FLOOR, SMT, loose)


@pytest.mark.parametrize("missing", ["launch_mitigations", "current_mitigations"])
def test_mitigations_must_be_there_at_launch_and_now(facts: Facts, missing: str) -> None:
    demands = replace(STRICT, mitigations=0b110)
    full = {"launch_mitigations": bits(1, 2, 3), "current_mitigations": bits(1, 2)}
    assert appraise(with_attributes(facts, **full), FLOOR, SMT, demands)
    for lacking in (full | {missing: bits(1)}, {name: full[name] for name in full if name != missing}, {}):
        with pytest.raises(Refused, match="mitigations"):
            appraise(with_attributes(facts, **lacking), FLOOR, SMT, demands)


@pytest.mark.parametrize("version", ["reported", "committed", "launch"])
@pytest.mark.parametrize("component", ["bootloader", "microcode", "snp"])
def test_each_component_of_each_version_is_held_to_the_floor(
    facts: Facts, version: str, component: str
) -> None:
    low = {**facts.tcb.components, f"{version} {component}": VERSION[component] - 1}
    with pytest.raises(Refused, match=f"{version} {component}"):
        appraise(replace(facts, tcb=replace(facts.tcb, components=low)), FLOOR, SMT, STRICT)


def test_current_firmware_is_not_held_to_the_floor(facts: Facts) -> None:
    low = {**facts.tcb.components, "current microcode": 0}
    assert appraise(replace(facts, tcb=replace(facts.tcb, components=low)), FLOOR, SMT, STRICT)


@pytest.mark.parametrize("minimum", [{"else": 1}, {"snp": b"\1"}])
def test_a_floor_of_another_platform_admits_nothing(facts: Facts, minimum) -> None:
    with pytest.raises(Refused, match="tcb minimum"):
        appraise(facts, Floor(minimum), SMT, STRICT)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"evaluation_number": 1}, "tcb evaluation number"),
        ({"accepted_status": ("UpToDate",)}, "tcb status"),
        ({"denied_families": ("genoa",)}, "denied family"),
        ({"denied_families": ("genoa-19-11-01",)}, "denied family"),
        ({"denied_chips": ("ab" * 64,)}, "denied chip"),
    ],
)
def test_what_a_floor_denies_is_refused(facts: Facts, changes, check: str) -> None:
    with pytest.raises(Refused, match=check):
        appraise(facts, replace(FLOOR, **changes), SMT, STRICT)


def test_facts_of_another_platform_are_not_appraised(facts: Facts) -> None:
    with pytest.raises(Unsupported):
        appraise(replace(facts, platform="tdx"), FLOOR, SMT, STRICT)
    assert appraise(replace(facts, platform="sim-snp"), FLOOR, SMT, STRICT)


REAL = {
    # name: the check that refuses it, and in what the demands differ from the strict ones
    "genoa-v5-lunal-vcek": ("revocation", {}),
    "turin-v5-microsoft-vcek": ("revocation", {}),
    "milan-v2-gosevguest-debug": ("debug", {}),
    "milan-v2-virtee-vcek": ("alias check", {"revocation": "any"}),
    "milan-v3-aws-vlek-vmpl1": ("vmpl", {}),
}


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
@pytest.mark.parametrize("name", REAL)
def test_real_machines_are_refused_for_one_reason_each(vectors, name: str) -> None:
    check, changes = REAL[name]
    found = facts_of(vectors, name)
    floor = Floor({component: found.tcb.components[f"launch {component}"] for component in ("snp", "tee")})
    row = replace(SMT, configuration=(found.configuration["host_data"],))
    with pytest.raises(Refused) as caught:
        appraise(found, floor, row, replace(STRICT, **changes))
    assert caught.value.check == check
