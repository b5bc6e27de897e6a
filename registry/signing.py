"""The signer's other end: what the sequencer and the workers ask it."""

from dataclasses import dataclass
from pathlib import Path

from quotary.canonical import Fields, b64
from quotary.errors import Malformed
from quotary.tlog.note import VerifierKey
from registry import wire
from registry.errors import SignerRefused, SignerUnavailable
from registry.identity import MAX_SIGNING

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RememberedHead:
    """The last head that the signer signed; size 0 before the first."""

    size: int
    root: bytes


class SignerClient:
    """Asks the signer, one connection a question."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

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
        return self._bytes({**request, "final": True} if final else request, "note")

    def keys(self) -> tuple[VerifierKey, ...]:
        """Ask which keys sign checkpoints."""
        return self._vkeys("keys")

    def reload(self) -> tuple[VerifierKey, ...]:
        """Have the keys read again, and hear which sign checkpoints from now on."""
        return self._vkeys("reload")

    def promise(self, leaf_hash: bytes, accepted: int, deadline: int) -> bytes:
        """Get the signed promise that an entry will be published by ``deadline`` (Unix seconds)."""
        request = {"op": "promise", "leaf_hash": leaf_hash.hex(), "accepted": accepted, "deadline": deadline}
        return self._bytes(request, "promise")

    def _vkeys(self, op: str) -> tuple[VerifierKey, ...]:
        fields = self._ask({"op": op})
        found = tuple(VerifierKey.parse(str(vkey)) for vkey in fields.items("vkeys", MAX_SIGNING, low=1))
        fields.done()
        return found

    def _bytes(self, request: dict[str, object], name: str) -> bytes:
        fields = self._ask(request)
        found = fields.base64(name)
        fields.done()
        return found

    def _ask(self, request: dict[str, object]) -> Fields:
        try:
            with wire.connect(self._path, TIMEOUT_SECONDS) as connection:
                wire.send(connection, request)
                reply = wire.receive(connection)
        except (OSError, Malformed) as error:
            raise SignerUnavailable(
                f"no signer answers on {self._path}: {error}", next_command="quotary registry sign"
            ) from error
        fields = Fields(reply, "signer's answer")
        if fields.has("error"):
            if fields.text("error") == "refused":
                raise SignerRefused(fields.text("check"), fields.text("found"), fields.text("wanted"))
            raise Malformed(f"the signer does not understand us: {fields.text('detail')}")
        return fields
