"""Reference values of devices out of real manifests."""

from dataclasses import replace

import pytest

from quotary.attestation.measure.devices import expect
from quotary.attestation.measure.trace import Measured
from quotary.attestation.rim import RIM
from quotary.errors import Malformed
from tests.attestation.test_rim import real

DRIVER = RIM(
    "nvidia-rim", bytes(32), "GPU", "535.86.09", {7: (b"\1" * 48,), 21: (b"\2" * 48,)}, "signer", None
)


def test_the_table_has_every_active_value_of_both_manifests():
    vbios = replace(DRIVER, sha256=b"\5" * 32, version="96.00.5E.00.01", golden={0: (b"\3" * 48, b"\4" * 48)})
    found = expect(DRIVER, vbios)
    assert set(found.golden) == {0, 7, 21}
    assert found.material["vbios"] == {"version": "96.00.5e.00.01", "rim_sha256": "05" * 32}
    assert found.steps[-1].name == "vbios reference value 0"
    alone = expect(None, vbios)
    assert set(alone.golden) == {0}
    assert set(alone.material) == {"vbios"}


def test_a_value_that_changes_is_named():
    other = replace(DRIVER, golden={**DRIVER.golden, 21: (b"\7" * 48,)})
    empty = replace(DRIVER, golden={})
    mine, theirs = (Measured({}, expect(rim, empty).steps) for rim in (DRIVER, other))
    assert mine.first_difference(theirs).startswith("device: driver reference value 21 is ")


def test_an_index_that_both_manifests_name_is_malformed():
    with pytest.raises(Malformed, match="both"):
        expect(DRIVER, DRIVER)


def test_real_manifests_of_one_gpu_give_its_whole_table(vectors):
    driver = real(vectors, "driver-gh100-545.00")
    vbios = real(vectors, "vbios-1010_0200_882-96.00.5E.00.01-2023-06")
    found = expect(driver, vbios)
    assert len(found.golden) == len(driver.golden) + len(vbios.golden) == len(found.steps) == 21 + 12
