"""What a node keeps: its own keys, its shares, and the ceremony it is in. Files of mode 0600, replaced whole.

A crash leaves each file as it was or as it was to be. What is replaced is overwritten first as far as the
file system lets one; a copy of the disk that somebody made before is beyond any program.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quotary.canonical import Fields, b64, canonical, hexbytes, parse_canonical
from quotary.client.disk import PRIVATE, cannot_write, write_new
from quotary.client.trust import write_private
from quotary.errors import CannotTell, Malformed, Refused
from quotary.secret import read_secret
from quotary.threshold.box import SEED_LENGTH, Box
from quotary.threshold.ceremony import Random
from quotary.threshold.group import MAX_DOCUMENT, MAX_EPOCH, Ceremony, Node
from quotary.threshold.ristretto import check_scalar

MAX_FILE = 1 << 20
LEDGER, TRUST = "ledger.jsonl", "trust"


@dataclass(frozen=True, slots=True)
class Keys:
    """A node's own keys: one signs for it, to the other shares are sealed."""

    signing: Ed25519PrivateKey
    box: Box

    def card(self, number: int) -> Node:
        """Give the public halves under the number that a group gives the node."""
        return Node(number, self.signing.public_key().public_bytes_raw(), self.box.public)


@dataclass(frozen=True, slots=True)
class Held:
    """One share. number: of this node; entry, proof: what the log has of the shares, and that it has it."""

    epoch: int
    generation: int
    number: int
    share: bytearray
    entry: bytes
    proof: bytes


class NodeFolder:
    """One node's files. All that is secret is in ``node.json``, ``ceremony.json`` and ``epochs/``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, random: Random) -> Keys:
        """Make a node's keys in a new folder."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "epochs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        signing, box = random(32), random(SEED_LENGTH)
        document = {"v": 1, "signing": signing.hex(), "box": box.hex()}
        write_new(self.path / "node.json", canonical(document), PRIVATE)
        return Keys(Ed25519PrivateKey.from_private_bytes(signing), Box(box))

    def keys(self) -> Keys:
        """Read the node's own keys."""
        fields = self._read("node.json")
        signing, box = fields.hexbytes("signing", 32), fields.hexbytes("box", SEED_LENGTH)
        fields.done()
        return Keys(Ed25519PrivateKey.from_private_bytes(signing), Box(box))

    def approve(self, ceremony: Ceremony, *, discard: bool = False) -> None:
        """Let the node take part in this ceremony, and in no other until the next is approved.

        Refused where the node has signed another one's outcome and not taken its share into use, for the
        other nodes may have; ``discard`` gives that share up.
        """
        last = self._told()
        if "share" in last and last["ceremony"] != ceremony.digest.hex() and not discard:
            found = f"a share of the ceremony {last['ceremony']} that is signed and not in use"
            wanted = "quotary kms run again, or --discard"
            raise Refused("ceremony", found, "one after another", next_command=wanted)
        write_private(self.path / "approved.json", ceremony.encode())

    def approved(self) -> Ceremony:
        """Give the ceremony that the node's operator approved, or refuse."""
        path = self.path / "approved.json"
        if not path.exists():
            fix = f"quotary kms approve --dir {self.path} --ceremony FILE"
            raise Refused("ceremony", "none that this node's operator approved", "one", next_command=fix)
        return Ceremony.parse(read_secret(path, MAX_DOCUMENT))

    def epochs(self) -> Sequence[int]:
        """Give the epochs of which the node has a share, ascending."""
        return sorted(int(path.stem) for path in (self.path / "epochs").glob("*.json"))

    def held(self, epoch: int) -> Held | None:
        """Read the node's share of an epoch, or None; who is done with it wipes it."""
        return self._held(self._epoch(epoch)) if self._epoch(epoch).exists() else None

    def hold(self, held: Held) -> None:
        """Replace the share of an epoch; the old one is overwritten once the new one is on disk."""
        document = {
            "v": 1,
            "epoch": held.epoch,
            "generation": held.generation,
            "number": held.number,
            "share": held.share.hex(),
            "entry": b64(held.entry),
            "proof": b64(held.proof),
        }
        path = self._epoch(held.epoch)
        with _Overwritten(path):
            write_private(path, canonical(document))

    def destroy(self, epoch: int) -> None:
        """Overwrite and remove the share of an epoch: nobody gets that epoch's keys from this node again."""
        path = self._epoch(epoch)
        if not path.exists():
            raise Refused("destroy", f"no share of epoch {epoch}", "an epoch of which this node has a share")
        with _Overwritten(path):
            path.unlink()

    def pending(self, ceremony: Ceremony) -> dict[str, str]:
        """Give what the node wrote down of this ceremony; of another there is nothing."""
        found = self._told()
        return found if found.get("ceremony") == ceremony.digest.hex() else {}

    def note(self, ceremony: Ceremony, **told: str) -> None:
        """Write down more of a ceremony; it is on disk when this returns."""
        document = {**self.pending(ceremony), "ceremony": ceremony.digest.hex(), **told}
        with _Overwritten(self.path / "ceremony.json"):
            write_private(self.path / "ceremony.json", canonical(document))

    def forget(self) -> None:
        """Overwrite and remove what was written down of a ceremony."""
        path = self.path / "ceremony.json"
        with _Overwritten(path):
            path.unlink(missing_ok=True)

    def _told(self) -> dict[str, str]:
        path = self.path / "ceremony.json"
        if not path.exists():
            return {}
        found = parse_canonical(read_secret(path, MAX_FILE), MAX_FILE)
        assert isinstance(found, dict)
        return found

    def _epoch(self, epoch: int) -> Path:
        return self.path / "epochs" / f"{epoch}.json"

    def _held(self, path: Path) -> Held:
        fields = self._read(f"epochs/{path.name}")
        text = fields.text("share", 64)
        held = Held(
            fields.integer("epoch", 1, MAX_EPOCH),
            fields.integer("generation", 0, MAX_EPOCH),
            fields.integer("number", 1),
            bytearray(hexbytes(text, 32)),
            fields.base64("entry", limit=MAX_FILE),
            fields.base64("proof", limit=MAX_FILE),
        )
        fields.done()
        check_scalar(held.share, "share")
        if path != self._epoch(held.epoch):
            raise Malformed(f"{path} holds the share of epoch {held.epoch}")
        return held

    def _read(self, name: str) -> Fields:
        path = self.path / name
        if not path.exists():
            raise CannotTell(f"there is no {path}", next_command=f"quotary kms init --dir {self.path}")
        fields = Fields(parse_canonical(read_secret(path, MAX_FILE), MAX_FILE), name)
        fields.integer("v", 1, 1)
        return fields


class _Overwritten:
    """Holds a file open while it is replaced or removed, and writes zeros over what it was."""

    def __init__(self, path: Path) -> None:
        self._path, self._old = path, -1

    def __enter__(self) -> None:
        if self._path.exists():
            self._old = os.open(self._path, os.O_WRONLY)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._old < 0:
            return
        try:
            if kind is None:
                os.pwrite(self._old, bytes(os.fstat(self._old).st_size), 0)
                os.fsync(self._old)
        finally:
            os.close(self._old)
