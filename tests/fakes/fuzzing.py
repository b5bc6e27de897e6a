"""What schemathesis needs to know of our media types; it loads this file by its name."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> dict[str, Any]:
    """Send a list of anything as one JSON document a line, and everything else as it is."""
    documents = value if isinstance(value, list) else [value]
    return {"data": b"\n".join(repr(document).encode("utf-8", "replace") for document in documents)}
