"""``--tee tdx``, ``snp``, ``nitro`` and ``auto`` against kernels, drivers and vendors of our own."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enclave import collect
from enclave.device import Evidence, StreamDevice
from enclave.hardware import Documents, Hardware, open_tee
from quotary.client.clock import FixedClock
from quotary.client.detect import TSM, USABLE, Found
from quotary.errors import CannotTell, Refused, Rejected, Usage
from quotary.net.transport import Reply, Request
from quotary.net.vendors import Services
from simulator.nitro import Chosen, make_document
from simulator.snp import SNPTCB, SNPPlatform
from tests.enclave.test_collect import DATA, Tree, nsm_driver, snp_driver
from tests.fakes import authority
from tests.fakes import nvidia as fake
from tests.fakes.aws import issue
from tests.fakes.machine import hardware as simulated
from tests.fakes.machine import registers
from tests.fakes.nvml import Library
from tests.fakes.platforms import nitro_vendor, snp_vendor

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass(slots=True)
class Network:
    """Answers by address, and remembers what was asked; whatever it does not know is 404."""

    answers: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def send(self, request: Request) -> Reply:
        self.asked.append(request.url)
        return self.answers.get(request.url, Reply(404, {}, b""))

    def open(self, request: Request):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing is streamed")


def documents(network: Network) -> Documents:
    services = Services(*(f"https://{name}.example" for name in ("intel", "crl", "amd", "rim", "ocsp")))
    return Documents(network, "https://log.example", FixedClock(NOW), services)


@pytest.fixture(scope="module")
def nitro(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, collect.Kernel]:
    vendor = nitro_vendor(tmp_path_factory.mktemp("nitro"))
    document = make_document(vendor, {}, Chosen(user_data=DATA), NOW)
    head = b"\xa1\x6bAttestation\xa1\x68document\x59" + struct.pack(">H", len(document))
    return document, nsm_driver(head + document)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A SEV-SNP report of a Genoa machine."""
    vendor = snp_vendor(tmp_path_factory.mktemp("snp"))
    return SNPPlatform(vendor, SNPTCB(), authority.NOW).report(bytes(48), bytes(32), DATA)


@pytest.fixture(scope="module")
def quote(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    _, platform = simulated(tmp_path_factory.mktemp("tdx"))
    return platform.quote(registers(), DATA)


def test_a_nitro_enclave_shows_its_document_and_asks_nobody(nitro: tuple[bytes, collect.Kernel]) -> None:
    document, kernel = nitro
    network = Network()
    found = Hardware(Found("nitro", USABLE, "/dev/nsm", ""), kernel, documents(network)).quote(DATA)
    assert (found.quote, found.collateral, network.asked) == (document, {}, [])


@pytest.mark.parametrize("direct", [False, True])
def test_a_snp_guest_shows_its_report_and_its_vendors_chain(report: bytes, direct: bool) -> None:
    if direct:
        answer = struct.pack("<II24x", 0, 1184) + report
        seen = Found("snp", USABLE, "/dev/sev-guest", "")
        kernel: collect.Kernel = snp_driver(collect.SNP_GET_REPORT, answer)
    else:
        seen, kernel = Found("snp", USABLE, f"/{TSM}", ""), Tree("sev_guest", lambda _: report)
    network = Network()
    device = Hardware(seen, kernel, documents(network))
    with pytest.raises(CannotTell, match=r"amd\.example.* answers with status 404"):
        device.quote(DATA)
    # The registry is asked first, and one that keeps nothing is no failure.
    assert network.asked[0] == "https://log.example/api/v1/collateral/snp/genoa"
    assert network.asked[1].startswith("https://amd.example/vcek/v1/Genoa/")


def test_what_a_vendor_answered_is_kept_for_the_next_quote(report: bytes) -> None:
    # AMD's own have the serial number 0, which warns; which certificate it is does not matter here.
    leaf = issue("VCEK").der
    network = Network()
    device = Hardware(
        Found("snp", USABLE, f"/{TSM}", ""), Tree("sev_guest", lambda _: report), documents(network)
    )
    base = "https://amd.example/vcek/v1/Genoa"
    network.answers = {
        f"{base}/cert_chain": Reply(200, {}, b"-----BEGIN CERTIFICATE-----\n"),
        f"{base}/crl": Reply(200, {}, b"crl"),
    }
    with pytest.raises(CannotTell):
        device.quote(DATA)
    network.answers[network.asked[-1]] = Reply(200, {}, leaf)
    found = device.quote(DATA)
    assert found.quote == report
    assert found.collateral["crl"] == b"crl".hex()
    asked = list(network.asked)
    assert device.quote(DATA) == found
    assert network.asked == asked
    assert [url for url in asked if url.startswith("https://log.example")] == asked[:1]


def test_the_registry_is_asked_again_after_an_hour(report: bytes) -> None:
    network = Network()
    source = documents(network)
    for minutes, times in ((0, 1), (59, 1), (60, 2)):
        replace(source, clock=FixedClock(NOW + timedelta(minutes=minutes))).take_from_registry(report)
        assert len(network.asked) == times


def test_a_tdx_guest_shows_its_quote_and_asks_its_vendor(quote: bytes) -> None:
    network = Network()
    device = Hardware(
        Found("tdx", USABLE, f"/{TSM}", ""), Tree("tdx_guest", lambda _: quote), documents(network)
    )
    with pytest.raises(CannotTell, match=r"intel\.example.*tcb\?fmspc=ff53494d0000.* status 404"):
        device.quote(DATA)
    assert network.asked[0] == "https://log.example/api/v1/collateral/tdx/ff53494d0000"


def test_a_tdx_guest_shows_the_event_log_of_its_boot(quote: bytes) -> None:
    tree = Tree("tdx_guest", lambda _: quote)
    tree.events = b"events"

    class Kept(Documents):
        def take_from_registry(self, evidence: bytes) -> None: ...
        def beside(self, evidence: bytes, nonces: Sequence[bytes]) -> Mapping[str, str]:
            return {"tcb_info": "{}"}

    kept = Kept(Network(), "", FixedClock(NOW))
    found = Hardware(Found("tdx", USABLE, f"/{TSM}", ""), tree, kept).quote(DATA)
    assert found == Evidence(quote, {"tcb_info": "{}"}, b"events")


def test_a_guest_of_another_kind_than_the_command_line_names_is_said_to_be_so() -> None:
    device = Hardware(Found("tdx", USABLE, f"/{TSM}", ""), Tree("sev_guest", bytes), documents(Network()))
    with pytest.raises(CannotTell, match="gives evidence of snp, wanted tdx"):
        device.quote(DATA)


# GPUs

SEEN = Found("nitro", USABLE, "/dev/nsm", "")


@pytest.fixture
def library(vectors: Path) -> Library:
    name = vectors / "nvidia" / "hopper-580.159.03-sdk"
    report, chain = Path(f"{name}.report").read_bytes(), Path(f"{name}.chain.pem").read_bytes()
    return Library(report, chain, count=1)


def test_gpus_show_evidence_that_their_vendors_manifests_are_fetched_for(
    nitro: tuple[bytes, collect.Kernel], library: Library
) -> None:
    _, kernel = nitro
    network = Network()
    device = Hardware(SEEN, kernel, documents(network), lambda: library)
    # The captured report answers the nonce of its time, and is verified before its versions are believed.
    nonce = library.report[4:36]
    with pytest.raises(CannotTell, match=r"rim\.example/v1/rim/NV_GPU_VBIOS_.* status 404"):
        device.devices([nonce])
    assert library.nonces == [nonce]


def test_evidence_of_a_gpu_that_does_not_answer_our_nonce_is_not_taken_to_the_vendor(
    nitro: tuple[bytes, collect.Kernel], library: Library
) -> None:
    network = Network()
    device = Hardware(SEEN, nitro[1], documents(network), lambda: library)
    with pytest.raises(Rejected, match="device nonce"):
        device.devices([bytes(32)])
    assert network.asked == []


def test_evidence_of_a_gpu_that_nvidia_did_not_make_is_not_taken_to_it(
    nitro: tuple[bytes, collect.Kernel],
) -> None:
    (gpu,) = fake.machine(fake.issue("NVIDIA Device Identity CA", organisation="NVIDIA"), 1, 1, 0).gpus
    network, library = Network(), Library(gpu.report(DATA[:32]), gpu.pem, count=1)
    device = Hardware(SEEN, nitro[1], documents(network), lambda: library)
    with pytest.raises(Rejected, match="root: "):
        device.devices([DATA[:32]])
    assert (library.nonces, network.asked) == ([DATA[:32]], [])


@pytest.mark.parametrize(
    ("settings", "mode"),
    [((2, 0, 0, 0), "off"), ((2, 1, 1, 0), "devtools"), ((1, 1, 0, 0), "not in production")],
)
def test_gpus_outside_confidential_mode_are_refused_before_they_are_asked(
    nitro: tuple[bytes, collect.Kernel], settings: tuple[int, int, int, int], mode: str
) -> None:
    library = Library(settings=settings)
    device = Hardware(SEEN, nitro[1], documents(Network()), lambda: library)
    with pytest.raises(Refused, match=f"confidential mode: found {mode}"):
        device.devices([bytes(32)])
    assert library.nonces == []


def test_switches_are_said_not_to_be_collected(nitro: tuple[bytes, collect.Kernel]) -> None:
    library = Library(count=8)
    device = Hardware(SEEN, nitro[1], documents(Network()), lambda: library)
    with pytest.raises(CannotTell, match=r"8 GPUs, evidence of 12 devices .* switches is not collected"):
        device.devices([bytes(32)] * 12)


# Which hardware


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("name", "found"), [("nitro", "dev/nsm"), ("auto", "dev/nsm"), ("snp", "dev/sev-guest")]
)
def test_hardware_that_is_there_is_opened(tmp_path: Path, name: str, found: str) -> None:
    place(tmp_path, found)
    assert isinstance(open_tee(name, documents(Network()), tmp_path), Hardware)


def test_hardware_that_is_missing_is_said_to_be_missing_with_the_reason(tmp_path: Path) -> None:
    for name in ("tdx", "snp", "nitro"):
        with pytest.raises(CannotTell, match=rf"--tee {name}: {name}: no /dev/") as caught:
            open_tee(name, documents(Network()), tmp_path)
        assert caught.value.next_command == "quotary quote detect"
    with pytest.raises(CannotTell, match=r"--tee auto: tdx: no .*; snp: no .*; nitro: no "):
        open_tee("auto", documents(Network()), tmp_path)


def test_hardware_of_two_kinds_is_not_guessed_between(tmp_path: Path) -> None:
    place(tmp_path, "dev/nsm", "dev/sev-guest")
    with pytest.raises(CannotTell, match="--tee auto"):
        open_tee("auto", documents(Network()), tmp_path)
    assert isinstance(open_tee("snp", documents(Network()), tmp_path), Hardware)


def test_a_simulators_stream_is_still_named_as_before(tmp_path: Path) -> None:
    assert isinstance(open_tee("fd:0", documents(Network()), tmp_path), StreamDevice)
    with pytest.raises(Usage, match="no TEE device"):
        open_tee("sgx", documents(Network()), tmp_path)
