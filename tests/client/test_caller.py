"""Enclaves that call enclaves: challenged, judged, recognised by a signature that fits one request, and forgotten."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.attestation.document import AttestationDocument
from quotary.canonical import b64, canonical
from quotary.client.caller import (
    CHALLENGE_SECONDS,
    HEADER,
    MOST,
    PATH,
    REFRESH_SECONDS,
    Caller,
    Callers,
    Unknown,
)
from quotary.client.policy import Policy
from quotary.client.sealed import Head
from quotary.client.trust import ProcessMemory
from quotary.client.verdict import Verdict
from quotary.client.verify import judge
from quotary.errors import Malformed, NotInLog, Refused, Rejected
from quotary.statements.keyset import CALLER, Keyset, KeysetKey
from tests.conftest import ROOT
from tests.fakes import authority
from tests.fakes.clock import SteppedClock
from tests.fakes.log import policy_bytes
from tests.fakes.machine import World, keyset

ASKED, BODY = b"K" * 32, b'{"prompt":1}'


@dataclass(slots=True)
class Scene:
    """A machine that calls, and the book of the one that is called."""

    world: World
    clock: SteppedClock = field(default_factory=SteppedClock)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    seed: str = "machine"
    life: timedelta = timedelta(minutes=50)
    judged: int = 0

    @property
    def keys(self) -> Keyset:
        found = keyset(self.world.channel.public, at=self.world.now)
        own = KeysetKey("caller-1", CALLER, "ed25519", self.key.public_key().public_bytes_raw())
        return replace(found, keys=(own, *found.keys), not_after=self.world.now + self.life)

    def attest(self, nonce: bytes) -> bytes:
        registers = self.world.registers(self.seed)
        return self.world.document(nonce, registers, self.keys).encode()

    def judge(self, document: AttestationDocument, nonce: bytes) -> Verdict:
        self.judged += 1
        policy = Policy.parse(policy_bytes(self.world.policy()))
        bundle = self.world.bundle()
        if self.seed != "machine":
            bundle = self.world.log.absence(authority.measurement(self.seed), ts=self.world.ts).encode()
        return judge(document, nonce, bundle, policy, ProcessMemory(), self.clock)

    def caller(self) -> Caller:
        return Caller(self.keys.digest, self.key, self.attest)


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


def introduced(scene: Scene) -> Callers:
    callers = Callers(scene.judge, scene.clock)

    def post(path: str, body: bytes) -> bytes:
        if path == PATH:
            return canonical({"nonce": callers.challenge().hex()})
        callers.admit(bytes.fromhex(path.removeprefix(f"{PATH}/")), body)
        return b"{}"

    scene.caller().introduce(post)
    return callers


def head(**changes: object) -> Head:
    return replace(Head.new("POST", "/v1/chat/completions", at=0, min_log_size=0), **changes)  # type: ignore[arg-type]


def test_a_caller_that_was_judged_is_recognised_by_its_signature(scene: Scene) -> None:
    callers = introduced(scene)
    signed = scene.caller().signed(head(headers={"x": "y"}), BODY, ASKED)
    found = callers.verify(signed, BODY, ASKED)
    assert found is not None
    assert found.measurement_id == scene.world.measurement
    assert signed.headers["x"] == "y"
    assert callers.verify(head(), BODY, ASKED) is None, "who says nothing is nobody"
    callers.verify(scene.caller().signed(head(), BODY, ASKED), BODY, ASKED)
    assert scene.judged == 1, "a keyset is judged once, not once a request"


def test_a_signature_is_for_one_request_to_one_enclave(scene: Scene) -> None:
    callers = introduced(scene)
    signed = scene.caller().signed(head(), BODY, ASKED)
    changed = [
        (signed, BODY + b" ", ASKED),
        (signed, BODY, b"L" * 32),
        (replace(signed, path="/v1/models"), BODY, ASKED),
        (replace(signed, method="GET"), BODY, ASKED),
        *((replace(signed, **{name: bytes(32)}), BODY, ASKED) for name in ("client_nonce", "request_key", "response_secret")),  # type: ignore[arg-type]
    ]  # fmt: skip
    for other in changed:
        with pytest.raises(Rejected, match="caller signature"):
            callers.verify(*other)


def test_another_keys_signature_in_a_judged_callers_name_is_rejected(scene: Scene) -> None:
    callers = introduced(scene)
    thief = replace(scene.caller(), key=Ed25519PrivateKey.generate())
    with pytest.raises(Rejected, match="caller signature"):
        callers.verify(thief.signed(head(), BODY, ASKED), BODY, ASKED)


def test_a_caller_that_nobody_judged_has_to_be_judged(scene: Scene) -> None:
    callers = Callers(scene.judge, scene.clock)
    with pytest.raises(Unknown):
        callers.verify(scene.caller().signed(head(), BODY, ASKED), BODY, ASKED)


def test_a_caller_is_judged_again_after_a_minute(scene: Scene) -> None:
    callers = introduced(scene)
    signed = scene.caller().signed(head(), BODY, ASKED)
    scene.clock.seconds = REFRESH_SECONDS
    assert callers.verify(signed, BODY, ASKED) is not None
    scene.clock.seconds = REFRESH_SECONDS + 1
    with pytest.raises(Unknown):
        callers.verify(signed, BODY, ASKED)


def test_a_keyset_that_ends_within_the_minute_ends_the_caller_too(scene: Scene) -> None:
    scene.life = timedelta(seconds=30)
    callers = introduced(scene)
    signed = scene.caller().signed(head(), BODY, ASKED)
    scene.clock.seconds = 29
    callers.verify(signed, BODY, ASKED)
    scene.clock.seconds = 30
    with pytest.raises(Refused, match="keyset"):
        callers.verify(signed, BODY, ASKED)


def test_an_image_that_the_log_does_not_know_is_not_admitted(scene: Scene) -> None:
    scene.seed = "other"
    with pytest.raises(NotInLog):
        introduced(scene)


def test_a_challenge_is_answered_once_and_in_time(scene: Scene) -> None:
    callers = Callers(scene.judge, scene.clock)
    nonce = callers.challenge()
    document = scene.attest(nonce)
    callers.admit(nonce, document)
    with pytest.raises(Refused, match="challenge"):
        callers.admit(nonce, document)
    late = callers.challenge()
    scene.clock.seconds = CHALLENGE_SECONDS + 1
    with pytest.raises(Refused, match="challenge"):
        callers.admit(late, scene.attest(late))
    with pytest.raises(Rejected, match="nonce"):
        callers.admit(callers.challenge(), document)


def test_challenges_and_callers_that_are_remembered_are_bounded(scene: Scene) -> None:
    callers = Callers(scene.judge, scene.clock)
    first = callers.challenge()
    for _ in range(MOST):
        callers.challenge()
    with pytest.raises(Refused, match="challenge"):
        callers.admit(first, scene.attest(first))


def test_a_keyset_without_a_caller_key_calls_nobody(scene: Scene) -> None:
    plain = keyset(scene.world.channel.public, at=scene.world.now)
    callers = Callers(scene.judge, scene.clock)
    nonce = callers.challenge()
    callers.admit(nonce, scene.world.document(nonce, keys=plain).encode())
    signed = replace(scene.caller(), keyset=plain.digest).signed(head(), BODY, ASKED)
    with pytest.raises(Rejected, match="without a caller key"):
        callers.verify(signed, BODY, ASKED)


def test_the_example_of_the_format_page_is_read(scene: Scene) -> None:
    page = (ROOT / "docs" / "formats" / "ratls.md").read_text()
    text = page.partition("```json caller\n")[2].partition("\n```")[0]
    with pytest.raises(Unknown, match="01" * 32):
        Callers(scene.judge, scene.clock).verify(head(headers={HEADER: b64(text.encode())}), BODY, ASKED)


@pytest.mark.parametrize(
    "text",
    ["", "x", b64(b"{}"), b64(canonical({"v": 2, "keyset": "00" * 32, "sig": b64(bytes(64))})),
     b64(canonical({"v": 1, "keyset": "00", "sig": b64(bytes(64))})),
     b64(canonical({"v": 1, "keyset": "00" * 32, "sig": b64(bytes(63))})),
     b64(canonical({"v": 1, "keyset": "00" * 32, "sig": b64(bytes(64)), "more": 1})), "A" * 2000],
)  # fmt: skip
def test_a_header_of_another_form_is_malformed(scene: Scene, text: str) -> None:
    callers = Callers(scene.judge, scene.clock)
    with pytest.raises(Malformed):
        callers.verify(head(headers={HEADER: text}), BODY, ASKED)
