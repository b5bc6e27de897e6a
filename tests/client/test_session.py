"""The SDK and the proxy against an enclave in this process: real channel, real receipts, a network that is a function."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from quotary import Client
from quotary.canonical import canonical
from quotary.client.clock import FixedClock
from quotary.client.files import EvidenceFile, verify_file
from quotary.client.policy import Policy
from quotary.client.proxy import Proxy
from quotary.client.ratchet import is_session
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, NotInLog, Refused, Rejected, Usage
from tests.fakes import authority
from tests.fakes.enclave import ANSWER, FakeEnclave
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats" / "evidence-file.md"


@pytest.fixture
def enclave(world: World) -> FakeEnclave:
    return FakeEnclave(world)


def client_of(enclave: FakeEnclave, sessions: bool = False, **changes: object) -> Client:
    policy = Policy.parse(policy_bytes({**enclave.world.policy(), **changes}))
    clock = FixedClock(enclave.world.now)
    return Client(
        "http://127.0.0.1:1/",
        policy,
        log_url="http://127.0.0.1:2",
        transport=enclave,
        clock=clock,
        sessions=sessions,
    )


def test_five_lines_ask_a_verified_machine(enclave: FakeEnclave, tmp_path: Path) -> None:
    client = client_of(enclave)
    answer = client.chat("What is this?", max_tokens=5, temperature=0)
    assert answer.text == "a log"
    assert json.loads(enclave.prompts[0])["messages"] == [{"role": "user", "content": "What is this?"}]
    assert [check.name for check in answer.verdict.checks if check.outcome != "ok"] == []
    assert answer.verdict.checks[-1].name == "receipt"
    answer.save(tmp_path / "evidence.json")
    kept = EvidenceFile.parse((tmp_path / "evidence.json").read_bytes())
    policy = Policy.parse(policy_bytes(enclave.world.policy()))
    verdict = verify_file(kept, policy)
    assert verdict.checks[-1].name == "receipt"
    assert verdict.release == answer.verdict.release


def test_no_prompt_leaves_before_the_machine_is_judged(enclave: FakeEnclave) -> None:
    enclave.measured_as = "malware"
    with pytest.raises(NotInLog):
        client_of(enclave).chat("a secret")
    assert all(request.body is None for request in enclave.seen)
    assert enclave.prompts == []


def test_a_judgement_is_used_again_and_each_gets_its_own_nonce(enclave: FakeEnclave) -> None:
    client = client_of(enclave)
    client.chat("one")
    client.chat([{"role": "user", "content": "two"}], model="chat")
    asked = [request.url for request in enclave.seen if "/v1/attestation" in request.url]
    assert len(asked) == 1
    client.verify()
    asked = [request.url for request in enclave.seen if "/v1/attestation" in request.url]
    assert len(set(asked)) == 2


def test_new_keys_are_verified_and_the_request_is_sealed_again(enclave: FakeEnclave) -> None:
    enclave.forget_keyset = 1
    assert client_of(enclave).chat("again").text == "a log"
    assert len([request for request in enclave.seen if "/v1/attestation" in request.url]) == 2


def test_a_keyset_past_its_hour_is_asked_for_again(enclave: FakeEnclave) -> None:
    client = client_of(enclave)
    found = client.verify()
    client._clock = FixedClock(found.verdict.keyset.not_after)
    # It asks, and the enclave of this test has no newer keyset to show.
    with pytest.raises(Refused, match="binding: found keyset"):
        client.attested()


def test_without_the_log_the_bundle_of_the_enclave_is_judged(enclave: FakeEnclave) -> None:
    enclave.log_down = True
    with pytest.raises(CannotTell):
        client_of(enclave).verify()
    enclave.show_bundle = True
    assert client_of(enclave).verify().verdict.service == authority.SERVICE
    client = Client(
        "http://127.0.0.1:1",
        client_of(enclave).policy,
        transport=enclave,
        clock=FixedClock(enclave.world.now),
    )
    assert client.verify()
    enclave.show_bundle = False
    with pytest.raises(CannotTell, match="shows no bundle"):
        client.verify()


def test_a_machine_of_another_service_is_refused_before_a_prompt(enclave: FakeEnclave) -> None:
    services = enclave.world.policy()["services"]
    both = {**services, "other": services[authority.SERVICE]}  # type: ignore[dict-item]  # an object
    policy = Policy.parse(policy_bytes({**enclave.world.policy(), "services": both}))
    clock = FixedClock(enclave.world.now)
    with pytest.raises(Usage, match="several services"):
        Client("http://127.0.0.1:1", policy, transport=enclave, clock=clock)
    with pytest.raises(Usage, match="does not name"):
        Client("http://127.0.0.1:1", policy, service="third", transport=enclave, clock=clock)
    log = "http://127.0.0.1:2"
    own = Client(
        "http://127.0.0.1:1", policy, service=authority.SERVICE, log_url=log, transport=enclave, clock=clock
    )
    assert own.chat("to the right one").text == "a log"
    seen = len(enclave.prompts)
    other = Client("http://127.0.0.1:1", policy, service="other", log_url=log, transport=enclave, clock=clock)
    with pytest.raises((Refused, NotInLog)):
        other.chat("to the wrong one")
    assert len(enclave.prompts) == seen


def test_an_answer_without_receipt_is_rejected(enclave: FakeEnclave) -> None:
    enclave.receipts = False
    with pytest.raises(Rejected, match="an answer without one"):
        client_of(enclave).chat("x")


def test_a_receipt_for_other_weights_is_rejected(enclave: FakeEnclave) -> None:
    enclave.weights = bytes(32)
    with pytest.raises(Rejected, match="receipt weights"):
        client_of(enclave).chat("x")


def test_an_incomplete_answer_is_refused(enclave: FakeEnclave) -> None:
    enclave.complete = False
    with pytest.raises(Refused, match="receipt complete"):
        client_of(enclave).chat("x")


@pytest.mark.parametrize("cut", [1, 40, 300, 2000])
def test_a_truncated_answer_is_an_error(enclave: FakeEnclave, cut: int) -> None:
    enclave.cut = cut
    with pytest.raises(CannotTell, match="truncated"):
        client_of(enclave).chat("x")


def test_an_error_inside_the_channel_is_told(enclave: FakeEnclave) -> None:
    enclave.status, enclave.receipts = 400, False
    with pytest.raises(CannotTell, match="the enclave answered 400"):
        client_of(enclave).chat("x")


def test_a_policy_may_be_a_file(enclave: FakeEnclave, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(policy_bytes(enclave.world.policy()))
    assert Client("http://127.0.0.1:1", path).policy.simulation
    with pytest.raises(CannotTell, match="cannot read the policy"):
        Client("http://127.0.0.1:1", tmp_path / "absent.json")


# The evidence file


def kept(enclave: FakeEnclave) -> EvidenceFile:
    return client_of(enclave).chat("x").file


def test_an_evidence_file_comes_back(enclave: FakeEnclave) -> None:
    file = kept(enclave)
    assert EvidenceFile.parse(file.encode()) == file
    bare = replace(file, nonce=None, receipt=None)
    assert EvidenceFile.parse(bare.encode()) == bare


def test_every_part_of_an_evidence_file_counts(enclave: FakeEnclave) -> None:
    file, policy = kept(enclave), Policy.parse(policy_bytes(enclave.world.policy()))
    other = FakeEnclave(World(enclave.world.pki, enclave.world.platform).publish())
    with pytest.raises(Rejected, match="nonce"):
        verify_file(replace(file, nonce=bytes(32)), policy)
    with pytest.raises(Rejected, match="receipt"):
        verify_file(replace(file, receipt=kept(other).receipt), policy)
    with pytest.raises(Refused, match="age"):
        verify_file(replace(file, judged_at=authority.NOW.replace(minute=20)), policy)


def test_evidence_without_receipt_says_so(enclave: FakeEnclave) -> None:
    trail = Trail()
    policy = Policy.parse(policy_bytes(enclave.world.policy()))
    verify_file(replace(kept(enclave), receipt=None), policy, trail)
    assert (trail.checks[-1].name, trail.checks[-1].outcome) == ("receipt", "not checked")


def test_the_formats_page_shows_an_evidence_file_that_is_read() -> None:
    example = PAGE.read_text().split("```json\n")[1].split("\n```")[0]
    file = EvidenceFile.parse(canonical(json.loads(example)))
    assert file.nonce is not None
    assert file.receipt is not None


# The proxy


@contextmanager
def serving(client: Client, kept: list[EvidenceFile] | None = None) -> Iterator[str]:
    proxy = Proxy(client, keep=None if kept is None else kept.append)
    thread = proxy.start()
    try:
        yield proxy.url
    finally:
        proxy.close()
        thread.join()


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(
        url + "/chat/completions", body, {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_any_openai_client_gets_a_verified_answer(enclave: FakeEnclave) -> None:
    files: list[EvidenceFile] = []
    with serving(client_of(enclave), files) as url:
        status, headers, body = post(url, b'{"model":"chat","messages":[]}')
    assert (status, body) == (200, ANSWER)
    assert headers["Quotary-Environment"] == "simulated"
    assert headers["Quotary-Release"] == authority.statement_id_of(enclave.world.release)
    assert len(files) == 1


def test_the_proxy_sends_nothing_to_a_machine_that_is_refused(enclave: FakeEnclave) -> None:
    enclave.measured_as = "malware"
    with serving(client_of(enclave)) as url:
        status, _, body = post(url, b'{"messages":["a secret"]}')
    assert status == 502
    assert json.loads(body)["error"]["code"] == "not_in_log"
    assert enclave.prompts == []


def test_the_proxy_cuts_off_what_it_could_not_verify_to_the_end(enclave: FakeEnclave) -> None:
    import http.client

    enclave.weights = bytes(32)
    with serving(client_of(enclave)) as url, pytest.raises(http.client.IncompleteRead):
        post(url, b"{}")


def test_the_proxy_says_when_nothing_could_be_found_out(enclave: FakeEnclave) -> None:
    enclave.log_down = True
    with serving(client_of(enclave)) as url:
        status, _, body = post(url, b"{}")
    assert status == 503
    assert json.loads(body)["error"]["code"] == "cannot_tell"


@pytest.mark.parametrize("headers", [{"Origin": "https://page.example"}, {"Host": "page.example:80"}])
def test_the_proxy_answers_no_web_page(enclave: FakeEnclave, headers: dict[str, str]) -> None:
    with serving(client_of(enclave)) as url:
        status, _, _ = post(url, b"{}", **headers)
    assert status == 403
    assert enclave.seen == []


def test_the_proxy_knows_two_paths(enclave: FakeEnclave) -> None:
    enclave.receipts = False
    with serving(client_of(enclave)) as url:
        with urllib.request.urlopen(url + "/models") as reply:
            assert reply.read() == ANSWER
        for path, body in (("/files", None), ("/embeddings", b"{}")):
            with pytest.raises(urllib.error.HTTPError, match="404") as raised:
                urllib.request.urlopen(url + path, body)
            raised.value.close()


def test_the_proxy_listens_on_loopback_only(enclave: FakeEnclave) -> None:
    with pytest.raises(Usage, match="loopback"):
        Proxy(client_of(enclave), "0.0.0.0")
    with serving(client_of(enclave)) as url:
        port = int(url.split(":")[2].split("/")[0])
        with pytest.raises(CannotTell, match="cannot listen"):
            Proxy(client_of(enclave), port=port)


def test_a_mistake_of_ours_in_the_proxy_shows_no_traceback(
    enclave: FakeEnclave, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(file: EvidenceFile) -> None:
        raise ZeroDivisionError("what is the secret?")

    proxy = Proxy(client_of(enclave), keep=fails)
    thread = proxy.start()
    body = json.dumps({"model": "chat", "messages": []}).encode()
    request = urllib.request.Request(f"{proxy.url}/chat/completions", body)
    with (
        pytest.raises((OSError, http.client.HTTPException)),
        urllib.request.urlopen(request, timeout=20) as reply,
    ):
        reply.read()
    proxy.close()
    thread.join()
    said = capfd.readouterr()
    assert "proxy.failed: ZeroDivisionError" in caplog.text
    assert "Traceback" not in said.out + said.err + caplog.text
    assert "secret" not in said.out + said.err + caplog.text


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "²"])
def test_the_proxy_refuses_a_length_that_is_none(enclave: FakeEnclave, length: str) -> None:
    with serving(client_of(enclave)) as url:
        host = url.removeprefix("http://").partition("/")[0]
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


# Sessions of the channel


def test_a_client_with_sessions_opens_one_and_asks_in_it(enclave: FakeEnclave) -> None:
    client = client_of(enclave, sessions=True)
    for _ in range(3):
        assert client.chat("x").text == "a log"
    posted = [request.body for request in enclave.seen if request.method == "POST"]
    assert [body is not None and is_session(body) for body in posted] == [False, True, True, True]


def test_a_client_whose_session_ended_verifies_once_and_opens_another(enclave: FakeEnclave) -> None:
    client = client_of(enclave, sessions=True)
    client.chat("x")
    enclave.forget_keyset = 1
    assert client.chat("x").text == "a log"
    assert len([request for request in enclave.seen if "/v1/attestation" in request.url]) == 2


def test_an_enclave_that_opens_no_session_is_not_asked_without_one(enclave: FakeEnclave) -> None:
    enclave.status = 503
    with pytest.raises(CannotTell, match="opened no session"):
        client_of(enclave, sessions=True).chat("a secret")
    assert enclave.prompts == []


def test_the_proxy_says_what_it_verified(enclave: FakeEnclave, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "quotary.client.proxy")
    with serving(client_of(enclave)) as url:
        root = url.removesuffix("/v1")
        with urllib.request.urlopen(root + "/verdict.json") as reply:
            found = json.loads(reply.read())
        with urllib.request.urlopen(root + "/") as reply:
            text, policy = reply.read().decode(), reply.headers["Content-Security-Policy"]
        post(url, b"{}")
        post(url, b"{}")
    assert (found["forwards"], found["simulated"], found["size"]) == (
        True,
        True,
        len(enclave.world.log.entries),
    )
    assert found["checks"][0]["name"] == "evidence: root"
    assert "SIMULATED" in text
    assert "<script" not in text
    assert "default-src 'none'" in policy
    told = [record for record in caplog.records if record.getMessage() == "proxy.verified"]
    assert len(told) == 1
    assert told[0].__dict__["release"] == found["release"]


def test_the_proxy_shows_that_it_refuses_and_why(enclave: FakeEnclave) -> None:
    client = client_of(enclave)
    with serving(client) as url:
        root = url.removesuffix("/v1")
        enclave.measured_as = "<b>malware</b>"
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(root + "/verdict.json")
        with raised.value as reply:
            found = json.loads(reply.read())
        assert (raised.value.code, found["forwards"], "headline" in found) == (503, False, False)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(root + "/")
        with raised.value as reply:
            assert "Refused: nothing is forwarded now." in reply.read().decode()


def test_a_judgement_that_grew_old_is_made_anew_before_anything_is_forwarded(enclave: FakeEnclave) -> None:
    client = client_of(enclave)
    with serving(client) as url:
        assert post(url, b"{}")[0] == 200
        assert client.newest is not None
        stale = replace(client.newest, elapsed=client.newest.elapsed - 61)
        client._attested = stale
        enclave.log_down = True
        assert post(url, b'{"messages":["a secret"]}')[0] == 503
    assert enclave.prompts == [b"{}"]


def test_keys_that_change_again_at_once_end_the_request(enclave: FakeEnclave) -> None:
    client = client_of(enclave)
    client.verify()
    enclave.forget_keyset = 2
    with pytest.raises(CannotTell, match="422"):
        client.chat("again")
    assert len([request for request in enclave.seen if "/v1/attestation" in request.url]) == 2


def test_credentials_travel_inside_the_channel_alone(enclave: FakeEnclave) -> None:
    with serving(client_of(enclave)) as url:
        post(url, b"{}", Authorization="Bearer sk-secret")
    assert enclave.heads[-1]["authorization"] == "Bearer sk-secret"
    assert all("sk-secret" not in str(request.headers) for request in enclave.seen)


@pytest.mark.parametrize("path", ["/v1/completions", "/api/v1/chat/completions"])
def test_wherever_prompts_go_an_answer_without_receipt_is_rejected(enclave: FakeEnclave, path: str) -> None:
    enclave.receipts = False
    with (
        pytest.raises(Rejected, match="an answer without one"),
        client_of(enclave).open("POST", path) as reply,
    ):
        list(reply.chunks)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_the_proxy_knows_its_own_page_from_others(
    enclave: FakeEnclave, headers: dict[str, str], status: int
) -> None:
    with serving(client_of(enclave)) as url:
        own = {"Origin": url.removesuffix("/v1")} if status == 200 else {}
        assert post(url, b"{}", **headers, **own)[0] == status
        port = int(url.split(":")[2].split("/")[0])
        assert post(url, b"{}", Origin=f"http://127.0.0.1:{port + 1}")[0] == 403
