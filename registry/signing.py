"""The signer's other end: what the sequencer and the workers ask it."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import Fields, b64, unb64
from quotary.errors import Malformed, QuotaryError
from quotary.tlog.merkle import root_of
from quotary.tlog.note import VerifierKey
from registry import wire
from registry.errors import SignerRefused, SignerUnavailable
from registry.identity import MAX_SIGNING
from registry.promise import MAX_PROMISES

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RememberedHead:
    """The last head that the signer signed; size 0 before the first."""

    size: int
    root: bytes


class SignerClient:
    """Asks the signer, one connection a call."""

    def __init__(self, socket_path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path = socket_path
        self._timeout_seconds = timeout_seconds

    def head(self) -> RememberedHead:
        """Ask for the last signed head."""
        fields = self._ask({"op": "head"})
        found = RememberedHead(fields.integer("size"), fields.hexbytes("root", 32))
        fields.done()
        return found

    def sign(self, size: int, root: bytes, proof: tuple[bytes, ...], *, final: bool = False) -> bytes:
        """Get the signed note over a head; ``proof`` leads from the last signed head to it.

        final: the log has ended; the signer never signs a larger head after this one
        """
        request = {"op": "sign", "size": size, "root": root.hex(), "proof": [b64(digest) for digest in proof]}
        return _bytes(self._ask({**request, "final": True} if final else request), "note")

    def cose(self, note: bytes) -> tuple[bytes, bytes]:
        """Get a COSE signature over the head of a note that the signer itself signed: key (SHA-256 of its
        SubjectPublicKeyInfo) and 64 bytes.
        """
        fields = self._ask({"op": "cose", "note": b64(note)})
        found = fields.hexbytes("key", 32), fields.base64("signature", length=64)
        fields.done()
        return found

    def vkeys(self) -> tuple[VerifierKey, ...]:
        """Ask which keys sign checkpoints."""
        return self._ask_vkeys("keys")

    def reload(self) -> tuple[VerifierKey, ...]:
        """Have the keys read again, and hear which sign checkpoints from now on."""
        return self._ask_vkeys("reload")

    def promises(self, items: Sequence[tuple[bytes, int, int]]) -> list[bytes]:
        """Get the signed promise for each (leaf hash, accepted, deadline), times in Unix seconds."""
        wanted = [
            {"leaf_hash": leaf_hash.hex(), "accepted": accepted, "deadline": deadline}
            for leaf_hash, accepted, deadline in items
        ]
        requests: list[dict[str, object]] = [
            {"op": "promises", "promises": wanted[start : start + MAX_PROMISES]}
            for start in range(0, len(wanted), MAX_PROMISES)
        ]
        found = [note for fields in self._ask_all(requests) for note in _notes(fields)]
        if len(found) != len(wanted):
            raise Malformed(f"the signer gave {len(found)} promises for {len(wanted)} entries")
        return found

    def batch_promise(self, leaf_hashes: Sequence[bytes], accepted: int, deadline: int) -> bytes:
        """Get one signed promise for entries that came together, times in Unix seconds."""
        root = root_of(leaf_hashes).hex()
        request = {"op": "batch-promise", "count": len(leaf_hashes), "root": root}
        return _bytes(self._ask({**request, "accepted": accepted, "deadline": deadline}), "promise")

    def _ask_vkeys(self, op: str) -> tuple[VerifierKey, ...]:
        fields = self._ask({"op": op})
        found = tuple(VerifierKey.parse(str(vkey)) for vkey in fields.items("vkeys", MAX_SIGNING, low=1))
        fields.done()
        return found

    def _ask(self, request: dict[str, object]) -> Fields:
        (fields,) = self._ask_all([request])
        return fields

    def _ask_all(self, requests: Sequence[dict[str, object]]) -> list[Fields]:
        try:
            with wire.connect(self._path, self._timeout_seconds) as connection:
                replies = [_exchange(connection, request) for request in requests]
        except (OSError, Malformed) as error:
            raise SignerUnavailable(
                f"no signer answers on {self._path}: {error}", next_command="quotary registry sign"
            ) from error
        return [_answer(reply) for reply in replies]


def _exchange(connection: socket.socket, request: dict[str, object]) -> object | None:
    wire.send(connection, request)
    return wire.receive(connection)


def _answer(reply: object | None) -> Fields:
    fields = Fields(reply, "signer's answer")
    if fields.has("error"):
        raise _error(fields)
    return fields


def _notes(fields: Fields) -> list[bytes]:
    found = [unb64(str(item)) for item in fields.items("promises", MAX_PROMISES, low=1)]
    fields.done()
    return found


def _bytes(fields: Fields, name: str) -> bytes:
    found = fields.base64(name)
    fields.done()
    return found


def _error(fields: Fields) -> QuotaryError:
    match fields.choice("error", "refused", "unavailable", "malformed"):
        case "refused":
            return SignerRefused(fields.text("check"), fields.text("found"), fields.text("wanted"))
        case "unavailable":
            return SignerUnavailable(f"the signer cannot sign: {fields.text('detail')}")
    return Malformed(f"the signer does not understand us: {fields.text('detail')}")
