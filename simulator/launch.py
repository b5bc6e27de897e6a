"""The measured child: started from a snapshot, quoted for until it ends, and nobody else is.

Three things must hold for each request, or it is refused: it came over the socket that the child inherited,
the process that wrote it belongs to the child's session (the kernel says so, ``SO_PASSCRED`` in unix(7)), and
the child has not ended.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from quotary.errors import CannotTell, QuotaryError, Refused
from simulator.child import Child
from simulator.device import DeviceEvidence, Evidence, serve
from simulator.nvidia import NVIDIAMachine, show_devices
from simulator.process import TEE_FD, Snapshot, command, stage
from simulator.tdx import Platform

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

log = logging.getLogger(__name__)


class MeasuredProcess:
    """A child and its device; use it as a context: leaving kills what is left and removes the folder."""

    def __init__(
        self, taken: Snapshot, platform: Platform, parent: Path, devices: NVIDIAMachine | None = None
    ) -> None:
        self._registers, self._devices = taken.registers, devices
        self._platform = platform
        self._folder = stage(taken, parent)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                self.child = Child(_start(command(taken), taken.image.environment, self._folder, theirs))
            except BaseException:
                self._socket.close()
                shutil.rmtree(self._folder, ignore_errors=True)
                raise
        self._thread = threading.Thread(target=self._serve, name="tee-device", daemon=True)
        self._thread.start()

    def __enter__(self) -> "MeasuredProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.close()
        hang_up(self._socket)
        self._thread.join()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> int:
        """Wait for the child, passing signals on; its exit code, or 128 plus the signal that ended it."""
        return self.child.wait()

    def quote(self, report_data: bytes) -> Evidence:
        """Quote the child's registers; raises ``Refused`` after its end."""
        if self.child.has_ended:
            raise Refused("measured process", "it has ended", "a running one")
        return Evidence(self._platform.quote(self._registers, report_data), self._platform.collateral)

    def show(self, nonces: Sequence[bytes]) -> DeviceEvidence:
        """Show the machine's GPUs and switches over these nonces."""
        return show_devices(self._devices, nonces)

    def _serve(self) -> None:
        try:
            serve(SessionChannel(self._socket, self.child.process.pid), self)
        except (QuotaryError, OSError) as error:
            log.warning("device.closed", extra={"reason": str(error)})
        finally:
            hang_up(self._socket)


def hang_up(stream: socket.socket) -> None:
    """End a stream for everybody who holds the other end."""
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


class SessionChannel:
    """A unix stream socket that hears only processes of one session; it needs ``SO_PASSCRED`` set."""

    def __init__(self, stream: socket.socket, session: int) -> None:
        self._stream = stream
        self._session = session

    def receive(self, limit: int) -> bytes:
        """Read bytes whose sender the kernel names; raises ``Refused`` for a stranger's."""
        data, ancillary, _, _ = self._stream.recvmsg(limit, socket.CMSG_SPACE(_CREDENTIALS.size))
        if data:
            sender = _sender(ancillary)
            found = _session_of(sender)
            if found != self._session:
                raise Refused(
                    "device request", f"process {sender} of session {found}", f"session {self._session}"
                )
        return data

    def send(self, data: bytes) -> None:
        self._stream.sendall(data)


def _sender(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind, len(data)) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, _CREDENTIALS.size):
            return int(_CREDENTIALS.unpack(data)[0])
    raise Refused("device request", "no sender", "the kernel's word for who wrote it")


def _session_of(process: int) -> int:
    try:
        return os.getsid(process)
    except OSError:
        return -1  # it has ended, or is of another namespace: no session that we could have started


def _start(
    words: list[str], environment: Mapping[str, str], folder: Path, device: socket.socket
) -> subprocess.Popen[bytes]:
    """Start the child in a session of its own, with the device at ``TEE_FD`` and no other descriptor of
    ours."""
    try:
        fcntl.fcntl(TEE_FD, fcntl.F_GETFD)
    except OSError:
        pass
    else:
        raise CannotTell(f"descriptor {TEE_FD} is in use: another measured process is being started here")
    os.dup2(device.fileno(), TEE_FD)
    try:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            pass_fds=(TEE_FD,),
            start_new_session=True,
        )
    finally:
        os.close(TEE_FD)
