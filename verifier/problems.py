"""The problems of a verifier that has no verdict."""

from collections.abc import Mapping
from types import MappingProxyType

from quotary.errors import CannotTell, Malformed, QuotaryError, Unsupported
from quotary.net.problems import Kind, Problems

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed": Kind(
            400, "The request is not what it should be", "Compare it with docs/formats/verifier.md."
        ),
        "not-found": Kind(404, "Nothing has this address", "POST to /api/verify/tee-attestation."),
        "method-not-allowed": Kind(
            405, "The resource does not do this", "The header Allow says what it does."
        ),
        "too-large": Kind(413, "The body is too large", "At most 2 MiB are read."),
        "unsupported": Kind(415, "This kind of evidence is not judged", "See docs/evidence.md for what is."),
        "http": Kind(400, "The request cannot be answered", "The status says more."),
        "internal": Kind(500, "Our mistake", "Report the member request_id."),
        "unavailable": Kind(
            503,
            "It could not be found out",
            "The vendor's documents are missing: send them as the member collateral, or ask again later.",
        ),
    }
)
_BY_STATUS = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "unsupported"}
_BY_ERROR: tuple[tuple[type[QuotaryError], str], ...] = (
    (Malformed, "malformed"),
    (Unsupported, "unsupported"),
    (CannotTell, "unavailable"),
)
register = Problems("verifier", KINDS, _BY_STATUS, _BY_ERROR, traceback=True).register
