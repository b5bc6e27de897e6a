"""Where a stream of bytes is taken or made: TCP, a unix socket, or a hypervisor's vsock (``AF_VSOCK``).

A Nitro enclave has no network; its only way out and in is a vsock to the machine that started it. What speaks
through it is the same on every kind of endpoint, so the others are what it is tested with.
"""

import re
import socket
from dataclasses import dataclass

from quotary.errors import CannotTell, Unsupported, Usage
from quotary.net.listen import BACKLOG, take_address, taken

_NUMBER = re.compile(r"[0-9]{1,10}")
_LAST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end.

    kind:  ``tcp``, ``unix`` or ``vsock``
    text:  as it was written
    place: host and port; path; context id and port
    """

    kind: str
    text: str
    place: tuple[str, int] | tuple[int, int] | str

    @classmethod
    def parse(cls, text: str, *, listen: bool) -> "Endpoint":
        """Read ``HOST:PORT``, ``unix:/PATH``, and ``vsock:PORT`` (to listen) or ``vsock:CID:PORT``."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest.startswith("/"):
            return cls("unix", text, rest)
        if kind == "vsock":
            numbers = ["-1", *rest.split(":")] if listen else rest.split(":")
            if len(numbers) == 2 and all(_NUMBER.fullmatch(number) for number in numbers[listen:]):
                cid, port = int(numbers[0]), int(numbers[1])
                if max(cid, port) <= _LAST:
                    return cls("vsock", text, (cid & _LAST, port))
        host, _, port_text = text.rpartition(":")
        if (
            kind not in ("unix", "vsock")
            and host
            and _NUMBER.fullmatch(port_text)
            and int(port_text) <= 65_535
        ):
            return cls("tcp", text, (host.strip("[]"), int(port_text)))
        wanted = "vsock:PORT" if listen else "vsock:CID:PORT"
        raise Usage(f"an address is HOST:PORT, unix:/PATH or {wanted}, found {text}")

    def listen(self, option: str) -> socket.socket:
        """Bind and listen; ``PortInUse`` where that address is taken."""
        listener = self.take(option)
        listener.listen(BACKLOG)
        return listener

    def take(self, option: str) -> socket.socket:
        """Bind and listen on nothing yet."""
        if self.kind == "tcp":
            return take_address(self.text, option)
        listener = self._socket()
        try:
            listener.bind(self.place)
        except OSError as error:
            listener.close()
            raise taken(self.text, option, error) from error
        return listener

    def connect(self, seconds: float) -> socket.socket:
        """Connect, or raise ``CannotTell``."""
        if isinstance(self.place, tuple) and self.kind == "tcp":
            try:
                return socket.create_connection((str(self.place[0]), self.place[1]), seconds)
            except OSError as error:
                raise CannotTell(f"{self.text} does not answer: {error.strerror or 'no answer'}") from error
        made = self._socket()
        made.settimeout(seconds)
        try:
            made.connect(self.place)
        except OSError as error:
            made.close()
            raise CannotTell(f"{self.text} does not answer: {error.strerror or 'no answer'}") from error
        return made

    def _socket(self) -> socket.socket:
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_VSOCK
        try:
            return socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise Unsupported(f"this machine has no {self.kind} sockets: {error.strerror}") from error
