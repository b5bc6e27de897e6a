"""web/static/owners.js: the chain from the owners that a policy pins to a release's builders, broken as for the library."""

import pytest

from quotary.errors import Judged, Rejected
from simulator.pki import PKI
from simulator.tdx import Platform
from tests.client import spoiled_release
from tests.client.spoiled_release import Change
from tests.fakes.attempt import Attempt
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, hardware
from tests.web.test_verify import said

OWNERS = "who may sign for the service"
# What a path of its own shows, before anybody looks at owners.
PATHS = {spoiled_release.break_the_genesis_path, spoiled_release.break_a_delegations_path}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> tuple[PKI, Platform]:
    return hardware(tmp_path_factory.mktemp("vendor"))


@pytest.fixture
def attempt(vendor: tuple[PKI, Platform]) -> Attempt:
    return Attempt.of(World(*vendor).publish())


def judged(attempt: Attempt) -> tuple[str, dict[str, str], str]:
    policy = policy_bytes(attempt.policy).decode()
    found = said("checkBundle", attempt.bundle.encode().decode(), policy, attempt.now.timestamp())
    assert isinstance(found, dict)
    details = {row["name"]: row["detail"] for row in found["results"]}
    return found["verdict"], {row["name"]: row["outcome"] for row in found["results"]}, details[OWNERS]


def test_builders_of_the_pinned_owners_pass_and_the_rest_is_named(attempt: Attempt) -> None:
    verdict, rows, detail = judged(attempt)
    assert attempt.judge().service == "chat"
    assert (rows[OWNERS], rows["age, floors, evidence of a machine"]) == ("passed", "not checked")
    assert verdict == "could-not-check"
    assert "whom the owners that the policy pins appointed" in detail


@pytest.mark.parametrize(
    ("change", "kind"),
    spoiled_release.CASES["release authority"],
    ids=lambda item: getattr(item, "__name__", None),
)
def test_what_the_library_refuses_about_authority_is_refused_here(
    attempt: Attempt, change: Change, kind: type[Judged]
) -> None:
    change(attempt)
    verdict, rows, detail = judged(attempt)
    assert verdict == "mismatch"
    assert rows[OWNERS] == ("passed" if change in PATHS else "failed"), detail
    with pytest.raises(Rejected) as library:
        attempt.judge()
    assert isinstance(library.value, kind)


def test_a_service_that_the_policy_does_not_name_is_refused(attempt: Attempt) -> None:
    spoiled_release.show_a_service_that_the_policy_does_not_name(attempt)
    verdict, rows, detail = judged(attempt)
    assert (verdict, rows[OWNERS]) == ("refused", "refused")
    assert detail == "the policy does not name chat"
