"""A release's rows against its own material: what the log entry alone shows, and what it does not."""

import json
from dataclasses import replace

import pytest

from quotary.attestation.measure.material import Files, describe, recompute
from quotary.attestation.measure.profiles import profile_sha256
from quotary.attestation.measure.shape import Shape, shape_document
from quotary.errors import Rejected, Unsupported
from quotary.statements.recompute import verify_row
from quotary.statements.row import RTMR0, Row, parse_row
from tests.fakes import firmware

SIMULATED = "tdx/simulated-direct-boot/v1"
MACHINES = (Shape(memory=2 << 30), Shape(memory=4 << 30))
FILES = Files(firmware.firmware(), firmware.kernel(), b"ramdisk", "quiet")
MATERIAL = json.loads(json.dumps(describe(FILES, MACHINES)))


@pytest.fixture
def row() -> Row:
    found = [recompute("tdx", SIMULATED, machine, MATERIAL).registers for machine in MACHINES]
    return parse_row(
        {
            "platform": "sim-tdx",
            "profile": SIMULATED,
            "profile_sha256": profile_sha256(SIMULATED).hex(),
            "registers": {name: found[0][name].hex() for name in ("mrtd", "rtmr1", "rtmr2")},
            "require": {
                "configuration": "none",
                "rtmr0": {"exact": sorted(one["rtmr0"].hex() for one in found)},
            },
            "shape": shape_document("tdx", MACHINES),
        }
    )


def test_a_row_is_computed_again_for_each_of_its_machines(row: Row) -> None:
    assert len(verify_row(row, MATERIAL)) == 2


@pytest.mark.parametrize("register", ["mrtd", "rtmr1", "rtmr2"])
def test_a_register_that_the_material_does_not_give_is_rejected_by_name(row: Row, register: str) -> None:
    with pytest.raises(Rejected, match=f"recomputed {register}"):
        verify_row(replace(row, registers={**row.registers, register: bytes(48)}), MATERIAL)


def test_exact_values_of_rtmr0_are_those_of_the_machines_no_more_and_no_fewer(row: Row) -> None:
    assert row.require.rtmr0 is not None
    exact = row.require.rtmr0.exact
    for other in (exact[:1], (*exact, bytes(48)), (bytes(48),)):
        with pytest.raises(Rejected, match="recomputed rtmr0"):
            verify_row(replace(row, require=replace(row.require, rtmr0=RTMR0(other, ()))), MATERIAL)
    # What is replayed is not computed, and the machine's own log has to say it.
    assert verify_row(replace(row, require=replace(row.require, rtmr0=RTMR0((), ("acpi-loader",)))), MATERIAL)


def test_what_the_material_does_not_say_is_not_checked_and_never_passes(row: Row) -> None:
    without_volume = {name: value for name, value in MATERIAL.items() if name != "tdx"}
    with pytest.raises(Unsupported, match="RTMR0"):
        verify_row(row, without_volume)
    with pytest.raises(Unsupported, match="tdx-launch"):
        verify_row(row, {})
    with pytest.raises(Unsupported, match="shape is not one"):
        verify_row(replace(row, shape={"memory": 1}), MATERIAL)
    with pytest.raises(Unsupported, match="not the one"):
        verify_row(replace(row, profile_sha256=bytes(32)), MATERIAL)
    with pytest.raises(Unsupported):
        verify_row(replace(row, profile="process/v1", profile_sha256=profile_sha256("process/v1")), MATERIAL)
