"""One node put together: its folder, its policy, its own view of the log."""

import logging
import threading
from collections.abc import Callable

from flask import Flask

from private.kms.app import create_app
from private.kms.ceremonies import Ceremonies
from private.kms.folder import LEDGER, NodeFolder
from private.kms.ledger import Head, Ledger, head_payload
from private.kms.releases import Bundles, Releases
from private.kms.steps import Shares, Status
from quotary.client.clock import Clock
from quotary.client.key_epoch import rules_of
from quotary.client.log import LogClient
from quotary.client.policy import Policy
from quotary.client.trust import Memory
from quotary.errors import QuotaryError
from quotary.statements.envelope import sign
from quotary.threshold.ristretto import wipe

log = logging.getLogger("private.kms")


def open_node(folder: NodeFolder, policy: Policy, bundles: Bundles, memory: Memory, clock: Clock) -> Flask:
    """Open a node's files and give its application; one process has them."""
    rules_of(policy)
    keys, ledger = folder.keys(), Ledger(folder.path / LEDGER)
    releases = Releases(policy, folder, bundles, memory, ledger, clock)
    key = keys.card(1).key

    def status() -> Status:
        head = ledger.head
        return Status(key, shares_of(folder), head.size, head.digest)

    app = create_app(releases, Ceremonies(folder, policy), status)
    app.extensions["ledger"], app.extensions["releases"] = ledger, releases
    return app


def shares_of(folder: NodeFolder) -> tuple[Shares, ...]:
    """Say which shares a node holds."""
    found = []
    for epoch in folder.epochs():
        held = folder.held(epoch)
        if held is not None:
            wipe(held.share)
            found.append(Shares(held.epoch, held.generation))
    return tuple(found)


def head_entry(folder: NodeFolder, policy: Policy, head: Head) -> bytes:
    """Sign a ledger's head as an entry for the log: of the same head always the same bytes."""
    keys, service = folder.keys(), rules_of(policy).service
    name = keys.card(1).key.hex()[:16]
    return sign(head_payload(policy.origin, service, name, head), [keys.signing])


class Announcer:
    """Logs the ledger's head a while after it grew; what could not be sent is sent the next time."""

    def __init__(self, head: Callable[[], Head], send: Callable[[Head], None], seconds: float) -> None:
        self._head, self._send, self._seconds = head, send, seconds
        self._sent = 0
        self._never = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="announce", daemon=True).start()

    def once(self) -> None:
        """Send the head unless the log has it from this process; after a start it is sent again."""
        head = self._head()
        if head.size == self._sent:
            return
        try:
            self._send(head)
        except QuotaryError as error:
            log.warning("kms.head.not-logged", extra={"size": head.size, "error": type(error).__name__})
        else:
            self._sent = head.size

    def _run(self) -> None:
        while not self._never.wait(self._seconds):
            self.once()


def announcer(app: Flask, folder: NodeFolder, policy: Policy, client: LogClient, seconds: float) -> Announcer:
    """Give what tells the log of a node's releases."""
    ledger: Ledger = app.extensions["ledger"]

    def send(head: Head) -> None:
        client.post_entry(head_entry(folder, policy, head), wait=False)

    return Announcer(lambda: ledger.head, send, seconds)
