"""The problems of relay, issuer and key nodes."""

from collections.abc import Mapping
from types import MappingProxyType

from quotary.errors import (
    CannotTell,
    Malformed,
    NotAuthorised,
    NotInLog,
    QuotaryError,
    Refused,
    Rejected,
    Unsupported,
)
from quotary.net.problems import MEDIA_TYPE, Kind, Problems

__all__ = ["KINDS", "MEDIA_TYPE", "problem", "register"]

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed": Kind(
            400, "The request is not what it should be", "Compare it with docs/formats/oblivious.md."
        ),
        "not-authorised": Kind(401, "The credential is not one that counts", "Send the one you were given."),
        "refused": Kind(
            403,
            "What was asked is not allowed",
            "The detail names the check, docs/formats/kms.md has them.",
        ),
        "not-found": Kind(404, "Nothing has this address", "docs/formats/oblivious.md lists the resources."),
        "method-not-allowed": Kind(
            405, "The resource does not do this", "The header Allow says what it does."
        ),
        "too-large": Kind(
            413, "The body is too large", "Capsules are at most 1.25 MiB, token requests 259 bytes."
        ),
        "unsupported": Kind(
            415, "This media type is not taken", "docs/formats/oblivious.md lists those that are."
        ),
        "rejected": Kind(422, "The request does not fit the keys in use", "Fetch the directory again."),
        "spent": Kind(
            429, "There is nothing left for this credential", "The header Retry-After says when there is."
        ),
        "http": Kind(400, "The request cannot be answered", "The status says more."),
        "internal": Kind(500, "Our mistake", "Report the member request_id."),
        "gateway": Kind(502, "The gateway gave no answer that can be passed on", "Ask another instance."),
    }
)
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported", 429: "spent"}
_BY_ERROR: tuple[tuple[type[QuotaryError], str], ...] = (
    (Malformed, "malformed"),
    (Unsupported, "unsupported"),
    (NotAuthorised, "not-authorised"),
    (Rejected, "rejected"),
    (Refused, "refused"),
    (NotInLog, "refused"),
    (CannotTell, "gateway"),
)
_HERE = Problems("private", KINDS, _BY_STATUS, _BY_ERROR, traceback=False)
register, problem = _HERE.register, _HERE.problem
