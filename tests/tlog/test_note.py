"""Notes, keys, checkpoints and cosignatures: peers' notes, our own, and every way to break them."""

import base64
import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from quotary.errors import InvalidSignature, Malformed, Unsupported
from quotary.tlog import cosignature
from quotary.tlog.checkpoint import Checkpoint, sign_checkpoint
from quotary.tlog.note import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    ECDSA,
    ED25519,
    Note,
    Signature,
    SigningKey,
    VerifierKey,
)
from tests.tlog import keys

NOW = 1_795_000_000
ROOT = bytes(range(32))
CHECKPOINT = Checkpoint(keys.ORIGIN, 42, ROOT)
TEXT = str(CHECKPOINT)
SIGNERS = [
    keys.log_key(),
    keys.log_key_ml_dsa(),
    keys.witness_key("witness.example.org/one"),
    keys.witness_key_ml_dsa("witness.example.org/two"),
]
VERIFIERS = [signer.verifier for signer in SIGNERS]
NOTE = sign_checkpoint(CHECKPOINT, SIGNERS, NOW)
ECDSA_PRIVATE = ec.derive_private_key(12345, ec.SECP256R1())


def spki(public):
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_note_by_all_our_key_types_verifies():
    note = Note.parse(NOTE)
    assert bytes(note) == NOTE
    assert note.verify(VERIFIERS) == {
        VERIFIERS[0]: (),
        VERIFIERS[1]: (NOW,),
        VERIFIERS[2]: (NOW,),
        VERIFIERS[3]: (NOW,),
    }
    assert [key.alg for key in VERIFIERS] == [
        ED25519,
        COSIGNATURE_ML_DSA_44,
        COSIGNATURE_ED25519,
        COSIGNATURE_ML_DSA_44,
    ]
    assert Checkpoint.parse(note.text) == CHECKPOINT


def test_a_device_is_asked_once_for_its_public_half():
    device = Device(keys.ed25519_private("log"))
    signer = keys.SigningKey.log(keys.ORIGIN, device)
    for _ in range(3):
        note = Note.parse((TEXT + "\n" + signer.line(TEXT, NOW)).encode())
        assert note.verify([signer.verifier]) == {signer.verifier: ()}
    assert device.asked == 1


class Device:
    def __init__(self, private):
        self.private = private
        self.asked = 0

    def sign(self, data, /):
        return self.private.sign(data)

    def public_key(self):
        self.asked += 1
        return self.private.public_key()


def test_a_cosignature_is_a_line_to_append():
    line = cosignature.cosign(TEXT, keys.witness_key("w3"), NOW + 1)
    note = Note.parse(NOTE + line.encode())
    assert note.verify([keys.witness_key("w3").verifier]) == {keys.witness_key("w3").verifier: (NOW + 1,)}


def test_two_lines_of_one_key_give_both_times():
    signer = SIGNERS[2]
    note = Note.parse(NOTE + signer.line(TEXT, NOW + 120).encode())
    assert note.verify(VERIFIERS)[signer.verifier] == (NOW, NOW + 120)


@pytest.mark.parametrize(
    ("text", "time"), [("not a checkpoint\n", NOW), (TEXT, 0), (TEXT, -1), (TEXT, 2**63)]
)
def test_only_checkpoints_at_a_time_are_cosigned(text, time):
    with pytest.raises(Malformed):
        cosignature.cosign(text, SIGNERS[2], time)


@pytest.mark.parametrize(
    ("stem", "vkey"),
    [
        ("signed-note-spec-example.note", "signed-note-spec-example.vkey"),
        ("sumdb-35225469.checkpoint", "sumdb.vkey"),
        ("pixel-611-armored-witness.checkpoint", "pixel.vkey"),
    ],
)
def test_peers_notes_verify_and_fail_when_changed(vectors, stem, vkey):
    folder = vectors / "tlog" / "notes"
    data, vkey = (folder / stem).read_bytes(), (folder / vkey).read_text().strip()
    key, note = VerifierKey.parse(vkey), Note.parse(data)
    assert key.vkey() == vkey
    assert bytes(note) == data
    assert note.verify([key]) == {key: ()}
    changed = dataclasses.replace(note, text=note.text.replace("a", "b", 1))
    with pytest.raises(InvalidSignature):
        changed.verify([key])
    with pytest.raises(InvalidSignature, match="no known key"):
        note.verify(VERIFIERS)


def test_peers_checkpoints_verify(vectors):
    tlog = vectors / "tlog"
    found = []
    for key, checkpoint in [
        ("tessera-testlog/log.vkey", "tessera-testlog/checkpoint"),
        *(("tessera-testlog/log.vkey", f"tessera-testlog/checkpoint.{size}") for size in range(16)),
        ("armory-drive-log/keys/armory-drive-log.pub", "armory-drive-log/log/checkpoint"),
        ("notes/sumdb.vkey", "notes/sumdb-35225469.checkpoint"),
    ]:
        note = Note.parse((tlog / checkpoint).read_bytes())
        note.verify([VerifierKey.parse((tlog / key).read_text().strip())])
        found.append(Checkpoint.parse(note.text))
    assert [checkpoint.size for checkpoint in found] == [15, *range(16), 2, 35225469]
    assert [found[-2].origin, found[-1].origin] == ["Armory Drive Prod 2", "go.sum database tree"]


def test_peers_cosignatures_verify(vectors):
    folder = vectors / "tlog" / "sunlight-mirror300"
    origin = "000de184301123b9278c086a7d9f68c9577e83872224c197058fd90784ea9706"
    for vkey, path in [
        (
            "mirror.example.org+3fb148ef+BAAjjch9GyYz0sJsJx7ALhbdAtz2ov0unbzSl1vMp94O",
            f"mirror/{origin}/checkpoint",
        ),
        ("witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN", f"{origin}/checkpoint"),
    ]:
        key = VerifierKey.parse(vkey)
        assert Note.parse((folder / path).read_bytes()).verify([key]) == {key: (1767139200,)}


def test_peers_keys_have_the_key_ids_they_claim(vectors):
    found = []
    for path in sorted((vectors / "tlog" / "witness-network").rglob("*")):
        if path.is_file():
            words = path.read_text().split()
            found += [word for word in words if word.count("+") >= 2 and not word.startswith("http")]
    parsed = {VerifierKey.parse(word) for word in found}
    assert {key.vkey() for key in parsed} == set(found)
    assert len(found) >= 34
    assert {key.alg for key in parsed} == {ED25519, ECDSA}


def test_a_signature_type_of_certificate_transparency_is_read_and_not_used(vectors):
    folder = vectors / "tlog" / "sunlight-mirror300"
    note = Note.parse(next(folder.glob("0*/checkpoint")).read_bytes())
    line = next(line for line in note.signatures if line.name == "rome2026h1.example.org")
    vkey = f"{line.name}+{line.key_id.hex()}+{base64.b64encode(bytes([5]) + bytes(32)).decode()}"
    key = VerifierKey.parse(vkey)
    assert key.vkey() == vkey
    with pytest.raises(Unsupported, match="0x05"):
        note.verify([key])


def test_each_bit_of_a_line_matters():
    for signer in SIGNERS:
        line = Signature.parse(signer.line(TEXT, NOW)[:-1])
        step = 1 if len(line.signature) < 100 else 11
        for bit in range(0, 8 * len(line.signature), step):
            changed = bytearray(line.signature)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(InvalidSignature):
                signer.verifier.verify(TEXT, bytes(changed))
        for length in (
            *range(0, len(line.signature), max(1, len(line.signature) // 40)),
            len(line.signature) + 1,
        ):
            with pytest.raises(InvalidSignature):
                signer.verifier.verify(TEXT, line.signature[:length].ljust(length, b"\0"))


def test_each_changed_field_of_a_checkpoint_breaks_every_signature():
    for changed in (
        dataclasses.replace(CHECKPOINT, origin=keys.ORIGIN + "/2"),
        dataclasses.replace(CHECKPOINT, size=43),
        dataclasses.replace(CHECKPOINT, root=bytes(32)),
    ):
        note = dataclasses.replace(Note.parse(NOTE), text=str(changed))
        for key in VERIFIERS:
            with pytest.raises(InvalidSignature):
                note.verify([key])


def test_an_ml_dsa_line_over_no_checkpoint_does_not_hold():
    line = Signature.parse(SIGNERS[1].line(TEXT, NOW)[:-1])
    with pytest.raises(InvalidSignature):
        SIGNERS[1].verifier.verify("any other text\n", line.signature)


def test_a_cosignature_belongs_to_its_key_type():
    log = keys.log_key("same.example", "same")
    witness = keys.SigningKey.cosigner("same.example", keys.ed25519_private("same"))
    assert log.verifier.key_id != witness.verifier.key_id
    line = Signature.parse(witness.line(TEXT, NOW)[:-1])
    with pytest.raises(InvalidSignature):
        log.verifier.verify(TEXT, line.signature[8:])


def test_one_bad_line_of_a_known_key_refuses_the_note():
    good = Note.parse(NOTE)
    for position, line in enumerate(good.signatures):
        bad = dataclasses.replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
        lines = (*good.signatures[:position], bad, *good.signatures[position + 1 :])
        with pytest.raises(InvalidSignature):
            Note(good.text, lines).verify(VERIFIERS)
        with pytest.raises(InvalidSignature):
            Note(good.text, (*good.signatures, bad)).verify(VERIFIERS)
        others = [key for key in VERIFIERS if key.name != line.name]
        assert Note(good.text, lines).verify(others)


def test_a_line_under_a_known_name_with_another_key_id_is_ignored():
    stranger = keys.SigningKey.cosigner(keys.ORIGIN, keys.ed25519_private("stranger"))
    note = Note.parse(NOTE + stranger.line(TEXT, NOW).encode())
    assert stranger.verifier not in note.verify(VERIFIERS)


def test_a_line_with_a_known_key_id_under_another_name_is_ignored():
    known = SIGNERS[0].verifier
    for name in ("other.example", keys.ORIGIN + "/x", keys.ORIGIN.upper()):
        stranger = str(Signature(name, known.key_id, bytes(64)))
        assert Note.parse(NOTE + stranger.encode()).verify([known]) == {known: ()}
        with pytest.raises(InvalidSignature, match="no known key"):
            Note.parse((TEXT + "\n" + stranger).encode()).verify([known])


def test_key_ids_are_those_of_the_specification():
    for signer in SIGNERS:
        key = signer.verifier
        data = key.name.encode() + b"\n" + bytes([key.alg]) + key.public
        assert key.key_id == hashlib.sha256(data).digest()[:4]
    public = spki(ECDSA_PRIVATE.public_key())
    assert VerifierKey.of("any", ECDSA, public).key_id == hashlib.sha256(public).digest()[:4]


def test_the_ed25519_message_is_that_of_the_specification():
    assert (
        cosignature.ed25519_message(TEXT, 1679315147) == b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    )
    line = Signature.parse(SIGNERS[2].line(TEXT, 5)[:-1])
    public = Ed25519PublicKey.from_public_bytes(SIGNERS[2].verifier.public)
    public.verify(line.signature[8:], b"cosignature/v1\ntime 5\n" + TEXT.encode())
    assert line.signature[:8] == (5).to_bytes(8)


def test_two_keys_of_one_name_and_key_id_are_malformed():
    twin = dataclasses.replace(VERIFIERS[0], public=bytes(32))
    with pytest.raises(Malformed, match="share"):
        Note.parse(NOTE).verify([VERIFIERS[0], twin])
    assert Note.parse(NOTE).verify([VERIFIERS[0], VERIFIERS[0]])


def test_the_text_ends_at_the_last_empty_line():
    text = "first\n\nsecond\n\n\n"
    key = keys.log_key()
    note = Note.parse((text + "\n" + key.line(text, 0)).encode())
    assert note.text == text
    note.verify([key.verifier])


LINE = SIGNERS[0].line(TEXT, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"text\n",
        TEXT.encode(),
        (TEXT + "\n").encode(),
        (TEXT + LINE).encode(),
        LINE.encode(),
        (TEXT + "\n" + LINE + LINE[:-1]).encode(),
        (TEXT + "\n" + LINE[:-1]).encode(),
        (TEXT + "\n" + LINE + "\n").encode(),
        (TEXT + "\n" + LINE + "rest\n").encode(),
        (TEXT + "\n" + LINE.replace("\u2014", "-")).encode(),
        (TEXT + "\n" + LINE.replace("\u2014 ", "\u2014")).encode(),
        (TEXT + "\n" + LINE.replace(keys.ORIGIN, "")).encode(),
        (TEXT + "\n" + LINE.replace(keys.ORIGIN, "a+b")).encode(),
        (TEXT + "\n" + LINE.replace(keys.ORIGIN, "a\u00a0b")).encode(),
        (TEXT + "\n" + LINE.replace("=", "")).encode(),
        (TEXT + "\n" + LINE.replace("=", "==")).encode(),
        (TEXT + "\n" + LINE.replace("\n", " \n")).encode(),
        (TEXT + "\n" + LINE.replace("\n", "\r\n")).encode(),
        (TEXT + "\n\u2014 name AAAAAA==\n").encode(),
        (TEXT + "\n\u2014 name\n").encode(),
        ("tab\t\n\n" + LINE).encode(),
        ("zero\0\n\n" + LINE).encode(),
        b"\xff\n\n" + LINE.encode(),
        (TEXT + "\n" + LINE * 101).encode(),
        (TEXT + "\n" + LINE).encode().ljust(1_000_001, b"\n"),
    ],
)
def test_what_is_no_note_is_malformed(data):
    with pytest.raises(Malformed):
        Note.parse(data)


def test_a_note_may_have_many_signatures():
    assert len(Note.parse((TEXT + "\n" + LINE * 100).encode()).signatures) == 100


@given(st.binary(max_size=200))
def test_a_note_parser_raises_nothing_but_malformed(data):
    for candidate in (data, TEXT.encode() + b"\n\xe2\x80\x94 " + data + b"\n"):
        try:
            note = Note.parse(candidate)
        except Malformed:
            continue
        assert bytes(note) == candidate


@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Z"], exclude_characters="+"), min_size=1
    ).filter(lambda name: not any(character.isspace() for character in name)),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_keys_and_checkpoints_of_any_name_read_back(name, size, root):
    checkpoint = Checkpoint(name, size, root)
    assert Checkpoint.parse(str(checkpoint)) == checkpoint
    key = keys.log_key(name)
    assert VerifierKey.parse(key.verifier.vkey()) == key.verifier
    note = Note.parse(sign_checkpoint(checkpoint, [key], 0))
    assert note.verify([key.verifier]) == {key.verifier: ()}


CANONICAL = str(CHECKPOINT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        CANONICAL[:-1],
        CANONICAL + "\n",
        CANONICAL + "extension line\n",
        CANONICAL.replace("\n42\n", "\n042\n"),
        CANONICAL.replace("\n42\n", "\n+42\n"),
        CANONICAL.replace("\n42\n", "\n-42\n"),
        CANONICAL.replace("\n42\n", "\n4_2\n"),
        CANONICAL.replace("\n42\n", "\n42 \n"),
        CANONICAL.replace("\n42\n", "\n\u0664\u0662\n"),
        CANONICAL.replace("\n42\n", "\n0x2a\n"),
        CANONICAL.replace("\n42\n", "\n\n"),
        CANONICAL.replace("\n42\n", f"\n{2**63}\n"),
        CANONICAL.replace("\n42\n", f"\n{'9' * 5000}\n"),
        CANONICAL.replace("=", ""),
        CANONICAL.replace("8=", "9="),
        CANONICAL.replace("AAEC", "AAE"),
        CANONICAL.replace("AAEC", ""),
        CANONICAL.replace(keys.ORIGIN, ""),
        CANONICAL.replace("\n", "\r\n"),
    ],
)
def test_a_second_spelling_of_a_checkpoint_is_malformed(text):
    assert text != CANONICAL
    with pytest.raises(Malformed):
        Checkpoint.parse(text)


def test_the_ml_dsa_message_is_that_of_the_specification():
    message = cosignature.subtree_message("w.example", 5, "log.example", 0, 7, ROOT)
    assert message == (
        b"subtree/v1\n\x00"
        + b"\x09w.example"
        + (5).to_bytes(8)
        + b"\x0blog.example"
        + (0).to_bytes(8)
        + (7).to_bytes(8)
        + ROOT
    )
    assert cosignature.subtree_message("w", 0, "log", 4, 7, ROOT).endswith(
        (4).to_bytes(8) + (7).to_bytes(8) + ROOT
    )


@pytest.mark.parametrize(
    ("cosigner", "time", "origin", "start", "end", "root"),
    [
        ("", 0, "log", 0, 1, ROOT),
        ("w" * 256, 0, "log", 0, 1, ROOT),
        ("w", 0, "", 0, 1, ROOT),
        ("w", 0, "l" * 256, 0, 1, ROOT),
        ("w", 1, "log", 4, 7, ROOT),
        ("w", -1, "log", 0, 1, ROOT),
        ("w", 2**63, "log", 0, 1, ROOT),
        ("w", 0, "log", 2, 1, ROOT),
        ("w", 0, "log", -1, 1, ROOT),
        ("w", 0, "log", 0, 2**63, ROOT),
        ("w", 0, "log", 0, 1, ROOT[:-1]),
    ],
)
def test_what_cannot_be_cosigned_is_malformed(cosigner, time, origin, start, end, root):
    with pytest.raises(Malformed):
        cosignature.subtree_message(cosigner, time, origin, start, end, root)


def test_a_time_above_the_limit_does_not_hold():
    line = Signature.parse(SIGNERS[2].line(TEXT, NOW)[:-1])
    with pytest.raises(InvalidSignature):
        SIGNERS[2].verifier.verify(TEXT, b"\x80" + line.signature[1:])


def test_a_signing_key_without_a_proper_name_is_malformed():
    for make in (SigningKey.log, SigningKey.cosigner):
        with pytest.raises(Malformed):
            make("two words", keys.ed25519_private("k"))
