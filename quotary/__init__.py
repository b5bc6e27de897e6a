"""Quotary: a transparency log and measurement registry for confidential AI inference.

``from quotary import Client`` (or ``AsyncClient``) is the SDK; it is imported when it is first named, so that
``import quotary`` stays light.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quotary.client.asynchronous import AsyncClient as AsyncClient
    from quotary.client.session import Client as Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Client":
        from quotary.client.session import Client

        return Client
    if name == "AsyncClient":
        from quotary.client.asynchronous import AsyncClient

        return AsyncClient
    raise AttributeError(f"module 'quotary' has no attribute {name!r}")
