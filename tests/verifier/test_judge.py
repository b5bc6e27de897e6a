"""Evidence under a policy and without a log: what is said of it, and what is never said."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quotary.attestation import hcl
from quotary.attestation import snp as snp_report
from quotary.attestation.kept import Kept
from quotary.attestation.nitro import NitroDocument
from quotary.attestation.quote import Terms, verify_quote
from quotary.attestation.roots import VENDOR_ROOTS
from quotary.client.appraisal import Appraisal, appraise_evidence, rules_for, terms_of
from quotary.client.policy import Policy
from quotary.errors import CannotTell, Malformed, Refused, Unsupported
from tests.attestation import test_nitro as nitro
from tests.attestation import test_nvidia as nvidia
from tests.attestation import test_snp as snp
from tests.attestation import test_tdx_vectors as tdx
from tests.client.test_collateral import AT, QUOTE
from tests.fakes import gpus, nras, platforms
from tests.fakes.authority import FLOOR
from tests.fakes.authority import NOW as THEN
from tests.fakes.log import FakeLog, policy_bytes, policy_document
from tests.fakes.machine import World, hardware
from verifier.judge import Answer, Asked, answer_for, judge

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

DEBUG = {"require": {"debug": "refused"}, "floors": "log"}
SNP_FLOOR = {
    "minimum": {"bootloader": 1, "fmc": 0, "microcode": 1, "snp": 1, "tee": 0},
    "evaluation_number": 0,
    "accepted_status": ["none"],
    "grace_seconds": 0,
    "denied_advisories": [],
    "denied_families": [],
    "denied_chips": [],
}
GENOA = "genoa-v3-veraison-vcek"


def production(**more: object) -> Policy:
    """A policy that admits every vendor's platform; members beside it are changed."""
    document = policy_document("log.example.org")
    names = ("tdx", "sgx", "snp", "nitro")
    platforms_: dict[str, object] = {name: dict(DEBUG) for name in names}
    platforms_ |= {"snp": DEBUG | {"floors": {"genoa-19-11-01": SNP_FLOOR}}}
    return Policy.parse(
        policy_bytes(document | {"environment": "production", "platforms": platforms_} | more)
    )


def tdx_kept(vectors: Path) -> Kept:
    members = json.loads((vectors / "collateral/tdx-b0c06f000000-eval17-2025-06-19.json").read_text())
    return Kept((vectors / QUOTE).read_bytes(), members, AT, ())


def snp_kept(vectors: Path) -> Kept:
    crl = (vectors / "collateral/amd-genoa-vcek.crl").read_bytes().hex()
    members = {"chain": snp.chain_pem(vectors, GENOA), "crl": crl}
    return Kept(snp.report(vectors, GENOA), members, datetime(2025, 6, 1, tzinfo=UTC), ())


def nitro_kept(vectors: Path, name: str = nitro.VALID[0]) -> Kept:
    data = nitro.read(vectors, name)
    return Kept(data, {}, NitroDocument.parse(data).at.replace(microsecond=0) + timedelta(seconds=1), ())


def report_data(kept: Kept) -> bytes:
    terms = Terms(VENDOR_ROOTS, kept.judged_at, timedelta(minutes=5), ())
    facts = verify_quote(kept.evidence, kept.collateral, terms).facts
    assert facts is not None
    return facts.report_data


def ask(kept: Kept, platform: str, challenge: bytes | None, policy: Policy | None = None) -> Answer:
    return judge(Asked(kept, platform, challenge), policy or production(), kept.judged_at)


def submodule(answer: Answer) -> Mapping[str, object]:
    (found,) = answer.claims["submods"].values()  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


def said(answer: Answer) -> tuple[bool, ...]:
    names = ("valid", "signature_verified", "certificate_chain_verified", "freshness_verified")
    return tuple(bool(answer.document[name]) for name in names)


@pytest.mark.parametrize(
    ("platform", "make", "firmware"),
    [
        ("intel-tdx", tdx_kept, "tee_tcb_svn"),
        ("amd-sev-snp", snp_kept, "reported microcode"),
        ("aws-nitro", nitro_kept, "not attested"),
    ],
)
def test_good_hardware_that_answers_is_valid_and_affirming(
    vectors: Path, platform: str, make, firmware: str
) -> None:
    kept = make(vectors)
    challenge = report_data(kept)
    found = ask(kept, platform, challenge)
    assert said(found) == (True, True, True, True), found.document["reasons"]
    assert (found.document["platform"], found.document["simulated"]) == (platform, False)
    assert firmware in str(found.document["firmware_version"])
    assert found.claims["ear_status"] == submodule(found)["ear_status"] == "affirming"
    assert submodule(found)["ear_trustworthiness_vector"] == {
        "hardware": 2,
        "configuration": 3,
        "runtime-opaque": 2,
    }


def test_without_a_challenge_nothing_is_fresh_and_nothing_valid(vectors: Path) -> None:
    found = ask(tdx_kept(vectors), "intel-tdx", None)
    assert said(found) == (False, True, True, False)
    assert "challenge: not checked: none was sent" in found.document["reasons"]  # type: ignore[operator]
    assert found.claims["ear_status"] == "warning"
    assert "eat_nonce" not in found.claims


def test_another_challenge_is_rejected_by_name(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    right = report_data(kept)
    for wrong in (right[:32], right + b"\1", b"\1" * 64, bytes(64), b"", right[:63]):
        found = ask(kept, "intel-tdx", wrong)
        assert said(found) == (False, False, False, False)
        assert str(found.document["reasons"]).startswith("['challenge: found")
        assert (found.claims["ear_status"], submodule(found)["ear_trustworthiness_vector"]) == (
            "contraindicated",
            {"hardware": 0},
        )


def test_evidence_of_another_platform_than_asked_is_not_valid(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    for name in ("amd-sev-snp", "tdx", "sim-tdx", "simulated-intel-tdx", "x"):
        found = ask(kept, name, report_data(kept))
        assert said(found) == (False, False, False, False)
        assert found.document["reasons"] == [f"platform: found intel-tdx, wanted {name}"]


def test_a_platform_that_the_policy_does_not_list_is_not_valid(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    found = ask(kept, "intel-tdx", report_data(kept), production(platforms={"nitro": DEBUG}))
    assert (found.document["valid"], found.document["reasons"]) == (
        False,
        ["platform: found tdx, wanted nitro"],
    )


def test_a_forged_quote_is_cryptographically_wrong(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    body = bytearray(kept.evidence)
    body[300] ^= 1
    found = ask(replace(kept, evidence=bytes(body)), "intel-tdx", report_data(kept))
    assert said(found) == (False, False, False, False)
    assert submodule(found)["ear_trustworthiness_vector"] == {"hardware": 99}
    assert submodule(found)["ear_verifier_claims"]["failed"]["name"] == "quote signature"  # type: ignore[index]


def test_firmware_that_the_vendor_calls_old_is_a_warning(vectors: Path) -> None:
    run = next(found for found in tdx.runs(vectors) if found.status == "OutOfDate")
    members = json.loads((vectors / run.collateral).read_text())
    kept = Kept((vectors / run.file).read_bytes(), members, datetime.fromtimestamp(run.at, UTC), ())
    found = ask(kept, "intel-tdx", report_data(kept))
    assert said(found) == (False, True, True, True)
    assert submodule(found)["ear_trustworthiness_vector"]["hardware"] == 32  # type: ignore[index]
    assert (found.claims["ear_status"], "newer firmware" in str(found.document["reasons"])) == (
        "warning",
        True,
    )


def test_firmware_below_the_policys_floor_is_contraindicated(vectors: Path) -> None:
    kept = tdx_kept(vectors)
    for floors in ({"b0c06f000000": dict(FLOOR) | {"evaluation_number": 99}}, {"000000000000": dict(FLOOR)}):
        policy = production(platforms={"tdx": DEBUG | {"floors": floors}})
        found = ask(kept, "intel-tdx", report_data(kept), policy)
        assert (found.document["valid"], found.claims["ear_status"]) == (False, "contraindicated")
        assert submodule(found)["ear_trustworthiness_vector"] == {"hardware": 96}


def test_numbers_that_nothing_is_held_against_are_not_valid(vectors: Path) -> None:
    """AMD has no word for how good a level is; where the policy leaves floors to the log, nobody said it."""
    kept = snp_kept(vectors)
    found = ask(kept, "amd-sev-snp", report_data(kept), production(platforms={"snp": DEBUG}))
    assert said(found) == (False, True, True, True)
    assert found.claims["ear_status"] == "none"
    assert "hardware" not in submodule(found)["ear_trustworthiness_vector"]  # type: ignore[operator]
    assert "tcb floor: not checked" in str(found.document["reasons"])


def test_no_revocation_list_is_no_word_about_hardware(vectors: Path) -> None:
    kept = snp_kept(vectors)
    bare = replace(kept, collateral={"chain": kept.collateral["chain"], "crl": "none"})
    found = ask(bare, "amd-sev-snp", report_data(kept))
    assert (said(found)[0], submodule(found)["ear_trustworthiness_vector"]) == (False, {"hardware": 0})


@pytest.mark.parametrize("name", nitro.DEBUG)
def test_a_debug_enclave_hides_nothing(vectors: Path, name: str) -> None:
    kept = nitro_kept(vectors, name)
    found = ask(kept, "aws-nitro", None)
    assert said(found) == (False, False, False, False)
    assert submodule(found)["ear_trustworthiness_vector"] == {"configuration": 96, "runtime-opaque": 96}


def test_what_only_a_release_decides_is_not_called_checked(vectors: Path) -> None:
    found = ask(tdx_kept(vectors), "intel-tdx", None)
    checks = submodule(found)["ear_verifier_claims"]["checks"]  # type: ignore[index]
    outcomes = {check["name"]: check["outcome"] for check in checks}
    assert {name for name, outcome in outcomes.items() if outcome == "not checked"} == {
        "challenge", "configuration", "rtmr0", "rtmr3", "tcb floor",
    }  # fmt: skip
    assert outcomes["debug"] == outcomes["td_attributes"] == "ok"


def test_devices_without_manifests_or_answers_are_genuine_and_no_more(vectors: Path) -> None:
    rules = {"floors": "log", "modes": ["protected-pcie"], "revocation": "any"}
    data = (vectors / "nvidia/hopper-590.12-ppcie-sdk.json").read_bytes()
    nonce = bytes.fromhex(json.loads(data)[0]["nonce"])
    kept = Kept(data, {}, nvidia.NOW, ())
    found = ask(kept, "nvidia-gpu", nonce, production(devices=rules))
    assert said(found) == (False, True, True, True)
    assert (found.claims["ear_status"], "golden values: not checked" in str(found.document["reasons"])) == (
        "none",
        True,
    )
    assert "GH100 VBIOS 96.00.A5.00.01 driver 590.12" in str(found.document["firmware_version"])
    for challenge in (bytes(31) + b"\1", bytes(33), b"\1" * 64):
        assert said(ask(kept, "nvidia-gpu", challenge, production(devices=rules)))[0] is False
    assert said(ask(kept, "nvidia-gpu", None, production(devices=rules))) == (False, True, True, False)
    for policy in (production(), production(devices=rules | {"modes": ["single-gpu"]})):
        assert said(ask(kept, "nvidia-gpu", nonce, policy)) == (False, False, False, False)


def test_azures_report_data_is_not_the_callers(vectors: Path) -> None:
    wrapper = (vectors / "snp/milan-v2-azure-hcl-report.bin").read_bytes()
    members = {"chain": snp.chain_pem(vectors, "milan-v2-azure-hcl-vcek"), "crl": "none"}
    fields = snp_report.SNPReport.parse(hcl.HCLReport.parse(wrapper).hardware).fields
    keys = {f"{name}s": [fields[f"{name}_digest"].hex()] for name in ("id_key", "author_key")}
    used = {name: listed for name, listed in keys.items() if set(listed[0]) != {"0"}}
    require = {"debug": "refused", "revocation": "any", "alias_check": "any", **used}
    policy = production(platforms={"snp": {"require": require, "floors": "log"}})
    found = ask(Kept(wrapper, members, snp.NOW, ()), "amd-sev-snp", b"\1" * 64, policy)
    assert said(found) == (False, True, True, False), found.document["reasons"]
    assert "vTPM" in str(found.document["reasons"])


def test_a_token_of_nvidias_service_is_no_evidence() -> None:
    service = nras.Service()
    kept = Kept(service.bundle(), {"jwks": service.key_set()}, nras.NOW, ())
    with pytest.raises(Unsupported, match="NVIDIA's verdict"):
        ask(kept, "nvidia-gpu", nras.NONCE)


def test_evidence_without_its_documents_is_no_answer(vectors: Path) -> None:
    with pytest.raises(CannotTell):
        ask(replace(tdx_kept(vectors), collateral={}), "intel-tdx", None)
    with pytest.raises(Malformed):
        ask(Kept(b"nothing", {}, AT, ()), "intel-tdx", None)


def simulated(folder: Path) -> tuple[World, Policy]:
    world = World(*hardware(folder), log=FakeLog()).publish()
    return world, Policy.parse(policy_bytes(world.policy()))


def test_a_simulator_is_said_to_be_one_and_affirms_nothing(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, THEN, ())
    found = ask(kept, "simulated-intel-tdx", b"\5" * 64, policy)
    assert said(found) == (True, True, True, True)
    assert (found.document["simulated"], found.document["platform"]) == (True, "simulated-intel-tdx")
    assert (found.claims["ear_status"], submodule(found)["ear_trustworthiness_vector"]) == (
        "none",
        {"hardware": 0},
    )
    assert submodule(found)["ear_attester_claims"]["simulated"] is True  # type: ignore[index]


def test_a_simulator_never_passes_where_hardware_is_asked_for(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, THEN, ())
    assert said(ask(kept, "intel-tdx", b"\5" * 64, policy)) == (False, False, False, False)
    for name in ("intel-tdx", "simulated-intel-tdx"):
        found = ask(kept, name, b"\5" * 64)
        assert said(found) == (False, False, False, False)
        assert "simulated evidence" in str(found.document["reasons"])


def test_simulated_devices_with_all_their_documents_are_judged_to_the_end(tmp_path: Path) -> None:
    machine = gpus.GPUs.of(gpus.nvidia_vendor(tmp_path), 2, 1)
    world = World(*hardware(tmp_path), log=FakeLog(), gpus=machine).publish()
    policy = Policy.parse(policy_bytes(world.policy()))
    nonces = [bytes([at + 1]) * 32 for at in range(3)]
    kept = Kept(machine.machine.evidence(nonces), machine.collateral(THEN), THEN, ())
    found = ask(kept, "simulated-nvidia-gpu", b"".join(nonces), policy)
    assert said(found) == (True, True, True, True), found.document["reasons"]
    assert said(ask(kept, "simulated-nvidia-gpu", b"".join(nonces[::-1]), policy))[0] is False


def with_devices(folder: Path) -> tuple[gpus.GPUs, dict[str, object]]:
    machine = gpus.GPUs.of(gpus.nvidia_vendor(folder), 2, 1)
    world = World(*hardware(folder), log=FakeLog(), gpus=machine).publish()
    return machine, world.policy()


NONCE = b"\7" * 32


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        (None, "platform: found nvidia list"),
        ({"modes": ["single-gpu"]}, "device mode: found protected-pcie"),
        ({"floors": {"gh100": gpus.device_floor()}}, "tcb floor: found LS10"),
        ({"floors": {"gh100": gpus.device_floor(denied_families=["gh100"])}}, "denied family: found gh100"),
    ],
)  # fmt: skip
def test_devices_that_the_policy_does_not_admit_are_not_valid(
    tmp_path: Path, changes: dict[str, object] | None, check: str
) -> None:
    machine, document = with_devices(tmp_path)
    kept = Kept(machine.machine.evidence([NONCE] * 3), machine.collateral(THEN), THEN, ())
    rules = document.pop("devices")
    assert (
        said(ask(kept, "simulated-nvidia-gpu", NONCE, parsed(document | {"devices": rules}))) == (True,) * 4
    )
    changed = document if changes is None else document | {"devices": rules | changes}  # type: ignore[operator]
    found = ask(kept, "simulated-nvidia-gpu", NONCE, parsed(changed))
    assert (said(found)[0], check in str(found.document["reasons"])) == (False, True), found.document[
        "reasons"
    ]


def parsed(document: dict[str, object]) -> Policy:
    return Policy.parse(policy_bytes(document))


def test_a_challenge_for_devices_is_one_or_one_for_each(tmp_path: Path) -> None:
    machine, document = with_devices(tmp_path)
    kept = Kept(machine.machine.evidence([NONCE] * 3), machine.collateral(THEN), THEN, ())
    for challenge in (NONCE * 2, NONCE[:31], NONCE * 4, NONCE * 3 + b"x"):
        found = ask(kept, "simulated-nvidia-gpu", challenge, parsed(document))
        assert (said(found)[0], "challenge: found" in str(found.document["reasons"])) == (False, True)
    assert said(ask(kept, "simulated-nvidia-gpu", NONCE * 3, parsed(document)))[0] is True


def test_an_empty_challenge_is_not_the_zeros_of_a_report(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), bytes(64)), world.platform.collateral, THEN, ())
    found = ask(kept, "simulated-intel-tdx", b"", policy)
    assert (said(found)[0], "challenge: found" in str(found.document["reasons"])) == (False, True)


def test_floors_of_a_policy_are_met_product_by_product(tmp_path: Path) -> None:
    world, _ = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, THEN, ())
    document = world.policy()
    name = "simulated-intel-tdx"
    for floors, check in (
        ({"000000000000": dict(FLOOR)}, "tcb floor: found product"),
        ({world.product: dict(world.floor or {}) | {"evaluation_number": 99}}, "tcb evaluation number"),
    ):
        document["platforms"]["sim-tdx"]["floors"] = floors  # type: ignore[index]
        found = ask(kept, name, b"\5" * 64, parsed(document))
        assert (said(found)[0], check in str(found.document["reasons"])) == (False, True)
    document["platforms"]["sim-tdx"]["floors"] = {world.product: dict(world.floor or {})}  # type: ignore[index]
    assert said(ask(kept, name, b"\5" * 64, parsed(document)))[0] is True


def test_a_platform_without_rules_is_refused_by_name(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, THEN, ())
    facts = verify_quote(kept.evidence, kept.collateral, terms_of(kept, policy, None)).facts
    assert facts is not None
    assert rules_for(facts, policy) == policy.platforms["sim-tdx"]
    with pytest.raises(Refused, match="platform: found sim-tdx, wanted nitro or sgx or snp or tdx"):
        rules_for(facts, production())


def test_a_floor_for_a_vendor_without_versions_is_never_met(tmp_path: Path) -> None:
    world = platforms.nitro_world(platforms.nitro_vendor(tmp_path))
    document = world.policy()
    document["platforms"]["sim-nitro"]["floors"] = {"nitro": SNP_FLOOR | {"minimum": {}}}  # type: ignore[index]
    kept = Kept(world.platform.quote(world.registers(), b"mine"), {}, THEN, ())
    found = ask(kept, "simulated-aws-nitro", b"mine", parsed(document))
    assert (said(found)[0], "attests no firmware version" in str(found.document["reasons"])) == (False, True)


@pytest.mark.parametrize(
    ("fresh", "assessed", "up_to_date", "status", "hardware"),
    [
        (True, True, True, "affirming", 2),
        (False, True, True, "warning", 2),
        (True, True, False, "warning", 32),
        (True, False, False, "none", None),
        (False, False, False, "none", None),
    ],
)
def test_what_is_affirmed_of_real_hardware(
    fresh: bool, assessed: bool, up_to_date: bool, status: str, hardware: int | None
) -> None:
    found = Appraisal("tdx", "1", False, (), fresh, assessed, up_to_date, True)
    answer = answer_for(Asked(Kept(b"", {}, THEN, ()), "intel-tdx", None), production(), found, THEN)
    vector = {"configuration": 3, "runtime-opaque": 2, "instance-identity": 2}
    wanted = vector | ({} if hardware is None else {"hardware": hardware})
    assert (answer.claims["ear_status"], submodule(answer)["ear_trustworthiness_vector"]) == (status, wanted)
    assert answer.document["valid"] is (status == "affirming")
    assert ("newer firmware" in str(answer.document["reasons"])) is (assessed and not up_to_date)


def test_a_shorter_challenge_stands_before_zeros(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    challenge = b"challenge-nonce-from-verifier-abc123"
    quote = world.platform.quote(world.registers(), challenge.ljust(64, b"\0"))
    kept = Kept(quote, world.platform.collateral, THEN, ())
    assert said(ask(kept, "simulated-intel-tdx", challenge, policy)) == (True, True, True, True)


def test_a_nitro_enclave_answers_in_its_user_data_exactly(tmp_path: Path) -> None:
    vendor = platforms.nitro_vendor(tmp_path)
    world = platforms.nitro_world(vendor)
    policy = Policy.parse(policy_bytes(world.policy()))
    kept = Kept(world.platform.quote(world.registers(), b"mine"), {}, THEN, ())
    assert said(ask(kept, "simulated-aws-nitro", b"mine", policy)) == (True, True, True, True)
    assert said(ask(kept, "simulated-aws-nitro", b"mine\0", policy))[0] is False


def test_a_listed_machine_is_known(tmp_path: Path) -> None:
    world, policy = simulated(tmp_path)
    kept = Kept(world.platform.quote(world.registers(), b"\5" * 64), world.platform.collateral, THEN, ())
    facts = verify_quote(kept.evidence, kept.collateral, terms_of(kept, policy, None)).facts
    assert facts is not None
    document = world.policy()
    document["platforms"]["sim-tdx"]["require"]["machines"] = sorted(facts.chips)  # type: ignore[index]
    listed = Policy.parse(policy_bytes(document))
    assert appraise_evidence(kept, listed, None).known_machine
    assert not appraise_evidence(kept, policy, None).known_machine
    document["platforms"]["sim-tdx"]["require"]["machines"] = ["00" * 16]  # type: ignore[index]
    found = ask(kept, "simulated-intel-tdx", b"\5" * 64, Policy.parse(policy_bytes(document)))
    assert (said(found)[0], "machine: found" in str(found.document["reasons"])) == (False, True)
