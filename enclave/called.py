"""Being asked by other enclaves (docs/formats/ratls.md, "Callers"): challenge, judge, recognise."""

from enclave.answer import Reply, plain
from enclave.chat import APIError
from enclave.keyset import LiveKeyset
from quotary.canonical import canonical, hexbytes
from quotary.client.caller import PATH, Callers, Unknown
from quotary.client.sealed import OpenedRequest
from quotary.errors import Malformed, QuotaryError


def introduced(callers: Callers, path: str, body: bytes) -> Reply:
    """Challenge an enclave that wants to call, or judge what it shows for its challenge."""
    if path == PATH:
        return plain(200, canonical({"nonce": callers.challenge().hex()}))
    try:
        nonce = hexbytes(path.removeprefix(f"{PATH}/"), 32)
    except Malformed as error:
        raise APIError(404, "not_found", "there is no such resource inside the channel") from error
    try:
        callers.admit(nonce, body)
    except QuotaryError as error:
        raise _refused("caller_refused", str(error)) from error
    return plain(200, b"{}")


def check_caller(
    callers: Callers, keyset: LiveKeyset, opened: OpenedRequest | None, *, required: bool
) -> None:
    """Refuse who calls under a signature that does not hold; where one is required, also who has none."""
    try:
        caller = opened and callers.verify(opened.head, opened.body, keyset.digest)
    except Unknown as error:
        raise APIError(428, "caller_unknown", str(error), kind="permission_error") from error
    except QuotaryError as error:
        raise _refused("caller_refused", str(error)) from error
    if required and caller is None:
        raise _refused("caller_required", "this enclave answers only enclaves that its policy admits")


def _refused(code: str, message: str) -> APIError:
    return APIError(403, code, message, kind="permission_error")
