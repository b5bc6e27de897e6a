"""The trail of a judgement: whatever stops it stands last, and as failed."""

import pytest

from quotary.client.verdict import Trail
from quotary.errors import (
    InvalidProof,
    InvalidSignature,
    Malformed,
    QuotaryError,
    Refused,
    Rejected,
    Unsupported,
)


@pytest.mark.parametrize(
    ("error", "leaves"),
    [
        (InvalidProof("no"), Rejected),
        (InvalidSignature("no"), Rejected),
        (Rejected("age", "no", "yes"), Rejected),
        (Refused("a part of it", "no", "yes"), Refused),
        (Malformed("no"), Malformed),
        (Unsupported("no"), Unsupported),
    ],
)
def test_whatever_stops_a_step_is_its_failed_check(error: QuotaryError, leaves: type[QuotaryError]) -> None:
    trail = Trail()
    trail.held("evidence", "found", "wanted", "anchor")
    with pytest.raises(leaves), trail.step("age", "wanted", "anchor"):
        raise error
    assert [(check.name, check.outcome) for check in trail.checks] == [("evidence", "ok"), ("age", "failed")]
