"""The HTTP interface for people: every route of this server, from the same table as ``/openapi.json``."""

from flask import current_app

from registry.openapi import document
from registry.site import Site


def routes(_: Site) -> dict[str, object]:
    """Say of each route what it gives, what it takes, and how it may answer."""
    described = document(current_app)
    paths = described["paths"]
    assert isinstance(paths, dict)
    found = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation["summary"],
            "parameters": [
                {"name": one["name"], "in": one["in"], "required": one["required"]}
                for one in operation["parameters"]
            ],
            "statuses": sorted(operation["responses"]),
        }
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    return {"openapi": described["openapi"], "routes": found}
