"""What an enclave signs about one response, and how to hold it to that (docs/formats/receipt.md).

A receipt says which code, weights and effective parameters produced an answer, under which keyset, and how
large the log was that the enclave had verified when it admitted the request and when it finished. Prompts
and answers appear only as salted commitments, since a plain digest of a short prompt can be guessed; the
salt is in the client's copy alone and is not signed. Integers and strings only, canonical bytes, Ed25519
over a context string and the document without salt and signatures.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quotary import ed25519
from quotary.canonical import Fields, b64, canonical, parse_canonical
from quotary.errors import InvalidSignature, Malformed, Refused, Rejected

CONTEXT = b"quotary-receipt/v1\n"
MAX_RECEIPT = 8192
SALT_LENGTH = 32
SALT_HEADER = "receipt-salt"
FOLLOWED = "followed"
FINISH_REASONS = ("stop", "length", "error", "cancelled", "revoked", FOLLOWED)


@dataclass(frozen=True, slots=True)
class Served:
    """What was answered. start, end: the enclave's clock, seconds since 1970; complete: the client
    got all of it.
    """

    receipt_id: str
    chat_id: str
    endpoint: str
    start: int
    end: int
    complete: bool
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Channel:
    """The bytes on the sealed wire: SHA-256 of the request as posted, and the frame chain after
    ``frames`` frames.
    """

    request_wire: bytes
    frames: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Commitments:
    """Salted digests (``commitment``) of the inner bodies and token ids; counts are of tokens."""

    request: bytes
    response: bytes
    prompt_ids: bytes
    output_ids: bytes
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What answered. weights: SHA-256 of the manifest; measurement, evidence, keyset: 32 bytes;
    sizes: entries of the log.
    """

    service: str
    model: str
    weights: bytes
    measurement: bytes
    platform: str
    evidence: bytes
    keyset: bytes
    log: str
    size_at_admit: int
    size_at_end: int


@dataclass(frozen=True, slots=True)
class Signature:
    """key_id: as the keyset names it; value: 64 bytes of Ed25519."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """One parsed receipt, signed or about to be. previous: SHA-256 of the receipt before it, absent
    in the first.
    """

    sequence: int
    served: Served
    commitments: Commitments
    origin: Origin
    parameters: Mapping[str, int | str]
    channel: Channel | None = None
    previous: bytes | None = None
    salt: bytes | None = None
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> "Receipt":
        fields = Fields(parse_canonical(data, MAX_RECEIPT), "receipt")
        fields.integer("v", 1, 1)
        served = fields.fields("served")
        request, response = fields.fields("request"), fields.fields("response")
        tokens, code, log = fields.fields("tokens"), fields.fields("code"), fields.fields("log")
        model, platform, params = fields.fields("model"), fields.fields("platform"), fields.fields("params")
        found = cls(
            sequence=fields.integer("seq"),
            served=_served(fields, served),
            commitments=_commitments(request, response, tokens),
            origin=_origin(fields, model, code, platform, log),
            parameters=_parameters(params),
            channel=_channel(fields, request, response),
            previous=fields.optional("prev", lambda name: _digest(fields, name)),
            salt=fields.optional("commit_salt", lambda name: fields.base64(name, length=SALT_LENGTH)),
            signatures=tuple(_signature(item) for item in fields.items("sigs", 4, 1)),
        )
        for part in (served, request, response, tokens, code, log, model, platform, params, fields):
            part.done()
        return found

    def encode(self) -> bytes:
        """Write the whole document; without ``salt`` it is what anybody may keep."""
        document = self._document()
        document["sigs"] = [
            {"alg": "ed25519", "key_id": s.key_id, "sig": b64(s.value)} for s in self.signatures
        ]
        if self.salt is not None:
            document["commit_salt"] = b64(self.salt)
        return canonical(document)

    def signed_bytes(self) -> bytes:
        """What a receipt key signs."""
        return CONTEXT + canonical(self._document())

    def digest(self) -> bytes:
        """SHA-256 of the signed document without salt: what the next receipt's ``prev`` names."""
        return hashlib.sha256(replace(self, salt=None).encode()).digest()

    def _document(self) -> dict[str, object]:
        s, c, o = self.served, self.commitments, self.origin
        document: dict[str, object] = {
            "v": 1,
            "seq": self.sequence,
            "receipt_id": s.receipt_id,
            "chat_id": s.chat_id,
            "endpoint": s.endpoint,
            "served": {"start": s.start, "end": s.end},
            "complete": s.complete,
            "finish_reason": s.finish_reason,
            "tokens": {
                "in": c.tokens_in,
                "out": c.tokens_out,
                "prompt_ids": _hex(c.prompt_ids),
                "output_ids": _hex(c.output_ids),
            },
            "model": {"id": o.model, "weights": _hex(o.weights)},
            "params": {"digest": _hex(parameters_digest(self.parameters)), "values": dict(self.parameters)},
            "code": {"service": o.service, "measurement": o.measurement.hex()},
            "platform": {"type": o.platform, "evidence": _hex(o.evidence)},
            "log": {"origin": o.log, "size_at_admit": o.size_at_admit, "size_at_end": o.size_at_end},
            "keyset": _hex(o.keyset),
            "channel": "plain" if self.channel is None else "sealed",
        }
        request: dict[str, object] = {"inner": _hex(c.request)}
        response: dict[str, object] = {"inner": _hex(c.response)}
        if self.channel is not None:
            request["wire"] = _hex(self.channel.request_wire)
            response |= {"frames": self.channel.frames, "chain": _hex(self.channel.chain)}
        if self.previous is not None:
            document["prev"] = _hex(self.previous)
        return document | {"request": request, "response": response}


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the client itself sent and received. request_wire, chains: as ``sealed.ResponseOpener``
    keeps them; follows: whether it dictated the answer, so that one of the model's own is not what it wants.
    """

    request_wire: bytes
    request: bytes
    response: bytes
    chains: Sequence[bytes]
    min_log_size: int
    follows: bool = False


def commitment(label: str, salt: bytes, data: bytes) -> bytes:
    """Commit to bytes: SHA-256 over context, label, the 32-byte salt and the bytes. label: request,
    response, ...
    """
    assert len(salt) == SALT_LENGTH
    return hashlib.sha256(CONTEXT + label.encode("ascii") + b"\n" + salt + data).digest()


def token_bytes(ids: Sequence[int]) -> bytes:
    """Write token ids as a receipt commits to them: u32 big-endian each."""
    return struct.pack(f">{len(ids)}I", *ids)


def parameters_digest(values: Mapping[str, int | str]) -> bytes:
    """SHA-256 over the canonical effective parameters, after defaults."""
    return hashlib.sha256(canonical(dict(values))).digest()


def verify_signature(receipt: Receipt, keys: Mapping[str, bytes]) -> None:
    """Require a signature by one of the keyset's receipt keys (key id -> 32 bytes); every listed one
    must hold.
    """
    for signature in receipt.signatures:
        if signature.key_id not in keys:
            raise InvalidSignature(f"receipt is signed by {signature.key_id}, which the keyset does not have")
        ed25519.verify(keys[signature.key_id], signature.value, receipt.signed_bytes())
    if not receipt.signatures:
        raise InvalidSignature("receipt has no signature")


def verify_origin(
    receipt: Receipt, *, service: str, measurement: bytes, keyset: bytes, weights: bytes
) -> None:
    """Require that the receipt names the service, measurement id, keyset and weights that were judged."""
    origin = receipt.origin
    _same("receipt service", origin.service, service)
    _same("receipt measurement", origin.measurement.hex(), measurement.hex())
    _same("receipt keyset", origin.keyset.hex(), keyset.hex())
    _same("receipt weights", origin.weights.hex(), weights.hex())


def verify_exchange(receipt: Receipt, exchange: Exchange) -> None:
    """Require that the receipt is about this exchange, complete, and made by an enclave that knew
    the client's log.
    """
    channel, found = receipt.channel, receipt.commitments
    if channel is None or receipt.salt is None:
        raise Rejected(
            "receipt channel", "no sealed channel or no salt", "the client's copy of a sealed exchange"
        )
    _same("receipt request wire", channel.request_wire.hex(), exchange.request_wire.hex())
    _same("receipt request", found.request.hex(), commitment("request", receipt.salt, exchange.request).hex())
    if channel.frames >= len(exchange.chains):
        raise Rejected(
            "receipt frames", f"{channel.frames} frames", f"at most the {len(exchange.chains) - 1} received"
        )
    _same("receipt chain", channel.chain.hex(), exchange.chains[channel.frames].hex())
    _same(
        "receipt response",
        found.response.hex(),
        commitment("response", receipt.salt, exchange.response).hex(),
    )
    origin = receipt.origin
    if not exchange.min_log_size <= origin.size_at_admit <= origin.size_at_end:
        raise Refused(
            "receipt log",
            f"{origin.size_at_admit} then {origin.size_at_end}",
            f"{exchange.min_log_size} or more",
        )
    reason = receipt.served.finish_reason
    if exchange.follows and reason != FOLLOWED:
        raise Refused("receipt finish reason", reason, FOLLOWED)
    if not receipt.served.complete and not exchange.follows:
        raise Refused("receipt complete", f"false ({reason})", "true")


def _same(check: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise Rejected(check, found, wanted)


def _hex(digest: bytes) -> str:
    return "sha256:" + digest.hex()


def _digest(fields: Fields, name: str) -> bytes:
    text = fields.text(name, 71)
    if not text.startswith("sha256:") or len(text) != 71:
        raise Malformed(f"receipt member {name} is not a sha256 digest")
    try:
        found = bytes.fromhex(text[7:])
    except ValueError as error:
        raise Malformed(f"receipt member {name} is not a sha256 digest") from error
    if _hex(found) != text:
        raise Malformed(f"receipt member {name} is not lower-case hex")
    return found


def _served(fields: Fields, served: Fields) -> Served:
    return Served(
        fields.hexbytes("receipt_id", 16).hex(), fields.text("chat_id", 64), fields.text("endpoint", 1024),
        served.integer("start"), served.integer("end"), fields.boolean("complete"),
        fields.choice("finish_reason", *FINISH_REASONS),
    )  # fmt: skip


def _commitments(request: Fields, response: Fields, tokens: Fields) -> Commitments:
    return Commitments(
        _digest(request, "inner"), _digest(response, "inner"), _digest(tokens, "prompt_ids"),
        _digest(tokens, "output_ids"), tokens.integer("in"), tokens.integer("out"),
    )  # fmt: skip


def _origin(fields: Fields, model: Fields, code: Fields, platform: Fields, log: Fields) -> Origin:
    return Origin(
        code.name("service"), model.text("id", 128), _digest(model, "weights"), code.hexbytes("measurement",
        32), platform.name("type"), _digest(platform, "evidence"), _digest(fields, "keyset"),
        log.text("origin", 256), log.integer("size_at_admit"), log.integer("size_at_end"),
    )  # fmt: skip


def _parameters(params: Fields) -> dict[str, int | str]:
    values: dict[str, int | str] = {}
    for name, value in params.mapping("values", 32).items():
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Malformed(f"receipt parameter {name} is neither an integer nor a string")
        values[name] = value
    if _digest(params, "digest") != parameters_digest(values):
        raise Malformed("receipt parameters do not have the digest that stands beside them")
    return values


def _channel(fields: Fields, request: Fields, response: Fields) -> Channel | None:
    if fields.choice("channel", "plain", "sealed") == "plain":
        return None
    return Channel(_digest(request, "wire"), response.integer("frames"), _digest(response, "chain"))


def _signature(value: object) -> Signature:
    fields = Fields(value, "receipt signature")
    fields.choice("alg", "ed25519")
    found = Signature(fields.text("key_id", 128), fields.base64("sig", length=64))
    fields.done()
    return found
