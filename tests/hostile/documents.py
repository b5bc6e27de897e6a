"""Documents with two readings (rows I4, I7, I8, I9): each case says whether its bytes are a document at all.

Nearly all are not. Those that are stand beside them, so that nobody passes by refusing everything.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from quotary import ed25519
from quotary.canonical import canonical
from quotary.statements.envelope import Envelope
from tests.fakes.authority import ORIGIN, Authority
from tests.fakes.log import FakeLog, log_keys
from tests.hostile.encodings import tlv

GOOD, BAD, UNKNOWN = "accepted", "malformed", "unsupported"


@dataclass(frozen=True, slots=True)
class Document:
    """One input; ``kind`` says which reader gets it."""

    kind: str
    name: str
    data: bytes
    verdict: str


def documents() -> list[Document]:
    """Give every case; no two have the same bytes."""
    made = [*_json(), *_entries(), *_notes(), *_checkpoints(), *_proofs(), *_vkeys()]
    assert len({(case.kind, case.data) for case in made}) == len(made)
    return made


def _texts(kind: str, verdict: str, texts: list[str]) -> Iterator[Document]:
    for text in texts:
        yield Document(
            kind,
            f"{len(text)} characters {ascii(text)[:100]} ... {ascii(text)[-60:]}",
            text.encode("utf-8", "surrogatepass"),
            verdict,
        )


def _json() -> Iterator[Document]:
    deep = [("[" * n + "]" * n) for n in (1, 15, 16)] + ['{"a":' * n + "1" + "}" * n for n in (1, 15, 16)]
    yield from _texts("json", GOOD, [
        "{}", "0", "-1", "true", "false", '""', '"a"', "9007199254740991", "-9007199254740991", '{"a":1,"b":2}',
        '{"A":1,"a":1}', '{"a":[],"b":{}}', '"e\u0301"', '"\u00e9"', '"😀"', '"\u2028"', '"\u2029"', '"\ufeff"',
        '"\ufffe"', '"\uffff"', '"\u200b"', '"\u202e"', '"\u0430"', '"\\\\"', '"\\""', '"/"', '{"__proto__":1}',
        '{"constructor":{"prototype":1}}', '{"toString":1,"valueOf":2}', '{"1":1,"10":1,"2":1}', '{".":1,"/":1,":":1}',
        *deep,
    ])  # fmt: skip
    yield from _texts("json", BAD, [
        "", " ", "\n", "null", "NaN", "Infinity", "-Infinity", "nan", "undefined", "True", "FALSE", "tru", "'a'", '"a', 'a"',
        # Numbers
        "1.0", "1.5", "0.0", "-0", "-0.0", "1e0", "1E0", "1e400", "1e-400", "-1e999", "01", "00", "+1", "1.", ".5", "0x1",
        "1_000", "--1", "9007199254740992", "-9007199254740992", "9" * 400, "1" + "0" * 5000, "１", "٣", "1 ", " 1", "1,",
        "0b1", "1n", "- 1",
        # Names
        '{"b":1,"a":1}', '{"a":1,"a":1}', '{"a":1,"a":2}', '{"a":1,"b":2,"a":1}', '{"a":{"b":1,"b":1}}', '{"":1}',
        '{"a b":1}', '{"é":1}', '{"a\\u0062":1}', '{"\\u0061":1}', '{a:1}', "{'a':1}", '{"a":1,}', '{"a" :1}',
        '{"a": 1}', '{"a":1 }', '{ "a":1}', '{"a"}', '{"a":}', '{,}', '{"a":1;"b":2}', '{"a":1"b":2}', '{"10":1,"1":1}',
        '{"a":null}', '{"a":[null]}', '{"' + "a" * 257 + '":1}', '{"a\\n":1}', '{"a+b":1}', '{"a":1}{"a":1}',
        '{"a":1}\n', '\n{"a":1}', '{"a":1}\r\n', '{"a":1}\0', '{"a":1} ', '{"a":1}x', '\ufeff{"a":1}', '{"a":1}\ufeff',
        # Strings
        '"\\/"', '"\\u0041"', '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00"', '"\\udc00\\ud800"', '"\\uD83D"',
        '"\ud800"', '"\udfff"', '"\\b"', '"\\f"', '"\\n"', '"\\r"', '"\\t"', '"\\u0000"', '"\\u001f"', '"\\u007f"',
        '"\x00"', '"\x01"', '"\t"', '"\n"', '"\r"', '"\x1f"', '"\x7f"', '"\x80"', '"\x85"', '"\x9f"', '"\\x41"', '"\\\'"',
        '"\\u2028"', '"\\u00"', '"\\u{41}"', '"\\U00000041"', '"a""b"', '"\\v"', '"\\0"', '"\\a"',
        # Arrays
        "[1, 2]", "[1 ,2]", "[ 1]", "[1 ]", "[1,]", "[,1]", "[1 2]", "[1", "1]", "[[]", "[]]", "[1]]", "(1)", "[1]//", "[1]#",
        "/*a*/1", "[1,/*a*/2]", "<1>",
        # Depth
        "[" * 17 + "]" * 17, '{"a":' * 17 + "1" + "}" * 17, "[" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 5000,
    ])  # fmt: skip
    wrong = {
        "latin-1": b'"\xe9"', "overlong slash": b'"\xc0\xaf"', "overlong NUL": b'"\xc0\x80"', "overlong quote": b"\xc0\xa2a\xc0\xa2",
        "CESU-8": b'"\xed\xa0\xbd\xed\xb8\x80"', "cut UTF-8": b'"\xf0\x9f\x98"', "lone continuation": b'"\x80"',
        "beyond Unicode": b'"\xf4\x90\x80\x80"', "five bytes": b'"\xf8\x88\x80\x80\x80"', "UTF-16": '{"a":1}'.encode("utf-16"),
        "UTF-16 BE": '{"a":1}'.encode("utf-16-be"), "UTF-32": '{"a":1}'.encode("utf-32-le"), "BOM": b"\xef\xbb\xbf{}",
        "0xff": b"\xff", "0xfe": b'{"a":"\xfe"}',
    }  # fmt: skip
    for name, data in wrong.items():
        yield Document("json", name, data, BAD)


def _entries() -> Iterator[Document]:
    made = Authority()
    good = [
        made.genesis(),
        made.allocation(),
        made.delegation(),
        made.floor(),
        made.release("r1"),
        made.notice(),
        made.revocation(["r1"]),
    ]
    for number, entry in enumerate(good):
        yield Document("entry", f"good {number}", entry, GOOD)
    release = good[4]
    yield from _envelopes(release)
    yield from _payloads(Envelope.parse(release).payload, json.loads(release))


def _envelopes(entry: bytes) -> Iterator[Document]:
    whole = json.loads(entry)
    (signature,) = whole["signatures"]

    def case(name: str, **changes: object) -> Document:
        found = {key: value for key, value in {**whole, **changes}.items() if value is not None}
        return Document(
            "entry",
            f"envelope: {name}",
            json.dumps(found, sort_keys=True, separators=(",", ":")).encode(),
            BAD,
        )

    def signed(name: str, **changes: object) -> Document:
        item = {key: value for key, value in {**signature, **changes}.items() if value is not None}
        return case(f"signature: {name}", signatures=[item])

    payload, sig, keyid = whole["payload"], signature["sig"], signature["keyid"]
    other = keyid[:-1] + ("0" if keyid[-1] != "0" else "1")
    low, high = sorted([keyid, other])
    yield from (
        case("no payload", payload=None), case("no type", payloadType=None), case("no signatures", signatures=None),
        case("a member more", more=1), case("an empty payload", payload=""), case("a payload that is a number", payload=1),
        case("a payload in base64url", payload=payload.replace("+", "-").replace("/", "_") + "_"),
        case("a payload without padding", payload=payload.rstrip("=") + "A"), case("a payload with a space", payload=payload + " "),
        case("a payload with a line feed", payload=payload + "\\n"), case("another payload type", payloadType="application/json"),
        case("the type of the text", payloadType="application/vnd.in-toto+json "), case("the type in capitals", payloadType="application/vnd.in-toto+JSON"),
        case("a payload type twice", payloadType=["application/vnd.in-toto+json"]), case("signatures that are one", signatures=signature),
        case("an empty list", signatures=[]), case("a signature twice", signatures=[signature, signature]),
        case("a key twice", signatures=[signature, {**signature, "sig": sig[:-4] + "AA=="}]),
        case("keys out of order", signatures=[{**signature, "keyid": high}, {**signature, "keyid": low}]),
        case("33 signatures", signatures=[{**signature, "keyid": f"sha256:{n:064x}"} for n in range(33)]),
        case("a thousand signatures", signatures=[{"keyid": f"sha256:{n:064x}", "sig": ""} for n in range(600)]),
        case("a signature that is text", signatures=[sig]),
        signed("no key id", keyid=None), signed("no sig", sig=None), signed("a member more", more=1), signed("63 bytes", sig=_b64(bytes(63))),
        signed("65 bytes", sig=_b64(bytes(65))), signed("empty", sig=""), signed("bits behind", sig=sig[:-3] + "B=="), signed("a space", sig=" " + sig),
        signed("a key id in capitals", keyid=keyid.upper()), signed("a key id of another hash", keyid=keyid.replace("sha256", "sha512")),
        signed("a short key id", keyid=keyid[:-1]), signed("a key id with a line feed", keyid=keyid + "\n"), signed("a bare key id", keyid=keyid[7:]),
        signed("digits of another script", keyid=keyid[:-1] + "٣"),
    )  # fmt: skip
    for name, data in {
        "a space behind": entry + b" ", "a line feed behind": entry + b"\n", "a space before": b" " + entry, "twice": entry * 2,
        "cut": entry[:-1], "a BOM": b"\xef\xbb\xbf" + entry, "NUL behind": entry + b"\0", "in an array": b"[" + entry + b"]",
        "the payload alone": Envelope.parse(entry).payload, "pretty": json.dumps(whole, indent=1).encode(),
        "a slash escaped": entry.replace(b"vnd.in-toto", b"vnd.in\\u002dtoto"), "payload twice": entry.replace(b'{"payload":', b'{"payload":"","payload":', 1),
        "empty": b"", "an empty object": b"{}", "65,536 bytes": entry[:-1] + b" " * (65_536 - len(entry)) + b"}",
    }.items():  # fmt: skip
        yield Document("entry", f"bytes: {name}", data, BAD)


# What may follow a name is compared with what a reader could take for it: bidi, zero width, homoglyphs, normal forms.
NAMES = (
    "Chat", "chat ", " chat", "ch at", "chat/", "/chat", "ch//at", "chat\u200b", "ch\u202eat", "ch\u0430t", "chát", "cha\u0301t", "chat\u00ad",
    "ｃｈａｔ", "chat\ufeff", "../chat", "chat-", ".chat", "log", "", "a" * 101, "chat\u2044x", "chat\\x", "chat;x", "chat?x", "chat%2fx", "<b>",
)  # fmt: skip
MOMENTS = (
    "2026-11-21T12:00:00", "2026-11-21 12:00:00Z", "2026-11-21T12:00:00z", "2026-11-21t12:00:00Z", "2026-11-21T12:00:00+00:00", "2026-11-21T12:00:00.0Z",
    "2026-02-29T12:00:00Z", "2026-13-01T12:00:00Z", "2026-11-31T12:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T23:59:60Z", "1969-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z", "٢٠٢٦-11-21T12:00:00Z", "", "now", "1763726400", "+2026-11-21T12:00:00Z", "2026-11-21T12:00Z", "2026-W47-6",
)  # fmt: skip


def _payloads(payload: bytes, envelope: dict[str, object]) -> Iterator[Document]:
    statement = json.loads(payload)

    def case(name: str, changed: object, verdict: str = BAD) -> Document:
        data = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
        return Document("entry", f"payload: {name}", canonical({**envelope, "payload": _b64(data)}), verdict)

    def predicate(name: str, **changes: object) -> Document:
        found = {
            key: value for key, value in {**statement["predicate"], **changes}.items() if value is not None
        }
        return case(name, {**statement, "predicate": found})

    yield from (predicate(f"service {name!r}", service=name) for name in NAMES)
    yield from (predicate(f"issued {at!r}", issued=at) for at in MOMENTS)
    yield from (predicate(f"sequence {n!r}", sequence=n) for n in (0, -1, True, "1", 1.5, 2**53, [], {}))
    yield from (predicate(f"without {name}", **{name: None}) for name in sorted(statement["predicate"]))
    yield from (
        case(f"kind {uri!r}", {**statement, "predicateType": uri}, verdict)
        for uri, verdict in {
            "https://quotary.dev/wish/v1": UNKNOWN, "https://quotary.dev/release/v2": UNKNOWN, "https://quotary.dev/release/v1/": UNKNOWN,
            "https://quotary.dev/Release/v1": UNKNOWN, "http://quotary.dev/release/v1": UNKNOWN, "https://quotary.dev//v1": UNKNOWN,
            "https://quotary.dev/__proto__/v1": UNKNOWN, "https://quotary.dev/r\u0435lease/v1": UNKNOWN, "": BAD, "x" * 257: BAD,
        }.items()
    )  # fmt: skip
    yield from (
        case("another _type", {**statement, "_type": "https://in-toto.io/Statement/v0.1"}), case("no subject", {k: v for k, v in statement.items() if k != "subject"}),
        case("an empty subject", {**statement, "subject": []}), case("another subject", {**statement, "subject": [{"digest": {"sha256": "0" * 64}, "name": "x"}]}),
        case("a subject twice", {**statement, "subject": statement["subject"] * 2}), case("a member more", {**statement, "more": 1}),
        case("a predicate that is a list", {**statement, "predicate": []}), predicate("a predicate's member more", more=1),
        case("no object", []), case("a string", "release"), case("a float inside", {**statement, "more": 1.0}),
    )  # fmt: skip
    for name, data in {
        "pretty": json.dumps(statement, indent=1).encode(),
        "not JSON": b"\xff",
        "spaced": payload + b" ",
        "PAE": b"DSSEv1 1 x " + payload,
    }.items():
        yield Document("entry", f"payload bytes: {name}", canonical({**envelope, "payload": _b64(data)}), BAD)


def _notes() -> Iterator[Document]:
    log = FakeLog()
    log.append(log.maker.genesis())
    log.close()
    note = log.note().decode()
    text, block = note.split("\n\n")
    lines = block.splitlines(keepends=True)
    line, dash = lines[0], "\u2014"
    yield from _texts("note", GOOD, [
        note, text + "\n\n" + line, text + "\n\n" + line * 100, "a\n\nb\n\n" + line, "\n\n" + line, text + "\n\n" + line.replace(ORIGIN, "ü/x"),
        text + "\n\n" + line.replace(ORIGIN, "a:b/c"), text + "\u2028\n\n" + line,
    ])  # fmt: skip
    yield from _texts("note", BAD, [
        "", "\n", "\n\n", text, text + "\n", text + "\n\n", line, text + "\n" + line, note[:-1], note + "\n", note + "x", note + "x\n", note.replace("\n", "\r\n"),
        note.replace("\n\n", "\r\n\r\n"), note.replace("\n\n", "\n\n\n\n").rstrip() + "\n\n", text + "\n\n" + line * 101,
        *(text + "\n\n" + line.replace(dash, other) for other in ("-", "--", "\u2013", "\u2015", "\u2212", "\u2014\u2014", "\u00e2\u20ac\u201d", "", "\uff0d")),
        *(text + "\n\n" + line.replace(dash + " ", dash + space) for space in ("", "  ", "\u00a0", "\t", "\u2003")),
        *(text + "\n\n" + line.replace(ORIGIN, name) for name in ("", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\u3000b", "a\u1680b", "a\u2028b", "a\u0085b", "a\tb", "a\x1cb")),
        text + "\n\n" + line.replace("\n", " \n"), text + "\n\n " + line, text + "\n\n" + line.replace("=", ""), text + "\n\n" + line.replace("=\n", "==\n"),
        text + "\n\n" + line.replace("+", "-").replace("/", "_"), text + "\n\n" + f"{dash} name AAAAAA==\n", text + "\n\n" + f"{dash} name \n",
        text + "\n\n" + f"{dash} name\n", text + "\n\n" + f"{dash} name AAAAAAA= x\n", text + "\n\n" + f"{dash} name !!!!!!!!\n",
        *(f"a{control}b\n\n{line}" for control in ("\0", "\x01", "\t", "\r", "\x0b", "\x1b", "\x1f")), text + "\n\n" + line + "\n" + line + "x\n",
    ])  # fmt: skip
    yield Document("note", "not UTF-8 in the text", b"\xff\n\n" + line.encode(), BAD)
    yield Document("note", "a BOM", b"\xef\xbb\xbf" + note.encode(), GOOD)
    yield Document("note", "a cut dash", (text + "\n\n").encode() + b"\xe2\x80" + line.encode()[3:], BAD)
    yield Document("note", "a million bytes", (text + "\n" * 1_000_001 + line).encode(), BAD)


def _checkpoints() -> Iterator[Document]:
    root = _b64(bytes(range(32)))
    yield from _texts(
        "checkpoint", GOOD, [f"{ORIGIN}\n{size}\n{root}\n" for size in ("0", "1", "42", str(2**63 - 1))]
    )
    sizes = (
        "",
        "-1",
        "+1",
        "01",
        "00",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "0x1",
        "1_0",
        "٣",
        "１",
        "²",
        str(2**63),
        "9" * 50,
        "9" * 5000,
        "one",
        "1\0",
    )
    yield from _texts("checkpoint", BAD, [f"{ORIGIN}\n{size}\n{root}\n" for size in sizes])
    yield from _texts("checkpoint", BAD, [
        "", "\n\n\n", f"{ORIGIN}\n1\n{root}", f"{ORIGIN}\n1\n{root}\n\n", f"{ORIGIN}\n1\n{root}\nextension\n", f"\n1\n{root}\n", f"{ORIGIN}\n1\n\n",
        f"{ORIGIN}\n1\n{root.rstrip('=')}\n", f"{ORIGIN}\n1\n{root}=\n", f"{ORIGIN}\n1\n{_b64(bytes(31))}\n", f"{ORIGIN}\n1\n{_b64(bytes(33))}\n",
        f"{ORIGIN}\n1\n{root[:-2]}9=\n", f"{ORIGIN}\n1\n {root}\n", f"{ORIGIN}\n1\n{root} \n", f"{ORIGIN}\r\n1\r\n{root}\r\n", f"1\n{ORIGIN}\n{root}\n",
        f"{ORIGIN}\n1\n{root}\r\n", f"{ORIGIN}\n1\n-_{root[2:]}\n",
    ])  # fmt: skip


def _proofs() -> Iterator[Document]:
    log = FakeLog()
    log.append(log.maker.genesis())
    log.close()
    proof = log.proof(0).decode()
    start, index, rest = "c2sp.org/tlog-proof@v1\n", "index 0\n", proof.partition("index 0\n")[2]
    digest, note = rest.split("\n", 1)
    yield from _texts(
        "proof",
        GOOD,
        [
            proof,
            start + "extra AAAA\n" + index + rest,
            start + "index 9007199254740993\n" + rest,
            start + index + "\n" + note.lstrip("\n"),
        ],
    )
    yield from _texts("proof", BAD, [
        "", start, start + index, start + rest, index + rest, proof.replace("@v1", "@v2"), proof.replace("c2sp", "C2SP"), " " + proof, proof.replace("\n", "\r\n"),
        *(start + f"index {n}\n" + rest for n in ("", "-1", "+1", "01", " 1", "1 ", "0x1", "1.0", "٣", str(2**63), "9" * 5000, "one")),
        *(start + index + f"{line}\n" + note for line in (digest[:-1], digest + "=", " " + digest, digest + " ", _b64(bytes(31)), _b64(bytes(33)), "!", digest[:-2] + "9=")),
        start + index * 2 + rest, start + "index0\n" + rest, start + "Index 0\n" + rest, start + "extra\n" + index + rest, start + "extra !\n" + index + rest,
        start + "extra AAAA\nextra AAAA\n" + index + rest, start + index + "extra AAAA\n" + rest, start + "extra AA\n" + index + rest,
        proof.replace("\n\n", "\n", 1), proof[:-1], proof + "\n", proof + "x\n", start + index + f"{digest}\n" * 64 + note,
    ])  # fmt: skip


def _vkeys() -> Iterator[Document]:
    good = log_keys()[0].verifier.vkey()
    name, key_id, key = good.split("+", 2)
    unknown = _b64(b"\xd1" + bytes(32))
    yield from _texts("vkey", GOOD, [good, log_keys()[1].verifier.vkey(), f"{name}+00000000+{unknown}"])
    yield from _weak_keys(name)
    for alg, length in ((1, 31), (1, 33), (4, 64), (6, 32), (6, 1311)):
        made = hashlib.sha256(name.encode() + b"\n" + bytes([alg]) + bytes(length)).hexdigest()[:8]
        yield from _texts("vkey", BAD, [f"{name}+{made}+{_b64(bytes([alg]) + bytes(length))}"])
    yield from _texts("vkey", BAD, [
        "", "+", "++", name, f"{name}+{key_id}", f"{name}+{key_id}+", f"+{key_id}+{key}", f"{name}+{key_id.upper()}+{key}", f"{name}+00000000+{key}",
        f"{name}+{key_id}00+{key}", f"{name}x+{key_id}+{key}", log_keys()[1].verifier.vkey().rstrip("="), f"{name}+{key_id}+{key}=", f"{name}+{key_id}+ {key}",
        f"{good} ", f" {good}", f"{good}\n", f"{name}+{key_id}+AQ==", f"a b+{key_id}+{key}", f"{name}+{key_id}+{key[:-4]}", f"{name}\u2003+{key_id}+{key}",
    ])  # fmt: skip


def _weak_keys(name: str) -> Iterator[Document]:
    """Keys that prove nothing, or are another spelling of one; the ids are right."""
    small = (0, 1, ed25519.PRIME - 1, ed25519._Y8, ed25519.PRIME - ed25519._Y8)
    written = [value for y in small for value in (y, y + ed25519.PRIME) if value < 2**255]
    # 2 is the y of no point, 3 is that of one: written beyond the prime it is a second spelling.
    points = [y | sign for y in (*written, 2, ed25519.PRIME + 3) for sign in (0, 2**255)]
    for alg, y in [(alg, y) for alg in (1, 4) for y in points]:
        yield Document(
            "vkey", f"type {alg}, weak point {y:064x}", _vkey(name, alg, y.to_bytes(32, "little")), BAD
        )
    for alg in (1, 4):
        yield Document("vkey", f"type {alg}, good point", _vkey(name, alg, (3).to_bytes(32, "little")), GOOD)
    point = ec.derive_private_key(5, ec.SECP256R1()).public_key()
    good = _spki(point)
    body = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    squeezed = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    other = ec.derive_private_key(5, ec.SECP256K1()).public_key()
    cases = {
        "P-256": (good, GOOD), "P-384": (_spki(ec.derive_private_key(5, ec.SECP384R1()).public_key()), GOOD),
        "P-521": (_spki(ec.derive_private_key(5, ec.SECP521R1()).public_key()), GOOD), "a byte behind": (good + b"\0", BAD),
        "cut": (good[:-1], BAD), "compressed": (tlv(0x30, body + tlv(3, b"\0" + squeezed)), BAD), "secp256k1": (_spki(other), BAD),
        "off the curve": (good[:-1] + bytes([good[-1] ^ 1]), BAD), "RSA": (_spki(rsa.generate_private_key(65537, 1024).public_key()), BAD),
        "no key": (b"\x30\x00", BAD), "a long length": (b"\x30\x81" + good[1:], BAD),
    }  # fmt: skip
    for title, (spki, wanted) in cases.items():
        yield Document("vkey", f"ECDSA, {title}", _vkey(name, 2, spki), wanted)


def _spki(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _vkey(name: str, alg: int, public: bytes) -> bytes:
    hashed = public if alg == 2 else name.encode() + b"\n" + bytes([alg]) + public
    return f"{name}+{hashlib.sha256(hashed).hexdigest()[:8]}+{_b64(bytes([alg]) + public)}".encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
