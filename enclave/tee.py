"""What a program inside a TEE does with it, verb by verb: detect, attest, verify, seal, serve.

    from enclave.tee import detect_tee, verify

    tee = detect_tee()
    report = tee.attest(b"challenge of the other side")
    facts = verify(report, b"challenge of the other side", now, VENDOR_ROOTS)
    sealed = tee.seal("my-sealed-data-v1", secret, counter)

The words are those of Tenzro's SDK; two things differ. Nothing here answers ``valid``: what does not hold
raises. And a simulator is no mode of this code: it is another device, whose evidence verifies under the
simulator's root alone. What ``verify`` believes is the hardware; that a released image runs on it, only
``quotary.Client`` and ``quotary verify`` judge.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from enclave.device import Device, LinuxKernel
from enclave.hardware import Documents, Hardware, open_tee
from enclave.seal import Counter, KeySource, key_source, seal, unseal
from quotary.attestation.facts import Facts
from quotary.attestation.quote import Terms, recognise, verify_quote
from quotary.attestation.roots import Root
from quotary.client.clock import SystemClock
from quotary.errors import Malformed, Rejected, Unsupported
from quotary.net.transport import HTTP

if TYPE_CHECKING:
    from enclave.serve import Options

USER_DATA_LENGTH = 64
# How old a document may be that carries its own time (Nitro): as old as a keyset.
MAX_AGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Report:
    """Evidence that nobody believes yet. collateral: the vendor's documents by name, as text."""

    platform: str
    evidence: bytes
    collateral: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TEE:
    """The hardware that this program runs in. keys: where its sealing key comes from, or None."""

    device: Device
    keys: KeySource | None = None

    def attest(self, user_data: bytes) -> Report:
        """Have up to 64 bytes signed, such as the challenge of whoever asks; zeros fill what is left.

        Whoever chooses all 64 bytes chooses what this machine signs: a measured program has to choose itself.
        """
        found = self.device.quote(_report_data(user_data))
        return Report(recognise(found.quote), found.quote, found.collateral)

    def seal(self, key_id: str, secret: bytes, counter: Counter) -> bytes:
        """Encrypt for this enclave on this machine alone: 28 bytes more than the secret."""
        return seal(self._keys(), key_id, secret, counter)

    def unseal(self, key_id: str, sealed: bytes, counter: Counter) -> bytes:
        """Decrypt what ``seal`` gave last, or raise ``Rejected``."""
        return unseal(self._keys(), key_id, sealed, counter)

    def _keys(self) -> KeySource:
        if self.keys is None:
            raise Unsupported("this machine's hardware gives no sealing key")
        return self.keys


def detect_tee(name: str = "auto", registry: str = "") -> TEE:
    """Open this machine's TEE, or a simulator's (``fd:N``, ``virtio:NAME``); ``CannotTell`` where none is.

    registry: address of one that keeps the vendors' documents; else the vendors are asked
    """
    device = open_tee(name, Documents(HTTP(), registry, SystemClock()))
    if not isinstance(device, Hardware):
        return TEE(device)
    try:
        return TEE(device, key_source(device.platform, LinuxKernel()))
    except Unsupported:
        return TEE(device)


def verify(report: Report, user_data: bytes, now: datetime, roots: Sequence[Root]) -> Facts:
    """Believe a report at ``now`` under one of the roots, over exactly this user data, or raise.

    1. The vendor's signatures, chain, collateral and revocation lists hold.
    2. The hardware signed this user data (check ``user data``).
    """
    found = verify_quote(report.evidence, report.collateral, Terms(roots, now, MAX_AGE, ())).facts
    if found is None:
        raise Unsupported(f"{report.platform} evidence has no user data; use quotary quote verify")
    wanted = _report_data(user_data)
    if not hmac.compare_digest(found.report_data, wanted):
        raise Rejected("user data", found.report_data.hex(), wanted.hex())
    return found


def serve(options: "Options", listen: str) -> None:
    """Check this machine, then serve the model where it says for as long as the log says that it may."""
    # A web framework comes in only here, after everything that decides.
    from enclave.front import front
    from enclave.serve import preflight
    from enclave.serve import serve as run
    from quotary.client.verdict import Trail

    with front(listen, "listen") as reached:
        preflight(options, Trail())
        run(options, reached)


def _report_data(user_data: bytes) -> bytes:
    if not 1 <= len(user_data) <= USER_DATA_LENGTH or not any(user_data):
        raise Malformed(
            f"user data has {len(user_data)} bytes, 1 to {USER_DATA_LENGTH} that are not all zero"
        )
    return user_data.ljust(USER_DATA_LENGTH, b"\0")
