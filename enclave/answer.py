"""One answer from the parsed request to its receipt, the same for the sealed channel and for plain HTTP.

An answer owns its job, hashes what is sent while it is sent, and is finished exactly once: whole, or
interrupted because the client went away. Either way it leaves a signed receipt.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enclave.beat import Beat
from enclave.chat import TEE, APIError, ChatRequest, Sampling, TextRequest
from enclave.engine import SAMPLER, Engine
from enclave.forms import ChatForm, Document, Form, TextForm
from enclave.job import Choice, Job, Piece
from enclave.lifecycle import Admission
from enclave.receipts import Answered, ReceiptBook, ResponseHash
from quotary.client.receipt import FOLLOWED, Channel, Origin, Receipt, Served, Signature, commitment

EVENT_STREAM = "text/event-stream; charset=utf-8"
LAST_EVENT = b"data: [DONE]\n\n"
JSON = "application/json"

# How an answer ends that is whole, whoever chose its tokens.
ENDS = ("stop", "length", FOLLOWED)

_DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send.

    body:    pieces as they come; finish: called once, after the last piece or instead of it
    chat_id: of the answer; empty where it is none
    beat:    when its frames are due, where that is not when they are made
    """

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]
    finish: Callable[[Channel | None, bool], Receipt | None]
    chat_id: str = ""
    beat: Beat | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What an answer needs of the enclave that serves it, fixed at its admission.

    origin: makes the receipt's origin from the log sizes at admission and end
    size:   entries of the newest verified checkpoint, now
    now:    seconds since 1970
    """

    model: str
    engine: Engine
    book: ReceiptBook
    sign: Callable[[bytes], Signature]
    admission: Admission
    origin: Callable[[int, int], Origin]
    size: Callable[[], int]
    now: Callable[[], int]


def plain(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Make a reply that leaves no receipt: everything but answers."""
    return Reply(
        status, {"content-type": JSON} | dict(headers or {}), iter((body,)), lambda channel, cut: None
    )


def answer(
    serving: Serving,
    request: ChatRequest | TextRequest,
    raw: bytes,
    beat: Beat | None = None,
    salt: bytes | None = None,
) -> Reply:
    """Start an answer. ``raw`` is the request body as the client wrote it; ``APIError`` where it
    cannot be served. beat: the cadence of a stream; salt: 32 bytes for the receipt's commitments, where
    the client chose them.
    """
    if request.model.removeprefix(TEE) != serving.model:
        raise APIError(404, "model_not_found", f"this enclave serves {serving.model}", param="model")
    model = serving.engine.model
    form: Form
    if isinstance(request, ChatRequest):
        form, prompt, param = ChatForm(model.decode), model.encode(request.messages), "messages"
    else:
        form, prompt, param = TextForm(model.decode), model.encode_text(request.prompt), "prompt"
    _check_known("logit_bias", [token for token, _ in request.asked.bias], model.vocabulary)
    _check_known("follow_token_ids", request.asked.follow, model.vocabulary)
    sampling = _sampling(request, len(prompt), model.context_length, param)
    made = Answer(serving, request, raw, serving.engine.submit(prompt, sampling), form, salt)
    return made.stream(beat) if request.asked.stream else made.whole()


class Answer:
    """An answer in the making."""

    def __init__(
        self,
        serving: Serving,
        request: ChatRequest | TextRequest,
        raw: bytes,
        job: Job,
        form: Form,
        salt: bytes | None = None,
    ) -> None:
        self._serving, self._request, self._raw, self._job = serving, request, raw, job
        self._form, self._told = form, job.sampling.top is not None
        self._hash = ResponseHash(salt)
        self._created = serving.now()
        self._receipt_id = os.urandom(16).hex()
        self._chat_id = f"{form.name}-{secrets.token_hex(12)}"
        self._receipt: Receipt | None = None

    def stream(self, beat: Beat | None) -> Reply:
        """Reply with server-sent events while the model thinks; with a cadence, at most one for each beat."""
        headers = {
            "content-type": EVENT_STREAM,
            "cache-control": "no-store",
            "x-receipt-id": self._receipt_id,
        }
        pieces = self._job.pieces() if beat is None else self._job.merged(beat.left)
        body = map(self._hash.update, self._events(pieces))
        return Reply(200, headers, body, self.finish, self._chat_id, beat)

    def whole(self) -> Reply:
        """Reply when the model has finished."""
        pieces = tuple(self._job.pieces())
        error = self._error()
        text = "".join(piece.text for piece in pieces)
        choices: list[Choice] = [choice for piece in pieces for choice in piece.choices]
        choice = self._form.whole(text, choices, self._reason(), told=self._told) | self._tokens()
        document = self._document(self._form.whole_kind, [choice]) | {"usage": self._usage()}
        if self._request.asked.token_ids:
            document["prompt_token_ids"] = list(self._job.prompt)
        body = _json(document) if error is None else error.body()
        headers = {"content-type": JSON, "cache-control": "no-store", "x-receipt-id": self._receipt_id}
        status = 200 if error is None else error.status
        return Reply(status, headers, iter((self._hash.update(body),)), self.finish, self._chat_id)

    def finish(self, channel: Channel | None, interrupted: bool) -> Receipt:
        """Sign what happened; ``interrupted`` means that not everything could be sent."""
        if self._receipt is None:
            if interrupted:
                self._job.end("cancelled")
            for _ in self._job.pieces():
                pass
            self._receipt = self._serving.book.issue(self._answered(channel, interrupted), self._serving.sign)
        return self._receipt

    def _answered(self, channel: Channel | None, interrupted: bool) -> Answered:
        serving, output = self._serving, self._job.output
        reason = self._reason()
        if interrupted and reason in ENDS:
            reason = "cancelled"
        # Who follows says what it was told to say: no reader may take that for the model's answer.
        complete = reason in ("stop", "length")
        served = Served(
            self._receipt_id,
            self._chat_id,
            self._form.endpoint,
            self._created,
            serving.now(),
            complete,
            reason,
        )
        origin = serving.origin(serving.admission.size, serving.size())
        return Answered(
            served, origin, self._raw, self._hash, self._job.prompt, output.ids, self._parameters(), channel
        )

    def _parameters(self) -> Mapping[str, int | str]:
        sampling = self._job.sampling
        found: dict[str, int | str] = {
            "temperature_ppm": sampling.temperature_ppm,
            "top_p_ppm": sampling.top_p_ppm,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "sampler": "greedy" if sampling.temperature_ppm == 0 else SAMPLER,
            "stop_count": len(sampling.stop),
        }
        found |= {
            name: value
            for name, value in (
                ("frequency_penalty_ppm", sampling.frequency_ppm),
                ("presence_penalty_ppm", sampling.presence_ppm),
                ("logit_bias_count", len(sampling.bias)),
            )
            if value
        }
        # What the client wrote itself appears as a commitment too.
        if sampling.stop:
            found["stop"] = commitment("stop", self._hash.salt, _json(list(sampling.stop))).hex()
        if sampling.bias:
            found["logit_bias"] = commitment("logit_bias", self._hash.salt, _json(list(sampling.bias))).hex()
        return found | self._followed() | dict(self._serving.engine.model.kernel)

    def _followed(self) -> dict[str, int | str]:
        count, gaps = len(self._job.sampling.follow), self._job.output.gaps
        if not count:
            return {}
        found: dict[str, int | str] = {"follow_count": count, "diverged_count": len(gaps)}
        if gaps:
            found |= {"diverged_first": gaps[0][0], "gap_ppm": max(gap for _, gap in gaps)}
        return found

    def _tokens(self) -> Document:
        if not self._request.asked.token_ids:
            return {}
        ids, decode = self._job.output.ids, self._serving.engine.model.decode
        return {"token_ids": list(ids), "token_texts": [decode((token,)) for token in ids]}

    def _events(self, pieces: Iterator[Piece]) -> Iterator[bytes]:
        first = self._form.first()
        if first is not None:
            yield self._event([first])
        for piece in pieces:
            empty = not piece.text and not piece.choices
            yield b"" if empty else self._event([self._form.part(piece.text, piece.choices, told=self._told)])
        error = self._error()
        if error is not None:
            yield b"data: " + error.body() + b"\n\n"
            return
        yield self._event([self._form.last(self._reason())])
        if self._request.asked.include_usage:
            yield self._event([], usage=self._usage())
        yield LAST_EVENT

    def _event(self, choices: list[Document], **more: object) -> bytes:
        return b"data: " + _json(self._document(self._form.part_kind, choices) | more) + b"\n\n"

    def _document(self, kind: str, choices: list[Document]) -> Document:
        return {
            "id": self._chat_id,
            "object": kind,
            "created": self._created,
            "model": self._serving.model,
            "choices": choices,
        }

    def _usage(self) -> Mapping[str, int]:
        read, written = len(self._job.prompt), len(self._job.output.ids)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _reason(self) -> str:
        reason = self._job.output.finish_reason
        return FOLLOWED if self._job.sampling.follow and reason in ("stop", "length") else reason

    def _error(self) -> APIError | None:
        reason = self._reason()
        if reason in ENDS:
            return None
        if reason == "revoked":
            message = "this enclave stopped serving while it answered"
            return APIError(503, "measurement_revoked", message, kind="server_error")
        if reason == "cancelled":
            message = "this enclave was told to stop before the answer was whole"
            return APIError(503, "stopping", message, kind="server_error")
        if self._job.output.full:
            message = "the conversation does not fit into the memory that this enclave has now"
            return APIError(503, "memory_full", message, kind="server_error")
        return APIError(500, "model_failed", "the model failed while it answered", kind="server_error")


def _sampling(
    request: ChatRequest | TextRequest, prompt_length: int, context_length: int, param: str
) -> Sampling:
    asked, room = request.asked, context_length - prompt_length
    if room < 1:
        message = f"the conversation has {prompt_length} tokens, this model reads {context_length - 1}"
        raise APIError(400, "context_length_exceeded", message, param=param)
    return Sampling(
        asked.temperature_ppm,
        asked.top_p_ppm,
        min(asked.max_tokens or _DEFAULT_TOKENS, room),
        secrets.randbits(53) if asked.seed is None else asked.seed,
        asked.stop,
        asked.frequency_ppm,
        asked.presence_ppm,
        asked.bias,
        asked.top,
        asked.follow,
    )


def _check_known(param: str, tokens: Sequence[int], vocabulary: int) -> None:
    unknown = [token for token in tokens if token >= vocabulary]
    if unknown:
        message = f"token {unknown[0]} is none of this model's {vocabulary}"
        raise APIError(400, "invalid_value", message, param=param)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
