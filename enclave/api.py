"""The enclave's HTTP surface. Prompts come through ``/v1/sealed``; plain HTTP only where the measured policy
allows it.

Every answer that is not sealed is unauthenticated and has OpenAI's error shape. Inside the channel the same
errors are sealed, so that nobody on the path can invent a reason. Bodies are bounded before they are read,
and never logged.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from flask import Flask, Request, Response, request
from werkzeug.exceptions import HTTPException

from enclave import lifecycle
from enclave.answer import Reply, Serving, answer, plain
from enclave.beat import Beat
from enclave.called import check_caller, introduced
from enclave.channel import PlainBody, SealedBody
from enclave.chat import TEE, APIError
from enclave.doors.book import Asker
from enclave.doors.routes import NANOGPT_CHAT
from enclave.events import APIFailed, emit
from enclave.keyset import LiveKeyset
from enclave.lifecycle import LogBehind, NotServing
from enclave.openai import parse_chat, parse_text
from enclave.replay import OutsideWindow, Replayed
from enclave.runtime import Enclave
from enclave.tokens import TokenRefused
from quotary.canonical import hexbytes, unb64
from quotary.client.caller import PATH as CALLERS
from quotary.client.ratchet import PATH as SESSION_PATH
from quotary.client.ratchet import Opening, SessionEnded, is_session
from quotary.client.receipt import SALT_HEADER, SALT_LENGTH
from quotary.client.receipt_root import encode_roots
from quotary.client.sealed import (
    MEDIA_TYPE,
    OpenedRequest,
    UnknownKey,
    key_id,
    open_request,
    sealed_key_id,
)
from quotary.errors import Malformed, QuotaryError, Refused

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MODELS = "/v1/models"
MAX_SEALED = 1 << 20
SEALED = "/v1/sealed"
GATEWAY_PATH = "/v1/oblivious"
GATEWAY_KEYS = f"{GATEWAY_PATH}/keys"
RETRY_SECONDS = 10


def create_app(enclave: Enclave) -> Flask:
    """Make the application around one enclave."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_SEALED
    app.config["PROPAGATE_EXCEPTIONS"] = False

    routes: dict[tuple[str, str], Callable[..., Response]] = {
        ("GET", "/healthz"): lambda: _send(plain(200, b'{"status":"alive"}')),
        ("GET", "/v1/state"): lambda: _send(_state(enclave)),
        ("GET", "/v1/attestation"): lambda: _send(_attestation(enclave)),
        ("GET", MODELS): lambda: _send(_models(enclave)),
        ("GET", f"{MODELS}/<path:name>"): lambda name: _send(_model(enclave, name)),
        ("GET", "/v1/receipts/<receipt_id>"): lambda receipt_id: _send(_receipt(enclave, receipt_id)),
        ("GET", "/v1/receipts/<receipt_id>/place"): lambda receipt_id: _send(_place(enclave, receipt_id)),
        ("GET", "/v1/receipt-roots"): lambda: _send(_roots(enclave)),
        ("POST", CHAT): lambda: _plain_answer(enclave),
        ("POST", TEXT): lambda: _plain_answer(enclave),
        ("POST", SEALED): lambda: _sealed(enclave),
        ("POST", GATEWAY_PATH): lambda: _oblivious(enclave),
        ("GET", GATEWAY_KEYS): lambda: _send(_gateway_keys(enclave)),
    }
    if enclave.doors.is_chat(NANOGPT_CHAT):
        routes["POST", NANOGPT_CHAT] = lambda: _plain_answer(enclave)
    for path in enclave.doors.paths:
        rule = f"{path}<chat_id>" if path.endswith("/") else path
        routes["GET", rule] = lambda chat_id="": _send(_door(enclave, _target(), _asker(_headers())))
    for (method, path), view in routes.items():
        app.add_url_rule(path, path, view, methods=[method])
    app.register_error_handler(Exception, _failed)
    return app


def _sealed(enclave: Enclave) -> Response:
    if request.mimetype != MEDIA_TYPE:
        raise APIError(415, "unsupported_media_type", f"a sealed request has the type {MEDIA_TYPE}")
    return _streamed(_sealed_body(enclave, _body(request)), 200, {"content-type": MEDIA_TYPE})


def _sealed_body(enclave: Enclave, wire: bytes) -> SealedBody:
    keyset, opened = _opened(enclave, wire)
    enclave.replay.admit(opened.enc, opened.head.at, enclave.now())
    head = opened.head
    asked = Asked(head.method, head.path, head.headers, opened.body, head.min_log_size, opened)
    return SealedBody(opened, _inner(enclave, keyset, asked))


def _opened(enclave: Enclave, wire: bytes) -> tuple[LiveKeyset, OpenedRequest]:
    """Open a one-shot request or one of a session, under a keyset that is in use."""
    if is_session(wire):
        opened, named = enclave.sessions.open(wire, enclave.now())
        return _keyset(enclave, named), opened
    keyset = _keyset(enclave, sealed_key_id(wire))
    return keyset, open_request(wire, keyset.channel, keyset.digest)


def _keyset(enclave: Enclave, named: bytes) -> LiveKeyset:
    keyset = enclave.keys.find(named, enclave.now())
    if keyset is None:
        _check_not_refusing(enclave)
        raise UnknownKey("channel key", named.hex(), "one of the attested keyset")
    return keyset


def _session(enclave: Enclave, keyset: LiveKeyset, opened: OpenedRequest) -> Reply:
    opening = Opening(opened.head.response_secret, opened.transcript, keyset.digest)
    offer = enclave.sessions.offer(opening, key_id(keyset.channel.public), enclave.now())
    return plain(200, offer.encode(), {"cache-control": "no-store"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it stood inside a channel to an attested key; ``opened`` if that was the sealed one."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    min_log_size: int = 0
    opened: OpenedRequest | None = None


def _inner(enclave: Enclave, keyset: LiveKeyset, asked: Asked) -> Reply:
    """Dispatch the request inside a channel; whatever goes wrong is told inside as well."""
    method, path = asked.method, asked.path
    try:
        asker = replace(_asker(asked.headers), sealed=True)
        if method == "POST" and asked.opened is not None and path.startswith(CALLERS):
            return introduced(enclave.callers, path, asked.body)
        check_caller(enclave.callers, keyset, asked.opened, required=enclave.terms.rules.callers)
        if method == "POST" and (path in (CHAT, TEXT) or enclave.doors.is_chat(path)):
            rules = enclave.terms.rules.stream
            beat = None if rules is None or asked.opened is None else Beat(rules)
            return _answer(enclave, keyset, asked, asker, beat)
        if (method, path) == ("POST", SESSION_PATH) and asked.opened is not None:
            return _session(enclave, keyset, asked.opened)
        if (method, path) == ("GET", MODELS):
            return _models(enclave)
        if method == "GET" and path.startswith(f"{MODELS}/"):
            return _model(enclave, unquote(path.removeprefix(f"{MODELS}/")))
        if method == "GET" and path.startswith("/v1/receipts/"):
            return _receipt(enclave, path.removeprefix("/v1/receipts/"))
        if method == "GET":
            return _door(enclave, path, asker)
        raise APIError(404, "not_found", "there is no such resource inside the channel")
    except Exception as error:  # noqa: BLE001  # the outer handler would answer outside the channel
        return _refusal(error)


def _oblivious(enclave: Enclave) -> Response:
    from enclave.gateway import ObliviousBody, open_with

    wire = _body(request)
    live = enclave.keys.with_gateway(wire[0] if wire else 0, enclave.now())
    if not live:
        _check_not_refusing(enclave)
        raise UnknownKey("gateway key", wire[:1].hex(), "one of the attested keyset")
    keyset, opened = open_with(live, wire, request.mimetype)
    asked = opened.request
    try:
        if (asked.method, asked.path) == ("POST", SEALED) and opened.content_type == MEDIA_TYPE:
            inner: SealedBody | PlainBody = _sealed_body(enclave, asked.content)
            status, headers = 200, {"content-type": MEDIA_TYPE}
        else:
            found = Asked(asked.method, asked.path, dict(asked.fields), asked.content)
            reply = _inner(enclave, keyset, found)
            inner, status, headers = PlainBody(reply), reply.status, dict(reply.headers)
    except Exception as error:  # noqa: BLE001  # the outer handler would answer outside the capsule
        reply = _refusal(error)
        inner, status, headers = PlainBody(reply), reply.status, dict(reply.headers)
    body = ObliviousBody(opened, status, headers, inner)
    return _streamed(body, 200, {"content-type": opened.media_type, "incremental": "?1"})


def _gateway_keys(enclave: Enclave) -> Reply:
    keyset = enclave.keys.current()
    if keyset is None or keyset.gateway is None:
        raise APIError(404, "not_found", "this enclave takes no capsules")
    headers = {"content-type": "application/ohttp-keys", "cache-control": "no-store"}
    return plain(200, keyset.gateway.config.encode_list(), headers)


def _check_not_refusing(enclave: Enclave) -> None:
    state = enclave.state
    if state.phase is lifecycle.Phase.REFUSING:
        raise NotServing(state.code, state.reason, final=True)


def _plain_answer(enclave: Enclave) -> Response:
    if not enclave.terms.rules.plaintext and not _through_door(enclave):
        message = "this enclave reads prompts from the sealed channel only"
        raise APIError(403, "plaintext_refused", message, kind="permission_error")
    keyset = enclave.keys.current()
    if keyset is None:
        state = enclave.state
        raise NotServing(
            state.code or "starting", state.reason, final=state.phase is lifecycle.Phase.REFUSING
        )
    asked = Asked(request.method, request.path, {}, _body(request))
    check_caller(enclave.callers, keyset, None, required=enclave.terms.rules.callers)
    reply = _answer(enclave, keyset, asked, _asker(_headers()))
    return _streamed(PlainBody(reply), reply.status, reply.headers)


def _through_door(enclave: Enclave) -> bool:
    """Say whether the request came in over TLS that ended in this process, under an attested key."""
    connection = request.environ.get("gunicorn.socket")
    return bool(enclave.door) and connection is not None and connection.getsockname() == enclave.door


def _answer(
    enclave: Enclave, keyset: LiveKeyset, asked: Asked, asker: Asker, beat: Beat | None = None
) -> Reply:
    serving, body = enclave.serving(keyset, asked.min_log_size), asked.body
    parsed = parse_text(body) if asked.path == TEXT else parse_chat(body)
    follows = bool(parsed.asked.follow)
    if follows and not asker.sealed:
        # Its receipt says that it followed; in clear there might be a reader who looks at no receipt.
        message = "an answer is followed inside the sealed channel only"
        raise APIError(400, "unsupported_value", message, param="follow_token_ids")
    salt = _salt(asked.headers) if asker.sealed else None
    if enclave.gate is not None:
        enclave.gate.pay(asker.credential, keyset)
    if parsed.model in enclave.hops:
        return _forwarded(enclave, serving, parsed.model, asked, salt, follows=follows)
    reply = answer(serving, parsed, body, beat, salt)
    # A door's signature has no room to say that an answer was dictated.
    return reply if follows else enclave.doors.watch(enclave, reply, body, asker)


def _forwarded(
    enclave: Enclave, serving: Serving, model: str, asked: Asked, salt: bytes | None, *, follows: bool
) -> Reply:
    if follows:
        message = "an answer is followed by the enclave that gives it"
        raise APIError(400, "unsupported_value", message, param="follow_token_ids")
    return enclave.hops.forward(serving, model, asked.path, asked.body, salt)


def _salt(headers: Mapping[str, str]) -> bytes | None:
    text = headers.get(SALT_HEADER)
    try:
        return None if text is None else unb64(text, length=SALT_LENGTH)
    except Malformed as error:
        message = f"{SALT_HEADER} is not base64 of {SALT_LENGTH} bytes"
        raise APIError(400, "invalid_value", message, param=SALT_HEADER) from error


def _door(enclave: Enclave, target: str, asker: Asker) -> Reply:
    found = enclave.doors.get(enclave, target, asker)
    if found is None:
        raise APIError(404, "not_found", "there is no such resource here")
    return found


def _target() -> str:
    return f"{request.path}?{request.query_string.decode('latin-1')}"


def _headers() -> Mapping[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _asker(headers: Mapping[str, str]) -> Asker:
    """Read the credential of somebody who asks in clear."""
    shown = headers.get("authorization", "") or headers.get("x-api-key", "")
    return Asker(shown.removeprefix("Bearer ").encode(), sealed=False)


def _state(enclave: Enclave) -> Reply:
    state, keyset = enclave.state, enclave.keys.current()
    document: dict[str, object] = {
        "phase": state.phase.value, "step": state.step, "code": state.code, "reason": state.reason,
        "draining": state.draining, "service": enclave.terms.service,
    }  # fmt: skip
    if state.of:
        document["model"] = {"read_bytes": state.done, "of_bytes": state.of}
    believed = enclave.believed
    if believed is not None and state.verified is not None:
        verdict = believed.verdict
        age = round(enclave.log_age)
        document["log"] = {"origin": verdict.origin, "size": state.verified.size, "age_seconds": age}
        document |= {"measurement": verdict.measurement_id.hex(), "release": verdict.release}
        document["simulated"] = verdict.simulated
    if keyset is not None:
        document["keyset"] = "sha256:" + keyset.digest.hex()
    serving = state.phase is lifecycle.Phase.READY and not state.draining
    return plain(200 if serving else 503, _json(document), {"cache-control": "no-store"})


def _attestation(enclave: Enclave) -> Reply:
    text = request.args.get("nonce")
    if set(request.args) - {"nonce"}:
        raise APIError(400, "unknown_parameter", "only nonce is understood")
    try:
        nonce = None if text is None else hexbytes(text, 32)
    except Malformed as error:
        raise APIError(400, "invalid_value", f"nonce is {error}", param="nonce") from error
    return plain(200, enclave.attest(nonce), {"cache-control": "no-store"})


def _models(enclave: Enclave) -> Reply:
    return plain(200, _json({"object": "list", "data": _known(enclave)}))


def _model(enclave: Enclave, name: str) -> Reply:
    found = [model for model in _known(enclave) if model["id"] == name]
    if not found:
        raise APIError(404, "model_not_found", "this enclave serves no such model", param="model")
    return plain(200, _json(found[0]))


def _known(enclave: Enclave) -> list[dict[str, object]]:
    """Name the one model, as itself and as others call a model in an enclave; none before it is loaded."""
    ready, believed = enclave.ready, enclave.believed
    if ready is None or believed is None:
        return []
    # Advice for people: no client may infer trust from it.
    tee = {"weights": "sha256:" + ready.weights.hex(), "measurement": believed.verdict.measurement_id.hex()}
    names = (enclave.terms.service, TEE + enclave.terms.service)
    return [
        {"id": name, "object": "model", "created": 0, "owned_by": "quotary", "tee": tee} for name in names
    ]


def _receipt(enclave: Enclave, receipt_id: str) -> Reply:
    found = enclave.book.find(receipt_id)
    if found is None:
        raise APIError(404, "not_found", "no such receipt is kept", param="receipt_id")
    return plain(200, found, {"cache-control": "no-store"})


def _place(enclave: Enclave, receipt_id: str) -> Reply:
    found = enclave.book.place(receipt_id, enclave.now())
    if found is None:
        message = "no such receipt is kept, or no root over it yet: one is closed a minute after its first"
        raise APIError(404, "not_found", message, param="receipt_id")
    return plain(200, found.encode(), {"cache-control": "no-store"})


def _roots(enclave: Enclave) -> Reply:
    return plain(200, encode_roots(enclave.book.roots(enclave.now())), {"cache-control": "no-store"})


def _refusal(error: Exception) -> Reply:
    """Turn any failure into OpenAI's error shape; an unknown one says nothing but that it is ours."""
    retry: Mapping[str, str] = {}
    if isinstance(error, HTTPException):
        error = APIError(
            error.code or 500, (error.name or "error").lower().replace(" ", "_"), error.name or "error"
        )
    if isinstance(error, NotServing) and not error.final:
        retry = {"retry-after": str(RETRY_SECONDS)}
    if isinstance(error, TokenRefused):
        retry = error.headers
    found = error if isinstance(error, APIError) else _api_error(error)
    return plain(found.status, found.body(), {"cache-control": "no-store"} | dict(retry))


def _api_error(error: Exception) -> APIError:
    if isinstance(error, NotServing):
        return APIError(503, error.code, f"not serving: {error.found}", kind="server_error")
    if isinstance(error, LogBehind):
        return APIError(412, "log_behind", str(error))
    if isinstance(error, UnknownKey):
        return APIError(422, "keyset_changed", "sealed to a key that is not in use; attest again")
    if isinstance(error, SessionEnded):
        return APIError(422, "session_ended", "the session is not open here (any more); open another one")
    if isinstance(error, Replayed):
        return APIError(409, "replayed", str(error))
    if isinstance(error, OutsideWindow):
        return APIError(400, "outside_window", str(error))
    if isinstance(error, Refused):
        return APIError(503, "refused", str(error), kind="server_error")
    if isinstance(error, QuotaryError):
        return APIError(400, "not_opened", "the sealed request does not open")
    emit(APIFailed(type(error)))
    return APIError(500, "internal_error", "internal error (this is our bug)", kind="server_error")


def _failed(error: Exception) -> Response:
    return _send(_refusal(error))


def _send(reply: Reply) -> Response:
    return _streamed(PlainBody(reply), reply.status, reply.headers)


def _streamed(body: Iterable[bytes], status: int, headers: Mapping[str, str]) -> Response:
    response = Response(body, status, dict(headers))
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _body(found: Request) -> bytes:
    if found.content_length is None:
        raise APIError(411, "length_required", "a body needs a content length")
    return found.get_data(cache=False)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
