"""Take an address to listen on before anything else is done, so that a busy port is a clear error."""

import re
import socket

from quotary.errors import PortInUse, Usage

BACKLOG = 2048

_PORT = re.compile(r"[0-9]{1,5}")


def take_address(address: str, option: str) -> socket.socket:
    """Bind ``HOST:PORT`` and listen on nothing yet; port 0 takes a free one.

    option: the word of the command line that names another address, e.g. ``--bind``
    """
    host, _, port = address.rpartition(":")
    if not host or _PORT.fullmatch(port) is None or int(port) > 65535:
        raise Usage(f"an address is host:port, found {address}")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise taken(address, option, error) from error
    return listener


def open_listener(address: str, option: str) -> socket.socket:
    """Bind ``HOST:PORT`` and listen on it."""
    listener = take_address(address, option)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise taken(address, option, error) from error
    return listener


def taken(address: str, option: str, error: OSError) -> PortInUse:
    """Say why an address cannot be listened on, and what chooses another."""
    return PortInUse(f"cannot listen on {address}: {error.strerror}", next_command=f"choose another {option}")
