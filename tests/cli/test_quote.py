"""``quotary quote`` over every real vector: its expected verdict at its time, by the command's exit code."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quotary.attestation.nitro import NitroDocument
from quotary.attestation.nvidia import driver_rim_id, vbios_rim_id
from quotary.errors import CannotTell, Malformed, Rejected
from tests.attestation import test_nitro as nitro
from tests.attestation import test_nvidia as nvidia
from tests.attestation import test_sgx as sgx
from tests.attestation import test_snp as snp
from tests.attestation import test_tdx_vectors as tdx
from tests.attestation.manifest import MALFORMED
from tests.attestation.test_manifest import EXPECTED
from tests.cli.conftest import Ran, Run
from tests.fakes import nras
from tests.fakes.aws import issue

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


def moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp(at: int) -> str:
    return moment(datetime.fromtimestamp(at, UTC))


def written(folder: Path, **members: str) -> Path:
    path = folder / "collateral.json"
    path.write_text(json.dumps(members))
    return path


def names(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [check["name"] for check in json.loads(ran.out)["checks"]]


def refused(ran: Ran, kind: type[Exception], said: str) -> None:
    assert ran.code == kind.exit_code, ran.err  # type: ignore[attr-defined]
    assert said in ran.err
    assert ran.out == ""


def test_every_tdx_quote_verifies_at_each_time_it_was_judged(run: Run, vectors: Path) -> None:
    signed = refusals = 0
    for found in tdx.runs(vectors):
        words = ("--collateral", vectors / found.collateral, "--at", stamp(found.at), "--offline", "--json")
        ran = run("quote", "verify", vectors / found.file, *words)
        if found.error == "No matching TCB level found":
            refusals += 1
            refused(ran, tdx.Refused, "tcb level")
            continue
        signed += 1
        document = json.loads(ran.out)
        assert document["platform"] == "tdx"
        if found.error is None:
            assert (document["tcb_status"], tuple(document["advisories"])) == (found.status, found.advisories)
    assert (signed + refusals, refusals > 0) == (33, True)


@pytest.mark.parametrize("file", [file for file in EXPECTED if file.startswith("tdx/derived-")])
def test_a_forged_tdx_quote_is_refused_by_its_check(run: Run, vectors: Path, file: str) -> None:
    words = ("--collateral", vectors / "collateral/tdx-b0c06f000000-eval17-2025-06-19.json")
    ran = run("quote", "verify", vectors / file, *words, "--at", stamp(1750332747))
    malformed = EXPECTED[file] == MALFORMED
    refused(ran, Malformed if malformed else Rejected, "" if malformed else EXPECTED[file])


@pytest.mark.parametrize("name", snp.GENUINE)
def test_every_genuine_snp_report_verifies(run: Run, vectors: Path, tmp_path: Path, name: str) -> None:
    collateral = written(tmp_path, chain=snp.chain_pem(vectors, name), crl="none")
    words = ("--collateral", collateral, "--at", moment(snp.at(name)))
    ran = run("quote", "verify", vectors / "snp" / f"{name}.report", *words, "--json")
    assert names(ran)[-1] == "report signature"
    found = json.loads(ran.out)
    assert (found["platform"], found["product"]) == ("snp", snp.GENUINE[name])
    assert [check["outcome"] for check in found["checks"] if check["name"] == "revocation"] == ["not checked"]


@pytest.mark.parametrize("name", snp.DERIVED)
def test_every_changed_snp_report_is_refused(run: Run, vectors: Path, tmp_path: Path, name: str) -> None:
    kind, said = snp.DERIVED[name]
    source = "genoa-v3-microsoft-vcek"
    collateral = written(tmp_path, chain=snp.chain_pem(vectors, source), crl="none")
    words = ("--collateral", collateral, "--at", moment(snp.NOW))
    refused(run("quote", "verify", vectors / f"snp/derived-genoa-v3-{name}.report", *words), kind, said)


@pytest.mark.parametrize("name", [*nitro.VALID, *nitro.DEBUG])
def test_every_nitro_document_verifies_at_its_own_time(run: Run, vectors: Path, name: str) -> None:
    file = vectors / "nitro" / f"{name}.cose"
    at = moment(NitroDocument.parse(file.read_bytes()).at)
    assert names(run("quote", "verify", file, "--at", at, "--json"))[-1] == "document signature"
    assert "FAILED" not in run("quote", "verify", file, "--at", at).out
    refused(run("quote", "verify", file, "--at", "2026-11-21"), tdx.Refused, "timestamp")


@pytest.mark.parametrize("name", nitro.DERIVED)
def test_every_changed_nitro_document_is_refused(run: Run, vectors: Path, name: str) -> None:
    kind, said = nitro.DERIVED[name]
    genuine = NitroDocument.parse(nitro.read(vectors, nitro.VALID[0]))
    file = vectors / "nitro" / f"derived-{name}.cose"
    at = genuine.at
    if kind is Rejected:
        at = NitroDocument.parse(file.read_bytes()).at
    refused(run("quote", "verify", file, "--at", moment(at)), kind, said)


@pytest.mark.parametrize("name", nvidia.GENUINE)
def test_every_genuine_nvidia_report_verifies(run: Run, vectors: Path, tmp_path: Path, name: str) -> None:
    data, pem = nvidia.read(vectors, name)
    words = ("--collateral", written(tmp_path, chain=pem.decode()), "--at", moment(nvidia.NOW), "--json")
    ran = run("quote", "verify", vectors / "nvidia" / f"{name}.report", *words)
    checks = {check["name"]: check for check in json.loads(ran.out)["checks"]}
    assert checks["device signature"]["outcome"] == "ok"
    for missing in ("device nonce", "device revocation", "golden values"):
        assert checks[missing]["outcome"] == "not checked"
    nonce = nvidia.judge(data, pem) and data[4:36].hex()
    fresh = run("quote", "verify", vectors / "nvidia" / f"{name}.report", *words, "--nonce", nonce)
    assert '"not checked: ' + nonce not in fresh.out
    other = run("quote", "verify", vectors / "nvidia" / f"{name}.report", *words, "--nonce", "00" * 32)
    refused(other, Rejected, "device nonce")


@pytest.mark.parametrize("name", nvidia.BROKEN)
def test_every_broken_nvidia_report_is_refused(run: Run, vectors: Path, tmp_path: Path, name: str) -> None:
    kind, said = nvidia.BROKEN[name]
    _, pem = nvidia.read(vectors, name)
    words = ("--collateral", written(tmp_path, chain=pem.decode()), "--at", moment(nvidia.NOW))
    refused(run("quote", "verify", vectors / "nvidia" / f"{name}.report", *words), kind, said)


@pytest.mark.parametrize("name", nvidia.LISTS)
def test_every_list_of_devices_gets_its_verdict_without_collateral(
    run: Run, vectors: Path, name: str
) -> None:
    ran = run("quote", "verify", vectors / "nvidia" / f"{name}.json", "--at", moment(nvidia.NOW), "--json")
    if name == "switch-ls10-multi-sdk":
        # Its maker listed one switch four times.
        return refused(ran, Rejected, "device identity")
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["devices"]) == nvidia.LISTS[name]


def test_a_switch_is_held_against_its_manifest(run: Run, vectors: Path, tmp_path: Path) -> None:
    data, pem = nvidia.read(vectors, nvidia.SWITCH)
    assert vbios_rim_id(nvidia.judge(data, pem)).startswith("NV_SWITCH")
    folder = vectors / "nvidia" / "rim"
    good = (folder / "switch-5612_0002_890-96.10.55.00.01.xml").read_text()
    report = vectors / "nvidia" / f"{nvidia.SWITCH}.report"
    words = ("--collateral", written(tmp_path, chain=pem.decode(), rim=good), "--at", moment(nvidia.NOW))
    ran = run("quote", "verify", report, *words)
    assert (ran.code, "every active index" in ran.out or "match" in ran.out) == (0, True), ran.err
    bad = (folder / "bad-digest-switch-96.10.55.00.01.xml").read_text()
    written(tmp_path, chain=pem.decode(), rim=bad)
    refused(run("quote", "verify", report, *words), Rejected, "rim")


def test_a_gpu_is_held_against_both_manifests_by_name(run: Run, vectors: Path, tmp_path: Path) -> None:
    data, pem = nvidia.read(vectors, "hopper-545.00-gonvtrust")
    device = nvidia.judge(data, pem)
    assert (driver_rim_id(device), vbios_rim_id(device)) == (
        "NV_GPU_DRIVER_GH100_545.00",
        "NV_GPU_VBIOS_1010_0200_882_96005E0001",
    )
    folder = vectors / "nvidia" / "rim"
    driver = (folder / "driver-gh100-545.00.xml").read_text()
    vbios = (folder / "vbios-1010_0200_882-96.00.5E.00.01-2023-12.xml").read_text()
    report = vectors / "nvidia/hopper-545.00-gonvtrust.report"
    words = ("--collateral", written(tmp_path, chain=pem.decode(), driver=driver), "--at", "2025-01-01")
    assert "not checked: needs NV_GPU_VBIOS_1010" in run("quote", "verify", report, *words).out
    # This GPU ran a VBIOS with other measurements than those that were published for its version.
    written(tmp_path, chain=pem.decode(), driver=driver, vbios=vbios)
    refused(run("quote", "verify", report, *words), Rejected, "golden values")


def test_azures_wrapper_is_verified_with_the_hardware_inside(run: Run, vectors: Path, tmp_path: Path) -> None:
    name = "milan-v2-azure-hcl-vcek"
    collateral = written(tmp_path, chain=snp.chain_pem(vectors, name), crl="none")
    words = ("--collateral", collateral, "--at", moment(snp.NOW), "--json")
    ran = run("quote", "verify", vectors / "snp/milan-v2-azure-hcl-report.bin", *words)
    assert names(ran)[-1] == "runtime data"


def test_azures_wrapper_of_a_td_needs_its_quote(run: Run, vectors: Path, tmp_path: Path) -> None:
    wrapper, quote = "tdx/azure-hcl-report.bin", "tdx/v4-00806f05-azure-no-sept-ve-disable.quote"
    found = next(found for found in tdx.runs(vectors) if found.file == quote)
    members = json.loads((vectors / found.collateral).read_text())
    words = ("--collateral", written(tmp_path, **members), "--at", stamp(found.at), "--json")
    assert run("quote", "verify", vectors / wrapper, *words).code == 40
    written(tmp_path, **members, quote=(vectors / quote).read_bytes().hex())
    assert names(run("quote", "verify", vectors / wrapper, *words))[-1] == "runtime data"


def test_every_well_formed_vector_can_be_looked_at(run: Run, vectors: Path) -> None:
    files = [*(vectors / "tdx").glob("v*.quote"), *(vectors / "snp").glob("[gmt]*.report")]
    files += [vectors / "nitro" / f"{name}.cose" for name in (*nitro.VALID, *nitro.DEBUG)]
    files += [vectors / "nvidia" / f"{name}.report" for name in nvidia.GENUINE]
    files += [vectors / "nvidia" / f"{name}.json" for name in nvidia.LISTS]
    files += [vectors / "snp/milan-v2-azure-hcl-report.bin", vectors / "tdx/azure-hcl-report.bin"]
    assert len(files) > 40
    for file in files:
        ran = run("quote", "inspect", file)
        assert (ran.code, "nothing is verified" in ran.out) == (0, True), f"{file}: {ran.err}"


@pytest.mark.parametrize("name", sgx.REAL)
def test_every_sgx_quote_verifies_at_its_time(run: Run, vectors: Path, name: str) -> None:
    (bundle, at), _ = sgx.REAL[name]
    file, collateral = vectors / "sgx" / f"{name}.quote", vectors / "collateral" / bundle
    ran = run("quote", "verify", file, "--collateral", collateral, "--at", stamp(at))
    assert (ran.code, "quote signature" in ran.out) == (0, True), ran.err
    assert "mr_enclave" in run("quote", "inspect", file).out
    refused(run("quote", "verify", file), CannotTell, "needs its vendor's documents")


def test_an_sgx_quote_without_its_machines_certificate_is_malformed(run: Run, vectors: Path) -> None:
    refused(run("quote", "inspect", vectors / "sgx/v3-oasis-eppid-certtype3.quote"), Malformed, "type 3")


def test_bytes_of_no_kind_are_malformed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"\xff" * 2000):
        path.write_bytes(data)
        refused(run("quote", "inspect", path), Malformed, "no evidence of a known kind")
    path.write_bytes(b"{}")
    refused(run("quote", "inspect", path), Malformed, "kept evidence.v is missing")


def test_detection_names_every_kind_of_hardware(run: Run) -> None:
    ran = run("quote", "detect", "--json")
    document = json.loads(ran.out)
    assert [found["platform"] for found in document["found"]] == ["tdx", "snp", "nitro", "nvidia"]
    assert all(found["reason"] for found in document["found"])
    assert ran.code == (0 if document["usable"] else 20)
    assert "usable:" in run("quote", "detect").out


def test_a_kept_verdict_is_repeated_from_one_file(run: Run, vectors: Path, tmp_path: Path) -> None:
    found = next(found for found in tdx.runs(vectors) if found.status == "UpToDate")
    kept = tmp_path / "kept.json"
    words = ("--collateral", vectors / found.collateral, "--at", stamp(found.at), "--keep", kept, "--json")
    first = run("quote", "verify", vectors / found.file, *words)
    assert first.code == 0, first.err
    assert run("quote", "verify", kept, "--offline", "--json").out == first.out
    assert run("quote", "verify", kept, "--at", "2040-01-01").code in (10, 11)
    assert run("quote", "verify", vectors / found.file, *words).code == 2


def test_a_token_of_nvidias_service_is_nvidias_word_and_said_to_be(run: Run, tmp_path: Path) -> None:
    service = nras.Service(issue("Attestation Service", organisation="SIMULATED EVIDENCE"))
    file = tmp_path / "token.json"
    file.write_bytes(service.bundle())
    root = service.roots[0].fingerprint.hex()
    words = ("--at", moment(nras.NOW), "--simulation", "--simulator-root", root)
    refused(run("quote", "verify", file, *words), CannotTell, "add --fetch")
    collateral = written(tmp_path, jwks=service.key_set())
    ran = run("quote", "verify", file, *words, "--collateral", collateral)
    assert ran.code == 0, ran.err
    assert "GPU-0 GH100 A01 GSP BROM, driver 580.159.03" in ran.out
    assert "says so; the devices' own evidence was not verified here" in ran.out
    assert "not checked" in ran.out
    assert "SIMULATED" in ran.out
    found = run(
        "quote", "verify", file, *words, "--collateral", collateral, "--nonce", nras.NONCE.hex(), "--json"
    )
    document = json.loads(found.out)
    assert (document["said_by"], document["simulated"]) == ("NVIDIA's remote attestation service", True)
    assert "not checked" not in {check["outcome"] for check in document["checks"]}
    refused(
        run("quote", "verify", file, *words[:2], "--collateral", collateral),
        tdx.Refused,
        "simulated evidence",
    )
    two = ("--nonce", "00" * 32, "--nonce", "11" * 32)
    refused(run("quote", "verify", file, *words, "--collateral", collateral, *two), Malformed, "one nonce")
    shown = run("quote", "inspect", file)
    assert (shown.code, "GPU-0 measres" in shown.out, "nothing is verified" in shown.out) == (0, True, True)


def test_the_real_token_is_shown_and_not_verified(run: Run, vectors: Path, tmp_path: Path) -> None:
    file = vectors / "nvidia/nras-detached-eat-hopper-v3.json"
    assert "x-nvidia-overall-att-result true" in " ".join(run("quote", "inspect", file).out.split())
    collateral = written(tmp_path, jwks='{"keys":[]}')
    refused(run("quote", "verify", file, "--collateral", collateral), Rejected, "nras key")


def evidence_of(vectors: Path, folder: Path, kind: str) -> tuple[Path, str, tuple[object, ...]]:
    """A file of each kind of evidence, the time it was good at, and the words that it needs besides."""
    if kind == "tdx":
        found = next(found for found in tdx.runs(vectors) if found.status == "UpToDate")
        return vectors / found.file, stamp(found.at), ("--collateral", vectors / found.collateral)
    if kind == "sgx":
        (bundle, at), _ = sgx.REAL["v3-00606a-automata-swhardening"]
        file = vectors / "sgx/v3-00606a-automata-swhardening.quote"
        return file, stamp(at), ("--collateral", vectors / "collateral" / bundle)
    if kind in ("snp", "azure"):
        name = next(iter(snp.GENUINE)) if kind == "snp" else "milan-v2-azure-hcl-vcek"
        file = vectors / ("snp/milan-v2-azure-hcl-report.bin" if kind == "azure" else f"snp/{name}.report")
        pem = snp.chain_pem(vectors, name)
        return file, moment(snp.at(name)), ("--collateral", written(folder, chain=pem, crl="none"))
    if kind == "nitro":
        file = vectors / "nitro" / f"{nitro.VALID[0]}.cose"
        return file, moment(NitroDocument.parse(file.read_bytes()).at), ()
    if kind == "nvidia token":
        service = nras.Service(issue("Attestation Service", organisation="SIMULATED EVIDENCE"))
        (folder / "token.json").write_bytes(service.bundle())
        words = ("--nonce", nras.NONCE.hex(), "--collateral", written(folder, jwks=service.key_set()))
        return folder / "token.json", moment(nras.NOW), words
    return vectors / "nvidia/hopper-590.12-ppcie-sdk.json", moment(nvidia.NOW), ()


@pytest.mark.parametrize("kind", ["tdx", "sgx", "snp", "azure", "nitro", "nvidia list", "nvidia token"])
def test_a_verdict_of_every_kind_of_evidence_is_repeated_offline_from_one_file(
    run: Run, vectors: Path, tmp_path: Path, kind: str
) -> None:
    file, at, words = evidence_of(vectors, tmp_path, kind)
    kept = tmp_path / "kept.json"
    simulation: tuple[object, ...] = ()
    if kind == "nvidia token":
        x5c = json.loads(json.loads((tmp_path / "collateral.json").read_text())["jwks"])["keys"][1]["x5c"]
        root = hashlib.sha256(base64.b64decode(x5c[1])).hexdigest()
        simulation = ("--simulation", "--simulator-root", root)
    first = run("quote", "verify", file, "--at", at, *words, *simulation, "--keep", kept, "--json")
    assert first.code == 0, first.err
    again = run("quote", "verify", kept, "--offline", *simulation, "--json")
    assert (again.code, again.out) == (0, first.out), again.err
    # In words, too: one line for each check, and what it rests on.
    table = run("quote", "verify", kept, "--offline", *simulation).out
    for check in json.loads(first.out)["checks"]:
        assert f"{check['outcome']} " in table
        assert f"  {check['name']} " in table


def test_kept_evidence_of_devices_keeps_their_nonces(run: Run, vectors: Path, tmp_path: Path) -> None:
    data, pem = nvidia.read(vectors, nvidia.SWITCH)
    collateral, kept = written(tmp_path, chain=pem.decode()), tmp_path / "kept.json"
    words = ("--collateral", collateral, "--at", moment(nvidia.NOW), "--nonce", data[4:36].hex(), "--json")
    report = vectors / "nvidia" / f"{nvidia.SWITCH}.report"
    first = run("quote", "verify", report, *words, "--keep", kept)
    assert first.code == 0, first.err
    again = run("quote", "verify", kept, "--offline", "--json")
    assert again.out == first.out
    checks = {check["name"]: check["outcome"] for check in json.loads(again.out)["checks"]}
    assert checks["device nonce"] == "ok"
    refused(run("quote", "verify", kept, "--nonce", "00" * 32), Rejected, "device nonce")


def test_the_verdict_of_now_is_repeated_from_one_file_and_can_be_looked_at(
    run: Run, vectors: Path, tmp_path: Path
) -> None:
    _, pem = nvidia.read(vectors, nvidia.SWITCH)
    report, kept = vectors / "nvidia" / f"{nvidia.SWITCH}.report", tmp_path / "kept.json"
    # More than a megabyte, as manifests of several kinds of device may be.
    manifest = (vectors / "nvidia/rim/switch-5612_0002_890-96.10.55.00.01.xml").read_text()
    many = {f"rim{number}": manifest for number in range(60)}
    collateral = written(tmp_path, chain=pem.decode(), **many)
    first = run("quote", "verify", report, "--collateral", collateral, "--keep", kept, "--json")
    assert first.code == 0, first.err
    assert kept.stat().st_size > 1 << 20
    assert run("quote", "verify", kept, "--offline", "--json").out == first.out
    assert run("quote", "inspect", kept).out == run("quote", "inspect", report).out


def test_offline_fetches_nothing(run: Run, vectors: Path, tmp_path: Path) -> None:
    quote = vectors / "tdx/v4-b0c06f-dcapqvl-uptodate.quote"
    refused(run("quote", "verify", quote), CannotTell, "add --fetch")
    refused(run("quote", "verify", quote, "--fetch", "--offline", "--cache", tmp_path), CannotTell, "offline")
