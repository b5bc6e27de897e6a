"""The second door over real TLS: the published relay attack, diversion to other machines, keys that change."""

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from quotary import Client
from quotary.attestation.ratls import EVIDENCE, claims_of, make_certificate, report_data_of
from quotary.client.clock import FixedClock
from quotary.client.policy import Policy
from quotary.client.ratls import verify_certificate
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Trail
from quotary.errors import CannotTell, QuotaryError, Rejected, Usage
from quotary.net.tls import server_context, use_certificate
from quotary.net.transport import HTTP, Reply, Request, Stream
from tests.fakes.enclave import FakeEnclave, over_http
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World

PROMPT, LIE = "the patient in bed seven", b"what the thief wants you to read"
HOUR = timedelta(hours=1)


@pytest.fixture
def enclave(world: World) -> FakeEnclave:
    return FakeEnclave(world, tls=ec.generate_private_key(ec.SECP256R1()))


def policy_of(enclave: FakeEnclave) -> Policy:
    return Policy.parse(policy_bytes(enclave.world.policy()))


def client_of(enclave: FakeEnclave, url: str) -> Client:
    clock = FixedClock(enclave.world.now)
    log = "http://127.0.0.1:2"
    return Client(url, policy_of(enclave), log_url=log, transport=enclave, clock=clock, ratls=True)


def context_of(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    context = server_context()
    use_certificate(context, certificate, key)
    return context


def door_of(enclave: FakeEnclave) -> ssl.SSLContext:
    assert enclave.tls is not None
    return context_of(enclave.certificate(), enclave.tls)


@dataclass(slots=True)
class Thief:
    """Another machine that ends TLS with a key taken out of the honest one, and passes on what it cannot use.

    read: all that arrived, after TLS; lies: it answers itself
    """

    enclave: FakeEnclave
    lies: bool = False
    read: list[bytes] = field(default_factory=list)

    def send(self, request: Request) -> Reply:
        return self.enclave.send(request)

    @contextmanager
    def open(self, request: Request) -> Iterator[Stream]:
        self.read.append(request.body or b"")
        if self.lies:
            yield Stream(200, {}, iter([LIE]))
            return
        with self.enclave.open(request) as stream:
            yield stream


def ask_as_a_plain_verifier(enclave: FakeEnclave, url: str) -> bytes:
    """What RA-TLS alone does: judge the certificate's evidence, then send the prompt over the connection it is of."""
    host, port = url.removeprefix("https://").split(":")
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))
    world = enclave.world
    facts = verify_certificate(
        der, world.document(), policy_of(enclave), ProcessMemory(), FixedClock(world.now)
    )
    assert facts.registers["mrtd"] == world.registers().mrtd
    pinned = hashlib.sha256(der).hexdigest()
    with urllib3.PoolManager(cert_reqs="CERT_NONE", assert_fingerprint=pinned) as pool:
        return pool.request("POST", f"{url}/v1/chat/completions", body=PROMPT.encode(), retries=False).data


def test_the_published_relay_attack_reads_a_plain_verifiers_prompt_and_not_ours(enclave: FakeEnclave) -> None:
    """Evidence of an honest machine, shown by another one that has its TLS key (CVE-2026-33697 and its like)."""
    thief = Thief(enclave, lies=True)
    with over_http(thief, door_of(enclave)) as url:
        assert ask_as_a_plain_verifier(enclave, url) == LIE
        assert thief.read == [PROMPT.encode()]
        thief.read.clear()
        with pytest.raises(QuotaryError):
            client_of(enclave, url).chat(PROMPT)
        thief.lies = False
        answer = client_of(enclave, url).chat(PROMPT)
    assert answer.text == "a log"
    assert len(thief.read) == 2, "both passed the thief"
    assert all(PROMPT.encode() not in data for data in thief.read)


def test_the_second_door_is_judged_with_the_machine_and_the_verdict_says_so(enclave: FakeEnclave) -> None:
    trail = Trail()
    with over_http(enclave, door_of(enclave)) as url:
        client = client_of(enclave, url)
        found = client.verify(trail)
        assert client.chat(PROMPT).text == "a log"
    (check,) = (check for check in found.verdict.checks if check.name == "certificate")
    assert check.outcome == "ok"
    assert trail.checks[-1] == check


def quoted(world: World, key: ec.EllipticCurvePrivateKey, seed: str = "machine") -> bytes:
    return world.platform.quote(world.registers(seed), report_data_of(claims_of(key.public_key())))


def test_honest_evidence_in_a_certificate_of_another_key_is_rejected(enclave: FakeEnclave) -> None:
    """The thief has no key of the machine, only what it shows to everybody."""
    world, own = enclave.world, ec.generate_private_key(ec.SECP256R1())
    assert enclave.tls is not None
    honest = x509.load_der_x509_certificate(enclave.certificate()).extensions.get_extension_for_oid(EVIDENCE)
    name = x509.Name([])
    copied = x509.CertificateBuilder(name, name, own.public_key(), 1, world.now, world.now + HOUR)
    pasted = copied.add_extension(honest.value, critical=False).sign(own, SHA256()).public_bytes(Encoding.DER)
    shown = {
        "certificate key": pasted,
        "certificate evidence": make_certificate(
            own, quoted(world, enclave.tls), "x", world.now, world.now + HOUR
        ),
        "certificate signature": b"",
    }
    forged = bytearray(enclave.certificate())
    forged[-1] ^= 1
    shown["certificate signature"] = bytes(forged)
    for check, der in shown.items():
        with pytest.raises(Rejected, match=check):
            verify_certificate(
                der, world.document(), policy_of(enclave), ProcessMemory(), FixedClock(world.now)
            )
    for der in (pasted, shown["certificate evidence"]):
        with over_http(enclave, context_of(der, own)) as url, pytest.raises(Rejected, match="certificate"):
            client_of(enclave, url).chat(PROMPT)
    assert enclave.prompts == []


@pytest.mark.parametrize(
    ("seed", "check"), [("machine", "certificate key"), ("other", "certificate measurement")]
)
def test_a_connection_that_is_diverted_to_another_attested_machine_is_rejected(
    enclave: FakeEnclave, seed: str, check: str
) -> None:
    """Its certificate holds by itself, but it is not of the machine whose document was judged."""
    world, other = enclave.world, ec.generate_private_key(ec.SECP256R1())
    der = make_certificate(other, quoted(world, other, seed), "x", world.now, world.now + HOUR)
    with over_http(enclave, context_of(der, other)) as url, pytest.raises(Rejected, match=check):
        client_of(enclave, url).chat(PROMPT)
    assert enclave.prompts == []


def test_keys_that_changed_are_judged_again_and_another_machines_are_not_taken(enclave: FakeEnclave) -> None:
    assert enclave.tls is not None
    context = door_of(enclave)
    with over_http(enclave, context) as url:
        client = client_of(enclave, url)
        client.chat(PROMPT)
        enclave.tls = ec.generate_private_key(ec.SECP256R1())
        use_certificate(context, enclave.certificate(), enclave.tls)
        assert client.chat(PROMPT).text == "a log"
        documents = [request.url for request in enclave.seen if "/v1/attestation" in request.url]
        assert len(documents) == 2
        other = ec.generate_private_key(ec.SECP256R1())
        use_certificate(
            context,
            make_certificate(
                other, quoted(enclave.world, other), "x", enclave.world.now, enclave.world.now + HOUR
            ),
            other,
        )
        with pytest.raises(Rejected, match="certificate key"):
            client.chat(PROMPT)
    assert len(enclave.prompts) == 2


def test_nothing_is_sent_to_a_certificate_that_is_not_taken(enclave: FakeEnclave) -> None:
    def refuse(der: bytes) -> None:
        raise Rejected("certificate", "this one", "another")

    with over_http(enclave, door_of(enclave)) as url:
        with pytest.raises(Rejected):
            HTTP(shown=refuse).send(Request(f"{url}/v1/attestation?nonce=00"))
        with pytest.raises(Usage, match="https only"):
            HTTP(shown=refuse, plain_http=True).send(Request(url.replace("https", "http")))
    assert enclave.seen == []


def test_older_tls_is_not_spoken(enclave: FakeEnclave) -> None:
    context = door_of(enclave)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with over_http(enclave, context) as url, pytest.raises(CannotTell, match="no answer"):
        client_of(enclave, url).chat(PROMPT)


def test_the_second_door_is_an_https_address_without_a_relay(enclave: FakeEnclave) -> None:
    policy = policy_of(enclave)
    for url, relay in (
        ("http://127.0.0.1:1", None),
        ("https://127.0.0.1:1", "https://relay.example.net/chat"),
    ):
        with pytest.raises(Usage, match="second door"):
            Client(url, policy, relay=relay, ratls=True)


def test_a_machine_without_a_second_door_is_not_taken_for_one(enclave: FakeEnclave) -> None:
    context = door_of(enclave)
    honest, enclave.tls = replace(enclave), None
    assert honest.tls is not None
    with over_http(enclave, context) as url, pytest.raises(Rejected, match="certificate key"):
        client_of(enclave, url).chat(PROMPT)
