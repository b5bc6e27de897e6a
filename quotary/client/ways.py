"""Which way a client's requests take, and for whom: straight, through a relay, through the second door."""

from pathlib import Path
from typing import TYPE_CHECKING

from quotary.client.policy import MAX_POLICY, Policy
from quotary.errors import CannotTell, Usage
from quotary.net.transport import Transport

if TYPE_CHECKING:
    from quotary.client.oblivious import Relayed
    from quotary.client.ratls import AttestedTLS


class KeysetChanged(CannotTell):
    """The enclave has new keys: verify it again, then ask again."""


def relayed(transport: Transport, url: str, relay: str) -> "Relayed":
    # Imported here, because it needs a package that other clients do not.
    from quotary.client.oblivious import Relayed

    return Relayed(transport, url, relay)


def door(transport: Transport, url: str, relay: str | None) -> "AttestedTLS":
    from quotary.client.ratls import AttestedTLS

    if relay is not None or not url.startswith("https://"):
        raise Usage("the second door is an https address, and is not reached through a relay")
    return AttestedTLS(transport, url)


def the_service(policy: Policy, wanted: str | None) -> str:
    """Decide whose machine is meant: one service's owners must not answer for another's."""
    names = ", ".join(sorted(policy.services))
    if wanted is None and len(policy.services) > 1:
        raise Usage(f"the policy names several services: {names}", next_command="say which service")
    found = next(iter(policy.services)) if wanted is None else wanted
    if found not in policy.services:
        raise Usage(f"the policy does not name the service {found}, only {names}")
    return found


def read_policy(path: Path) -> Policy:
    try:
        with path.open("rb") as file:
            return Policy.parse(file.read(MAX_POLICY + 1))
    except OSError as error:
        raise CannotTell(f"cannot read the policy {path}: {error.strerror}") from error
