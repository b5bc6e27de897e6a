"""Answers of an OCSP responder: who may give them, about what, for how long, and what they mean for a device."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import ocsp as library
from hypothesis import given
from hypothesis import strategies as st

from quotary.attestation import ocsp, rim
from quotary.attestation.certificates import Certificate
from quotary.attestation.nvidia import DeviceFacts
from quotary.attestation.ocsp import Answer, good_until
from quotary.attestation.rim import RIMDocument
from quotary.attestation.roots import simulator_root
from quotary.errors import Malformed, Rejected
from tests.attestation.test_nvidia import judge
from tests.fakes import nvidia as fake
from tests.fakes import ocsp as responders
from tests.fakes.aws import NOW, Signer, issue

WHAT = "device revocation"
END = NOW + timedelta(hours=23)
REVOKED, UNKNOWN = library.OCSPCertStatus.REVOKED, library.OCSPCertStatus.UNKNOWN


@pytest.fixture(scope="module")
def device() -> fake.Device:
    return fake.device(fake.authority(), b"\1\2\3\4\5\6\7\x08")


def certificates(chain: tuple[Signer, ...]) -> tuple[Certificate, ...]:
    return tuple(Certificate.parse(signer.certificate) for signer in chain)


def ask(chain: tuple[Signer, ...], answers: list[bytes], now: datetime = NOW) -> datetime | None:
    return good_until(WHAT, certificates(chain), [Answer.parse(data) for data in answers], now)


def judged(device: fake.Device, answers: list[bytes], now: datetime = NOW) -> DeviceFacts:
    roots = (simulator_root("nvidia", fake.fingerprint(device.chain[-1])),)
    found = tuple(Answer.parse(data) for data in answers)
    return judge(device.report(), device.pem, now=now, roots=roots, answers=found)


def test_a_device_is_good_until_its_first_answer_ends(device: fake.Device) -> None:
    answers = responders.answers(device.chain[1:])
    facts = judged(device, answers)
    assert facts.good_until == END
    assert [check.found for check in facts.checks if check.name == WHAT] == [f"good until {END.isoformat()}"]
    sooner = responders.answer(*device.chain[1:3], next_update=NOW + timedelta(hours=2))
    assert judged(device, [*answers, sooner]).good_until == NOW + timedelta(hours=2)


def test_one_answer_too_few_is_no_check(device: fake.Device) -> None:
    answers = responders.answers(device.chain[1:])
    for missing in range(len(answers)):
        facts = judged(device, answers[:missing] + answers[missing + 1 :])
        assert facts.good_until is None
        assert [check.found for check in facts.checks if check.name == WHAT] == ["not checked"]


def test_an_issuer_may_answer_by_itself_and_any_hash_may_name_a_certificate(device: fake.Device) -> None:
    _, brom, provisioner, *_ = device.chain
    assert ask((brom, provisioner), [responders.answer(brom, provisioner)]) == END
    assert ask((brom, provisioner), [responders.answer(brom, provisioner, by=provisioner)]) == END
    assert ask((brom, provisioner), [responders.answer(brom, provisioner, named_with=SHA256())]) == END


def test_a_responders_usage_may_be_critical(device: fake.Device) -> None:
    _, brom, provisioner, *_ = device.chain
    by = responders.responder(provisioner, critical=True)
    assert ask((brom, provisioner), [responders.answer(brom, provisioner, by=by)]) == END


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (REVOKED, None, "is revoked"),
        (REVOKED, x509.ReasonFlags.certificate_hold, "is revoked: certificateHold"),
        (UNKNOWN, None, "is unknown"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_certificate_that_is_not_good_is_rejected(
    device: fake.Device, place: int, status: library.OCSPCertStatus, reason: x509.ReasonFlags, said: str
) -> None:
    chain = device.chain[1:]
    answers = responders.answers(chain)
    bad = responders.answer(*chain[place : place + 2], status=status, reason=reason)
    for given_ in ([*answers, bad], [bad]):
        with pytest.raises(Rejected, match=said) as caught:
            judged(device, given_)
        assert caught.value.check == WHAT


@pytest.mark.parametrize(
    ("begin", "end", "good"),
    [
        (-24, 1, True),
        (-25, 1, False),
        (-2, 0, True),
        (-2, -1, False),
        (0.08, 1, True),
        (0.09, 1, False),
    ],
)
def test_an_answer_is_in_its_time_and_a_day_old_at_most(
    device: fake.Device, begin: float, end: float, good: bool
) -> None:
    _, brom, provisioner, *_ = device.chain
    times = {"this_update": NOW + timedelta(hours=begin), "next_update": NOW + timedelta(hours=end)}
    found = [responders.answer(brom, provisioner, **times)]  # type: ignore[arg-type]  # both are times
    if good:
        assert ask((brom, provisioner), found) is not None
    else:
        with pytest.raises(Rejected, match="judged at"):
            ask((brom, provisioner), found)


Stranger = Callable[[Signer, Signer], Signer]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (lambda issuer, other: responders.responder(other), "not signed by it"),
        (
            lambda issuer, other: responders.responder(issuer, responders.SERVER_AUTHENTICATION),
            "an answer by",
        ),
        (lambda issuer, other: issue("no usage", issuer, ca=False), "an answer by"),
        (lambda issuer, other: responders.responder(issuer, end=NOW - timedelta(minutes=1)), "judged at"),
        (lambda issuer, other: responders.responder(issuer, begin=NOW + timedelta(minutes=1)), "judged at"),
        (
            lambda issuer, other: issue(
                "odd",
                issuer,
                ca=False,
                extensions={responders.EXTENDED_KEY_USAGE: responders.OCSP_SIGNING, "1.2.3.4": b"\5\0"},
                critical=True,
            ),
            "critical extension 1.2.3.4",
        ),
        (
            lambda issuer, other: responders.responder(
                issuer, key=rsa.generate_private_key(public_exponent=65537, key_size=2048)
            ),
            "key of another kind",
        ),
    ],
)
def test_only_the_issuer_or_whom_it_named_may_answer(device: fake.Device, by: Stranger, said: str) -> None:
    _, brom, provisioner, identity, _ = device.chain
    signer = by(provisioner, identity)
    with pytest.raises(Rejected, match=said) as caught:
        ask((brom, provisioner), [responders.answer(brom, provisioner, by=signer)])
    assert caught.value.check == WHAT


def test_an_answer_that_nobody_signed_is_rejected(device: fake.Device) -> None:
    _, brom, provisioner, *_ = device.chain
    data = bytearray(responders.answer(brom, provisioner))
    data[-1] ^= 1
    with pytest.raises(Rejected, match="signature that does not hold"):
        ask((brom, provisioner), [bytes(data)])


def test_an_answer_about_another_certificate_is_not_looked_at(device: fake.Device) -> None:
    _, brom, provisioner, identity, root = device.chain
    namesake = issue("NVIDIA GH100 Provisioner ICA 1", identity)
    chain = (brom, provisioner)
    for other in (
        responders.answer(provisioner, identity, status=REVOKED),
        responders.answer(brom, namesake, status=REVOKED),
        responders.answer(brom, root, status=REVOKED),
    ):
        assert ask(chain, [other]) is None
        assert ask(chain, [other, responders.answer(brom, provisioner)]) == END


def test_an_answer_of_another_kind_is_malformed(device: fake.Device) -> None:
    _, brom, provisioner, *_ = device.chain
    refusal = library.OCSPResponseBuilder.build_unsuccessful(library.OCSPResponseStatus.UNAUTHORIZED)
    for data, said in (
        (refusal.public_bytes(fake.Encoding.DER), "gives no answer: unauthorized"),
        (responders.answer(brom, provisioner, next_update=None), "needs an end"),
        (responders.answer(brom, provisioner, signed_with=SHA256()), "SHA-384"),
        (responders.answer(brom, provisioner, critical=True), "critical"),
        (bytes(ocsp.MAX_ANSWER + 1), "at most"),
    ):
        with pytest.raises(Malformed, match=said):
            Answer.parse(data)


@pytest.mark.filterwarnings(
    "ignore:Parsed a serial number which wasn't positive", "ignore:Attribute's length must"
)
def test_bytes_all_over_an_answer_matter(device: fake.Device) -> None:
    _, brom, provisioner, *_ = device.chain
    data = responders.answer(brom, provisioner, by=responders.responder(provisioner))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        try:
            found = ask((brom, provisioner), [bytes(changed)])
        except (Malformed, Rejected):
            continue
        # An answer that became one about something else says nothing; what was left good was not signed.
        assert found is None or found == END, at


@given(st.binary(max_size=300))
def test_bytes_from_anywhere_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Answer.parse(data)


def test_a_manifest_whose_signer_was_revoked_is_rejected() -> None:
    signer = fake.rim_signer()
    roots = (simulator_root("nvidia-rim", fake.fingerprint(signer.root)),)
    document = RIMDocument.parse(fake.rim(signer, "GH100", "1", [fake.resource(0, [b"\1" * 48])]))
    good = tuple(Answer.parse(data) for data in responders.answers(signer.chain))
    assert rim.verify(document, good, NOW, roots).good_until == END
    assert rim.verify(document, good[:1], NOW, roots).good_until is None
    bad = Answer.parse(responders.answer(*signer.chain[:2], status=REVOKED))
    with pytest.raises(Rejected, match=r"^rim revocation"):
        rim.verify(document, (*good, bad), NOW, roots)
